"""Finds the runs in a folder. Links are not followed: neither those to folders nor those to files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replay.errors import InputError, reason_of
from replay.files import is_own_file
from replay.history.searches import FoundPeak, read_peak
from replay.results.answers import FOLDER as ANSWERS
from replay.results.listing import ListedRun, listed

RUNS_MAX = 5_000
"""Maximum number of runs, and of searches, that are listed: the newest ones."""

DEPTH_MAX = 3
"""Maximum depth of a run below the folder. The depth of `runs/peak-1/surge` below `runs` is 2."""

FILES_MAX = 1_000
"""Maximum number of entries in a folder of a run that is shown."""


@dataclass(frozen=True, slots=True)
class ServedRun:
    """A run in the list. `name` is its path below the folder."""

    name: str
    listed: ListedRun


def runs_in(root: Path) -> list[ServedRun]:
    """Return the newest RUNS_MAX runs below a folder, the newest first. Raise InputError if the folder cannot be read."""
    try:
        found = [ServedRun(name, listed(path)) for name, path in _folders(root, "", DEPTH_MAX)]
    except OSError as error:
        raise InputError(f"{root} cannot be read: {reason_of(error)}") from None
    found.sort(key=lambda run: (-run.listed.started_ns, run.name))
    return found[:RUNS_MAX]


def peaks_in(root: Path) -> list[tuple[str, float, FoundPeak]]:
    """Return the newest RUNS_MAX searches directly in a folder, the newest first: name, end, and result.

    The end is in s since the epoch. A search that cannot be read is left out, but its runs are listed.
    """
    found = []
    with os.scandir(root) as entries:
        names = [
            entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and entry.name[0] != "."
        ]
    for name in names:
        path = root / name / "peak.json"
        if is_own_file(path):
            with contextlib.suppress(OSError, InputError, ValueError):
                found.append((name, path.lstat().st_mtime, read_peak(path)))
    return sorted(found, key=lambda each: -each[1])[:RUNS_MAX]


def _folders(folder: Path, above: str, depth: int) -> Iterator[tuple[str, Path]]:
    """Yield the names and folders of finished and unfinished runs. Folders in `folder` that cannot be read are skipped."""
    with os.scandir(folder) as entries:
        children = sorted(
            (
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
            ),
        )
    for name in children:
        path = folder / name
        if is_own_file(path / "run.json") or is_own_file(path / "started.json"):
            yield above + name, path
        elif depth > 1:
            try:
                yield from _folders(path, f"{above}{name}/", depth - 1)
            except PermissionError:
                continue


def whole_run(root: Path, name: str) -> Path:
    """Return the folder of a finished run, from its name in the list.

    Raise InputError if there is no such run, if it has not ended, or if its folder contains too many entries, or
    anything but regular files and folders.
    """
    path = dict(_folders(root, "", DEPTH_MAX)).get(name)
    if path is None:
        raise InputError("there is no run of this name here")
    if not is_own_file(path / "run.json"):
        raise InputError(
            f"the run {name} has not ended, or was killed",
            hint="if it was killed, complete it with replay report RUN",
        )
    _refuse_foreign(path, name)
    if (path / ANSWERS).is_dir():
        _refuse_foreign(path / ANSWERS, name)
    return path


def _refuse_foreign(folder: Path, name: str) -> None:
    """Raise InputError if a folder of the run `name` has too many entries, or any but regular files and folders."""
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                raise InputError(
                    f"the run {name} contains {entry.name}, which is neither a regular file nor a folder"
                )
            if number >= FILES_MAX:
                raise InputError(f"the run {name} contains a folder with more than {FILES_MAX:,} entries")
