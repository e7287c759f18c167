"""Writes the dictionaries of a trace: requests, header sets and bodies.

Repeated requests are found as long as the table of known requests has space.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay.errors import InputError
from replay_native.trace import dictionary as kernels

from .blob_writer import HeaderSets
from .columns import BATCH_ROWS, REQUEST_SCHEMA, array_of
from .dictionary import (
    Bytes,
    Ids,
    Int64s,
    StringTable,
    flatten,
)
from .manifest import HOSTS_MAX, METHODS_MAX
from .packed_writer import PackedWriter
from .requests import (
    BODIES,
    HEADERS,
    REQUESTS,
    Headers,
)

DEDUPE_ENTRIES_MAX = 1 << 19
"""How many distinct requests are remembered. Further requests are written each time they occur."""

DEDUPE_BYTES_MAX = 48 << 20
"""Maximum total length of the remembered targets, in bytes."""

METHOD_LENGTH_MAX = 32

PENDING_ROWS = 1 << 15
"""How many requests are buffered in memory before they are written to a temporary file."""


class _Names:
    """Maps names of methods or hosts to indexes, up to `limit` different names."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.index: dict[str, int] = {}

    def get(self, name: str) -> int:
        found = self.index.get(name)
        if found is None:
            if len(self.index) >= self.limit:
                return -1
            found = self.index[name] = len(self.index)
        return found


class _PutBy:
    """Columns of requests in temporary files, until the requests dictionary is written from them.

    The dictionary cannot be written while requests are added, because the length of a batch must be known before its
    first byte is written.
    """

    def __init__(self, folder: Path) -> None:
        self._data, self._ends, self._words = (TemporaryFile(dir=folder) for _ in range(3))  # noqa: SIM115 (`close` does)
        self.rows = self._bytes = 0

    def append(self, data: Bytes, ends: Int64s, words: Int64s) -> None:
        """Add n requests: their targets, the n + 1 boundaries between them, and two words for each."""
        self._data.write(data[: ends[-1]].data)
        self._ends.write((ends[1:] + self._bytes).data)
        self._words.write(words.data)
        self.rows += len(words)
        self._bytes += int(ends[-1])

    def batches(self, rows: int) -> Iterator[tuple[Bytes, Int64s, Int64s]]:
        """Yield the stored requests in batches, as views that are valid until the next batch is requested."""
        begin = 0
        for first in range(0, self.rows, rows):
            count = min(rows, self.rows - first)
            ends = np.zeros(count + 1, dtype=np.int64)
            ends[1:] = _mapped(self._ends, 8 * first, 8 * count).view(np.int64)
            ends[1:] -= begin
            words = _mapped(self._words, 16 * first, 16 * count).view(np.int64).reshape(count, 2)
            yield _mapped(self._data, begin, int(ends[-1])), ends, words
            begin += int(ends[-1])

    def close(self) -> None:
        """Close the files.

        Errors are ignored: a full disk may reject buffered data, but that data is not needed any more.
        """
        for file in (self._data, self._ends, self._words):
            with contextlib.suppress(OSError):
                file.close()


def _mapped(file: IO[bytes], begin: int, length: int) -> Bytes:
    """Return a part of a file as memory-mapped bytes, valid while the array is referenced."""
    if not length:
        return np.empty(0, dtype=np.uint8)
    file.flush()
    before = begin % mmap.ALLOCATIONGRANULARITY
    pages = mmap.mmap(file.fileno(), before + length, offset=begin - before, access=mmap.ACCESS_READ)
    return np.frombuffer(pages, np.uint8, length, before)


