"""Opens a trace: its manifest, its requests, and its events in time order, in constant memory."""

from __future__ import annotations

import contextlib
import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError, reason_of
from replay.shown import html_table, shown
from replay.units import counted, format_duration, format_moment, format_share, parse_zone

from .batch import Batch
from .blocks import ReusedBuffers, check_size, corrupt
from .columns import Columns, in_time_order, read_events
from .journal import is_being_written, journal_of, read_notes
from .manifest import (
    HOSTS_MAX,
    MANIFEST,
    METHODS_MAX,
    ROUTES_MAX,
    Manifest,
    Segment,
    read_manifest,
)
from .requests import REQUESTS, Requests
from .responses import RecordedResponse, Responses

if TYPE_CHECKING:
    import pyarrow as pa

HTML_ROUTES = 10
"""Maximum number of routes in the table that a notebook shows for a trace."""

PARTIAL_MARK = ".partial-"
"""Part of the name of a trace folder while it is written: NAME.partial-PID."""

PARTIAL_FILE = ".replay-partial"
"""The name of the file that marks a folder in which a trace is being written."""

_PARTIAL_NAME = re.compile(r"(.*)\.partial-\d+(?:-old)?", re.DOTALL)
_TRACE_FILE = re.compile(
    rf"{re.escape(PARTIAL_FILE)}|{re.escape(MANIFEST)}|(?:requests|headers|bodies)\.arrow|[\w.-]*events-\d+\.arrow"
    r"|(?:responses|response-headers|response-bodies)\.arrow"
)


def is_trace(path: Path) -> bool:
    """Return whether `path` is a folder with a manifest, which is written last."""
    return (path / MANIFEST).is_file()


def is_partial_of(name: str, whole: str = "") -> bool:
    """Return whether a folder's name is that of a partial trace.

    With `whole`, it must be a partial folder of the trace of that name.
    """
    found = _PARTIAL_NAME.fullmatch(name)
    return found is not None and found[1] == (whole or found[1])


def is_trace_file(name: str) -> bool:
    """Return whether this is the name of a file in a complete or partial trace folder."""
    return _TRACE_FILE.fullmatch(name) is not None


def strangers(path: Path) -> list[str] | None:
    """Return the names of files in a trace folder that do not belong to a trace.

    The folder may be complete or partial. Returns None if it is not a trace folder, or if `path` is a link.
    """
    if path.is_symlink() or not path.is_dir():
        return None
    names = sorted(entry.name for entry in path.iterdir())
    if is_trace(path):
        of_trace = REQUESTS in names or _has_version(path)
    else:
        of_trace = half_trace(path) == path
    return [name for name in names if not is_trace_file(name)] if of_trace else None


def _has_version(path: Path) -> bool:
    """Return whether the manifest in a folder is that of a trace that this code reads.

    Other programs use the same file name.
    """
    try:
        read_manifest(path)
    except InputError:
        return False
    return True


def half_trace(path: Path) -> Path | None:
    """Return the folder of an incomplete trace, or None if there is none.

    It is `path` itself, or the folder beside it in which the trace at `path` is or was being written.
    """
    if path.is_dir():
        unfinished = is_partial_of(path.name) or next(path.glob("*events-*.arrow"), None) is not None
        return path if unfinished and not is_trace(path) else None
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            if is_partial_of(entry.name, path.name) and entry.is_dir():
                return entry
    return None


def _refuse(path: Path) -> InputError:
    """Return the error that says why `path` is not a trace."""
    journal = journal_of(path)
    if journal.is_file():
        return _killed(path, journal)
    half = half_trace(path)
    if half is not None:
        return InputError(
            f"{half} is incomplete: the command that writes it is still running, or it was killed",
            hint="wait for a running command; after a killed one, delete this folder and run the command again",
        )
    if path.is_dir():
        return InputError(f"{path} is a folder, but not a trace: it has no {MANIFEST}")
    if path.exists():
        return InputError(f"{path} is not a trace folder", hint=f"if it is a recording: replay import {path}")
    return InputError(f"no trace at {path}")


def _killed(path: Path, journal: Path) -> InputError:
    """Return the error for a recording that is still running or was killed."""
    notes = read_notes(journal)
    found = f"{units.counted(notes.records, 'request')}"
    if notes.records:
        found += f" up to {units.format_moment(notes.last_ns)}"
    if is_being_written(journal):
        return InputError(
            f"{path} is being recorded; {journal} holds {found}",
            hint=f"end the recording, or give {journal} instead",
        )
    return InputError(
        f"no trace at {path}: its recording did not end; {journal} holds {found}",
        hint=f"to make the trace: replay import {journal} -o {path}",
    )


