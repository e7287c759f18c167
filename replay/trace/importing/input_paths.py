"""Finds the files for the paths of a command line."""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from replay.errors import InputError, UsageError
from replay.trace import half_trace, is_trace

STDIN = "-"


def expand(paths: Sequence[str | Path]) -> list[str]:
    """Return the files for these paths, each file once.

    A folder stands for all files inside it, except hidden files and traces. A pattern (`*.gz`) stands for the files
    that match it. Raises UsageError if no path is given, and InputError if a folder or a pattern has no files.
    """
    if not paths:
        raise UsageError("no log given: give files, folders, patterns, or - for standard input")
    found: list[str] = []
    for path in map(str, paths):
        place = Path(path)
        if path != STDIN and place.is_dir() and not is_trace(place):
            kept = sorted(_files_in(place))
            if not kept:
                raise InputError(
                    f"{path} is a folder without files to import: hidden files and traces are skipped"
                )
            found += map(str, kept)
        elif path != STDIN and glob.has_magic(path) and not place.exists():
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
            if not matches:
                raise InputError(f"{path}: no file matches this pattern")
            found += matches
        else:
            found.append(path)
    return _once(found)


def _once(names: Sequence[str]) -> list[str]:
    """Return the names without duplicates of the same file (`current.log` may be a link to `access.log`)."""
    files: dict[object, str] = {}
    for name in names:
        status = None
        if name != STDIN:
            with contextlib.suppress(OSError):
                status = Path(name).stat()
        files.setdefault(name if status is None else (status.st_dev, status.st_ino), name)
    return list(files.values())


def _files_in(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders.

    Hidden files and folders, traces (also unfinished ones) and links to folders are skipped.
    """
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_dir() and not entry.is_symlink() and not is_trace(entry) and half_trace(entry) is None:
            yield from _files_in(entry)
