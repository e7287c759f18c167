"""Finds the runs in a folder: its own, and those of the searches and sessions in it. Links are not followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["run", "peak", "trial", "ab", "nested"]
"""A run directly in the folder, a search of `replay peak`, a trial of a search, a run of `replay ab`, or a run in any
other subfolder."""

KINDS: dict[Kind, tuple[str, str]] = {
    "run": ("run", "runs"),
    "peak": ("search", "searches"),
    "trial": ("trial of replay peak", "trials of replay peak"),
    "ab": ("run of replay ab", "runs of replay ab"),
    "nested": ("run in a subfolder", "runs in subfolders"),
}
"""The singular and the plural of each kind in messages."""

_TRIAL = re.compile(r"[0-9]{3,}-(?:up|probe|hold|down)-.*|surge")
_SESSION = re.compile(r"[0-9]{2,}-(?:base|new)")


def stamps_in(root: Path) -> Iterator[tuple[str, str]]:
    """Yield name and stamp of the runs and searches of a folder that have ended, by name.

    Raise OSError if the folder cannot be read.
    """
    for name in _folders_in(root):
        yield from stamps_of(root, name)


def stamps_of(root: Path, name: str) -> Iterator[tuple[str, str]]:
    """Yield name and stamp of a run, of a search and its runs, or of the runs in any other folder.

    Nothing is yielded for a link, or for a folder in which nothing has ended.
    """
    if (root / name).is_symlink():
        return
    if found := _stamp(root / name / "run.json"):
        yield name, found
        return
    if found := _stamp(root / name / "peak.json"):
        yield name, found
    try:
        children = _folders_in(root / name)
    except OSError:
        return
    for child in children:
        if found := _stamp(root / name / child / "run.json"):
            yield f"{name}/{child}", found


def kind_of(root: Path, name: str) -> Kind:
    """Return the kind of result that a name from `stamps_in` refers to."""
    _, inside, child = name.partition("/")
    if not inside:
        return "run" if _stamp(root / name / "run.json") else "peak"
    if _TRIAL.fullmatch(child):
        return "trial"
    return "ab" if _SESSION.fullmatch(child) else "nested"


def first_trial(root: Path, name: str) -> str:
    """Return the name of the first run that a search made; empty if there is none."""
    children = [child for child, _ in stamps_of(root, name) if kind_of(root, child) == "trial"]
    return min(children, key=lambda child: (len(child.split("-")[0]), child), default="")


def _folders_in(root: Path) -> list[str]:
    """Return the folders in a folder, by name, without links and hidden folders.

    Raise OSError if the folder cannot be read.
    """
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and e.is_dir(follow_symlinks=False))


def _stamp(path: Path) -> str:
    """Return a text that changes when the file is written again; empty if it is not a regular file."""
    try:
        found = path.lstat()
    except OSError:
        return ""
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}" if stat.S_ISREG(found.st_mode) else ""
