"""Runs remembered: a small database beside a folder of runs, their trends, and where they changed. docs/runs.md is the
reference.
"""

from pathlib import Path

RUNS, SESSIONS = Path("runs"), Path("ab")
"""The default folders for runs, and for sessions of `replay ab`."""
