"""Imports recordings into a trace: orders the files by time, reads them, spreads timestamps, and writes the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError, UsageError
from replay.trace import Jitter as JitterRecord
from replay.trace import (
    LeftOut,
    Trace,
    TraceWriter,
    half_trace,
    is_trace,
)
from replay.trace.dictionary import ClientTable
from replay.trace.route_rules import TEMPLATES_MAX, by_precision

from .assumptions import about_bodies, about_queries, about_time
from .detection import named_importer, tell_format
from .input_paths import expand
from .readers.jitter import Columns, Jitter
from .registry import (
    EndsLate,
    Found,
    Importer,
    Options,
    Reader,
    Rows,
    importers_that,
)
from .rejects import FileJudge, Rejects
from .sources import SourceFile

CLIENTS_FROM_ROWS, ONE_CLIENT_SHARE = 20, 0.8
"""From this many requests on, a recording with this share from one client was probably made behind a proxy."""


SPREAD_FROM_NS = 1_000_000
"""Timestamps of this resolution or a coarser one are spread within it."""

Progress = Callable[[int, int, int], None]
"""Called with (bytes done, total bytes or -1, lines) after every block."""


@dataclass(frozen=True, slots=True)
class _Input:
    """A file to import, with its first timestamp (None if its head has none)."""

    file: SourceFile
    first_ns: int | None


def _opened(
    paths: Sequence[str | Path], options: Options, by_name: Importer | None
) -> tuple[list[tuple[SourceFile, Importer]], list[LeftOut]]:
    """Open the files and detect their formats; `by_name` is the format that the user gave.

    Files from a folder or a pattern that cannot be imported are skipped, with the reason. Raises InputError if a file
    that the user gave by name, or all files, cannot be imported.
    """
    named = {str(path) for path in paths}
    opened: list[tuple[SourceFile, Importer]] = []
    left_out: list[LeftOut] = []
    refused: InputError | None = None
    for name in expand(paths):
        try:
            file = SourceFile(name)
            opened.append((file, tell_format(file, options, named=by_name)))
        except InputError as error:
            if name in named:
                raise
            refused = refused or error
            left_out.append(LeftOut(name=units.name_text(name), why=units.name_text(str(error))))
    if refused is not None and not opened:
        raise refused
    return opened, left_out


def _shared(opened: list[tuple[SourceFile, Importer]]) -> Importer:
    """Return the format that all files share.

    Raises InputError if there are several.
    """
    first, chosen = opened[0]
    for file, other in opened:
        if other.name != chosen.name:
            raise InputError(
                f"{first.name} is {chosen.title}, but {file.name} is {other.title}",
                hint="import them one by one, or all as one format: replay import --format NAME",
            )
    return chosen


def _inputs(files: list[SourceFile], reader: Reader) -> tuple[int, list[_Input]]:
    """Return the finest resolution of the files in ns, and the files ordered by first timestamp.

    Files without a timestamp come last and do not count for the resolution, which is 1 if no file has one.
    """
    probes = [reader.probe(file.head) for file in files]
    inputs = [_Input(file, probe.first_ns) for file, probe in zip(files, probes, strict=True)]
    resolution_ns = min((probe.resolution_ns for probe in probes if probe.first_ns is not None), default=1)
    return resolution_ns, sorted(inputs, key=lambda given: (given.first_ns is None, given.first_ns or 0))


class _Import:
    """One import, which passes rows from a reader to a writer."""

    def __init__(self, writer: TraceWriter, reader: Reader, resolution_ns: int, seed: int | None) -> None:
        self._writer, self._reader = writer, reader
        self._resolution_ns, self._seed = resolution_ns, seed
        self._clients = ClientTable()
        self._frequent, self._frequent_rows, self._unnamed_rows, self._rows = -1, 0, 0, 0
        self._methods: list[int] = []
        self._hosts: list[int] = []
        self._streams = 0
        self._jitter: Jitter | None = None
        self._wide = False
        self._first_ns: int | None = None

    @staticmethod
    def _mapped(
        known: list[int], names: list[str], number: Callable[[str], int], column: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Convert a column of the reader's indexes (-1: none) to the writer's."""
        known.extend(number(name) if name else -1 for name in names[len(known) :])
        return np.array([*known, -1], dtype=np.int64)[column]

    @staticmethod
    def _numbered(
        column: npt.NDArray[np.int64] | None, values: Sequence[Any], number: Callable[[Any], int]
    ) -> npt.NDArray[np.int64] | None:
        """Convert indexes into the values of these rows (-1: none) to the writer's; None stays None."""
        if column is None:
            return None
        return np.array([*(number(value) for value in values), -1], dtype=np.int64)[column]

    def begin_file(self, first_ns: int | None) -> None:
        """Begin a file.

        Its timestamps are spread separately unless it continues the previous file, because files that overlap were
        written at the same time.
        """
        if self._seed is None:
            return
        before_ns, self._first_ns = self._first_ns, first_ns
        if (
            self._jitter is None
            or first_ns is None
            or not self._follows(before_ns, first_ns, self._jitter.latest_ns)
        ):
            self.end()
            self._jitter = Jitter(self._seed, self._streams, self._resolution_ns)
            self._streams += 1

    @staticmethod
    def _follows(before_ns: int | None, first_ns: int, latest_ns: int) -> bool:
        """Return whether a file continues where the previous one (`before_ns` to `latest_ns`) ended."""
        return first_ns > latest_ns or (first_ns == latest_ns and before_ns != latest_ns)

    def add(self, rows: Rows) -> None:
        """Add rows to the trace; the jitter may hold some of them back."""
        writer, reader = self._writer, self._reader
        columns: Columns = {
            "at_ns": rows.at_ns,
            "request": writer.add_requests(
                rows.data,
                rows.offsets,
                self._mapped(self._methods, reader.methods, writer.method_id, rows.method),
                self._mapped(self._hosts, reader.hosts, writer.host_id, rows.host),
                self._numbered(rows.headers, rows.header_sets, writer.add_headers),
                self._numbered(rows.body, rows.bodies, writer.add_body),
            ),
            "client": self._numbered_clients(rows.client_hash),
            "status": rows.status.astype(np.int16),
            "bytes": rows.bytes.astype(np.int64),
        }
        if rows.took_ns is not None:
            columns["took_ns"] = rows.took_ns.astype(np.int64)
        self._add_responses(rows, columns)
        self._write([columns] if self._jitter is None else self._jitter.add(columns))

    def _add_responses(self, rows: Rows, columns: Columns) -> None:
        """Add the columns of responses.

        Once any rows had responses, all later rows get the columns, because the jitter mixes rows of several blocks.
        """
        self._wide = self._wide or rows.response is not None or rows.first_byte_ns is not None
        if not self._wide:
            return
        response = self._numbered(rows.response, rows.responses, self._writer.add_response)
        for name, column in (("response", response), ("first_byte_ns", rows.first_byte_ns)):
            columns[name] = np.full(len(rows.at_ns), -1, np.int64) if column is None else column

    def _numbered_clients(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Return the client ids of rows.

        If one client has most of the first rows, its rows are counted for `note_clients`.
        """
        numbers = self._clients.number(hashes)
        if self._rows == 0 and len(numbers):
            self._frequent = int(np.partition(numbers, len(numbers) // 2)[len(numbers) // 2])
        self._rows += len(numbers)
        self._frequent_rows += int(np.count_nonzero(numbers == self._frequent))
        self._unnamed_rows += len(hashes) - int(np.count_nonzero(hashes))
        return numbers

    def note_clients(self, found: Found, importer: Importer) -> None:
        """Add an assumption if at least ONE_CLIENT_SHARE of the requests come from one client, or have no client.

        Recordings of fewer than CLIENTS_FROM_ROWS requests, and formats that never identify clients, get none.
        """
        if self._rows < CLIENTS_FROM_ROWS or not importer.names_clients:
            return
        if self._unnamed_rows >= ONE_CLIENT_SHARE * self._rows:
            found.assume(
                f"{units.format_share(self._unnamed_rows / self._rows)} of the requests name no client"
            )
        elif self._frequent_rows >= ONE_CLIENT_SHARE * self._rows:
            share = units.format_share(self._frequent_rows / self._rows)
            found.assume(
                f"one client has {share} of the requests: if it is a proxy, log X-Forwarded-For to tell clients apart"
            )

    def end(self) -> None:
        """Write the rows that the jitter holds back."""
        if self._jitter is not None:
            self._write(self._jitter.flush())

    def _write(self, parts: Iterable[Columns]) -> None:
        for part in parts:
            events: dict[str, Any] = dict(part)
            if self._reader.subtracts and "took_ns" in part:
                events["at_ns"] = part["at_ns"] - np.maximum(part["took_ns"], 0)
            self._writer.add_events(**events)


def _take_names(writer: TraceWriter, found: Found, options: Options) -> None:
    """Add the routes and topics that the recording names, at most TEMPLATES_MAX routes in all.

    The user's routes take precedence.
    """
    own = options.routes.templates
    named = by_precision(found.templates)[: max(TEMPLATES_MAX - len(own), 0)]
    if named:
        rules = replace(options.routes, templates=(*own, *named))
        writer.use_rules(rules)
        writer.manifest.options |= rules.as_dict()
    if found.topics:
        writer.manifest.options["topics"] = found.topics


def _describe(writer: TraceWriter, found: Found, reader: Reader, inputs: list[_Input]) -> None:
    manifest, rejects = writer.manifest, found.rejects
    manifest.stamp, manifest.duration_subtracted = reader.stamp, reader.subtracts
    manifest.sources = [given.file.source() for given in inputs]
    manifest.lines = rejects.lines
    manifest.rejected = dict(rejects.counts.most_common())
    manifest.rejected_examples = rejects.examples
    manifest.secrets_dropped = found.secrets_dropped
    manifest.secrets_by_name = dict(sorted(found.secrets_by_name.items(), key=lambda item: -item[1]))
    manifest.time_zone, manifest.time_zone_changed = found.time_zone, found.time_zone_changed
    manifest.unknown_values = found.unknown_values
    manifest.lost = found.lost
    manifest.assumptions = [
        *about_time(found, manifest.options["time_zone"]),
        *about_queries(found),
        *about_bodies(found),
        *found.assumptions,
    ]


def import_files(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    jitter: bool = True,
    seed: int = 0,
    options: Options | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Trace:
    """Import recordings into the trace `out`.

    `paths` are files (rotated ones in any order, compressed ones), folders, patterns, or `-` for standard input.
    Files in a folder or matching a pattern that are not recordings are skipped (`Manifest.left_out`). `jitter`
    spreads coarse timestamps within their resolution, seeded by `seed`. A failed import leaves nothing behind.

    Raises UsageError if no path is given, or if an option is invalid or does not apply to the format. Raises InputError
    if a file cannot be read, is empty or has another format, or if there is no request. Raises OutputError if `out`
    exists (unless `overwrite`) or cannot be written.
    """
    options = options or Options()
    opened, left_out = _opened(paths, options, None if format is None else named_importer(format, options))
    files, chosen = [file for file, _ in opened], _shared(opened)
    if options.service and not chosen.takes_service:
        raise UsageError(
            f"--service does not work with {chosen.title}: it does not record which service received a request",
            hint=f"it is for {' and '.join(importers_that(lambda known: known.takes_service))}",
        )
    found = Found(key=b"".join(file.head for file in files))
    with TraceWriter(out, overwrite=overwrite, rules=options.routes, private=options.keep_secrets) as writer:
        reader = chosen.reader(found, options)
        resolution_ns, inputs = _inputs(files, reader)
        spread = jitter and resolution_ns >= SPREAD_FROM_NS
        work = _Import(writer, reader, resolution_ns, seed if spread else None)
        for given in inputs:
            judge = (
                FileJudge(found.rejects, given.file.name, chosen.name, chosen.title)
                if format is None
                else None
            )
            _import_file(given, inputs, work, reader, found, judge, progress)
        for rows in reader.rows_at_end() if isinstance(reader, EndsLate) else ():
            work.add(rows)
        work.end()
        if writer.manifest.rows == 0:
            why = "".join(f"; {each}" for each in found.assumptions)
            others = f" and {units.counted(len(inputs) - 1, 'other file')}" if len(inputs) > 1 else ""
            raise InputError(
                f"no request in {inputs[0].file.name}{others}{_all_rejected(found.rejects)}{why}"
            )
        manifest = writer.manifest
        manifest.importer, manifest.resolution_ns = chosen.name, resolution_ns
        manifest.jitter = JitterRecord(done=spread, seed=seed if spread else 0)
        manifest.options = {"format": format, "jitter": jitter, "seed": seed, **options.as_dict()}
        manifest.options["keep_secrets"] |= found.keeps_secrets
        _take_names(writer, found, options)
        manifest.left_out = left_out
        if found.changes:
            manifest.options["scrubbed"] = found.scrubbed()
        for rule in options.scrub.as_list():
            if rule not in found.rules_used:
                found.assume(f"--scrub {rule} matches no value of this recording")
        work.note_clients(found, chosen)
        _describe(writer, found, reader, inputs)
    assert writer.trace is not None
    return writer.trace


def _all_rejected(rejects: Rejects) -> str:
    """Return as text how many lines were rejected for which reasons; empty if there were no lines."""
    if not rejects.lines:
        return ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejects.counts.most_common())
    return f": {rejects.lines:,} {'line' if rejects.lines == 1 else 'lines'} rejected ({reasons})"


def _import_file(
    given: _Input,
    inputs: list[_Input],
    work: _Import,
    reader: Reader,
    found: Found,
    judge: FileJudge | None,
    progress: Progress | None,
) -> None:
    """Import one file.

    `inputs` are all files, whose sizes the progress needs.
    """
    total = sum(each.file.bytes_total for each in inputs)
    total = -1 if any(each.file.bytes_total < 0 for each in inputs) else total
    work.begin_file(given.first_ns)
    for rows in reader.read(given.file):
        work.add(rows)
        if judge is not None:
            judge.judge()
        if progress is not None:
            progress(sum(each.file.bytes_done for each in inputs), total, found.rejects.lines)
    _end_file(given.file, found, judge)


def _end_file(file: SourceFile, found: Found, judge: FileJudge | None) -> None:
    """Count damage as one rejected line, and judge the file as a whole."""
    if file.damaged:
        found.rejects.lines += 1
        found.rejects.add(
            file.damaged.partition(":")[0], file.name, found.rejects.lines, file.damaged.encode()
        )
    if judge is not None:
        judge.judge(at_end=True)


def open_trace(
    paths: Sequence[str | Path],
    imported: Path,
    *,
    format: str | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Trace:
    """Open the given trace folder, or import the given logs into `imported`, a path chosen by the caller.

    Raises the same errors as `Trace.open` and `import_files`.
    """
    first = Path(paths[0]) if paths else Path()
    missing_trace = not first.exists() and (first.suffix == ".trace" or half_trace(first) is not None)
    if len(paths) == 1 and (is_trace(first) or missing_trace or half_trace(first) == first):
        return Trace.open(first)
    return import_files(paths, imported, format=format, options=options, progress=progress)
