"""The history of runs: a small database beside a folder of runs, their trends, and the changes in them.

docs/runs.md is the reference.
"""

from pathlib import Path

RUNS, SESSIONS = Path("runs"), Path("ab")
"""The default folders for runs, and for sessions of `replay ab`."""
