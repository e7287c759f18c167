"""Converts Parquet files to CSV, so that one importer of tables reads both."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from replay.errors import InputError

_ROWS = 1 << 14
"""How many rows are converted at once."""

_TEXTS = (pa.binary(), pa.large_binary(), pa.binary_view(), pa.string_view())


def _is_flat(kind: pa.DataType) -> bool:
    """Return whether a column has plain values or structs, as opposed to lists and maps."""
    return pa.types.is_struct(kind) or not pa.types.is_nested(kind)


@functools.cache
def _has_csv(kind: pa.DataType) -> bool:
    """Return whether Arrow can write a column as CSV.

    UUID bytes and intervals have no text form.
    """
    try:
        csv.write_csv(pa.table([pa.nulls(1, kind)], names=["a"]), pa.BufferOutputStream())
    except pa.ArrowException:
        return False
    return not pa.types.is_fixed_size_binary(kind)


def _column_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column for CSV: bytes to text, durations to numbers with their unit."""
    # Imported here because it is slow to import, and only Parquet files need it.
    import pyarrow.compute as pc

    if pa.types.is_duration(column.type):
        numbers = column.cast(pa.int64()).cast(pa.string())
        return pc.binary_join_element_wise(numbers, column.type.unit, "")
    as_text = pc.CastOptions(pa.large_string(), allow_invalid_utf8=True)
    return column.cast(options=as_text) if column.type in _TEXTS else column


def _as_text(batch: pa.RecordBatch) -> pa.Table:
    """Return the columns that CSV can hold: struct fields under their paths (`request.path`), and bytes as text."""
    table = pa.Table.from_batches([batch])
    while any(pa.types.is_struct(kind) for kind in table.schema.types):
        table = table.flatten()
    found = [
        (name, _column_text(column)) for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    kept = [(name, column) for name, column in found if _has_csv(column.type)]
    return pa.table([column for _, column in kept], names=[name for name, _ in kept])


def rows_as_csv(path: Path, name: str) -> Iterator[bytes]:
    """Yield the rows of a Parquet file as CSV, in pieces.

    The first piece has the header. Raises InputError if the file cannot be read.
    """
    try:
        import pyarrow.parquet as pq

        with pq.ParquetFile(path) as file:
            flat = [field.name for field in file.schema_arrow if _is_flat(field.type)]
            for index, batch in enumerate(file.iter_batches(_ROWS, columns=flat)):
                sink = pa.BufferOutputStream()
                csv.write_csv(_as_text(batch), sink, csv.WriteOptions(include_header=index == 0))
                yield sink.getvalue().to_pybytes()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name} is not a readable Parquet file: {reason}") from None
