"""Exports a trace to Parquet, CSV, TSV, GoReplay, HAR, vegeta targets or log lines, chosen by the file ending."""

from __future__ import annotations

import base64
import datetime as dt
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from replay import units
from replay.errors import OutputError, UsageError, reason_of
from replay.files import replacing
from replay.shown import csv_cell
from replay.trace import Batch, Trace
from replay.trace.arrow import RequestColumns, printable
from replay.trace.extensions import Extensions
from replay.trace.writer import is_private

from .gor import write_gor
from .har import write_har
from .rows import NO_HOST, Progress, body_of, counted, headers_of, host_of, rows

TABLE_SCHEMA = pa.schema(
    [
        ("at_ns", pa.int64()), ("method", pa.string()), ("path", pa.large_string()), ("host", pa.string()),
        ("route", pa.string()), ("client", pa.uint32()), ("status", pa.int16()), ("took_ns", pa.int64()),
        ("bytes", pa.int64()),
    ]
)  # fmt: skip
"""The columns of an exported table. An import accepts the same columns. -1 is unknown."""

_IN_QUOTES = re.compile(rb'["\\]')


class _Lookup:
    """The dictionary of requests as columns of names, indexed by id."""

    def __init__(self, trace: Trace) -> None:
        requests = trace.requests
        self._columns = RequestColumns(requests)
        self._names = {
            "method": pa.array(requests.methods, pa.string()),
            "host": pa.array([*requests.hosts, ""], pa.string()),
            "route": pa.array(requests.routes, pa.string()),
        }
        self._safe_names = {
            name: pa.array([csv_cell(cell) for cell in cells.to_pylist()], pa.string())
            for name, cells in self._names.items()
        }

    def table(self, batch: Batch, *, safe: bool = False) -> pa.Table:
        """Return a batch of events with loaded requests as a table with names instead of ids.

        With `safe`, names are escaped so that a spreadsheet takes none of them for a formula.
        """
        ids = batch.request
        named = {}
        for name, names in (self._safe_names if safe else self._names).items():
            indexes = self._columns.indexes(name, ids)
            if name == "host":
                indexes = pc.if_else(pc.less(indexes, 0), len(names) - 1, indexes)
            named[name] = names.take(indexes)
        paths = self._safe_text(ids) if safe else self._columns.targets(ids)
        columns = [batch.at_ns, named["method"], paths, named["host"], named["route"], batch.client]
        columns += [batch.status, batch.took_ns, batch.bytes]
        return pa.table(
            [pa.chunked_array([c if isinstance(c, pa.Array) else pa.array(c)]) for c in columns],
            schema=TABLE_SCHEMA,
        )

    def _safe_text(self, ids: npt.NDArray[np.uint32]) -> pa.Array:
        """Return the targets of requests as cells that no spreadsheet takes for formulas.

        A target that begins with a slash cannot be a formula; if there are others, all targets are escaped as
        needed.
        """
        texts = self._columns.targets(ids)
        odd = pc.invert(pc.starts_with(texts, "/"))
        if not pc.any(odd).as_py():
            return texts
        return pa.array([csv_cell(text) for text in texts.to_pylist()], pa.large_string())


def _to_parquet(trace: Trace, file: IO[bytes], progress: Progress) -> None:
    lookup = _Lookup(trace)
    with pq.ParquetWriter(file, TABLE_SCHEMA, compression="zstd") as writer:
        for batch in counted(trace, progress):
            writer.write_table(lookup.table(batch))


def _to_csv(delimiter: str) -> Callable[[Trace, IO[bytes], Progress], None]:
    def write(trace: Trace, file: IO[bytes], progress: Progress) -> None:
        lookup = _Lookup(trace)
        options = csv.WriteOptions(delimiter=delimiter)
        with csv.CSVWriter(file, TABLE_SCHEMA, write_options=options) as writer:
            for batch in counted(trace, progress):
                writer.write_table(lookup.table(batch, safe=True))

    return write


def _to_vegeta(trace: Trace, file: IO[bytes], progress: Progress) -> None:
    methods = trace.requests.methods
    encoder = msgspec.json.Encoder()
    for row in rows(trace, progress):
        request = row.request
        url = f"http://{host_of(trace, request) or NO_HOST}{printable(request.target).decode()}"
        target: dict[str, Any] = {"method": methods[request.method], "url": url}
        body = body_of(trace, request)
        if body:
            target["body"] = base64.b64encode(body).decode()
        header: dict[str, list[str]] = {}
        for name, value in headers_of(trace, request):
            header.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        if header:
            target["header"] = header
        file.write(encoder.encode(target) + b"\n")


