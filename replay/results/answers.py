"""The responses that a run kept: `answers/` in the run folder, one row per response, in Arrow files.

Each file is an Arrow IPC stream of compressed batches. The files of a killed run can therefore be read up to their
last complete batch, and a reader that needs only digests decompresses no bodies. docs/run-format.md describes the
columns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from replay.errors import InputError, OutputError, reason_of

FOLDER = "answers"

REDACTED = "REDACTED"
"""Replaces secrets in bodies and headers (`replay.trace.importing.secrets`)."""

FORMS = ("none", "json", "text", "html", "binary", "unreadable")
"""How a body was interpreted; the column `form` holds the index. `none`: the response had no body. `unreadable`: the
content coding of the body could not be decoded, or the body was not examined."""

BATCH_ROWS_MAX = 1 << 16
BATCH_BODY_BYTES_MAX = 32 << 20
FILE_BYTES_MAX = 64 << 20
"""Limits: rows of a batch, bytes of bodies in a batch, and bytes of a file, after which the next file begins. A single
body larger than the limit makes a batch of its own."""

_NAME = pa.dictionary(pa.int32(), pa.utf8())
_HEADER = pa.struct([pa.field("name", pa.utf8(), False), pa.field("value", pa.binary(), False)])

SCHEMA = pa.schema(
    [
        pa.field("number", pa.uint64(), False),
        pa.field("copy", pa.uint32(), False),
        pa.field("client", pa.uint32(), False),
        pa.field("route", pa.uint32(), False),
        pa.field("due_ns", pa.int64(), False),
        pa.field("status", pa.int16(), False),
        pa.field("type", _NAME, False),
        pa.field("encoding", _NAME, False),
        pa.field("length", pa.int64(), False),
        pa.field("form", pa.uint8(), False),
        pa.field("digest", pa.uint64(), False),
        pa.field("headers", pa.list_(pa.field("item", _HEADER, False)), False),
        pa.field("body", pa.binary()),
        pa.field("cut", pa.bool_(), False),
    ]
)
"""One row per response.

