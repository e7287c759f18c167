"""The dictionary of requests of an open trace. Requests use no memory until they are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .blobs import Blobs, open_bodies, open_file
from .blocks import PagedFile, corrupt, view_of
from .columns import BATCH_ROWS, REQUEST_SCHEMA, open_paged
from .manifest import FileSums

REQUESTS, HEADERS, BODIES = "requests.arrow", "headers.arrow", "bodies.arrow"


def _headers_schema(*, nullable: bool) -> pa.Schema:
    pair = pa.struct([pa.field("name", pa.binary(), False), pa.field("value", pa.binary(), nullable)])
    return pa.schema([pa.field("headers", pa.list_(pa.field("header", pair, False)), False)])


HEADERS_SCHEMA = _headers_schema(nullable=True)
"""The schema of header sets. A value may be null, because the header of a Kafka record may have a null value."""

_HEADERS_SCHEMA_BEFORE = _headers_schema(nullable=False)
"""The schema of header sets in older traces, in which no value may be null."""

CONTENT_TYPE_BYTES_MAX = 1_000

REQUESTS_BUDGET_BYTES = 96 << 20
"""Memory limit for requests without headers and bodies: about one batch of requests of usual length."""

_CHUNK_BITS = 14
_CHUNK_ROWS = 1 << _CHUNK_BITS
"""How many neighboring requests are loaded together."""

Headers = tuple[tuple[bytes, bytes | None], ...]
"""Pairs of header name and value. None is a null value, which Kafka distinguishes from an empty one."""


@dataclass(frozen=True, slots=True)
class Request:
    """One distinct request.

    `target` is as written in the request line. `method`, `route` and `host` are indexes into the lists of
    `Requests`; `headers` and `body` are indexes into its dictionaries. -1 is none.
    """

    method: int
    target: bytes
    route: int
    host: int
    headers: int
    body: int


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """The columns of up to BATCH_ROWS requests. Target i is data[offsets[i]:offsets[i + 1]]."""

    offsets: npt.NDArray[np.int64]
    data: npt.NDArray[np.uint8]
    method: npt.NDArray[np.uint8]
    route: npt.NDArray[np.uint32]
    host: npt.NDArray[np.int32]
    headers: npt.NDArray[np.int32]
    body: npt.NDArray[np.int32]


def request_batches(file: PagedFile) -> Iterator[RequestBatch]:
    """Yield the batches of a requests dictionary as views of the file's memory.

    A batch is loaded when it is yielded; the next batch may release it.
    """
    for batch in open_paged(file, REQUEST_SCHEMA):
        rows, columns = batch.num_rows, batch.columns
        _, starts, data = columns[1].buffers()
        offsets = view_of(file.raw, starts, np.int64, rows + 1 if rows else 0)
        fixed = {
            name: view_of(file.raw, column.buffers()[1], column.type.to_pandas_dtype(), rows)
            for name, column in zip(REQUEST_SCHEMA.names, columns, strict=True)
            if name != "target"
        }
        used = int(offsets[-1]) if rows else 0
        yield RequestBatch(offsets=offsets, data=view_of(file.raw, data, np.uint8, used), **fixed)


def _sendable(content_type: bytes) -> bool:
    """Return whether a recorded content type is valid as the value of a header."""
    return len(content_type) <= CONTENT_TYPE_BYTES_MAX and all(
        byte == 9 or 32 <= byte != 127 for byte in content_type
    )


class Requests:
    """The distinct requests of a trace, by id. Id i is row `i & 0xFFFFF` of batch `i >> 20`.

    actions[i] is the business action of routes[i], or "" if it has none.

    A dictionary may be larger than memory. Before kernels read data by address, and before a caller reads from
    `batches`, `load` or `loaded` must load the data. The other methods load the data that they read.
    """

    def __init__(
        self, folder: Path, rows: int, methods: list[str], hosts: list[str], routes: list[str],
        actions: list[str], files: Mapping[str, FileSums] | None = None,
    ) -> None:  # fmt: skip
        self.rows, self.methods, self.hosts = rows, methods, hosts
        self.routes, self.actions = routes, actions
        self._path, files = folder / REQUESTS, files or {}

        def has(name: str) -> bool:
            return name in files if files else (folder / name).exists()

        self._file = PagedFile(self._path, files.get(REQUESTS), REQUESTS_BUDGET_BYTES)
        self._header_sets = (
            Blobs(open_file(folder / HEADERS, files.get(HEADERS)), HEADERS_SCHEMA, _HEADERS_SCHEMA_BEFORE)
            if has(HEADERS)
            else None
        )
        self._bodies = open_bodies(folder / BODIES, files.get(BODIES)) if has(BODIES) else None
        self.batches: list[RequestBatch] = []
        chunks = [np.empty((0, _COLUMNS, 2), np.int64)]
        for batch in request_batches(self._file):
            self._check(batch)
            self.batches.append(batch)
            chunks.append(_chunk_places(self._file.raw, batch))
        if sum(len(batch.method) for batch in self.batches) != self.rows:
            raise corrupt(self._path, f"it does not contain the {self.rows:,} requests of its manifest")
        self._chunks = np.concatenate(chunks)
        self._ready = np.full(len(self._chunks), self._file.whole)
        """By chunk: whether it is known to be loaded."""
        self._portion = BATCH_ROWS
        """How many ids `load` tries first: twice as many as the last call loaded."""

    def _check(self, batch: RequestBatch) -> None:
        """Check that every index in a batch is in range, because kernels use these columns without checks."""
        limits = {
            "method": (0, len(self.methods)),
            "route": (0, len(self.routes)),
            "host": (-1, len(self.hosts)),
            "headers": (-1, len(self._header_sets or ())),
            "body": (-1, len(self._bodies or ())),
        }
        rows = len(batch.method)
        before = self.batches[-1] if self.batches else None
        if (before is not None and len(before.method) != BATCH_ROWS) or rows > BATCH_ROWS:
            raise corrupt(self._path, f"one of its batches does not have {BATCH_ROWS:,} rows")
        for name, (least, limit) in limits.items():
            column = getattr(batch, name)
            if rows and (column.min() < least or column.max() >= limit):
                raise corrupt(self._path, f"a value in its column {name} is out of range")

    def load(self, ids: npt.NDArray[np.uint32]) -> int:
        """Load the first of these requests with headers and bodies, up to the memory limit, and return how many.

        At least one is loaded, even if it exceeds the limit. They stay loaded until other requests are loaded.
        Raises InputError if a file is damaged.
        """
        count = self._load_requests(ids)
        for column, blobs in (("headers", self._header_sets), ("body", self._bodies)):
            if blobs is not None and not blobs.whole:
                count = blobs.load(self.column(column, ids[:count]))
        return count

    def load_columns(self, ids: npt.NDArray[np.uint32]) -> int:
        """Load the first of these requests as `load` does, but without targets, headers and bodies."""
        return self._load_requests(ids, columns=_FIXED)

    def _load_requests(self, ids: npt.NDArray[np.uint32], columns: slice = slice(None)) -> int:
        if self._file.whole:
            return len(ids)
        count = min(len(ids), self._portion)
        while count:
            chunks = np.flatnonzero(np.bincount(ids[:count] >> _CHUNK_BITS))
            places = self._chunks[chunks, columns].reshape(-1, 2)
            if self._file.fit(places[:, 0], places[:, 1], at_any_rate=count == 1):
                self._ready[:] = False
                self._ready[chunks] = columns != _FIXED
                break
            count = (count + 1) // 2
        self._portion = 2 * count
        return count

    def loaded(self, ids: npt.NDArray[np.uint32], *, columns_alone: bool = False) -> Iterator[slice]:
        """Yield slices of these ids; the requests of a slice stay loaded until the next one is requested.

        With `columns_alone`, targets, headers and bodies are not loaded.
        """
        begin, load = 0, self.load_columns if columns_alone else self.load
        while begin < len(ids):
            end = begin + load(ids[begin:])
            yield slice(begin, end)
            begin = end

    def loaded_batches(self) -> Iterator[RequestBatch]:
        """Yield `batches`; each stays loaded until the next one is requested."""
        for index, batch in enumerate(self.batches):
            first = index * BATCH_ROWS >> _CHUNK_BITS
            places = self._chunks[first : first + (BATCH_ROWS >> _CHUNK_BITS)].reshape(-1, 2)
            self._ready[:] = self._file.whole
            self._file.fit(places[:, 0], places[:, 1], at_any_rate=True)
            yield batch

    def column(self, name: str, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
        """Return one column of these requests, which must be loaded."""
        if len(self.batches) == 1:
            only: npt.NDArray[np.int32] = getattr(self.batches[0], name)
            return only[ids]
        found, of_batch = np.empty(len(ids), np.int32), ids >> 20
        for index in np.unique(of_batch).tolist():
            rows = of_batch == index
            found[rows] = getattr(self.batches[index], name)[ids[rows] & 0xFFFFF]
        return found

    def get(self, index: int) -> Request:
        """Return request `index`. Raises IndexError if there is none."""
        if not 0 <= index < self.rows:
            raise IndexError(index)
        if not self._ready[index >> _CHUNK_BITS]:
            self._load_requests(np.array([index], np.uint32))
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
        """Return whether any request of the trace has a header set."""
        return self._header_sets is not None

    def headers(self, index: int) -> Headers:
        """Return header set `index`, as (name, value) pairs in order. Raises IndexError if there is none."""
        if self._header_sets is None:
            raise IndexError(index)
        return tuple((pair["name"], pair["value"]) for pair in self._header_sets[index])

    def header_sets(self) -> Iterator[Headers]:
        """Yield all header sets, in the order of their ids."""
        for batch in self._header_sets.loaded_batches() if self._header_sets is not None else ():
            for pairs in batch.column(0).to_pylist():
                yield tuple((pair["name"], pair["value"]) for pair in pairs)

    def body(self, index: int) -> bytes:
        """Return body `index`. Raises IndexError if there is none."""
        if self._bodies is None:
            raise IndexError(index)
        return bytes(self._bodies[index])

    def body_sizes(self) -> npt.NDArray[np.int64]:
        """Return the length of each body in bytes, by id."""
        return self._bodies.sizes() if self._bodies is not None else np.empty(0, np.int64)

    def body_batches(self) -> tuple[npt.NDArray[np.int64], int, int]:
        """Return the addresses of the bodies for kernels, and the mean and the largest length of a body.

        The addresses are int64[batches + 1, 3]: the first id of each batch, and raw addresses of its offsets
        (int64) and data. The first id in the last row is the total number of bodies.

        The addresses are valid as long as this object exists. The bodies must be loaded first (`load`).
        """
        if self._bodies is None:
            return np.zeros((1, 3), np.int64), 0, 0
        return self._bodies.table()

    def header_batches(self) -> npt.NDArray[np.int64]:
        """Return the addresses of the header sets for kernels, int64[batches + 1, 7].

        A row has the first id of a batch, the address of the offsets of its sets, the addresses of offsets and data
        of the names, those of the values, and the address of the validity bits of the values (0: all valid).
        Offsets are int32. The first id in the last row is the total number of header sets.

        The header sets must be loaded first (`load`).
        """
        rows, first = [], 0
        for batch in self._header_sets.loaded_batches() if self._header_sets is not None else ():
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
        """Return the distinct content types, and for each header set the index of its content type, or -1.

        Only content types that can be sent in a header are listed. If a set has several, its first one counts.
        """
        names: dict[bytes, int] = {}
        found = [np.empty(0, np.int32)]
        for batch in self._header_sets.loaded_batches() if self._header_sets is not None else ():
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
        """Return raw addresses for kernels, int64[batches, 4].

        A row has the addresses of target offsets (int64), target data (uint8), method (uint8) and route (uint32) of
        a batch. They are valid as long as this object exists. The requests must be loaded first (`load`).
        """
        columns = [(b.offsets, b.data, b.method, b.route) for b in self.batches]
        addresses = [[column.ctypes.data for column in batch] for batch in columns]
        return np.array(addresses, dtype=np.int64).reshape(len(columns), 4)


_COLUMNS = len(REQUEST_SCHEMA) + 1
"""How many byte ranges a chunk of requests has: target offsets, five columns of fixed size, and target data."""

_FIXED = slice(1, _COLUMNS - 1)


def _chunk_places(raw: npt.NDArray[np.uint8], batch: RequestBatch) -> npt.NDArray[np.int64]:
    """Return where the chunks of a batch lie in the file, as int64[chunks, _COLUMNS, 2].

    A range is the first byte of a column of the chunk, and the byte past its end.
    """
    rows = len(batch.method)
    firsts = np.arange(0, rows, _CHUNK_ROWS)
    ends = np.minimum(firsts + _CHUNK_ROWS, rows)
    places = []
    for column in (batch.offsets, batch.method, batch.route, batch.host, batch.headers, batch.body):
        base, size = column.ctypes.data - raw.ctypes.data, column.itemsize
        more = 1 if column is batch.offsets else 0
        places.append((base + firsts * size, base + (ends + more) * size))
    base = batch.data.ctypes.data - raw.ctypes.data
    places.append((base + batch.offsets[firsts], base + batch.offsets[ends]))
    return np.array(places, np.int64).transpose(2, 0, 1)
