"""Reads the files of a trace into the process's own memory and checks each block.

Kernels never read a memory-mapped file. If another process truncates a mapped file, the process that reads it dies
of SIGBUS, which a kernel cannot catch. Nor can a map be checked once, because the bytes may change afterwards.

The manifest has the length of each file and a checksum of each of its blocks. Traces of format 1 have neither; they
are read in the same way, unchecked.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.errors import InputError, reason_of
from replay.files import open_regular

from .manifest import FileSums
from .sums import BLOCK_BYTES, READ_BYTES, Hasher

_HUGE_FROM_BYTES = 8 << 20
"""Memory of at least this size uses huge pages, so that the kernel clears fewer pages."""

_HEX_OF_A_SUM = 16
_KEPT_BUFFERS = 4

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]


AGAIN = "copy the trace again from an undamaged copy, or import the log again"
"""What a user can do about a damaged trace."""


def corrupt(path: Path, what: str) -> InputError:
    """Return the error for a damaged file of a trace; `what` describes the damage."""
    return InputError(f"{path} is damaged: {what}", hint=AGAIN)


def check_size(path: Path, found_bytes: int, written_bytes: int) -> None:
    """Raise InputError if the size of a file differs from the size with which it was written."""
    if found_bytes != written_bytes:
        what = "was cut" if found_bytes < written_bytes else "has grown"
        raise corrupt(path, f"it {what}: it has {found_bytes:,} bytes, and {written_bytes:,} were written")


class CheckedFile:
    """A file of a trace, opened for reading and checked against the manifest.

    Raises InputError if the file is missing or empty, or if its length differs from the manifest.
    """

    def __init__(self, path: Path, sums: FileSums | None) -> None:
        self.path = path
        try:
            self._file = open_regular(path)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise InputError(f"{path}: {reason_of(error)}", hint=AGAIN) from None
        self._hasher = Hasher()
        self._expected = _expected(path, sums)
        if sums is not None:
            check_size(path, self.size, sums.bytes)
        if not self.size:
            raise corrupt(path, "it is empty")

    def close(self) -> None:
        """Close the file. Data that was read stays valid."""
        self._file.close()

    def read(self, memory: Bytes, first_byte: int) -> None:
        """Fill `memory` with checked bytes of the file, from `first_byte` on.

        `first_byte` must be the start of a block, and the range must end at the end of a block or of the file.
        Raises InputError if a checksum does not match, or if the file cannot be read.
        """
        done = 0
        while done < len(memory):
            piece = memory[done : done + READ_BYTES]
            self.read_unchecked(piece, first_byte + done)
            self._check(piece, first_byte + done)
            done += len(piece)

    def read_unchecked(self, piece: Bytes, at: int) -> None:
        """Fill `piece` with the bytes of the file from `at` on, without comparing checksums.

        Raises InputError if the file cannot be read, or has become shorter.
        """
        done = 0
        while done < len(piece):
            try:
                count = os.preadv(self._file.fileno(), [piece[done:].data], at + done)
            except OSError as error:
                raise InputError(
                    f"{self.path}: bytes from {at + done:,} on: {reason_of(error)}", hint=AGAIN
                ) from None
            if not count:
                check_size(self.path, at + done, self.size)
            done += count

    def _check(self, piece: Bytes, at: int) -> None:
        if self._expected is None:
            return
        found, first = self._hasher.hashes(piece), at // BLOCK_BYTES
        wrong = found != self._expected[first : first + len(found)]
        if wrong.any():
            block = first + int(wrong.argmax())
            begin, end = block * BLOCK_BYTES, min((block + 1) * BLOCK_BYTES, self.size)
            raise corrupt(
                self.path, f"bytes {begin:,} to {end - 1:,} (block {block}) are not those that were written"
            )


def _expected(path: Path, sums: FileSums | None) -> npt.NDArray[np.uint64] | None:
    """Return the checksums in the manifest as an array, or None if the file has none.

    Raises InputError if there is not one for each block.
    """
    if sums is None:
        return None
    try:
        found = np.frombuffer(bytes.fromhex(sums.xxh64), ">u8").astype(np.uint64)
    except ValueError:
        found = np.empty(0, np.uint64)
    if len(sums.xxh64) != _HEX_OF_A_SUM * len(found) or len(found) != -(-sums.bytes // BLOCK_BYTES):
        raise corrupt(path, "its manifest does not have a checksum for each block")
    return found


class ReusedBuffers:
    """Memory that is reused for one file after another.

    The kernel must clear new pages, which takes longer than reading a file into them. A buffer is therefore reused
    as soon as nothing else refers to it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buffers: list[Bytes] = []

    def take(self, size: int) -> Bytes:
        """Return uninitialized memory of `size` bytes, which stays valid while it or a view of it is referenced."""
        with self._lock:
            for index in range(len(self._buffers)):
                if sys.getrefcount(self._buffers[index]) == _UNUSED and len(self._buffers[index]) >= size:
                    return self._buffers[index][:size]
            made = np.empty(size, np.uint8)
            self._buffers = [*self._buffers[-(_KEPT_BUFFERS - 1) :], made]
            return made[:]


_PROBE = [np.empty(0)]
_UNUSED = sys.getrefcount(_PROBE[0])
"""The reference count of a buffer that only its list refers to."""