`number` is the row of the event in the trace. `copy` distinguishes several requests for the same event, which scaling,
further passes and further targets make (0 is the event itself). `route` is the index in `answers.routes` of run.json.
`type` is the media type in lower case without parameters, and `encoding` the content coding as sent. `length` counts
the bytes of the body as received. `digest` is 0 if it is unknown. For JSON it does not depend on white space and key
order; for other bodies it is XXH64 of the decoded body. `headers` are those that the scenario selects. `body` is
decoded, and null if it was not kept. `cut`: `body` is only the beginning.
"""

DEFAULTS: dict[str, Any] = {"copy": 0, "type": "", "encoding": "identity", "cut": False, "digest": 0}
"""Values of columns that a writer may leave out. `headers` and `body` may be left out, too: none are kept then."""

_FILE = re.compile(rf"{FOLDER}-\d{{6,}}\.arrow")


def answers_file(index: int) -> str:
    """Return the name of file number `index`, from 0."""
    return f"{FOLDER}-{index:06d}.arrow"


class AnswersWriter:
    """Writes the kept responses of a run, in the order in which they arrive.

    `rows` and `bytes_written` are the number of rows and bytes written so far.
    """

    def __init__(self, run: str | os.PathLike[str]) -> None:
        """Create the folder for responses in the run folder `run`.

        Raise OutputError if it exists already or cannot be created.
        """
        self._folder = Path(run) / FOLDER
        self._sink: pa.OSFile | None = None
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None
        self._files = 0
        self._finished_bytes = 0
        self.rows = 0
        try:
            self._folder.mkdir()
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be made: {reason_of(error)}") from None

    @property
    def bytes_written(self) -> int:
        """The number of bytes in all files so far."""
        return self._finished_bytes + (self._sink.tell() if self._sink is not None else 0)

    def write(self, columns: Mapping[str, Any]) -> None:
        """Append rows, given as columns of equal length by name.

        A column is a NumPy array, an Arrow array or a list. A header is a pair (name, value). Raise OutputError if
        writing fails, and ValueError or TypeError if a column is missing, unknown or of the wrong type.
        """
        batch = batch_of(columns)
        for begin, end in _parts(batch):
            self._write(batch.slice(begin, end - begin))

    def _write(self, batch: pa.RecordBatch) -> None:
        try:
            if self._stream is None or (self._sink is not None and self._sink.tell() >= FILE_BYTES_MAX):
                self.close()
                self._open()
            assert self._stream is not None
            self._stream.write_batch(batch)
        except OSError as error:
            raise OutputError(
                f"{self._folder} cannot be written: {reason_of(error)}",
                hint="if the disk is full, free some space or keep less",
            ) from error
        self.rows += batch.num_rows

    def _open(self) -> None:
        path = self._folder / answers_file(self._files)
        self._sink = pa.OSFile(os.fspath(path), "wb")
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._stream = pa.ipc.new_stream(self._sink, SCHEMA, options=options)
        self._files += 1

    def close(self) -> None:
        """Finish the current file. A second call has no effect. Raise OutputError if the file cannot be finished."""
        stream, sink = self._stream, self._sink
        self._stream = self._sink = None
        if stream is None or sink is None:
            return
        try:
            stream.close()
            self._finished_bytes += sink.tell()
        except OSError as error:
            raise OutputError(f"{self._folder} cannot be written: {reason_of(error)}") from error
        finally:
            sink.close()


def batch_of(columns: Mapping[str, Any]) -> pa.RecordBatch:
    """Return columns as a batch of SCHEMA, with DEFAULTS for columns that are left out.

    Raise ValueError or TypeError if a column is missing, unknown or of the wrong type.
    """
    if unknown := columns.keys() - set(SCHEMA.names):
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    if "number" not in columns:
        raise ValueError("rows without numbers cannot be paired")
    rows = len(columns["number"])
    arrays = [_array(field, columns.get(field.name), rows) for field in SCHEMA]
    return pa.record_batch(arrays, schema=SCHEMA)


def _array(field: pa.Field, values: Any, rows: int) -> pa.Array:
    name, kind = field.name, field.type
    if values is None:
        if name == "body":
            return pa.nulls(rows, kind)
        if name == "headers":
            values = [[]] * rows
        elif name not in DEFAULTS:
            raise ValueError(f"column {name} is missing")
        else:
            values = [DEFAULTS[name]] * rows
    if kind == _NAME and not isinstance(values, pa.Array):
        values = pa.array(values, pa.utf8()).dictionary_encode()
    array = values if isinstance(values, pa.Array) else pa.array(values, kind)
    array = array if array.type == kind else array.cast(kind)
    if array.null_count and not field.nullable:
        raise ValueError(f"column {name} has rows without a value")
    return array


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[int, int]]:
    """Yield the ranges of rows into which a batch is split so that each respects the limits on rows and bytes."""
    lengths = pc.fill_null(pc.binary_length(batch["body"]), 0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(lengths, dtype=np.int64)
    begin, written = 0, 0
    while begin < batch.num_rows:
        fit = int(np.searchsorted(ends, written + BATCH_BODY_BYTES_MAX, "right"))
        end = min(max(fit, begin + 1), begin + BATCH_ROWS_MAX, batch.num_rows)
        yield begin, end
        begin, written = end, int(ends[end - 1])


class Answers:
    """The responses that a run kept.

    After reading, `problems` lists the files that are empty or cannot be read to their end, each with the reason.
    """

    def __init__(self, run: str | os.PathLike[str]) -> None:
        self.folder = Path(run) / FOLDER
        self.problems: dict[str, str] = {}
        try:
            names = sorted(name for name in os.listdir(self.folder) if _FILE.fullmatch(name))  # noqa: PTH208
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise InputError(f"{self.folder} cannot be read: {reason_of(error)}") from None
        self._files = [self.folder / name for name in sorted(names, key=lambda name: (len(name), name))]

    def __bool__(self) -> bool:
        """Return whether the run has files of kept responses."""
        return bool(self._files)

    def batches(self, *names: str) -> Iterator[pa.RecordBatch]:
        """Yield the rows in the order of writing, with the given columns, or with all columns if none are given.

        A truncated or damaged file yields the complete batches before the damage, and is added to `problems`. Raise
        InputError if a file lacks one of the columns.
        """
        for path in self._files:
            yield from self._batches_of(path, names)

    def sound_until_ns(self) -> int | None:
        """Return the latest due time before the first damage, -1 if no row is before it; None if no file is damaged.

        Files, and the rows in them, are in the order of writing, so rows after the first damage count as lost even if
        a later file is whole. Call it after reading all columns, because only reading finds the damage (`problems`).
        """
        last_ns = -1
        for path in self._files:
            for batch in self._batches_of(path, ("due_ns",)):
                last_ns = max(last_ns, int(batch.column(0).to_numpy().max())) if batch.num_rows else last_ns
            if path.name in self.problems:
                return last_ns
        return None

    def _batches_of(self, path: Path, names: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
        chosen = sorted(SCHEMA.get_field_index(name) for name in names)
        options = pa.ipc.IpcReadOptions(included_fields=chosen)
        rows = 0
        try:
            if not path.stat().st_size:
                self.problems[path.name] = "it is empty"
                return
            with pa.memory_map(os.fspath(path)) as source:
                reader = pa.ipc.open_stream(source, options=options)
                self._check(path, reader.schema, names)
                for batch in reader:
                    batch.validate(full=True)
                    rows += batch.num_rows
                    yield batch.select(list(names) or SCHEMA.names)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            self.problems[path.name] = f"only its first {rows:,} rows can be read ({reason})"

    def _check(self, path: Path, schema: pa.Schema, names: tuple[str, ...]) -> None:
        for name in names or SCHEMA.names:
            if name not in schema.names or schema.field(name).type != SCHEMA.field(name).type:
                raise InputError(
                    f"{path} has no column {name} of type {SCHEMA.field(name).type}: another program or version wrote it",
                    hint="give the folder that `replay run --keep-answers` wrote",
                )

    def by_number(self, *names: str) -> pa.Table:
        """Return all rows sorted by `number` and `copy`; these two columns come first, followed by `names`."""
        wanted = list(dict.fromkeys(["number", "copy", *names]))
        schema = pa.schema([SCHEMA.field(name) for name in wanted])
        table = pa.Table.from_batches(self.batches(*wanted), schema)
        return table.sort_by([("number", "ascending"), ("copy", "ascending")])

    def rows(self, wanted: Collection[tuple[int, int]], *names: str) -> dict[tuple[int, int], dict[str, Any]]:
        """Return the rows of these requests, by (number, copy), as Python values; missing rows are left out."""
        numbers = np.array(sorted({number for number, _ in wanted}), np.uint64)
        found: dict[tuple[int, int], dict[str, Any]] = {}
        for batch in self.batches(*dict.fromkeys(["number", "copy", *(names or SCHEMA.names)])):
            at = np.flatnonzero(np.isin(batch["number"].to_numpy(), numbers))
            for row in batch.take(pa.array(at)).to_pylist():
                if (key := (row["number"], row["copy"])) in wanted:
                    found[key] = row
        return found