class Trace:
    """A recording on disk, independent of any target.

    Programs that read Arrow streams (pandas, polars, DuckDB) accept it as a table: see `to_arrow` for its columns.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._buffers = ReusedBuffers()
        self._looked_up = (-1, np.empty(0, np.int32))
        """The index of the segment that `response` read last, and the response id of each of its events."""

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Open the trace folder at `path`.

        Raises InputError if it is missing, incomplete, damaged, or of a newer version.
        """
        path = Path(path)
        try:
            if not is_trace(path):
                raise _refuse(path)
            trace = cls(path, read_manifest(path))
        except OSError as error:
            raise InputError(f"{path}: {reason_of(error)}") from None
        trace._check()
        return trace

    def again(self) -> Trace:
        """Return the same trace with separate memory, so that loading requests of one does not affect the other."""
        return Trace(self.path, self.manifest)

    def has_file(self, name: str) -> bool:
        """Return whether a dictionary file belongs to the trace.

        If the manifest has checksums, only the files that it lists belong to the trace.
        """
        files = self.manifest.files
        return name in files if files else (self.path / name).exists()

    @property
    def has_checksums(self) -> bool:
        """Return whether damage to the trace's files would be detected: traces of format 1 have no checksums."""
        return bool(self.manifest.files) or not self.manifest.segments

    def __repr__(self) -> str:
        return f"<Trace {shown(str(self.path))!r}: {counted(self.rows, 'request')}, {self._span()}>"

    def __len__(self) -> int:
        return self.rows

    def __bool__(self) -> bool:
        return True

    def _span(self) -> str:
        return format_duration(self.end_ns - self.start_ns)

    def _repr_html_(self) -> str:
        """Return when the trace was recorded and its largest routes as HTML, for notebooks."""
        manifest, zone = self.manifest, parse_zone(self.manifest.time_zone or "UTC")
        facts = [
            ("folder", str(self.path)),
            ("requests", f"{self.rows:,} of {counted(manifest.clients, 'client')}"),
            ("begins", format_moment(self.start_ns, zone)),
            ("span", self._span()),
        ]
        if rejected := sum(manifest.rejected.values()):
            facts.append(("rejected", f"{rejected:,} of {counted(manifest.lines, 'line')}"))
        biggest = sorted(manifest.routes, key=lambda route: -route.rows)[:HTML_ROUTES]
        routes = [(row.route, f"{row.rows:,}", format_share(row.rows / max(self.rows, 1))) for row in biggest]
        return html_table("Trace", (), facts) + html_table("Routes", ("route", "requests", "share"), routes)

    def to_arrow(self, from_ns: int | None = None, until_ns: int | None = None) -> pa.Table:
        """Return the requests of a time range as an Arrow table.

        The range is from `from_ns` up to, but not including, `until_ns`, in ns since the Unix epoch; None means no
        limit.

        Columns: `at` (UTC), `method`, `path`, `host`, `route`, `action`, `client`; and of the recorded response
        `status`, `took_ns`, `bytes`. Null is unknown. The whole table is in memory; `arrow_batches` reads a trace
        of any length. Raises InputError if a file is damaged.
        """
        return self.arrow_batches(from_ns, until_ns).read_all()

    def arrow_batches(self, from_ns: int | None = None, until_ns: int | None = None) -> pa.RecordBatchReader:
        """Return the rows of `to_arrow` as a reader of record batches, in constant memory."""
        from .arrow import batches_of

        own = self.again()
        return batches_of(own.batches(from_ns, until_ns), own.requests)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the trace through Arrow's C stream interface (PyCapsule).

        Other programs read it as a table through this interface, in constant memory.
        """
        return self.arrow_batches().__arrow_c_stream__(requested_schema)

    def _check(self) -> None:
        manifest, path = self.manifest, self.path
        for what, found, most in (
            ("routes", len(manifest.routes), ROUTES_MAX + METHODS_MAX),
            ("methods", len(manifest.methods), METHODS_MAX),
            ("hosts", len(manifest.hosts), HOSTS_MAX),
        ):
            if found > most:
                raise corrupt(path, f"its manifest lists {found:,} {what}, but a trace has at most {most:,}")
        if sum(segment.rows for segment in manifest.segments) != manifest.rows:
            raise corrupt(path, "its segments do not add up to its rows")
        for segment in manifest.segments:
            if Path(segment.file).name != segment.file or not (path / segment.file).is_file():
                raise corrupt(path, f"{segment.file} is missing")
        self._check_files()
        if self.rows and not manifest.start_ns <= manifest.end_ns:
            raise corrupt(path, "it ends before it starts")

    def _check_files(self) -> None:
        """Check that each file with checksums exists in its full length. Its content is checked when it is read."""
        files = self.manifest.files
        for name, sums in files.items():
            path = self.path / name
            if Path(name).name != name or not path.is_file():
                raise corrupt(self.path, f"{name} is missing")
            check_size(path, path.stat().st_size, sums.bytes)
        if files and not {REQUESTS, *(segment.file for segment in self.manifest.segments)} <= files.keys():
            raise corrupt(self.path, "its manifest does not have the checksums of every file")

    @property
    def rows(self) -> int:
        """Return the number of events in the trace."""
        return self.manifest.rows

    @property
    def start_ns(self) -> int:
        """Return when the first event was recorded, in ns since the Unix epoch."""
        return self.manifest.start_ns

    @property
    def end_ns(self) -> int:
        """Return when the last event was recorded, in ns since the Unix epoch."""
        return self.manifest.end_ns

    @property
    def digest(self) -> str:
        """Return a digest that identifies the recording.

        Equal sources, importer, options and transforms give the same digest.
        """
        manifest = self.manifest
        identity = (
            manifest.importer,
            manifest.options,
            [(source.xxh64, source.bytes) for source in manifest.sources],
            manifest.jitter,
            manifest.history,
            manifest.rows,
            manifest.start_ns,
            manifest.end_ns,
        )
        return hashlib.sha256(msgspec.json.encode(identity, order="sorted")).hexdigest()

    @cached_property
    def requests(self) -> Requests:
        """Return the dictionary of distinct requests. Raises InputError if it is damaged."""
        manifest = self.manifest
        return Requests(
            self.path, manifest.requests, manifest.methods, manifest.hosts,
            [route.route for route in manifest.routes], [route.action for route in manifest.routes],
            manifest.files,
        )  # fmt: skip

    @cached_property
    def responses(self) -> Responses:
        """Return the dictionary of distinct recorded responses. Raises InputError if it is damaged."""
        return Responses(self.path, self.manifest.files)

    def response(self, event: int) -> RecordedResponse | None:
        """Return the recorded response of the event in row `event` of the trace, or None if it has none.

        Raises IndexError if there is no such row.
        """
        segments = self.manifest.segments
        index = bisect_right(self._first_rows, event) - 1
        if not 0 <= event < self.rows:
            raise IndexError(event)
        if self._looked_up[0] != index:
            self._looked_up = index, self._responses_of(segments[index])
        response = int(self._looked_up[1][event - self._first_rows[index]])
        return self.responses.get(response) if response >= 0 else None

    @cached_property
    def _first_rows(self) -> list[int]:
        """Return the row of the first event of each segment."""
        return [0, *accumulate(segment.rows for segment in self.manifest.segments)][:-1]

    def _responses_of(self, segment: Segment) -> npt.NDArray[np.int32]:
        """Return the column `response` of a segment, -1 for events without a response."""
        none = np.full(segment.rows, -1, np.int32)
        found = [columns["response"].copy() for columns in self._read(segment) if "response" in columns]
        return np.concatenate(found) if found else none

    def recorded_responses(
        self, from_ns: int | None = None, until_ns: int | None = None
    ) -> Iterator[RecordedResponse | None]:
        """Yield the recorded response of each event that `batches` would yield, in its order; None if it has none."""
        get = self.responses.get
        for batch in self.batches(from_ns, until_ns):
            ids = [-1] * len(batch) if batch.response is None else batch.response.tolist()
            yield from (get(index) if index >= 0 else None for index in ids)

    def batches(self, from_ns: int | None = None, until_ns: int | None = None) -> Iterator[Batch]:
        """Yield the events in time order, from `from_ns` up to, but not including, `until_ns`.

        A batch has at most 1,048,576 events. Raises InputError if a file is damaged.
        """
        before_ns = self.start_ns
        for segment in self.manifest.segments:
            past = until_ns is not None and segment.start_ns >= until_ns
            if past or (from_ns is not None and segment.end_ns < from_ns):
                continue
            for columns in self._read(segment):
                batch = Batch(**_window(columns, from_ns, until_ns))
                if len(batch):
                    self._check_batch(segment, batch, before_ns)
                    before_ns = int(batch.at_ns[-1])
                    yield batch

    def _read(self, segment: Segment) -> Iterator[Columns]:
        path = self.path / segment.file
        batches = read_events(path, self.manifest.files.get(segment.file), self._buffers)
        if sum(len(columns["at_ns"]) for columns in batches) != segment.rows:
            raise corrupt(path, f"it does not have the {segment.rows:,} rows that the manifest states")
        yield from batches

    def _check_batch(self, segment: Segment, batch: Batch, before_ns: int) -> None:
        """Check the order and range of the columns that kernels rely on."""
        path = self.path / segment.file
        if batch.at_ns[0] < before_ns or not in_time_order(batch.at_ns):
            raise corrupt(path, "its events are not in time order")
        if batch.at_ns[-1] > self.end_ns:
            raise corrupt(path, "an event is later than the end that the manifest states")
        if batch.request.max() >= self.manifest.requests:
            raise corrupt(path, "an event refers to a request that is not in the dictionary")
        if batch.response is not None and batch.response.max() >= len(self.responses):
            raise corrupt(path, "an event refers to a response that is not in the dictionary")
        if batch.client.max() >= self.manifest.clients:
            raise corrupt(
                path, f"an event refers to a client beyond the {self.manifest.clients:,} of the manifest"
            )


def _window(columns: Columns, from_ns: int | None, until_ns: int | None) -> Columns:
    stamps = columns["at_ns"]
    begin = 0 if from_ns is None else int(np.searchsorted(stamps, from_ns))
    end = len(stamps) if until_ns is None else int(np.searchsorted(stamps, until_ns))
    if begin == 0 and end == len(stamps):
        return columns
    return {name: column[begin:end] for name, column in columns.items()}
