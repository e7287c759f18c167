"""Splits the paths of a command line into two sides of a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from replay.errors import UsageError

FORM = "base=PATH[,PATH...] new=PATH[,PATH...]"


def two_sides(given: Sequence[str], verb: str = "compare") -> tuple[str, str]:
    """Return both sides, in the form that `load_sides` reads. More than two paths are grouped by their folders.

    Raise UsageError if there are fewer than two paths, if more than two are not in exactly two folders, or if one of
    these has a label or a comma. The hint is a command to use instead.
    """
    if len(given) == 2:
        return given[0], given[1]
    if len(given) < 2:
        raise UsageError(f"{verb} needs the runs of two builds", hint=f"replay {verb} {FORM}")
    groups: dict[str, list[str]] = {}
    for path in given:
        groups.setdefault(str(Path(path).parent.resolve()), []).append(path)
    if len(groups) == 2 and not any(
        "," in path or ("=" in path and not Path(path).exists()) for path in given
    ):
        (one, ones), (two, twos) = groups.items()
        one, two = _labels(Path(one), Path(two))
        return f"{one}={','.join(ones)}", f"{two}={','.join(twos)}"
    why = f"they are in {'one folder' if len(groups) == 1 else f'{len(groups)} folders'}, not in two"
    if len(groups) == 2:
        why = "paths with a label or a comma are not grouped by their folders"
    paths = [path for text in given for path in _bare(text)]
    half = (len(paths) + 1) // 2
    sides = [f"base={','.join(paths[:half])}", f"new={','.join(paths[half:])}"]
    raise UsageError(
        f"cannot tell which of these {len(given)} belong to which build: {why}",
        hint=f"replay {verb} {shlex.join(sides)}",
    )


def _bare(text: str) -> list[str]:
    """Return the paths in `[LABEL=]PATH[,PATH...]`."""
    if Path(text).exists():
        return [text]
    return [path for path in text.rpartition("=")[2].split(",") if path]


def _labels(one: Path, two: Path) -> tuple[str, str]:
    """Return the names of the two folders as labels, or `base` and `new` if those are equal or not valid labels."""
    if one.name != two.name and all(_is_label(path.name) for path in (one, two)):
        return one.name, two.name
    return "base", "new"


def _is_label(name: str) -> bool:
    return bool(name) and name[0] != "." and not set(name) & set("=,\\")