class PagedFile(CheckedFile):
    """A file with fixed addresses in memory, whose blocks are loaded on request.

    `raw` is as long as the file, but only its loaded parts may be read. When more than `budget_bytes` are loaded,
    blocks that the current request does not need are released, and must be loaded again. Loaded data stays valid
    until the next call of `load` or `fit`.
    """

    def __init__(self, path: Path, sums: FileSums | None, budget_bytes: int) -> None:
        super().__init__(path, sums)
        self._budget_blocks = max(budget_bytes // BLOCK_BYTES, 1)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._memory = mmap.mmap(-1, self.size, flags=flags)
        if self.size >= _HUGE_FROM_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        self.raw: Bytes = np.frombuffer(self._memory, np.uint8)
        blocks = -(-self.size // BLOCK_BYTES)
        self._loaded = np.zeros(blocks, bool)
        self._ever_loaded = np.zeros(blocks, bool)
        self._pinned = np.zeros(blocks, bool)
        self._held = 0

    @property
    def whole(self) -> bool:
        """Return whether the whole file is loaded, and fits into the budget, so that it stays loaded."""
        return self._held == len(self._loaded) <= self._budget_blocks

    def settle(self) -> None:
        """Release all blocks that are not pinned, if the loaded blocks exceed the budget."""
        if self._held > self._budget_blocks:
            self._give_back(self._loaded & ~self._pinned)

    def load(self, begin: int, end: int, *, pin: bool = False) -> None:
        """Load the bytes from `begin` up to, but not including, `end`, even beyond the budget.

        With `pin`, they are never released.
        """
        begin, end = max(begin, 0), min(end, self.size)
        wanted = np.zeros_like(self._loaded)
        wanted[begin // BLOCK_BYTES : -(-end // BLOCK_BYTES)] = True
        self._pinned |= wanted & pin
        self._bring(wanted)

    def fit(self, begins: Int64s, ends: Int64s, *, at_any_rate: bool = False) -> bool:
        """Load all of these byte ranges, and return whether they were loaded.

        Ranges that exceed the budget are loaded only with `at_any_rate`.
        """
        wanted = self._blocks(begins, ends)
        if wanted.sum() > self._budget_blocks and not at_any_rate:
            return False
        self._bring(wanted)
        return True

    def check_rest(self) -> None:
        """Load every block that was never loaded, and so check it."""
        for block in np.flatnonzero(~self._ever_loaded).tolist():
            self.load(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)

    def _blocks(self, begins: Int64s, ends: Int64s) -> npt.NDArray[np.bool_]:
        steps = np.zeros(len(self._loaded) + 1, np.int64)
        kept = ends > begins
        np.add.at(steps, begins[kept] // BLOCK_BYTES, 1)
        np.add.at(steps, (ends[kept] - 1) // BLOCK_BYTES + 1, -1)
        return np.cumsum(steps[:-1]) > 0

    def _bring(self, wanted: npt.NDArray[np.bool_]) -> None:
        missing = wanted & ~self._loaded
        more = int(missing.sum())
        if not more:
            return
        if self._held + more > self._budget_blocks:
            self._give_back(self._loaded & ~wanted & ~self._pinned)
        for first, last in _runs(missing):
            begin, end = first * BLOCK_BYTES, min(last * BLOCK_BYTES, self.size)
            self.read(self.raw[begin:end], begin)
            self._loaded[first:last] = self._ever_loaded[first:last] = True
            self._held += last - first

    def _give_back(self, blocks: npt.NDArray[np.bool_]) -> None:
        for first, last in _runs(blocks):
            begin, end = first * BLOCK_BYTES, min(last * BLOCK_BYTES, self.size)
            self._memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)
            self._loaded[first:last] = False
            self._held -= last - first


class EditedFile(PagedFile):
    """A paged file whose parts can be changed in memory and written back."""

    def __init__(self, path: Path, budget_bytes: int) -> None:
        super().__init__(path, None, budget_bytes)
        self._target = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def close(self) -> None:
        """Close the file. Changes that were not written back are lost."""
        super().close()
        os.close(self._target)

    def load_view(self, view: npt.NDArray[Any]) -> None:
        """Load the bytes of the file that a view of `raw` covers."""
        begin = view.ctypes.data - self.raw.ctypes.data
        self.load(begin, begin + view.nbytes)

    def write_back(self, view: npt.NDArray[Any]) -> None:
        """Write a view of `raw` to its place in the file. Raises OSError if the write fails."""
        begin, data = view.ctypes.data - self.raw.ctypes.data, view.view(np.uint8)
        done = 0
        while done < len(data):
            done += os.pwrite(self._target, data[done:].data, begin + done)


def _runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield each run of set values in a mask, as its first index and the index past its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def view_of(raw: Bytes, buffer: Any, dtype: Any, count: int) -> npt.NDArray[Any]:
    """Return an Arrow buffer that lies in `raw` as a view of `raw`, with `count` values of `dtype`."""
    if not count:
        return np.empty(0, dtype=dtype)
    begin = buffer.address - raw.ctypes.data
    return raw[begin : begin + count * np.dtype(dtype).itemsize].view(dtype)
