"""The dictionary of requests of an open trace, mapped: tens of millions of requests cost no memory until
read.
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay.errors import InputError, reason_of
from replay.files import open_regular

from .columns import (
    BATCH_ROWS,
    REQUEST_SCHEMA,
    corrupt,
    open_batches,
)

REQUESTS, HEADERS, BODIES = "requests.arrow", "headers.arrow", "bodies.arrow"


def _headers_schema(*, nullable: bool) -> pa.Schema:
    pair = pa.struct([pa.field("name", pa.binary(), False), pa.field("value", pa.binary(), nullable)])
    return pa.schema([pa.field("headers", pa.list_(pa.field("header", pair, False)), False)])


HEADERS_SCHEMA = _headers_schema(nullable=True)
"""A record's header may have null for a value."""

_HEADERS_SCHEMA_BEFORE = _headers_schema(nullable=False)
"""That of traces which have no null."""

BODIES_SCHEMA = pa.schema([pa.field("body", pa.large_binary(), False)])

CONTENT_TYPE_BYTES_MAX = 1_000

Headers = tuple[tuple[bytes, bytes | None], ...]
"""Pairs of name and value; None is null, which Kafka tells from an empty value."""


@dataclass(frozen=True, slots=True)
class Request:
    """One distinct request. `target` is as it goes on the request line; `method`, `route` and `host` are
    indexes into the lists of `Requests`, `headers` and `body` into its dictionaries; -1 is none.
    """

    method: int
    target: bytes
    route: int
    host: int
    headers: int
    body: int


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """The columns of up to BATCH_ROWS requests: target i is data[offsets[i]:offsets[i + 1]]."""

    offsets: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]
    method: npt.NDArray[np.uint8]
    route: npt.NDArray[np.uint32]
    host: npt.NDArray[np.int32]
    headers: npt.NDArray[np.int32]
    body: npt.NDArray[np.int32]


