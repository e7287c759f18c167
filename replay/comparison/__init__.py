"""Compares two builds: two sides of runs, a family of metrics, an exact test on whole runs, and a verdict.

The run is the unit: requests of one run are not independent, so a test on single requests raises false alarms
(docs/statistics.md).
"""
