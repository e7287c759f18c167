"""From recordings to a trace: tell the format, order the files by time, read, spread, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import InputError, UsageError
from ..trace import Jitter as JitterRecord
from ..trace import Trace, TraceWriter, half_trace
from ..trace.dictionary import ClientTable
from .jitter import Columns, Jitter
from .registry import Found, Importer, Reader, Rows, importer_named, importers
from .rejects import FileJudge
from .secrets import showable
from .sources import SourceFile

LIKELY = 0.5
"""A format is taken for a file's where at least this share of its first lines is of it."""

SHOWN_CHARS = 80

Progress = Callable[[int, int, int], None]
"""Called with (bytes done, bytes in all or -1, lines) after every block."""


def _first_line(head: bytes) -> str:
    line = next((line for line in head.split(b"\n") if line.strip()), b"")
    return showable(line.strip(), SHOWN_CHARS)


def _is_binary(head: bytes) -> bool:
    """Whether the head has a NUL, or more than a twentieth of it are controls that no text has."""
    controls = sum(byte < 9 or 13 < byte < 27 for byte in head[:4096])
    return 0 in head or controls * 20 > min(len(head), 4096)


def tell_format(file: SourceFile) -> Importer:
    """The importer that the head of a file looks most like. InputError where it looks like none."""
    scores = {name: candidate.sniff(file.head) for name, candidate in importers().items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] >= LIKELY:
        return importers()[best]
    known = "; ".join(f"{name}: {candidate.title}" for name, candidate in sorted(importers().items()))
    if _is_binary(file.head):
        raise InputError(f"{file.name} is a binary file, not a log", hint=f"formats: {known}")
    if not file.head.strip():
        raise InputError(f"{file.name} has nothing but blank lines")
    raise InputError(
        f"{file.name} is not a log of a known format; it begins with: {_first_line(file.head)}",
        hint=f"formats: {known}; --format NAME takes it as one",
    )


def detect(path: str | Path) -> Importer:
    """The importer of a file. InputError where the file is not a recording that replay knows."""
    return tell_format(SourceFile(str(path)))


@dataclass(frozen=True, slots=True)
class _Input:
    """A file to import, its first stamp, and its place on the command line."""

    file: SourceFile
    first_ns: int | None


def _inputs(paths: Sequence[str | Path], format_name: str | None) -> tuple[Importer, list[_Input]]:
    """The files in the order of their first stamps, and the one format that they share."""
    if not paths:
        raise UsageError("no log given")
    files = [SourceFile(str(path)) for path in paths]
    if format_name is not None:
        chosen = importer_named(format_name)
    else:
        told = [tell_format(file) for file in files]
        chosen = told[0]
        for file, other in zip(files, told, strict=True):
            if other.name != chosen.name:
                raise InputError(
                    f"{files[0].name} is {chosen.title}, but {file.name} is {other.title}",
                    hint="import them one by one, or say --format",
                )
    inputs = [_Input(file, chosen.first_ns(file.head)) for file in files]
    return chosen, sorted(inputs, key=lambda given: (given.first_ns is None, given.first_ns or 0))


