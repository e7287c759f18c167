"""Stores a result in the history as soon as it ends, if it is in a default folder or in one that has a database."""

from __future__ import annotations

from pathlib import Path

from replay.errors import reason_of

from . import RUNS, SESSIONS
from .database import database_of, remember


def remember_result(folder: Path) -> str:
    """Write rows for a run, search or session that has ended, and return a note if that failed.

    The note is empty if it succeeded, or if the parent folder has no database and is not a default one.
    """
    try:
        folder = folder.absolute()
        is_default = folder.parent in (RUNS.absolute(), SESSIONS.absolute())
        if not folder.is_dir() or not (is_default or database_of(folder.parent).exists()):
            return ""
        problem = remember(folder.parent, folder.name)
    except OSError as error:
        problem = reason_of(error)
    return f"the results are saved, but not added to the history of runs: {problem}" if problem else ""
