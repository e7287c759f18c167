"""Holds the requests that wait to be sent, in the form that render kernels read (`replay_native.trace.columns`).

They are stored in blocks that are filled and released as a whole, so that memory is bounded by the requests that
wait, and the kernels' table never moves. An id combines the block's place in the table with the row in the block.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from replay.trace.requests import Headers
from replay_native.trace import columns

BLOCK_ROWS = 1 << 16
BLOCK_BYTES = 8 << 20
"""The maximum number of requests in a block, and of bytes in their targets; a longer target has its own block."""

BLOCKS_MAX = 1 << 12
"""The number of places in the table: an id has 32 bits, and the row takes 20 of them."""

BLOCKS_KEPT = 4
"""How many blocks are kept after their last request was sent, because samples of the run refer to their requests."""

Ids = npt.NDArray[np.uint32]
Int64s = npt.NDArray[np.int64]


class _Block:
    def __init__(self, place: int, data_bytes: int) -> None:
        self.place = place
        self.offsets = np.zeros(BLOCK_ROWS + 1, np.int64)
        self.data = np.empty(data_bytes, np.uint8)
        self.method = np.empty(BLOCK_ROWS, np.uint8)
        self.route = np.empty(BLOCK_ROWS, np.uint32)
        self.host = np.empty(BLOCK_ROWS, np.int32)
        self.headers = np.empty(BLOCK_ROWS, np.int32)
        self.body = np.empty(BLOCK_ROWS, np.int32)
        self.rows = 0
        self.copies = self.released = 0

    @property
    def is_done(self) -> bool:
        """Return whether none of the block's requests and their copies is waiting."""
        return self.released >= self.rows + self.copies

    def addresses(self) -> list[int]:
        arrays = (self.offsets, self.data, self.method, self.route, self.host, self.headers, self.body)
        return [array.ctypes.data for array in arrays]


class RequestStore:
    """Requests by id, until they are sent.

    The reading thread calls `add` and `has_room`, and puts `messages`. The control plane calls everything else, so
    that each word of a block has one writer.
    """

    def __init__(self) -> None:
        self.table = np.zeros((BLOCKS_MAX, columns.TABLE_COLUMNS), np.int64)
        self._blocks: dict[int, _Block] = {}
        self.messages: dict[int, tuple[Headers, bytes | None]] = {}
        """Recorded headers and body by request id, for requests that have any.

        A body of None means that there is none, which in Kafka differs from an empty body.
        """
        self._copies: dict[int, int] = {}
        self._full: deque[_Block] = deque()
        self._kept: deque[int] = deque()
        self._next = 0
        self._open: _Block | None = None

    def has_room(self) -> bool:
        """Return whether more requests may be added, which is false when nearly all places of the table are taken."""
        return len(self._blocks) < BLOCKS_MAX - 2

    def add(
        self, data: npt.NDArray[np.uint8], offsets: Int64s, method: npt.NDArray[np.uint8], route: Ids, host: Int64s,
    ) -> Ids:  # fmt: skip
        """Add n requests and return their ids.

        Target i is data[offsets[i]:offsets[i + 1]]. The other columns are indexes; a host of -1 is none.
        """
        ids = np.empty(len(method), np.uint32)
        done = 0
        while done < len(method):
            block = self._with_room(int(offsets[done + 1] - offsets[done]))
            begin = int(block.offsets[block.rows])
            fits = int(np.searchsorted(offsets, offsets[done] + len(block.data) - begin, side="right")) - 1
            last = min(len(method), done + BLOCK_ROWS - block.rows, fits)
            rows = slice(block.rows, block.rows + last - done)
            taken = slice(done, last)
            size = int(offsets[last] - offsets[done])
            block.data[begin : begin + size] = data[offsets[done] : offsets[last]]
            block.offsets[rows.start + 1 : rows.stop + 1] = (
                begin + offsets[done + 1 : last + 1] - offsets[done]
            )
            block.method[rows], block.route[rows], block.host[rows] = method[taken], route[taken], host[taken]
            block.headers[rows] = block.body[rows] = -1
            ids[taken] = (block.place << columns.BATCH_BITS) + np.arange(rows.start, rows.stop)
            block.rows = rows.stop
            done = last
        return ids

    def _with_room(self, size: int) -> _Block:
        """Return the block into which the next request goes; `size` is the length of its target."""
        block = self._open
        if block is None or block.rows == BLOCK_ROWS or block.offsets[block.rows] + size > len(block.data):
            if block is not None:
                self._full.append(block)
            place = self._next
            while place in self._blocks:
                place = (place + 1) % BLOCKS_MAX
            self._next = (place + 1) % BLOCKS_MAX
            block = _Block(place, max(BLOCK_BYTES, size))
            self.table[place] = block.addresses()
            self._blocks[place] = block
            self._open = block
        return block

    def keep(self, ids: Ids) -> None:
        """Count one more waiting copy of each of these requests."""
        for place, count in self._by_block(ids):
            self._blocks[place].copies += count
        if self.messages:
            for number in ids.tolist():
                self._copies[number] = self._copies.get(number, 0) + 1

    def release(self, ids: Ids) -> None:
        """Mark requests as no longer waiting.

        A full block is freed when none of its requests waits. The last BLOCKS_KEPT such blocks are kept for longer.
        """
        for place, count in self._by_block(ids):
            self._blocks[place].released += count
        if self.messages:
            self._release_messages(ids.tolist())
        for _ in range(len(self._full)):
            block = self._full.popleft()
            if block.is_done:
                self._kept.append(block.place)
            else:
                self._full.append(block)
        while len(self._kept) > BLOCKS_KEPT:
            del self._blocks[self._kept.popleft()]

    def _release_messages(self, numbers: list[int]) -> None:
        """Release the headers and bodies of requests of which no copy waits; for the others, count one copy less."""
        for number in numbers:
            copies = self._copies.pop(number, 0)
            if copies > 1:
                self._copies[number] = copies - 1
            elif not copies:
                self.messages.pop(number, None)

    def refer(self, number: int, headers: int, body: int) -> None:
        """Set the header set and the body that the next rendering of a request uses; -1 is none."""
        block, row = self._at(number)
        if block is not None:
            block.headers[row], block.body[row] = headers, body

    @staticmethod
    def _by_block(ids: Ids) -> list[tuple[int, int]]:
        places, counts = np.unique(ids >> np.uint32(columns.BATCH_BITS), return_counts=True)
        return list(zip(places.tolist(), counts.tolist(), strict=True))

    def target(self, number: int) -> bytes | None:
        """Return the target of a request, or None if its block was freed."""
        block, row = self._at(number)
        return None if block is None else block.data[block.offsets[row] : block.offsets[row + 1]].tobytes()

    def method(self, number: int) -> int:
        """Return the method index of a request, or -1 if its block was freed."""
        block, row = self._at(number)
        return -1 if block is None else int(block.method[row])

    def host(self, number: int) -> int:
        """Return the host index of a request, or -1 if it has none or its block was freed."""
        block, row = self._at(number)
        return -1 if block is None else int(block.host[row])

    def _at(self, number: int) -> tuple[_Block | None, int]:
        return self._blocks.get(number >> columns.BATCH_BITS), number & columns.BATCH_MASK
