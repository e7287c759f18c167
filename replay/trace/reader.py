"""Opening a trace: its manifest, its events in time order in constant memory, its requests."""

from __future__ import annotations

import contextlib
import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError, reason_of
from replay_native.trace.columns import TraceRows

from .blocks import ReusedBuffers, check_size, corrupt
from .columns import Columns, read_events
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

PARTIAL_MARK = ".partial-"
"""Inside the name of a trace folder that is being written: NAME.partial-PID."""

PARTIAL_FILE = ".replay-partial"
"""Marks a folder in which a trace is being written."""

_PARTIAL_NAME = re.compile(r"(.*)\.partial-\d+(?:-old)?", re.DOTALL)
_TRACE_FILE = re.compile(
    rf"{re.escape(PARTIAL_FILE)}|{re.escape(MANIFEST)}|(?:requests|headers|bodies)\.arrow|[\w.-]*events-\d+\.arrow"
    r"|(?:responses|response-headers|response-bodies)\.arrow"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in time order, as columns of one length (writable, contiguous).

    `at_ns` is ns since the Unix epoch; `request` indexes `Trace.requests`; `client` is a dense id; `status`,
    `took_ns` and `bytes` are what was recorded of the response, -1 where the recording does not say. `response` indexes
    `Trace.responses`, and `first_byte_ns` is the time to its first byte (-1 is none); both are None where no event of the
    batch has either.
    """

    at_ns: npt.NDArray[np.int64]
    request: npt.NDArray[np.uint32]
    client: npt.NDArray[np.uint32]
    status: npt.NDArray[np.int16]
    took_ns: npt.NDArray[np.int64]
    bytes: npt.NDArray[np.int64]
    response: npt.NDArray[np.int32] | None = None
    first_byte_ns: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.at_ns)

    @property
    def rows(self) -> TraceRows:
        """As kernels take them."""
        return TraceRows(self.at_ns, self.request, self.client, self.status, self.took_ns)

    def __getitem__(self, rows: slice) -> Batch:
        """A stretch of it."""
        if rows == slice(0, len(self)):
            return self
        return self.taken(lambda column: column[rows])

    def taken(self, of: Callable[[Any], Any], **replaced: npt.NDArray[Any]) -> Batch:
        """Events whose columns are `of` these columns, or those given."""
        columns = {
            name: of(column)
            for name in self.__slots__
            if name not in replaced and (column := getattr(self, name)) is not None
        }
        return Batch(**columns, **replaced)


def with_requests(
    batches: Iterable[Batch], requests: Requests, *, columns_alone: bool = False
) -> Iterator[Batch]:
    """Events in the same order; the requests of each batch are loaded until the next one is asked for. With `columns_alone`
    without their targets, headers and bodies.
    """
    for batch in batches:
        for rows in requests.loaded(batch.request, columns_alone=columns_alone):
            yield batch[rows]


def is_trace(path: Path) -> bool:
    """Whether `path` is a whole trace folder."""
    return (path / MANIFEST).is_file()


def is_partial_of(name: str, whole: str = "") -> bool:
    """Whether a folder may be one that an import (of the trace named `whole`) writes, by its name."""
    found = _PARTIAL_NAME.fullmatch(name)
    return found is not None and found[1] == (whole or found[1])


def is_trace_file(name: str) -> bool:
    """Whether a file of a trace folder, whole or half, has this name."""
    return _TRACE_FILE.fullmatch(name) is not None


def strangers(path: Path) -> list[str] | None:
    """What is in a trace folder, whole or half, beside the trace; None where it is no trace folder."""
    if path.is_symlink() or not path.is_dir():
        return None
    names = sorted(entry.name for entry in path.iterdir())
    if is_trace(path):
        of_trace = REQUESTS in names or _has_version(path)
    else:
        of_trace = half_trace(path) == path
    return [name for name in names if not is_trace_file(name)] if of_trace else None


def _has_version(path: Path) -> bool:
    """Whether a manifest is one of a trace: other programs have files of this name."""
    try:
        read_manifest(path)
    except InputError:
        return False
    return True


def half_trace(path: Path) -> Path | None:
    """The folder that a killed import of `path` left: itself, or one beside it. None where there is none."""
    if path.is_dir():
        unfinished = is_partial_of(path.name) or next(path.glob("*events-*.arrow"), None) is not None
        return path if unfinished and not is_trace(path) else None
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            if is_partial_of(entry.name, path.name) and entry.is_dir():
                return entry
    return None


def _refuse(path: Path) -> InputError:
    """Why `path` is not a trace."""
    half = half_trace(path)
    if half is not None:
        return InputError(
            f"{half} is half a trace: its import did not end",
            hint="import the log again; this one can be deleted",
        )
    journal = journal_of(path)
    if journal.is_file():
        return _killed(path, journal)
    if path.is_dir():
        return InputError(f"{path} is a folder, but not a trace: it has no {MANIFEST}")
    if path.exists():
        return InputError(f"{path} is not a trace folder", hint=f"replay import {path} makes one from a log")
    return InputError(f"no trace at {path}")


def _killed(path: Path, journal: Path) -> InputError:
    """What is to be said of a recording that did not end."""
    notes = read_notes(journal)
    found = f"{units.counted(notes.records, 'request')}"
    if notes.records:
        found += f" up to {units.format_moment(notes.last_ns)}"
    if is_being_written(journal):
        return InputError(
            f"{path} is being recorded; {journal} holds {found}",
            hint=f"end the recording, or give {journal} in its place",
        )
    return InputError(
        f"no trace at {path}: its recording did not end; {journal} holds {found}",
        hint=f"make the trace of it: replay import {journal} -o {path}",
    )


class Trace:
    """A recording on disk. Knows nothing of targets."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        self._buffers = ReusedBuffers()
        self._looked_up = (-1, np.empty(0, np.int32))
        """The segment in which `response` looked last, and its responses."""

    @classmethod
    def open(cls, path: str | Path) -> Trace:
        """Open the trace folder at `path`.

        InputError where it is missing, not whole, damaged, or of a newer version.
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
        """The same trace with memory of its own: what is loaded of the requests of one is not loaded of the other."""
        return Trace(self.path, self.manifest)

    def has_file(self, name: str) -> bool:
        """Whether a dictionary belongs to the trace. A trace with checksums has only the files that they are of."""
        files = self.manifest.files
        return name in files if files else (self.path / name).exists()

    @property
    def has_checksums(self) -> bool:
        """Whether damage to its files is noticed: traces of format 1 have no checksums."""
        return bool(self.manifest.files) or not self.manifest.segments

    def __repr__(self) -> str:
        return f"<Trace {str(self.path)!r}: {self.rows:,} rows>"

    def _check(self) -> None:
        manifest, path = self.manifest, self.path
        for what, found, most in (
            ("routes", len(manifest.routes), ROUTES_MAX + METHODS_MAX),
            ("methods", len(manifest.methods), METHODS_MAX),
            ("hosts", len(manifest.hosts), HOSTS_MAX),
        ):
            if found > most:
                raise corrupt(path, f"its manifest names {found:,} {what}, and a trace has {most:,} at most")
        if sum(segment.rows for segment in manifest.segments) != manifest.rows:
            raise corrupt(path, "its segments do not add up to its rows")
        for segment in manifest.segments:
            if Path(segment.file).name != segment.file or not (path / segment.file).is_file():
                raise corrupt(path, f"{segment.file} is missing")
        self._check_files()
        if self.rows and not manifest.start_ns <= manifest.end_ns:
            raise corrupt(path, "it ends before it starts")

    def _check_files(self) -> None:
        """Each file that has checksums is there, in its length. What is in it is checked when it is read."""
        files = self.manifest.files
        for name, sums in files.items():
            path = self.path / name
            if Path(name).name != name or not path.is_file():
                raise corrupt(self.path, f"{name} is missing")
            check_size(path, path.stat().st_size, sums.bytes)
        if files and not {REQUESTS, *(segment.file for segment in self.manifest.segments)} <= files.keys():
            raise corrupt(self.path, "its manifest has not the checksums of every file")

    @property
    def rows(self) -> int:
        """Events in the trace."""
        return self.manifest.rows

    @property
    def start_ns(self) -> int:
        """When the first event was recorded, ns since the Unix epoch."""
        return self.manifest.start_ns

    @property
    def end_ns(self) -> int:
        """When the last event was recorded, ns since the Unix epoch."""
        return self.manifest.end_ns

    @property
    def digest(self) -> str:
        """Names the recording: the same sources, importer, options and transforms give the same digest."""
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
        """The dictionary of distinct requests. InputError where it is damaged."""
        manifest = self.manifest
        return Requests(
            self.path, manifest.requests, manifest.methods, manifest.hosts,
            [route.route for route in manifest.routes], [route.action for route in manifest.routes],
            manifest.files,
        )  # fmt: skip

    @cached_property
    def responses(self) -> Responses:
        """The dictionary of distinct recorded responses. InputError where it is damaged."""
        return Responses(self.path, self.manifest.files)

    def response(self, event: int) -> RecordedResponse | None:
        """The recorded response of the event in row `event` of the trace. IndexError where there is no such row."""
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
        """The row of the first event of each segment."""
        return [0, *accumulate(segment.rows for segment in self.manifest.segments)][:-1]

    def _responses_of(self, segment: Segment) -> npt.NDArray[np.int32]:
        """The column `response` of a segment."""
        none = np.full(segment.rows, -1, np.int32)
        found = [columns["response"].copy() for columns in self._read(segment) if "response" in columns]
        return np.concatenate(found) if found else none

    def recorded_responses(
        self, from_ns: int | None = None, until_ns: int | None = None
    ) -> Iterator[RecordedResponse | None]:
        """The recorded response of each event (None where it has none), in the order of the events."""
        get = self.responses.get
        for batch in self.batches(from_ns, until_ns):
            ids = [-1] * len(batch) if batch.response is None else batch.response.tolist()
            yield from (get(index) if index >= 0 else None for index in ids)

    def batches(self, from_ns: int | None = None, until_ns: int | None = None) -> Iterator[Batch]:
        """The events in time order, from `from_ns` on and before `until_ns`, at most 1,048,576 at a time.

        InputError where a file is damaged.
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
            raise corrupt(path, f"its rows are not the {segment.rows:,} of the manifest")
        yield from batches

    def _check_batch(self, segment: Segment, batch: Batch, before_ns: int) -> None:
        """Kernels index by these columns and rely on their order."""
        path = self.path / segment.file
        if batch.at_ns[0] < before_ns or not np.all(batch.at_ns[1:] >= batch.at_ns[:-1]):
            raise corrupt(path, "its events are not in time order")
        if batch.at_ns[-1] > self.end_ns:
            raise corrupt(path, "an event after the end that the manifest says")
        if batch.request.max() >= self.manifest.requests:
            raise corrupt(path, "an event of a request that is not in the dictionary")
        if batch.response is not None and batch.response.max() >= len(self.responses):
            raise corrupt(path, "an event with a response that is not in the dictionary")
        if batch.client.max() >= self.manifest.clients:
            raise corrupt(path, f"a client past the {self.manifest.clients:,} of the manifest")


def _window(columns: Columns, from_ns: int | None, until_ns: int | None) -> Columns:
    stamps = columns["at_ns"]
    begin = 0 if from_ns is None else int(np.searchsorted(stamps, from_ns))
    end = len(stamps) if until_ns is None else int(np.searchsorted(stamps, until_ns))
    if begin == 0 and end == len(stamps):
        return columns
    return {name: column[begin:end] for name, column in columns.items()}
