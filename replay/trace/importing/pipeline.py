"""Turns recordings into a trace: detect the format, order the files by time, read, spread timestamps, write."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

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

from .readers.guessed_columns import proposed_columns
from .readers.jitter import Columns, Jitter
from .readers.lines import SNIFFED_LINES
from .readers.recorded_responses import NOT_TEXT
from .registry import (
    EndsLate,
    Found,
    Importer,
    Options,
    Reader,
    Rows,
    importer_named,
    importers,
    importers_that,
)
from .rejects import FileJudge, Rejects
from .showing import showable
from .sources import SourceFile, expand
from .unreadable import refuse_line_ends, refuse_unreadable
from .wrappers import VAGUE, unwrap, wrappers_of

CLIENTS_FROM_ROWS, ONE_CLIENT_SHARE = 20, 0.8
"""A recording of at least this many requests, with at least this share from one client, was likely made behind a
proxy.
"""

LIKELY = 0.5
"""Minimum share of the first lines that must match a format for it to be chosen."""

SURE = 0.75
"""At this share of matching lines, no other format is tried."""

NEAR_LINES = 50
"""How many lines are examined first."""

WRAPPERS_MAX = 3
"""Maximum number of nested wrappers."""

SHOWN_CHARS = 120

SPREAD_FROM_NS = 1_000_000
"""Timestamps of this resolution or coarser are spread within it."""

Progress = Callable[[int, int, int], None]
"""Called with (bytes done, total bytes or -1, lines) after every block."""


def _first_line(head: bytes) -> str:
    line = next((line for line in head.split(b"\n") if line.strip()), b"")
    return showable(line.strip(), SHOWN_CHARS, as_it_begins=True)


def _is_binary(head: bytes) -> bool:
    """Whether the head has a NUL, or control characters make up more than a twentieth of it."""
    controls = sum(byte < 9 or 13 < byte < 27 for byte in head[:4096])
    return 0 in head or controls * 20 > min(len(head), 4096)


def _kind_of_table(head: bytes) -> str:
    """The only formats possible for a file with named columns: their reader reports which column is missing."""
    first = head.lstrip().partition(b"\n")[0]
    if first.startswith(b"{"):
        return "jsonl"
    return "tsv" if b"\t" in first else "csv"


def _looked_at(head: bytes) -> Iterator[bytes]:
    """The first lines of a head, the whole head, and its second half: startup messages must not hide a good log."""
    at = -1
    for _ in range(NEAR_LINES):
        at = head.find(b"\n", at + 1)
        if at < 0:
            break
    if at >= 0:
        yield head[: at + 1]
    yield head
    if head.count(b"\n") > SNIFFED_LINES:
        yield head[head.find(b"\n", len(head) // 2) + 1 :]


def _scores(head: bytes, options: Options, known: Mapping[str, Importer]) -> dict[str, tuple[float, int]]:
    """The score of a head for each format, with the ranks that break ties."""
    return {
        name: (candidate.sniff(head, options), candidate.rank)
        for name, candidate in known.items()
        if candidate.takes_log_format or not options.log_format
    }


def _best(head: bytes, options: Options, known: Mapping[str, Importer]) -> tuple[float, int, str]:
    """The best matching format and its score; a score below LIKELY means that it is only the nearest."""
    best = (0.0, 0, "")
    for part in _looked_at(head):
        scores = _scores(part, options, known)
        name = max(scores, key=lambda name: scores[name], default="")
        best = max(best, (*scores[name], name)) if name else best
        if best[0] >= SURE:
            break
    return best


def _unwrap(file: SourceFile, options: Options, known: Mapping[str, Importer]) -> tuple[float, int, str]:
    """As `_best`, with a wrapper removed if the remaining lines match a format better."""
    best, chosen = _best(file.head, options, known), ""
    vague = bool(options.log_format) or len(known) == 1
    left = [("", file.whole_lines())]
    for _ in range(WRAPPERS_MAX):
        if best[0] >= SURE:
            break
        inner = [
            (f"{chain}+{name}".strip("+"), unwrap(name, head))
            for chain, head in left
            for name in wrappers_of(head)
            if not (vague and name in VAGUE)
        ]
        for chain, head in inner:
            found = _best(head, options, known)
            if found[0] > best[0]:
                best, chosen = found, chain
        left = inner
    if chosen and (best[0] >= LIKELY or len(known) == 1):
        file.take_off(chosen)
    return best


def tell_format(
    file: SourceFile, options: Options | None = None, *, named: Importer | None = None
) -> Importer:
    """The importer that fits the head of a file best (or `named`, the user's choice), with wrappers removed.

    InputError if none fits.
    """
    options = options or Options()
    refuse_line_ends(file.name, file.head)
    known = importers() if named is None else {named.name: named}
    share, _, nearest = _unwrap(file, options, known)
    if named is not None:
        return named
    if share >= LIKELY:
        return known[nearest]
    refuse_unreadable(file.name, file.head)
    if options.columns and _is_text(file.head):
        return known[_kind_of_table(file.head)]
    raise_unknown(file, options, known, share, nearest)


def raise_unknown(
    file: SourceFile, options: Options, known: Mapping[str, Importer], share: float, nearest: str
) -> NoReturn:
    """InputError that describes a file of no known format."""
    if _is_binary(file.head):
        raise InputError(f"{file.name} is a binary file, not a log")
    if not file.head.strip():
        raise InputError(f"{file.name} has nothing but blank lines")
    begins = f"it begins with: {_first_line(file.head)}"
    if options.log_format:
        raise InputError(
            f"{file.name} is not of this --log-format; {begins}",
            hint="nginx's log_format, with $variables, or Apache's LogFormat, with %directives, as it stands there",
        )
    near = ""
    if share > 0 and nearest:
        near = f"; nearest is {nearest}, which {units.format_share(share)} of the first lines are"
    columns = proposed_columns(file.head)
    if columns:
        raise InputError(
            f"{file.name} is JSON Lines, but its keys are not known{near}; {begins}",
            hint=f"check and try --columns {shlex.quote(columns)}",
        )
    takes = f"--format {nearest}" if near else "--format"
    raise InputError(
        f"{file.name} is not a log of a known format{near}; {begins}",
        hint="for a log_format of your own --log-format '...', for a table --columns at=COLUMN,path=COLUMN;"
        f" {takes} takes it all the same{'' if near else ' as one of ' + ', '.join(sorted(known))}",
    )


def _is_text(head: bytes) -> bool:
    """Whether a head consists of lines of text."""
    return not _is_binary(head) and bool(head.strip())


def detect(path: str | Path) -> Importer:
    """The importer of a file. InputError if the file is not a known kind of recording."""
    return tell_format(SourceFile(str(path)))


@dataclass(frozen=True, slots=True)
class _Input:
    """A file to import, with its first timestamp."""

    file: SourceFile
    first_ns: int | None


def _opened(
    paths: Sequence[str | Path], options: Options, told: Importer | None
) -> tuple[list[tuple[SourceFile, Importer]], list[LeftOut]]:
    """Detect the formats of the files (`told`: the format the user gave). Files found in folders or by patterns may
    be skipped, with the reason.
    """
    named = {str(path) for path in paths}
    opened: list[tuple[SourceFile, Importer]] = []
    left_out: list[LeftOut] = []
    refused: InputError | None = None
    for name in expand(paths):
        try:
            file = SourceFile(name)
            opened.append((file, tell_format(file, options, named=told)))
        except InputError as error:
            if name in named:
                raise
            refused = refused or error
            left_out.append(LeftOut(name=units.name_text(name), why=units.name_text(str(error))))
    if refused is not None and not opened:
        raise refused
    return opened, left_out


def named_importer(format_name: str, options: Options) -> Importer:
    """The format that the user gave, if the other options apply to it."""
    chosen = importer_named(format_name)
    if options.columns and not chosen.takes_columns:
        raise UsageError(
            f"--columns is not for --format {chosen.name}, which defines its own columns",
            hint=f"it is for {', '.join(importers_that(lambda known: known.takes_columns))}",
        )
    if options.log_format and not chosen.takes_log_format:
        raise UsageError(
            f"--log-format is not for --format {chosen.name}",
            hint=f"it is for {' and '.join(importers_that(lambda known: known.takes_log_format))}",
        )
    return chosen


def _shared(opened: list[tuple[SourceFile, Importer]]) -> Importer:
    """The format that all files share."""
    first, chosen = opened[0]
    for file, other in opened:
        if other.name != chosen.name:
            raise InputError(
                f"{first.name} is {chosen.title}, but {file.name} is {other.title}",
                hint="import them one by one, or say --format",
            )
    return chosen


def _inputs(files: list[SourceFile], reader: Reader) -> tuple[int, list[_Input]]:
    """The finest resolution of the files, and the files ordered by first timestamp."""
    probes = [reader.probe(file.head) for file in files]
    inputs = [_Input(file, probe.first_ns) for file, probe in zip(files, probes, strict=True)]
    resolution_ns = min((probe.resolution_ns for probe in probes if probe.first_ns is not None), default=1)
    return resolution_ns, sorted(inputs, key=lambda given: (given.first_ns is None, given.first_ns or 0))


class _Import:
    """One import: passes rows from a reader to a writer."""

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
        """Convert indexes into the values of these rows (-1: none) to the writer's."""
        if column is None:
            return None
        return np.array([*(number(value) for value in values), -1], dtype=np.int64)[column]

    def begin_file(self, first_ns: int | None) -> None:
        """Begin a file. If it overlaps the previous one, its timestamps are spread separately: both were written at
        once.
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
        """Whether a file continues where the previous one (`before_ns` to `latest_ns`) ended."""
        return first_ns > latest_ns or (first_ns == latest_ns and before_ns != latest_ns)

    def add(self, rows: Rows) -> None:
        """Write rows of the current file."""
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
        """Add response columns. Once any rows had them, all later rows do: the jitter mixes rows of several blocks."""
        self._wide = self._wide or rows.response is not None or rows.first_byte_ns is not None
        if not self._wide:
            return
        response = self._numbered(rows.response, rows.responses, self._writer.add_response)
        for name, column in (("response", response), ("first_byte_ns", rows.first_byte_ns)):
            columns[name] = np.full(len(rows.at_ns), -1, np.int64) if column is None else column

    def _numbered_clients(self, hashes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """Client ids of rows. If one client has most of the first requests, its requests are counted."""
        numbers = self._clients.number(hashes)
        if self._rows == 0 and len(numbers):
            self._frequent = int(np.partition(numbers, len(numbers) // 2)[len(numbers) // 2])
        self._rows += len(numbers)
        self._frequent_rows += int(np.count_nonzero(numbers == self._frequent))
        self._unnamed_rows += len(hashes) - int(np.count_nonzero(hashes))
        return numbers

    def note_clients(self, found: Found, importer: Importer) -> None:
        """Report if most requests come from one client, or name none."""
        if self._rows < CLIENTS_FROM_ROWS or not importer.names_clients:
            return
        if self._unnamed_rows >= ONE_CLIENT_SHARE * self._rows:
            found.assume(
                f"{units.format_share(self._unnamed_rows / self._rows)} of the requests name no client"
            )
        elif self._frequent_rows >= ONE_CLIENT_SHARE * self._rows:
            share = units.format_share(self._frequent_rows / self._rows)
            found.assume(
                f"one client has {share} of the requests: is it a proxy, and does the log have X-Forwarded-For?"
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


def _about_time(found: Found, time_zone: str) -> list[str]:
    """The assumptions made about timestamps without a zone."""
    zoneless, repeated, skipped = (found.moments.get(name, 0) for name in ("zoneless", "repeated", "skipped"))
    said = []
    if zoneless:
        taken = f"taken as {time_zone}" if time_zone else "taken as UTC (--tz ZONE)"
        said.append(f"stamps of {units.counted(zoneless, 'request')} name no zone: {taken}")
    if repeated:
        said.append(
            f"{units.counted(repeated, 'request')} in the repeated hour of autumn: in the second one from where the log's"
            " time goes back"
        )
    if skipped:
        said.append(
            f"{units.counted(skipped, 'request')} in an hour that the clocks of {time_zone} skipped: is that the log's zone?"
        )
    return said


def _about_queries(found: Found) -> list[str]:
    """Report that a server omitted queries from its log."""
    if not found.queries_cut:
        return []
    return [
        f"the log has no query of {units.counted(found.queries_cut, 'request')} that had one: they are replayed without"
        " (Squid logs queries with `strip_query_terms off`)"
    ]


def _about_bodies(found: Found) -> list[str]:
    """Report which response bodies were not kept."""
    return [
        f"bodies of {units.counted(count, 'response')} {why}: their sizes and digests are kept, not the bodies"
        + (" (--responses all)" if why == NOT_TEXT else "")
        for why, count in found.bodies_left.items()
    ]


def _take_names(writer: TraceWriter, found: Found, options: Options) -> None:
    """Add the routes and topics that the recording names; the user's routes take precedence."""
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
        *_about_time(found, manifest.options["time_zone"]),
        *_about_queries(found),
        *_about_bodies(found),
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
    """Import recordings (rotated files in any order, compressed, folders, `-` for standard input) into the trace
    `out`.

    Files in a folder or matching a pattern that are not recordings are skipped (`Manifest.left_out`). `jitter`
    spreads coarse timestamps within their resolution, seeded by `seed`. InputError if a file cannot be read, is empty
    or has another format; OutputError if `out` exists (unless `overwrite`) or cannot be written. A failed import
    leaves nothing behind.
    """
    options = options or Options()
    opened, left_out = _opened(paths, options, None if format is None else named_importer(format, options))
    files, chosen = [file for file, _ in opened], _shared(opened)
    if options.service and not chosen.takes_service:
        raise UsageError(
            f"--service is not for {chosen.title}: it does not say which service a request is of",
            hint=f"it is for {' and '.join(importers_that(lambda known: known.takes_service))}",
        )
    found = Found(key=b"".join(file.head for file in files))
    with TraceWriter(out, overwrite=overwrite, rules=options.routes, private=options.keep_secrets) as writer:
        reader = chosen.reader(found, options)
        resolution_ns, inputs = _inputs(files, reader)
        spread = jitter and resolution_ns >= SPREAD_FROM_NS
        work = _Import(writer, reader, resolution_ns, seed if spread else None)
        for given in inputs:
            judge = FileJudge(found.rejects, given.file.name, chosen.title) if format is None else None
            _import_file(given, inputs, work, reader, found, judge, progress)
        for rows in reader.rows_at_end() if isinstance(reader, EndsLate) else ():
            work.add(rows)
        work.end()
        if writer.manifest.rows == 0:
            why = "".join(f"; {each}" for each in found.assumptions)
            raise InputError(f"no request in {inputs[0].file.name}{_all_rejected(found.rejects)}{why}")
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
                found.assume(f"--scrub {rule} names no value of this recording")
        work.note_clients(found, chosen)
        _describe(writer, found, reader, inputs)
    assert writer.trace is not None
    return writer.trace


def _all_rejected(rejects: Rejects) -> str:
    """Explain why a recording gave no requests."""
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
    """Import one file; `inputs` are all files, for the progress."""
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

    Errors as in `Trace.open` and `import_files`.
    """
    first = Path(paths[0]) if paths else Path()
    missing_trace = not first.exists() and (first.suffix == ".trace" or half_trace(first) is not None)
    if len(paths) == 1 and (is_trace(first) or missing_trace or half_trace(first) == first):
        return Trace.open(first)
    return import_files(paths, imported, format=format, options=options, progress=progress)
