"""Marks runs that `replay ab` repeated. They stay in its folder, and comparisons leave them out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from replay.decoding import examined
from replay.files import write_whole

MARK = "set_aside.json"
"""The name of the file that marks the folder of a run that comparisons leave out."""


class SetAside(msgspec.Struct, frozen=True):
    """The reason why a run was repeated."""

    why: str


def set_aside(runs: Iterable[Path], why: str) -> None:
    """Mark runs as repeated. Raise OutputError if a mark cannot be written."""
    for run in runs:
        write_whole(run / MARK, msgspec.json.encode(SetAside(why)) + b"\n")


def why_set_aside(run: Path) -> str:
    """Return why a run was repeated; empty if it has no mark. A mark that cannot be read counts, too."""
    try:
        return msgspec.json.decode((run / MARK).read_bytes(), type=examined(SetAside)).why
    except FileNotFoundError:
        return ""
    except (OSError, msgspec.MsgspecError):
        return "its mark cannot be read"
