"""Result folders: each is used by one command only, is recorded in the history, and is kept after an error."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

from replay import history
from replay.errors import (
    EngineError,
    Exit,
    OutputError,
    ReplayError,
    Sending,
    reason_of,
)

RUNS, SESSIONS = history.RUNS, history.SESSIONS

_NAME_KEPT = 100
"""The most characters of the recording's name in the name of a result."""


@contextlib.contextmanager
def result_folder(out: Path | None, parent: Path, name: str) -> Iterator[Path]:
    """Yield a path for a new result: `out`, or one in `parent` with the recording's name and the time.

    Nothing exists at that path. A path in `parent` is given to no other command until the context ends, even if several
    start within one second. OutputError if `out` exists, or if `parent` cannot be written to.
    """
    if out is not None:
        if os.path.lexists(out):
            raise OutputError(
                f"{out} exists already", hint="give another -o; an earlier result is never overwritten"
            )
        yield out
        return
    stem = f"{Path(name).name.split('.')[0][:_NAME_KEPT] or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in itertools.count(1):
        path = parent / (stem if number == 1 else f"{stem}.{number}")
        claim = parent / f".{path.name}.claim"
        if not _made(claim):
            continue
        try:
            if not os.path.lexists(path):
                yield path
                return
        finally:
            with contextlib.suppress(OSError):
                claim.rmdir()


def remember_run(folder: Path) -> None:
    """Record a run, search or session in the history database beside its folder, and print why if that fails."""
    from replay.history.remembering import remember_result

    from .streams import say

    if problem := remember_result(folder):
        say(problem)


@contextlib.contextmanager
def remembering(folder: Path) -> Iterator[None]:
    """Record the runs in `folder` in the history database when the context ends, even after an error."""
    try:
        yield
    finally:
        remember_run(folder)


def _made(claim: Path) -> bool:
    """Claim a name for this command and return True; return False if another command has it."""
    try:
        claim.mkdir(parents=True)
    except FileExistsError:
        return False
    except OSError as error:
        raise OutputError(
            f"{claim.parent} cannot be written to: {reason_of(error)}", hint="give another folder with -o"
        ) from None
    return True


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Turn an error with the exit code of wrong usage into an EngineError if something was sent already.

    Its hint says that the runs so far are in `folder`. Other errors are not changed.
    """
    try:
        yield
    except ReplayError as error:
        if not Sending.began or error.exit_code != Exit.USAGE:
            raise
        hint = f"{error.hint}; " if error.hint else ""
        raise EngineError(str(error), hint=f"{hint}the runs so far are in {folder}") from None
