"""Runs remembered: a small database beside a folder of runs, their trends, and where they changed. docs/runs.md is the
reference.
"""

from pathlib import Path

RUNS, SESSIONS = Path("runs"), Path("ab")
"""The folders of runs, and of sessions of `replay ab`, where `-o` names no other."""
