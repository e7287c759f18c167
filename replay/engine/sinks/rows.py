"""The sinks that write each second's row to a file, as JSON lines or as CSV."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import IO, Any

import msgspec

from replay.errors import UsageError
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second
from replay_native.ledger.lane_metrics import OUTCOMES

_FIELDS = tuple(field.name for field in msgspec.structs.fields(Second))
_NESTED = ("outcomes", "outcomes_measured", "lag", "watched")
COLUMNS = (
    *(name for name in _FIELDS if name not in _NESTED),
    *(f"outcome_{name}" for name in OUTCOMES),
    "lag",
)
"""The columns of every CSV: the fields of `Second` except `_NESTED`, requests by outcome, and the total lag.

Watched figures follow, one column each. The figures of objects (`members`) are not known when the file begins, so they
are in the last column, as JSON.
"""

MEMBERS_COLUMN = "watched_members"


class _RowFile:
    """A text file with a row for each second, which is created when the run starts. Each row is flushed at once."""

    def __init__(self, name: str, path: Path) -> None:
        """Check the path. Raises UsageError if the file cannot be created, or if a regular file exists already."""
        self.name, self._path = f"{name}={path}", path
        self._file: IO[str] = io.StringIO()
        _refuse(self.name, path)

    def start(self, started: Started) -> None:
        """Create the file. A device or a pipe that exists is opened."""
        mode = "w" if self._path.exists() and not self._path.is_file() else "x"
        self._file = self._path.open(mode, encoding="utf-8", newline="", buffering=1)

    def end(self, document: RunDocument) -> None:
        """Do nothing: every row is written already."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _refuse(name: str, path: Path) -> None:
    folder = path.parent
    if path.is_dir():
        raise UsageError(f"--sink {name}: {path} is a folder", hint="give a file in it")
    if path.is_file():
        hint = "give another name; an earlier result is never overwritten"
        raise UsageError(f"--sink {name}: {path} exists already", hint=hint)
    if not folder.is_dir():
        raise UsageError(f"--sink {name}: there is no folder {folder}", hint="make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"--sink {name}: {path} cannot be written")


class JsonLines(_RowFile):
    """`--sink jsonl=FILE`: the rows of timeline.jsonl, as they are produced."""

    def second(self, second: Second, deltas: Deltas) -> None:
        """Write the second as one JSON line."""
        self._file.write(msgspec.json.encode(second).decode() + "\n")


class CsvRows(_RowFile):
    """`--sink csv=FILE`: the figures of timeline.jsonl as a table. A value that was not measured is an empty cell."""

    _writer: Any = None
    _watched: tuple[str, ...] = ()
    _has_members = False

    def start(self, started: Started) -> None:
        """Create the file, with a line of column names."""
        super().start(started)
        watches = started.scenario.get("watch", ())
        self._watched = tuple(watch["name"] for watch in watches if not watch.get("members"))
        self._has_members = len(self._watched) < len(watches)
        self._writer = csv.writer(self._file, lineterminator="\n")
        more = [MEMBERS_COLUMN] if self._has_members else []
        self._writer.writerow([*COLUMNS, *(f"watched {name}" for name in self._watched), *more])

    def second(self, second: Second, deltas: Deltas) -> None:
        """Write the second as one row of the table."""
        plain = [_cell(getattr(second, name)) for name in COLUMNS if name in _FIELDS and name != "lag"]
        outcomes = [second.outcomes.get(name, 0) for name in OUTCOMES]
        lag = sum(second.lag.values()) if second.lag else None
        watched = [second.watched.get(name) for name in self._watched]
        self._writer.writerow([*plain, *outcomes, lag, *watched, *self._members(second)])

    def _members(self, second: Second) -> list[str]:
        if not self._has_members:
            return []
        members = {name: value for name, value in second.watched.items() if name not in self._watched}
        return [msgspec.json.encode(members).decode()]


def _cell(value: Any) -> Any:
    """Return the value of a cell: an object (`actions`) as JSON, or an empty cell if it has no members."""
    if not isinstance(value, dict):
        return value
    return msgspec.json.encode(value).decode() if value else ""


def _path(name: str, value: str) -> Path:
    if not value:
        raise UsageError(f"--sink {name} needs a file", hint=f"write --sink {name}=FILE")
    return Path(value)


def jsonl(value: str) -> JsonLines:
    """Return the sink of `--sink jsonl=FILE`."""
    return JsonLines("jsonl", _path("jsonl", value))


def csv_rows(value: str) -> CsvRows:
    """Return the sink of `--sink csv=FILE`."""
    return CsvRows("csv", _path("csv", value))
