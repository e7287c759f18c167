"""Writes bodies packed in blocks (see `packed`). Equal bodies are written once, while their digest is remembered."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pyarrow as pa

from replay_native.ground.jit import warm
from replay_native.trace import digests as kernels

from .packed import PACKED_SCHEMA
from .sums import Hasher

BLOCK_BYTES = 16 << 10
"""Bytes of a block with its boundaries: larger blocks compress better, but make reading a single body slower."""

DIGESTS_MAX = 1 << 23
"""Maximum slots of a table of digests, 24 bytes each. A table of this size forgets old digests as it fills."""

_DIGESTS_MIN = 1 << 12
_BATCH_BLOCKS, _BATCH_BYTES = 1 << 12, 16 << 20
_PLACE_BYTES = 8
_DIGEST = struct.Struct("<qq")


class DigestTable:
    """Finds equal bodies by digests of 128 bits, which different bodies practically never share."""

    def __init__(self, slots_max: int = DIGESTS_MAX) -> None:
        warm(["trace.digests"])
        self._slots_max = slots_max
        self._table = np.zeros((min(_DIGESTS_MIN, slots_max), kernels.COLUMNS), np.int64)
        self._count = 0

    def find_or_put(self, body: bytes, index: int) -> int:
        """Return the id of an earlier equal body, or remember the body under `index` and return that."""
        low, high = _DIGEST.unpack(hashlib.blake2b(body, digest_size=_DIGEST.size).digest())
        found = int(kernels.find_or_put(self._table, low, high, index))
        if found == index:
            self._count += 1
            if 2 * self._count > len(self._table) < self._slots_max:
                table = np.zeros((4 * len(self._table), kernels.COLUMNS), np.int64)[: self._slots_max]
                kernels.move(self._table, table)
                self._table = table
        return found


class PackedWriter:
    """Appends bodies to a packed file, which is created when the first blocks are written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._known = DigestTable()
        self.rows = 0
        self._held: list[bytes] = []
        self._held_bytes = _PLACE_BYTES
        self._blocks: list[tuple[int, int, int, bytes]] = []
        self._blocks_bytes = 0

    def add(self, body: bytes) -> int:
        """Add a body and return its id."""
        found = self._known.find_or_put(body, self.rows)
        if found < self.rows:
            return found
        if self._held and self._held_bytes + len(body) + _PLACE_BYTES > BLOCK_BYTES:
            self._pack()
        self.rows += 1
        self._held.append(body)
        self._held_bytes += len(body) + _PLACE_BYTES
        if self._held_bytes >= BLOCK_BYTES:
            self._pack()
        return found

    def _pack(self) -> None:
        sizes = np.array([len(body) for body in self._held], np.int64)
        offsets = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        plain = offsets.tobytes() + b"".join(self._held)
        packed = bytes(cramjam.lz4.compress_block(plain, store_size=False))
        packed = packed if len(packed) < len(plain) else plain
        self._blocks.append((len(sizes), int(offsets[-1]), int(sizes.max()), packed))
        self._blocks_bytes += len(packed)
        self._held, self._held_bytes = [], _PLACE_BYTES
        if len(self._blocks) >= _BATCH_BLOCKS or self._blocks_bytes >= _BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._file is None:
            self._file = pa.ipc.new_file(os.fspath(self._path), PACKED_SCHEMA)
        rows, sizes, largest, packed = zip(*self._blocks, strict=True)
        data = np.frombuffer(bytearray(b"".join(packed)), np.uint8)
        ends = np.cumsum([0, *(len(each) for each in packed)]).astype(np.int64)
        found = Hasher().of_pieces(data, ends[:-1], ends[1:])
        arrays = [
            pa.array(rows, pa.int32()), pa.array(sizes, pa.int64()), pa.array(largest, pa.int64()), pa.array(found),
            pa.array(packed, pa.large_binary()),
        ]  # fmt: skip
        self._file.write_batch(pa.record_batch(arrays, schema=PACKED_SCHEMA))
        self._blocks, self._blocks_bytes = [], 0

    def end(self) -> None:
        """Release the memory for finding repeated bodies. No body may be added after that."""
        self._known = DigestTable(1)

    def close(self) -> None:
        """Write the buffered bodies, and close the file."""
        if self._held:
            self._pack()
        if self._blocks:
            self._flush()
        if self._file is not None:
            self._file.close()
            self._file = None
