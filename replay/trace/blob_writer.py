"""Writes the dictionaries of header sets and responses, in which a repeated value usually gets the same id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pyarrow as pa

from .requests import HEADERS_SCHEMA, Headers

BLOBS_REMEMBERED = 1 << 16
"""How many values of one dictionary are remembered to find repeated ones."""

HEADERS_KNOWN = 1 << 13
"""How many header sets are recognized without computing their digest."""

BLOB_BATCH_ROWS, BLOB_BATCH_BYTES = 1 << 16, 16 << 20


class BlobWriter:
    """Appends values to a dictionary file.

    The file is created when the first values are written.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._pending: list[Any] = []
        self._pending_bytes = self._rows = 0
        self._known: dict[Hashable, int] = {}
        self._file: Any = None

    def add(self, value: Any, key: Hashable, size: int) -> int:
        """Add a value and return its id.

        If a value with an equal key is remembered, its id is returned. `size` is the approximate number of bytes that
        the value occupies.
        """
        found = self._known.get(key)
        if found is not None:
            return found
        index, self._rows = self._rows, self._rows + 1
        if len(self._known) < BLOBS_REMEMBERED:
            self._known[key] = index
        self._pending.append(value)
        self._pending_bytes += size
        if len(self._pending) >= BLOB_BATCH_ROWS or self._pending_bytes >= BLOB_BATCH_BYTES:
            self._flush()
        return index

    def _flush(self) -> None:
        if self._file is None:
            self._file = pa.ipc.new_file(os.fspath(self._path), self._schema)
        array = pa.array(self._pending, type=self._schema.field(0).type)
        self._file.write_batch(pa.record_batch([array], schema=self._schema))
        self._pending, self._pending_bytes = [], 0

    def close(self) -> None:
        """Write the buffered values, and close the file."""
        if self._pending:
            self._flush()
        if self._file is not None:
            self._file.close()
            self._file = None


class HeaderSets:
    """Appends header sets to a dictionary file."""

    def __init__(self, path: Path) -> None:
        self._blobs = BlobWriter(path, HEADERS_SCHEMA)
        self._known: dict[Headers, int] = {}

    def add(self, headers: Headers) -> int:
        """Add a header set and return its id."""
        known = self._known.get(headers)
        if known is not None:
            return known
        key = hashlib.blake2b(repr(headers).encode(), digest_size=16).digest()
        value = [{"name": name, "value": content} for name, content in headers]
        size = sum(len(name) + len(content or b"") for name, content in headers)
        index = self._blobs.add(value, key, size)
        if len(self._known) < HEADERS_KNOWN:
            self._known[headers] = index
        return index

    def close(self) -> None:
        """Write the buffered values, and close the file."""
        self._blobs.close()