class RequestWriter:
    """Writes requests.arrow, headers.arrow and bodies.arrow into `folder`.

    The routes of all requests are 0 until `assign_routes` sets them.
    """

    def __init__(self, folder: Path) -> None:
        self._methods, self._hosts = _Names(METHODS_MAX), _Names(HOSTS_MAX)
        self._table = StringTable(DEDUPE_ENTRIES_MAX, DEDUPE_BYTES_MAX)
        self._header_sets = HeaderSets(folder / HEADERS)
        self._bodies = PackedWriter(folder / BODIES)
        self._sink = pa.OSFile(os.fspath(folder / REQUESTS), "wb")
        self._file = pa.ipc.new_file(self._sink, REQUEST_SCHEMA)
        self._put_by = _PutBy(folder)
        self._data = np.empty(1 << 20, dtype=np.uint8)
        self._ends = np.zeros(PENDING_ROWS + 1, dtype=np.int64)
        self._words = np.empty((PENDING_ROWS, 2), dtype=np.int64)
        self._pending = 0
        self.repeated_rows = 0
        """How many requests, the first ones by id, were remembered until `end`; later ones were never found again."""

    @property
    def methods(self) -> list[str]:
        """Return the method names by index."""
        return list(self._methods.index)

    @property
    def hosts(self) -> list[str]:
        """Return the host names by index."""
        return list(self._hosts.index)

    @property
    def bodies(self) -> int:
        """Return the number of bodies in the dictionary."""
        return self._bodies.rows

    @property
    def rows(self) -> int:
        """Return the number of requests in the dictionary, with the repetitions of those that are not remembered."""
        return self._put_by.rows + self._pending

    def method_id(self, name: str) -> int:
        """Return the index of a method.

        Raises InputError if the name is not that of a method, or if there are more than METHODS_MAX different ones.
        """
        if not 0 < len(name) <= METHOD_LENGTH_MAX or not name.isascii():
            raise InputError(f"{name[:40]!r} is not an HTTP method")
        found = self._methods.get(name)
        if found < 0:
            raise InputError(
                f"more than {METHODS_MAX} different methods: this is not a recording of HTTP requests"
            )
        return found

    def host_id(self, name: str) -> int:
        """Return the index of a host, or -1 beyond HOSTS_MAX different ones."""
        return self._hosts.get(name)

    def headers_id(self, headers: Headers) -> int:
        """Add a header set and return its index."""
        return self._header_sets.add(headers)

    def body_id(self, body: bytes) -> int:
        """Add a body and return its index."""
        return self._bodies.add(body)

    def add(self, method: int, target: bytes, host: int, headers: int, body: int) -> int:
        """Add one request and return its id; -1 is no host, headers or body."""
        data, offsets = flatten([target])
        columns = [np.array([value], dtype=np.int64) for value in (method, host, headers, body)]
        return int(self.add_many(data, offsets, *columns)[0])

    def add_many(
        self,
        data: Bytes,
        offsets: Int64s,
        method: Int64s,
        host: Int64s,
        headers: Int64s | None,
        body: Int64s | None,
    ) -> Ids:
        """Add n requests and return their ids.

        Target i is data[offsets[i]:offsets[i + 1]]. The other columns are indexes; -1 is none.
        """
        words = np.empty((len(method), 2), dtype=np.int64)
        words[:, 0] = ((host + 1) << 8) | method
        words[:, 1] = 0
        if headers is not None:
            words[:, 1] |= (headers + 1) << 32
        if body is not None:
            words[:, 1] |= body + 1
        ids = np.empty(len(method), dtype=np.uint32)
        done = 0
        while done < len(method):
            last = min(len(method), done + PENDING_ROWS - self._pending)
            ids[done:last], fresh = self._table.intern(data, offsets, words, done, last)
            self._append(data, offsets, words, fresh)
            done = last
        return ids

    def _append(self, data: Bytes, offsets: Int64s, words: Int64s, fresh: Int64s) -> None:
        needed = int(self._ends[self._pending]) + int((offsets[fresh + 1] - offsets[fresh]).sum())
        if needed > len(self._data):
            grown = np.empty(max(needed, 2 * len(self._data)), dtype=np.uint8)
            grown[: self._ends[self._pending]] = self._data[: self._ends[self._pending]]
            self._data = grown
        kernels.gather(data, offsets, fresh, len(fresh), self._data, self._ends, self._pending)
        np.take(
            words, fresh, axis=0, out=self._words[self._pending : self._pending + len(fresh)], mode="clip"
        )
        self._pending += len(fresh)
        if self._pending == PENDING_ROWS:
            self._flush()

    def _flush(self) -> None:
        self._put_by.append(self._data, self._ends[: self._pending + 1], self._words[: self._pending])
        self._pending = 0

    def _write(self, data: Bytes, ends: Int64s, words: Int64s) -> None:
        rows = len(words)
        buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
        columns: list[npt.NDArray[Any]] = [
            (words[:, 0] & 0xFF).astype(np.uint8),
            np.zeros(rows, dtype=np.uint32),
            ((words[:, 0] >> 8) - 1).astype(np.int32),
            ((words[:, 1] >> 32) - 1).astype(np.int32),
            ((words[:, 1] & 0xFFFFFFFF) - 1).astype(np.int32),
        ]
        arrays = [array_of(column) for column in columns]
        arrays.insert(1, pa.Array.from_buffers(pa.large_binary(), rows, buffers, null_count=0))
        self._file.write_batch(pa.record_batch(arrays, schema=REQUEST_SCHEMA))

    def end(self) -> None:
        """Release the memory for finding repeated requests. No request may be added after that."""
        self._flush()
        self.repeated_rows = len(self._table)
        self._table = StringTable(0, 0)
        self._bodies.end()

    def close(self) -> None:
        """Write the requests dictionary, and close all files."""
        self._data = np.empty(0, dtype=np.uint8)
        for batch in self._put_by.batches(BATCH_ROWS):
            self._write(*batch)
        self._file.close()
        self._sink.close()
        self._header_sets.close()
        self._bodies.close()

    def discard(self) -> None:
        """Release the temporary files that are needed only while requests are written."""
        self._put_by.close()
