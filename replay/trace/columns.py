"""The columns of events and requests, and their Arrow files, which are checked before kernels read them."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .blocks import (
    CheckedFile,
    PagedFile,
    ReusedBuffers,
    corrupt,
    view_of,
)
from .manifest import FileSums
from .sums import BLOCK_BYTES, SummedFile

BATCH_ROWS = 1 << 20
"""Maximum rows of an events file, and of a batch of the requests dictionary."""

COMPARED_ROWS = 1 << 15
"""Rows that are compared at once, so that their results stay in the CPU cache."""

EVENT_COLUMNS: dict[str, np.dtype[Any]] = {
    "at_ns": np.dtype(np.int64),
    "request": np.dtype(np.uint32),
    "client": np.dtype(np.uint32),
    "status": np.dtype(np.int16),
    "took_ns": np.dtype(np.int64),
    "bytes": np.dtype(np.int64),
}
"""The columns of an event: its time, its request and client, and the recorded response (-1 is unknown)."""


RESPONSE_COLUMNS: dict[str, np.dtype[Any]] = {
    "response": np.dtype(np.int32),
    "first_byte_ns": np.dtype(np.int64),
}
"""Extra columns of events files with recorded responses.

`response` is the row in the responses dictionary. `first_byte_ns` is the time from the first byte of the request to
the first byte of the response. -1 is none. Files without recorded responses lack these columns.
"""

ALL_COLUMNS = EVENT_COLUMNS | RESPONSE_COLUMNS


def _event_schema(columns: Mapping[str, np.dtype[Any]]) -> pa.Schema:
    return pa.schema([pa.field(name, pa.from_numpy_dtype(dtype), False) for name, dtype in columns.items()])


EVENT_SCHEMA = _event_schema(EVENT_COLUMNS)
WIDE_EVENT_SCHEMA = _event_schema(ALL_COLUMNS)

REQUEST_SCHEMA = pa.schema(
    [
        pa.field("method", pa.uint8(), False),
        pa.field("target", pa.large_binary(), False),
        pa.field("route", pa.uint32(), False),
        pa.field("host", pa.int32(), False),
        pa.field("headers", pa.int32(), False),
        pa.field("body", pa.int32(), False),
    ]
)

Columns = Mapping[str, npt.NDArray[Any]]


def events_file(index: int) -> str:
    """Return the name of events file `index`."""
    return f"events-{index:06d}.arrow"


def empty_events(rows: int, *, wide: bool = False) -> dict[str, npt.NDArray[Any]]:
    """Return uninitialized event columns of `rows` rows; with `wide`, they include the response columns."""
    columns = ALL_COLUMNS if wide else EVENT_COLUMNS
    return {name: np.empty(rows, dtype=dtype) for name, dtype in columns.items()}


def in_time_order(stamps: npt.NDArray[np.int64]) -> bool:
    """Return whether no timestamp is earlier than the one before it."""
    later = np.empty(min(len(stamps), COMPARED_ROWS), bool)
    for begin in range(0, len(stamps) - 1, COMPARED_ROWS):
        part = stamps[begin : begin + COMPARED_ROWS + 1]
        if not np.greater_equal(part[1:], part[:-1], out=later[: len(part) - 1]).all():
            return False
    return True


def is_wide(columns: Mapping[str, Any]) -> bool:
    """Return whether event columns include the response columns."""
    return "response" in columns


def widen(columns: dict[str, npt.NDArray[Any]]) -> None:
    """Add response columns filled with -1, if they are missing."""
    rows = len(columns["at_ns"])
    for name, dtype in RESPONSE_COLUMNS.items():
        columns.setdefault(name, np.full(rows, -1, dtype))


def array_of(column: npt.NDArray[Any]) -> pa.Array:
    """Return a column of numbers as an Arrow array that shares its memory.

    `pa.array` is not used, because it would import pandas if that is installed.
    """
    column = np.ascontiguousarray(column)
    kind = pa.from_numpy_dtype(column.dtype)
    return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)], null_count=0)


def write_events(path: Path, columns: Columns) -> FileSums:
    """Write one events file from columns of equal length that are sorted by `at_ns`, and return its sums.

    The response columns are left out if all of their values are -1.
    """
    wide = is_wide(columns) and any((columns[name] >= 0).any() for name in RESPONSE_COLUMNS)
    schema = WIDE_EVENT_SCHEMA if wide else EVENT_SCHEMA
    arrays = [array_of(np.asarray(columns[field.name], field.type.to_pandas_dtype())) for field in schema]
    with SummedFile(path) as sink:
        with pa.ipc.new_file(sink, schema) as file:
            file.write_batch(pa.record_batch(arrays, schema=schema))
        return sink.sums()


_FOOTER_END = struct.Struct("<i6s")
_MAGIC = b"ARROW1"
_UINT32, _INT32, _UINT16, _BLOCK = (struct.Struct(code) for code in ("<I", "<i", "<H", "<qi4xq"))
_RECORD_BATCHES = 3
"""The index of the field `recordBatches` in the footer of an Arrow file (File.fbs)."""


def _batch_places(path: Path, footer: bytes) -> list[tuple[int, int, int]]:
    """Return where each record batch of an Arrow IPC file lies: its first byte, metadata length and body length.

    pyarrow does not expose this, and only loaded parts of the file may be read. The footer is a FlatBuffers table;
    the list is its field 3, a vector of structs (Arrow's File.fbs). Raises InputError if the footer is damaged.
    """
    try:
        table = _UINT32.unpack_from(footer, 0)[0]
        fields = table - _INT32.unpack_from(footer, table)[0]
        slot = 4 + 2 * _RECORD_BATCHES
        if fields < 0 or slot >= _UINT16.unpack_from(footer, fields)[0]:
            return []
        offset = _UINT16.unpack_from(footer, fields + slot)[0]
        if not offset:
            return []
        vector = table + offset
        vector += _UINT32.unpack_from(footer, vector)[0]
        count = _UINT32.unpack_from(footer, vector)[0]
        if count > len(footer) // _BLOCK.size:
            raise corrupt(path, "its footer lists more batches than fit into it")
        return [_BLOCK.unpack_from(footer, vector + 4 + _BLOCK.size * index) for index in range(count)]
    except struct.error:
        raise corrupt(path, "its footer cannot be read") from None


def _load_footer(file: PagedFile) -> list[tuple[int, int, int]]:
    """Permanently load the start and the footer of a file, and return where its record batches lie.

    Arrow reads both before it reads a batch.
    """
    file.load(0, BLOCK_BYTES, pin=True)
    if file.size < 2 * _FOOTER_END.size:
        raise corrupt(file.path, "it is too short for an Arrow file")
    file.load(file.size - _FOOTER_END.size, file.size)
    length, magic = _FOOTER_END.unpack(file.raw[-_FOOTER_END.size :].tobytes())
    end = file.size - _FOOTER_END.size
    if magic != _MAGIC or not 0 < length <= end:
        raise corrupt(file.path, "it has no Arrow footer")
    file.load(end - length, file.size, pin=True)
    return _batch_places(file.path, file.raw[end - length : end].tobytes())


def open_paged(file: PagedFile, *schemas: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a paged file, each loaded and checked (see `_check_batch`).

    A batch stays valid, but its memory must be loaded again once another batch was requested. After the last batch,
    the blocks that belong to no batch are checked, too.
    """
    with _arrow_errors(file.path):
        places = _load_footer(file)
        source = pa.py_buffer(file.raw)
        reader = _open(file.path, source, schemas)
        if len(places) != reader.num_record_batches:
            raise corrupt(file.path, "the list of batches in its footer cannot be read")
    for index, (begin, metadata, body) in enumerate(places):
        with _arrow_errors(file.path):
            file.load(begin, begin + metadata + body)
            batch = reader.get_batch(index)
            _check_batch(file.path, source, batch)
        yield batch
    file.check_rest()
    file.settle()


def schema_of(file: PagedFile) -> pa.Schema:
    """Return the schema of a paged file. Raises InputError if the file is damaged."""
    with _arrow_errors(file.path):
        _load_footer(file)
        return pa.ipc.open_file(pa.py_buffer(file.raw)).schema


@contextlib.contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    """Convert the errors that Arrow raises for a damaged file to InputError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise corrupt(path, str(error).partition("\n")[0]) from None


def _open(path: Path, source: pa.Buffer, schemas: tuple[pa.Schema, ...]) -> Any:
    reader = pa.ipc.open_file(source)
    if not any(reader.schema.equals(schema) for schema in schemas):
        raise corrupt(path, "its columns are not those of a trace")
    return reader


def _check_batch(path: Path, source: pa.Buffer, batch: pa.RecordBatch) -> None:
    """Raise InputError if kernels cannot read the buffers of a batch by address.

    No column may have null values, and each buffer must lie completely in `source`.
    """
    batch.validate(full=True)
    if any(column.null_count or column.offset for column in batch.columns):
        raise corrupt(path, "a value is missing")
    if not all(_lies_in(source, buffer) for column in batch.columns for buffer in column.buffers()):
        raise corrupt(path, "its columns are compressed, or in another byte order than this machine's")


def _lies_in(source: pa.Buffer, buffer: pa.Buffer | None) -> bool:
    """Return whether a buffer is part of the file, not a copy that Arrow unpacked."""
    if buffer is None or not buffer.size:
        return True
    begin = buffer.address - source.address
    return bool(begin >= 0 and begin + buffer.size <= source.size)


def read_events(
    path: Path, sums: FileSums | None = None, buffers: ReusedBuffers | None = None
) -> list[dict[str, npt.NDArray[Any]]]:
    """Return the batches of one events file as columns in memory taken from `buffers`.

    The columns are writable, and their memory is reused once nothing refers to them. Response columns are present
    if the file has them. Raises InputError if the file is damaged.
    """
    file = CheckedFile(path, sums)
    try:
        raw = (buffers or ReusedBuffers()).take(file.size)
        file.read(raw, 0)
    finally:
        file.close()
    result = []
    with _arrow_errors(path):
        source = pa.py_buffer(raw)
        reader = _open(path, source, (EVENT_SCHEMA, WIDE_EVENT_SCHEMA))
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            _check_batch(path, source, batch)
            result.append(
                {
                    name: view_of(raw, column.buffers()[1], ALL_COLUMNS[name], batch.num_rows)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
            )
    return result


_ALL = 1 << 62
"""A memory budget in bytes that no file exceeds."""


def event_offsets(path: Path) -> tuple[int, dict[str, int]]:
    """Return the number of rows in an events file, and the byte offset of each column.

    The file must have been written by this process, because it is not checked.
    """
    file = PagedFile(path, None, _ALL)
    try:
        ((begin, metadata, _),) = _load_footer(file)
        file.load(begin, begin + metadata)
        source = pa.py_buffer(file.raw)
        batch = pa.ipc.open_file(source).get_batch(0)
        places = {
            name: column.buffers()[1].address - source.address
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
        }
        return batch.num_rows, places
    finally:
        file.close()