class MappedFile:
    """A file mapped into memory, read-only or to be changed in place; keep it for as long as its views are
    used.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        try:
            with path.open("r+b") if writable else open_regular(path) as file:
                access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
                self._map = mmap.mmap(file.fileno(), 0, access=access)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {reason_of(error)}", hint="import the log again") from None
        self.raw = np.frombuffer(self._map, dtype=np.uint8)

    def drop_pages(self) -> None:
        """Give the pages read so far back to the page cache."""
        self._map.madvise(mmap.MADV_DONTNEED)


def _view(raw: npt.NDArray[np.uint8], buffer: Any, dtype: Any, count: int) -> npt.NDArray[Any]:
    """An Arrow buffer over `raw` as a view of `raw`."""
    if not count:
        return np.empty(0, dtype=dtype)
    begin = buffer.address - raw.ctypes.data
    return raw[begin : begin + count * np.dtype(dtype).itemsize].view(dtype)


def request_batches(path: Path, mapped: MappedFile) -> list[RequestBatch]:
    """The batches of a requests dictionary, as views of its mapping."""
    result = []
    for batch in open_batches(path, pa.py_buffer(mapped.raw), REQUEST_SCHEMA, checked=mapped.drop_pages):
        rows, columns = batch.num_rows, batch.columns
        _, starts, data = columns[1].buffers()
        offsets = _view(mapped.raw, starts, np.int64, rows + 1 if rows else 0)
        fixed = {
            name: _view(mapped.raw, column.buffers()[1], column.type.to_pandas_dtype(), rows)
            for name, column in zip(REQUEST_SCHEMA.names, columns, strict=True)
            if name != "target"
        }
        used = int(offsets[-1]) if rows else 0
        result.append(RequestBatch(offsets=offsets, data=_view(mapped.raw, data, np.uint8, used), **fixed))
    return result


class _Blobs:
    """A mapped dictionary of header sets or bodies, by id."""

    def __init__(self, path: Path, *schemas: pa.Schema) -> None:
        self._mapped = MappedFile(path)
        raw = pa.py_buffer(self._mapped.raw)
        self.batches = open_batches(path, raw, *schemas, checked=self._mapped.drop_pages)
        self._starts = [0]
        for batch in self.batches:
            self._starts.append(self._starts[-1] + batch.num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = bisect_right(self._starts, index) - 1
        return self.batches[batch].column(0)[index - self._starts[batch]].as_py()


def _sendable(content_type: bytes) -> bool:
    """Whether a recorded content type may stand in a header."""
    return len(content_type) <= CONTENT_TYPE_BYTES_MAX and all(
        byte == 9 or 32 <= byte != 127 for byte in content_type
    )


class Requests:
    """The distinct requests of a trace by id. Id i is row `i & 0xFFFFF` of batch `i >> 20`.

    actions[i] is the business action of routes[i], empty where it has none.
    """

    def __init__(
        self, folder: Path, rows: int, methods: list[str], hosts: list[str], routes: list[str],
        actions: list[str],
    ) -> None:  # fmt: skip
        self.rows, self.methods, self.hosts = rows, methods, hosts
        self.routes, self.actions = routes, actions
        self._path = folder / REQUESTS
        self._mapped = MappedFile(self._path)
        self._header_sets = (
            _Blobs(folder / HEADERS, HEADERS_SCHEMA, _HEADERS_SCHEMA_BEFORE)
            if (folder / HEADERS).exists()
            else None
        )
        self._bodies = _Blobs(folder / BODIES, BODIES_SCHEMA) if (folder / BODIES).exists() else None
        self.batches = request_batches(self._path, self._mapped)
        self._check()

    def _check(self) -> None:
        """Kernels read these columns by raw address: every index must be inside what it indexes."""
        limits = {
            "method": (0, len(self.methods)),
            "route": (0, len(self.routes)),
            "host": (-1, len(self.hosts)),
            "headers": (-1, len(self._header_sets or ())),
            "body": (-1, len(self._bodies or ())),
        }
        for index, batch in enumerate(self.batches):
            rows = len(batch.method)
            full = index + 1 < len(self.batches)
            if (full and rows != BATCH_ROWS) or rows > BATCH_ROWS:
                raise corrupt(self._path, f"its batch {index} has {rows:,} rows")
            for name, (least, limit) in limits.items():
                column = getattr(batch, name)
                if rows and (column.min() < least or column.max() >= limit):
                    raise corrupt(self._path, f"a {name} outside 0 to {limit - 1}")
            self.drop_pages()
        found = sum(len(batch.method) for batch in self.batches)
        if found != self.rows:
            raise corrupt(self._path, f"{found:,} requests where its manifest says {self.rows:,}")

    def get(self, index: int) -> Request:
        """Request `index`. IndexError where there is none."""
        if not 0 <= index < self.rows:
            raise IndexError(index)
        batch, row = self.batches[index >> 20], index & 0xFFFFF
        return Request(
            method=int(batch.method[row]),
            target=batch.data[batch.offsets[row] : batch.offsets[row + 1]].tobytes(),
            route=int(batch.route[row]),
            host=int(batch.host[row]),
            headers=int(batch.headers[row]),
            body=int(batch.body[row]),
        )

    @property
    def has_headers(self) -> bool:
        """Whether the recording holds headers; an access log's does not."""
        return self._header_sets is not None

    def headers(self, index: int) -> Headers:
        """Header set `index`, as (name, value) pairs in their order. IndexError where there is none."""
        if self._header_sets is None:
            raise IndexError(index)
        return tuple((pair["name"], pair["value"]) for pair in self._header_sets[index])

    def header_sets(self) -> Iterator[Headers]:
        """All header sets, in the order of their ids."""
        for batch in self._header_sets.batches if self._header_sets is not None else ():
            for pairs in batch.column(0).to_pylist():
                yield tuple((pair["name"], pair["value"]) for pair in pairs)

    def body(self, index: int) -> bytes:
        """Body `index`. IndexError where there is none."""
        if self._bodies is None:
            raise IndexError(index)
        return bytes(self._bodies[index])

    def body_batches(self) -> tuple[npt.NDArray[np.int64], int, int]:
        """Where bodies lie, int64[batches + 1, 3]: the id of the first of each batch, and raw addresses of its
        offsets (int64) and data, valid for as long as this object; the last row is the id past the end. Then the
        mean and the largest length.
        """
        rows, total, largest = [], 0, 0
        batches = self._bodies.batches if self._bodies is not None else []
        first = 0
        for batch in batches:
            _, starts, data = batch.column(0).buffers()
            offsets = np.frombuffer(starts, np.int64, batch.num_rows + 1)
            rows.append((first, starts.address, data.address if data is not None else 0))
            first += batch.num_rows
            total += int(offsets[-1] - offsets[0])
            largest = max(largest, int(np.diff(offsets).max(initial=0)))
        rows.append((first, 0, 0))
        return np.array(rows, np.int64), total // max(first, 1), largest

    def header_batches(self) -> npt.NDArray[np.int64]:
        """Where header sets lie, int64[batches + 1, 7]: the id of the first of each batch, and raw addresses of the
        offsets of its sets, of names and of values (int32 each), offsets before data, and of the bits of the values that are
        not null (0: all are); the last row is the id past the end.
        """
        rows, first = [], 0
        for batch in self._header_sets.batches if self._header_sets is not None else []:
            sets = batch.column(0)
            names, values = sets.values.field("name"), sets.values.field("value")
            places = [sets.buffers()[1].address]
            for column in (names, values):
                _, offsets, data = column.buffers()
                places += [offsets.address, data.address if data is not None else 0]
            valid = values.buffers()[0] if values.null_count else None
            rows.append((first, *places, valid.address if valid is not None else 0))
            first += batch.num_rows
        rows.append((first, *[0] * 6))
        return np.array(rows, np.int64)

    def content_types(self) -> tuple[list[bytes], npt.NDArray[np.int32]]:
        """The content types of header sets, and by header set the index of its own, or -1."""
        names: dict[bytes, int] = {}
        found = [np.empty(0, np.int32)]
        for batch in self._header_sets.batches if self._header_sets is not None else []:
            sets, pairs = batch.column(0), batch.column(0).flatten()
            kinds = pairs.field("name").dictionary_encode()
            wanted = [
                i for i, name in enumerate(kinds.dictionary.to_pylist()) if name.lower() == b"content-type"
            ]
            places = np.flatnonzero(np.isin(kinds.indices.to_numpy(), wanted))
            owners = np.searchsorted(sets.offsets.to_numpy(), places, side="right") - 1
            of_set = np.full(batch.num_rows, -1, np.int32)
            for owner, value in zip(
                owners[::-1], pairs.field("value").take(places[::-1]).to_pylist(), strict=True
            ):
                of_set[owner] = (
                    names.setdefault(value, len(names)) if value is not None and _sendable(value) else -1
                )
            found.append(of_set)
        return list(names), np.concatenate(found)

    def addresses(self) -> npt.NDArray[np.int64]:
        """Raw addresses for kernels, int64[n_batches, 4]: target offsets (int64), target data (uint8), method
        (uint8) and route (uint32) of each batch. Valid for as long as this object lives.
        """
        columns = [(b.offsets, b.data, b.method, b.route) for b in self.batches]
        addresses = [[column.ctypes.data for column in batch] for batch in columns]
        return np.array(addresses, dtype=np.int64).reshape(len(columns), 4)

    def drop_pages(self) -> None:
        """Give the dictionary's pages back, so that a long replay does not gather it all in memory."""
        self._mapped.drop_pages()
