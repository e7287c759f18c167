"""Figures of the target's own side, sampled each second during a run: `[[watch]]` in a scenario (docs/watching.md).

`sources` takes one sample, and `sampler` does so each second without delaying the run. `replay.results.watched` finds
when a figure changed, so that a report can show which one changed first before an objective was missed.
"""
