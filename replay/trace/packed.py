"""Reads packed bodies: blocks of about 16 KiB, each compressed separately, so that any body can be read alone.

Each row of the Arrow file is a block. An unpacked block has the boundaries of its bodies (int64, one more than
there are bodies), then the bodies. A block that LZ4 does not make smaller is stored uncompressed.
"""

from __future__ import annotations

import mmap
import os

import cramjam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .blocks import PagedFile, corrupt
from .columns import open_paged
from .sums import Hasher

PACKED_SCHEMA = pa.schema(
    [
        pa.field("rows", pa.int32(), False),
        pa.field("bytes", pa.int64(), False),
        pa.field("largest", pa.int64(), False),
        pa.field("xxh64", pa.uint64(), False),
        pa.field("packed", pa.large_binary(), False),
    ]
)
"""For each block: number of bodies, their total and largest size, XXH64 of the packed bytes, and the packed bytes."""

UNPACKED_BUDGET_BYTES_MAX = 256 << 20
"""Memory limit for unpacked blocks; an eighth of the machine's memory, if that is less."""

READ_BYTES_MAX = 1 << 20
"""Neighboring blocks are read together until they have this many bytes."""

GAP_BYTES_MAX = 32 << 10
"""Blocks with at most this many unneeded bytes between them are read together: that costs less than two reads."""

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def _budget_bytes() -> int:
    return min(UNPACKED_BUDGET_BYTES_MAX, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8)


