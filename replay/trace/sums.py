"""Computes the length and the block checksums of the files of a trace, as the manifest lists them."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from replay.files import open_regular
from replay_native.ground.jit import warm
from replay_native.ground.xxh64 import STATE_WORDS, begin, digest
from replay_native.trace import blocks as kernels

from .manifest import FileSums

BLOCK_BYTES = 1 << 18
"""Bytes per checksum."""

READ_BYTES = 1 << 20
"""Bytes per read or write. Data of this size is still in the CPU cache when it is checked."""

_TAIL_BYTES = 32

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]


class Hasher:
    """Computes checksums of blocks. Each reader needs its own instance, because it holds scratch memory."""

    def __init__(self) -> None:
        warm(["trace.blocks"])
        self._state = np.zeros(STATE_WORDS, np.uint64)
        self._tail = np.zeros(_TAIL_BYTES, np.uint8)

    def of_pieces(self, data: Bytes, begins: Int64s, ends: Int64s) -> npt.NDArray[np.uint64]:
        """Return the checksum of each piece of `data`; piece i is data[begins[i]:ends[i]]."""
        found = np.empty(len(begins), np.uint64)
        kernels.hash_pieces(data, begins, ends, self._state, self._tail, found)
        return found

    def hashes(self, data: Bytes) -> npt.NDArray[np.uint64]:
        """Return the checksum of each block of BLOCK_BYTES in `data`; the last block may be shorter."""
        found = np.empty(-(-len(data) // BLOCK_BYTES), np.uint64)
        kernels.hash_blocks(data, BLOCK_BYTES, self._state, self._tail, found)
        return found


class _Sums:
    """The length and the block checksums of data that comes in pieces of any size."""

    def __init__(self) -> None:
        warm(["trace.blocks"])
        self._state = np.zeros(STATE_WORDS, np.uint64)
        self._tail = np.zeros(_TAIL_BYTES, np.uint8)
        begin(self._state)
        self._size = 0
        self._hashes: list[npt.NDArray[np.uint64]] = []

    def add(self, data: Bytes) -> None:
        """Add the next piece."""
        found = np.empty(len(data) // BLOCK_BYTES + 1, np.uint64)
        count = kernels.hash_stream(data, BLOCK_BYTES, self._state, self._tail, found)
        self._hashes.append(found[:count])
        self._size += len(data)

    def finish(self) -> FileSums:
        """Return the sums of all that was added."""
        if self._size % BLOCK_BYTES:
            last = digest(self._state, self._tail)
            self._hashes.append(np.array([last], np.uint64))
        text = "".join(f"{int(value):016x}" for part in self._hashes for value in part)
        return FileSums(bytes=self._size, xxh64=text)


def sums_of(path: Path) -> FileSums:
    """Return the length and the block checksums of a file that was just written."""
    sums, buffer = _Sums(), np.empty(READ_BYTES, np.uint8)
    with open_regular(path) as file:
        while count := os.readv(file.fileno(), [buffer.data]):
            sums.add(buffer[:count])
    return sums.finish()


def _bytes_of(data: bytes | pa.Buffer) -> Bytes:
    """Return data as an array that kernels accept, which is valid while `data` is referenced.

    Arrow says that its buffers are read-only. They are large, and therefore not copied.
    """
    if isinstance(data, bytes):
        return np.frombuffer(bytearray(data), np.uint8)
    return np.frombuffer((ctypes.c_uint8 * data.size).from_address(data.address), np.uint8)


class SummedFile:
    """A new file whose sums are computed while Arrow writes it, so that it need not be read again.

    Use it in a `with` block. Raises OSError if the file cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self._sums = _Sums()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def __enter__(self) -> SummedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Return whether the file is closed."""
        return self._descriptor < 0

    def write(self, data: bytes | pa.Buffer) -> int:
        """Write a piece, and return its length."""
        whole = _bytes_of(data)
        for at in range(0, len(whole), READ_BYTES):
            piece = whole[at : at + READ_BYTES]
            self._sums.add(piece)
            done = 0
            while done < len(piece):
                done += os.write(self._descriptor, piece[done:].data)
        return len(whole)

    def flush(self) -> None:
        """Do nothing, because every write goes to the kernel at once."""

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            os.close(self._descriptor)
            self._descriptor = -1

    def sums(self) -> FileSums:
        """Return the sums of the whole file. Call it once, after the last write."""
        return self._sums.finish()
