"""Which runs a folder holds: those right in it, and those of the searches and sessions in it. Links are not followed."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

Kind = Literal["run", "peak", "trial", "ab", "nested"]
"""A run right in the folder; a search of `replay peak`; a trial of one; a run of `replay ab`; a run in another folder."""

KINDS: dict[Kind, tuple[str, str]] = {
    "run": ("run", "runs"),
    "peak": ("search", "searches"),
    "trial": ("trial of replay peak", "trials of replay peak"),
    "ab": ("run of replay ab", "runs of replay ab"),
    "nested": ("run in a folder of its own", "runs in folders of their own"),
}
"""One of each kind in words, and several."""

_TRIAL = re.compile(r"[0-9]{3,}-(?:up|probe|hold|down)-.*|surge")
_SESSION = re.compile(r"[0-9]{2,}-(?:base|new)")


def stamps_in(root: Path) -> Iterator[tuple[str, str]]:
    """The runs and searches of a folder that have ended: name and stamp, by name. OSError if it cannot be read."""
    for name in _folders_in(root):
        yield from stamps_of(root, name)


def stamps_of(root: Path, name: str) -> Iterator[tuple[str, str]]:
    """A run, or a search or session and the runs in it; nothing where a folder has none that ended, or is a link."""
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
    """The kind of result that a name found by `stamps_in` refers to."""
    _, inside, child = name.partition("/")
    if not inside:
        return "run" if _stamp(root / name / "run.json") else "peak"
    if _TRIAL.fullmatch(child):
        return "trial"
    return "ab" if _SESSION.fullmatch(child) else "nested"


def first_trial(root: Path, name: str) -> str:
    """The first run that a search made; empty if there is none."""
    children = [child for child, _ in stamps_of(root, name) if kind_of(root, child) == "trial"]
    return min(children, key=lambda child: (len(child.split("-")[0]), child), default="")


def _folders_in(root: Path) -> list[str]:
    """The folders in a folder, by name; neither links nor hidden ones. OSError if it cannot be read."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.name[0] != "." and e.is_dir(follow_symlinks=False))


def _stamp(path: Path) -> str:
    """Text that changes when the file is written again; empty if it is not a regular file."""
    try:
        found = path.lstat()
    except OSError:
        return ""
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}" if stat.S_ISREG(found.st_mode) else ""