class _Import:
    """One import: carries rows from a reader to a writer."""

    def __init__(self, writer: TraceWriter, reader: Reader, resolution_ns: int, seed: int | None) -> None:
        self._writer, self._reader = writer, reader
        self._resolution_ns, self._seed = resolution_ns, seed
        self._clients = ClientTable()
        self._methods: list[int] = []
        self._hosts: list[int] = []
        self._streams = 0
        self._jitter: Jitter | None = None
        self._first_ns: int | None = None

    @staticmethod
    def _mapped(
        known: list[int], names: list[str], number: Callable[[str], int], column: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """A column of the reader's indexes (-1: none) as the writer's."""
        known.extend(number(name) if name else -1 for name in names[len(known) :])
        return np.array([*known, -1], dtype=np.int64)[column]

    def begin_file(self, first_ns: int | None) -> None:
        """A file that begins before the one before it ended is spread on its own: they were written side by
        side.
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
        """Whether a file goes on where the one before it (from `before_ns` to `latest_ns`) ended."""
        return first_ns > latest_ns or (first_ns == latest_ns and before_ns != latest_ns)

    def add(self, rows: Rows) -> None:
        """Take rows of the file begun."""
        writer, reader = self._writer, self._reader
        columns: Columns = {
            "at_ns": rows.at_ns,
            "request": writer.add_requests(
                rows.data,
                rows.offsets,
                self._mapped(self._methods, reader.methods, writer.method_id, rows.method),
                self._mapped(self._hosts, reader.hosts, writer.host_id, rows.host),
            ),
            "client": self._clients.number(rows.client_hash),
            "status": rows.status.astype(np.int16),
            "bytes": rows.bytes.astype(np.int64),
        }
        if rows.took_ns is not None:
            columns["took_ns"] = rows.took_ns.astype(np.int64)
        self._write([columns] if self._jitter is None else self._jitter.add(columns))

    def end(self) -> None:
        """Write what the jitter holds."""
        if self._jitter is not None:
            self._write(self._jitter.flush())

    def _write(self, parts: Iterable[Columns]) -> None:
        for part in parts:
            self._writer.add_events(**part)


def _describe(writer: TraceWriter, chosen: Importer, found: Found, inputs: list[_Input]) -> None:
    manifest, rejects = writer.manifest, found.rejects
    manifest.importer, manifest.stamp, manifest.resolution_ns = (
        chosen.name,
        chosen.stamp,
        chosen.resolution_ns,
    )
    manifest.sources = [given.file.source() for given in inputs]
    manifest.lines = rejects.lines
    manifest.rejected = dict(rejects.counts.most_common())
    manifest.rejected_examples = rejects.examples
    manifest.secrets_dropped = found.secrets_dropped
    manifest.time_zone, manifest.time_zone_changed = found.time_zone, found.time_zone_changed


def import_files(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    format: str | None = None,
    jitter: bool = True,
    seed: int = 0,
    keep_secrets: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Trace:
    """Import recordings (rotated files in any order, gzip, `-` for standard input) into the trace `out`.

    `jitter` spreads coarse stamps inside their resolution, by `seed`. `keep_secrets` keeps parameters that
    look like secrets. InputError where a file cannot be read, is empty or of another format; OutputError
    where `out` exists (unless `overwrite`) or cannot be written. Nothing is left of an import that fails.
    """
    chosen, inputs = _inputs(paths, format)
    found = Found()
    total = sum(given.file.bytes_total for given in inputs)
    total = -1 if any(given.file.bytes_total < 0 for given in inputs) else total
    with TraceWriter(out, overwrite=overwrite) as writer:
        reader = chosen.reader(found, keep_secrets)
        spread = jitter and chosen.resolution_ns > 1
        work = _Import(writer, reader, chosen.resolution_ns, seed if spread else None)
        done = 0
        for given in inputs:
            judge = FileJudge(found.rejects, given.file.name, chosen.title)
            work.begin_file(given.first_ns)
            for rows in reader.read(given.file):
                work.add(rows)
                if format is None:
                    judge.judge()
                if progress is not None:
                    progress(done + given.file.bytes_done, total, found.rejects.lines)
            done += given.file.bytes_done
            _end_file(given.file, found, judge if format is None else None)
        work.end()
        if writer.manifest.rows == 0:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in found.rejects.counts.most_common())
            raise InputError(
                f"no request in {inputs[0].file.name}: {found.rejects.lines:,} lines rejected ({reasons})"
            )
        writer.manifest.jitter = JitterRecord(done=spread, seed=seed if spread else 0)
        writer.manifest.options = {
            "format": format,
            "jitter": jitter,
            "seed": seed,
            "keep_secrets": keep_secrets,
        }
        _describe(writer, chosen, found, inputs)
    assert writer.trace is not None
    return writer.trace


def _end_file(file: SourceFile, found: Found, judge: FileJudge | None) -> None:
    """Count damage as one rejected line, and judge the file as a whole."""
    if file.damaged:
        found.rejects.lines += 1
        found.rejects.add(
            file.damaged.partition(":")[0], file.name, found.rejects.lines, file.damaged.encode()
        )
    if judge is not None:
        judge.judge(at_end=True)


def open_trace(paths: Sequence[str | Path], imported: Path, *, progress: Progress | None = None) -> Trace:
    """The trace folder given, or the logs given imported into the trace `imported` (a place of the caller's).

    Errors as `Trace.open` and `import_files` say.
    """
    first = Path(paths[0]) if paths else Path()
    missing_trace = not first.exists() and (first.suffix == ".trace" or half_trace(first) is not None)
    if len(paths) == 1 and (first.is_dir() or missing_trace):
        return Trace.open(first)
    return import_files(paths, imported, progress=progress)