class PackedBodies:
    """The bodies of a packed file, by id.

    Each block has a fixed place in memory, which is filled when the block is loaded. Loaded data stays valid until
    the next call of `load`, `sizes` or `[]`.
    """

    def __init__(self, file: PagedFile) -> None:
        self._file, self._hasher = file, Hasher()
        columns = {
            field.name: [np.empty(0, field.type.to_pandas_dtype())] for field in list(PACKED_SCHEMA)[:-1]
        }
        begins, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for batch in open_paged(file, PACKED_SCHEMA):
            for name, found in columns.items():
                found.append(batch.column(name).to_numpy().copy())
            _, offsets, data = batch.column("packed").buffers()
            places = np.frombuffer(offsets, np.int64, batch.num_rows + 1)
            base = data.address - file.raw.ctypes.data if data is not None else 0
            begins.append(base + places[:-1])
            ends.append(base + places[1:])
        rows, self._bytes, self._largest, self._sums = (np.concatenate(found) for found in columns.values())
        self._begins, self._ends = np.concatenate(begins), np.concatenate(ends)
        if len(rows) and (rows.min() < 1 or self._bytes.min() < 0 or self._bytes.max() > file.size << 8):
            raise corrupt(file.path, "a block of bodies has an impossible size")
        self._rows = rows.astype(np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._rows)]).astype(np.int64)
        self._sizes = 8 * (self._rows + 1) + self._bytes
        page = mmap.PAGESIZE
        self._places = np.concatenate([[0], np.cumsum(-(-self._sizes // page) * page)]).astype(np.int64)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._memory = mmap.mmap(-1, max(int(self._places[-1]), page), flags=flags)
        self._view, self._raw = memoryview(self._memory), np.frombuffer(self._memory, np.uint8)
        self._loaded, self._seen = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        self._held_bytes, self._budget_bytes = 0, _budget_bytes()
        self._portion = 1 << 20
        """How many ids `load` tries first: twice as many as the last call loaded."""
        self.whole = int(self._sizes.sum()) <= self._budget_bytes
        """Whether the whole file is loaded permanently."""
        if self.whole:
            self._bring(np.ones(len(rows), bool))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        block = int(np.searchsorted(self._starts, index, side="right")) - 1
        if not self._loaded[block]:
            self._make_room(int(self._sizes[block]), self._loaded)
            self._load(np.array([block]))
        place, row = int(self._places[block]), index - int(self._starts[block])
        begin, end = self._raw[place + 8 * row : place + 8 * row + 16].view(np.int64).tolist()
        data = place + 8 * (int(self._rows[block]) + 1)
        return self._raw[data + begin : data + end].tobytes()

    def sizes(self) -> Int64s:
        """Return the length of each body in bytes, by id."""
        found = [np.empty(0, np.int64)]
        for block in range(len(self._rows)):
            if not self._loaded[block]:
                self._make_room(int(self._sizes[block]), self._loaded)
                self._load(np.array([block]))
            found.append(np.diff(self._offsets(block)).astype(np.int64))
        return np.concatenate(found)

    def table(self) -> tuple[Int64s, int, int]:
        """Return the addresses of the bodies (see `Requests.body_batches`)."""
        places = self._raw.ctypes.data + self._places[:-1]
        rows = np.column_stack([self._starts[:-1], places, places + 8 * (self._rows + 1)])
        table = np.concatenate([rows, [[len(self), 0, 0]]]).astype(np.int64)
        return table, int(self._bytes.sum()) // max(len(self), 1), int(self._largest.max(initial=0))

    def load(self, ids: npt.NDArray[np.int32]) -> int:
        """Load the bodies of the first ids, up to the memory limit, and return how many ids were handled.

        At least one is loaded, even if it exceeds the limit. An id of -1 has no body.
        """
        count = min(len(ids), self._portion)
        block_of = np.searchsorted(self._starts, ids[:count], side="right") - 1
        while count:
            wanted = np.zeros(len(self._rows) + 1, bool)
            wanted[block_of[:count]] = True
            wanted = wanted[:-1]
            if self._sizes[wanted].sum() <= self._budget_bytes or count == 1:
                self._bring(wanted)
                break
            count = (count + 1) // 2
        self._portion = 2 * count
        return count

    def _offsets(self, block: int) -> Int64s:
        """Return the boundaries of the bodies in a loaded block."""
        place = int(self._places[block])
        return self._raw[place : place + 8 * (int(self._rows[block]) + 1)].view(np.int64)

    def _bring(self, wanted: Bools) -> None:
        missing = np.flatnonzero(wanted & ~self._loaded)
        self._make_room(int(self._sizes[missing].sum()), self._loaded & ~wanted)
        self._load(missing)

    def _load(self, missing: Int64s) -> None:
        """Load blocks; blocks that are near each other in the file are read together."""
        begins, ends = self._begins[missing], self._ends[missing]
        places = zip(begins.tolist(), ends.tolist(), strict=True)
        first, begin, before = 0, -1, -1
        for index, (at, end) in enumerate(places):
            if begin >= 0 and (at - before > GAP_BYTES_MAX or at < before or end - begin > READ_BYTES_MAX):
                self._read(missing[first:index], begins[first:index], ends[first:index])
                first, begin = index, -1
            begin, before = at if begin < 0 else begin, end
        if len(missing):
            self._read(missing[first:], begins[first:], ends[first:])

    def _make_room(self, more_bytes: int, spare: Bools) -> None:
        """Release the blocks in `spare`, if `more_bytes` further bytes would exceed the memory limit."""
        if self._held_bytes + more_bytes <= self._budget_bytes:
            return
        edges = np.flatnonzero(np.diff(np.concatenate([[False], spare, [False]]).astype(np.int8)))
        for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            begin, end = int(self._places[first]), int(self._places[last])
            self._memory.madvise(mmap.MADV_DONTNEED, begin, end - begin)
        self._held_bytes -= int(self._sizes[spare].sum())
        self._loaded &= ~spare

    def _read(self, blocks: Int64s, begins: Int64s, ends: Int64s) -> None:
        """Read blocks with one read from the first to the last of them, then check and unpack them."""
        begin = int(begins[0])
        packed = np.empty(int(ends[-1]) - begin, np.uint8)
        self._file.read_unchecked(packed, begin)
        begins, ends = begins - begin, ends - begin
        wrong = self._hasher.of_pieces(packed, begins, ends) != self._sums[blocks]
        if wrong.any():
            raise self._damage(int(blocks[np.argmax(wrong)]))
        view, raw = memoryview(packed.data), self._view
        places, sizes = self._places[blocks].tolist(), self._sizes[blocks].tolist()
        for index, (from_, to) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            place, size = places[index], sizes[index]
            if not _unpack(view[from_:to], raw[place : place + size]):
                raise self._damage(int(blocks[index]))
        for block in blocks[~self._seen[blocks]].tolist():
            self._check(block)
        self._seen[blocks] = self._loaded[blocks] = True
        self._held_bytes += sum(sizes)

    def _check(self, block: int) -> None:
        """Check that all boundaries lie inside the block, because kernels read the bodies by them."""
        offsets = self._offsets(block)
        if offsets[0] != 0 or offsets[-1] != self._bytes[block] or (offsets[1:] < offsets[:-1]).any():
            raise self._damage(block)

    def _damage(self, block: int) -> Exception:
        begin, end = int(self._begins[block]), int(self._ends[block])
        return corrupt(
            self._file.path,
            f"bytes {begin:,} to {end - 1:,} (block {block} of bodies) are not those that were written",
        )


def _unpack(packed: memoryview, target: memoryview) -> bool:
    """Unpack a block into `target`, and return whether it could be unpacked to exactly that length."""
    if len(packed) == len(target):
        target[:] = packed
        return True
    try:
        done = cramjam.lz4.decompress_block_into(packed, target, output_len=len(target))
    except cramjam.DecompressionError:
        return False
    return int(done) == len(target)
