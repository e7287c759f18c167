"""Is the new build slower? Two sides of runs, a family of metrics, an exact test on whole runs, and a verdict.

The run is the unit: a test on single requests is a false alarm by construction (docs/statistics.md).
"""
