"""Figures of the target's own side, sampled each second beside a run: `[[watch]]` in a scenario (docs/watching.md).

`sources` takes one sample; `sampler` does so each second without delaying anything; `shifts` finds when a figure changed,
so that a report can name the one that changed first before an objective was missed.
"""
