"""The columns of events and requests, and reading them out of Arrow files without a copy."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay.errors import InputError, reason_of
from replay.files import open_regular

BATCH_ROWS = 1 << 20
"""Rows of one events file, and of one batch of the requests dictionary."""

EVENT_COLUMNS: dict[str, np.dtype[Any]] = {
    "at_ns": np.dtype(np.int64),
    "request": np.dtype(np.uint32),
    "client": np.dtype(np.uint32),
    "status": np.dtype(np.int16),
    "took_ns": np.dtype(np.int64),
    "bytes": np.dtype(np.int64),
}
"""An event: when it was recorded, what was asked by whom, and what came of it (-1 is unknown)."""


EVENT_SCHEMA = pa.schema(
    [pa.field(name, pa.from_numpy_dtype(dtype), False) for name, dtype in EVENT_COLUMNS.items()]
)

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
    """Name of events file `index`."""
    return f"events-{index:06d}.arrow"


def empty_events(rows: int) -> dict[str, npt.NDArray[Any]]:
    """Uninitialised event columns of `rows` rows."""
    return {name: np.empty(rows, dtype=dtype) for name, dtype in EVENT_COLUMNS.items()}


def write_events(path: Path, columns: Columns) -> None:
    """Write one events file (columns of equal length, sorted by at_ns)."""
    arrays = [pa.array(columns[name], type=EVENT_SCHEMA.field(name).type) for name in EVENT_COLUMNS]
    with pa.OSFile(os.fspath(path), "wb") as sink, pa.ipc.new_file(sink, EVENT_SCHEMA) as file:
        file.write_batch(pa.record_batch(arrays, schema=EVENT_SCHEMA))


def corrupt(path: Path, what: str) -> InputError:
    """The error of a file that is not what the manifest says."""
    return InputError(f"{path} is damaged: {what}", hint="import the log again")


def open_batches(
    path: Path, source: pa.Buffer, *schemas: pa.Schema, checked: Callable[[], None] = lambda: None
) -> list[pa.RecordBatch]:
    """The record batches of an Arrow IPC file, checked: one of these schemas, no null column, whole buffers inside
    `source`, which kernels then read by their addresses.

    `checked` is called after each, so that a mapped file need not be in memory whole.
    """
    try:
        reader = pa.ipc.open_file(source)
        if not any(reader.schema.equals(schema) for schema in schemas):
            raise corrupt(path, "its columns are not those of a trace")
        batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
            if any(column.null_count or column.offset for column in batch.columns):
                raise corrupt(path, "a value is missing")
            if not all(_lies_in(source, buffer) for column in batch.columns for buffer in column.buffers()):
                raise corrupt(
                    path, "its columns are compressed, or not in the order of bytes of this machine"
                )
            checked()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise corrupt(path, str(error).partition("\n")[0]) from None
    return batches


def _lies_in(source: pa.Buffer, buffer: pa.Buffer | None) -> bool:
    """Whether a buffer is part of the file, and no copy that Arrow unpacked."""
    if buffer is None or not buffer.size:
        return True
    begin = buffer.address - source.address
    return bool(begin >= 0 and begin + buffer.size <= source.size)


def read_events(path: Path) -> list[dict[str, npt.NDArray[Any]]]:
    """The batches of one events file as columns over its pages. InputError where it is damaged.

    They are writable, and what is written stays in this process: memory of its own for every file would have to be
    cleared first, which takes longer than reading it.
    """
    try:
        with open_regular(path) as file:
            raw = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}", hint="import the log again") from None
    except ValueError:
        raise corrupt(path, "it is empty") from None
    result = []
    for batch in open_batches(path, pa.py_buffer(raw), EVENT_SCHEMA):
        columns = {}
        for (name, dtype), column in zip(EVENT_COLUMNS.items(), batch.columns, strict=True):
            buffer = column.buffers()[1]
            begin = buffer.address - raw.ctypes.data if batch.num_rows else 0
            columns[name] = raw[begin : begin + batch.num_rows * dtype.itemsize].view(dtype)
        result.append(columns)
    return result


def event_offsets(path: Path) -> tuple[int, dict[str, int]]:
    """Rows of an events file of our own writing, and where each column lies in it."""
    with pa.memory_map(os.fspath(path)) as mapped:
        base = mapped.read_buffer().address
        mapped.seek(0)
        batch = pa.ipc.open_file(mapped).get_batch(0)
        places = {
            name: column.buffers()[1].address - base
            for name, column in zip(EVENT_COLUMNS, batch.columns, strict=True)
        }
        return batch.num_rows, places