def _to_log(trace: Trace, file: IO[bytes], progress: Progress) -> None:
    methods = trace.requests.methods
    zone = units.parse_zone(trace.manifest.time_zone or "UTC")
    second, stamp = -1, b""
    for at_ns, request, client, status, _, size, *_ in rows(trace, progress):
        if at_ns // units.SECOND_NS != second:
            second = at_ns // units.SECOND_NS
            moment = dt.datetime.fromtimestamp(second, zone)
            stamp = f"{moment.day:02d}/{_MONTHS[moment.month - 1]}/{moment:%Y:%H:%M:%S %z}".encode()
        target = _IN_QUOTES.sub(lambda m: b"\\x%02X" % m[0][0], printable(request.target))
        host = host_of(trace, request).encode()
        target = b"http://" + host + target if host else target
        file.write(
            b'client-%d - - [%s] "%s %s HTTP/1.1" %s %s "-" "-"\n'
            % (
                client, stamp, methods[request.method].encode(), target,
                b"%d" % status if status >= 0 else b"-", b"%d" % size if size >= 0 else b"-",
            )
        )  # fmt: skip


_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@dataclass(frozen=True, slots=True)
class Exporter:
    """One export format.

    `name` is the file ending without the dot. `write(trace, file, progress)` writes a trace to an open file.
    """

    name: str
    title: str
    write: Callable[[Trace, IO[bytes], Progress], None]


_BROUGHT = Extensions("replay.exporters", "exporter", Exporter)

_BUILT_IN = (
    Exporter("parquet", "Parquet", _to_parquet),
    Exporter("csv", "CSV", _to_csv(",")),
    Exporter("tsv", "TSV", _to_csv("\t")),
    Exporter("gor", "GoReplay", write_gor),
    Exporter("har", "HAR", write_har),
    Exporter("json", "vegeta targets", _to_vegeta),
    Exporter("jsonl", "vegeta targets", _to_vegeta),
    Exporter("log", "combined log lines", _to_log),
)
ENDINGS = {f".{exporter.name}": exporter for exporter in _BUILT_IN}
"""The built-in export formats, by file ending."""


def endings() -> list[str]:
    """Return all supported file endings, without loading the exporters of installed packages."""
    return [*ENDINGS, *(f".{name}" for name in _BROUGHT.names() if f".{name}" not in ENDINGS)]


def exporter_of(out: Path) -> Exporter:
    """Return the exporter for a file name.

    Raises UsageError if no format has the file's ending, or if a package's exporter cannot be used.
    """
    name = out.suffix.removeprefix(".")
    if name in _BROUGHT.names():
        brought: Exporter = _BROUGHT.get(name, is_taken=out.suffix in ENDINGS)
        return brought
    if out.suffix in ENDINGS:
        return ENDINGS[out.suffix]
    titles = {ending: exporter.title for ending, exporter in ENDINGS.items()}
    known = ", ".join(f"{ending} ({titles.get(ending, 'of a package')})" for ending in endings())
    raise UsageError(f"{out.name} does not end in the name of a format", hint=f"end it in one of {known}")


def export(
    trace: Trace, out: str | Path, *, overwrite: bool = False, progress: Progress | None = None
) -> Path:
    """Write a trace to the file `out`, atomically, in the format of the file's ending.

    If the trace has bodies or secrets, only this user can read the file. Raises UsageError for an unknown ending;
    OutputError if `out` exists (unless it is a file and `overwrite` is set) or cannot be written; and InputError if the
    trace is damaged.
    """
    out = Path(out)
    exporter = exporter_of(out)
    if os.path.lexists(out) and (not overwrite or not out.is_file()):
        if not out.is_file():
            raise OutputError(f"{out} exists and is not a file", hint="give another -o")
        raise OutputError(f"{out} exists", hint="give another -o, or --force to replace it")
    try:
        with replacing(out) as file:
            if is_private(trace.manifest):
                os.fchmod(file.fileno(), 0o600)
            exporter.write(trace, file, progress or (lambda done, total: None))
    except (OSError, pa.ArrowException) as error:
        raise OutputError(f"cannot write {out}: {reason_of(error)}") from error
    return out
