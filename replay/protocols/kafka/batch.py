"""A record batch written by kernels, with the feed entries of its records.

A batch stays open until it is sent, and records that become due meanwhile are added. When the brokers are slow,
batches therefore become larger, but not more numerous.
"""

from __future__ import annotations

from collections.abc import Callable

import aiokafka.codec as codecs
import numpy as np

from replay_native.feed.ring import ENTRY
from replay_native.kafka import produce
from replay_native.kafka import recordbatch as kernels
from replay_native.kafka.recordbatch import HEADER_BYTES, OVERHEAD_MAX

GZIP_LEVEL = 6

CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, lambda data: codecs.gzip_encode(data, GZIP_LEVEL)),
    "snappy": (2, codecs.snappy_encode),
    "lz4": (3, codecs.lz4_encode),
    "zstd": (4, codecs.zstd_encode),
}
"""Compression codecs by name: the number in a batch's attributes, and the function that compresses."""

RECORDS_MAX = 16_384
"""Limit on the number of records in a batch, whatever their size."""

RECORD_BYTES_MIN = 7
"""Bytes of the shortest record.

One byte each is needed for its length, attributes, two deltas, null key, null value and number of headers.
"""

ROOMS_KEPT = 64


class Batch:
    """Records of one partition.

    Of two batches of a partition, the one with the lower `number` is sent first. `sent_ns` is -1 until the
    batch is sent. `settled` is true once the outcomes of its records are counted. `producer_id`, `epoch` and
    `sequence` are those of an idempotent producer, -1 without one. `error` is the reason for its last resend.
    `lost_ns` is the time that the lane had lost in total when the batch was made.
    """

    def __init__(
        self, index: int, number: int, room: tuple[np.ndarray, np.ndarray], compression: str | None
    ) -> None:
        self.index, self.number = index, number
        self.buffer, self._kept = room
        self.state = np.zeros(kernels.BATCH_WORDS, np.int64)
        kernels.begin(self.buffer, self.state)
        self.count, self.size = 0, HEADER_BYTES
        self.is_open = True
        self.sent_ns = -1
        self.taken_first_ns = self.taken_last_ns = self.lost_ns = 0
        self.settled = False
        self.producer_id = self.epoch = self.sequence = -1
        self.error: Exception | None = None
        self.compression = compression
        self._compressed: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def rows(self) -> np.ndarray:
        """The feed entries of the batch's records, ENTRY[count]."""
        return self._kept[: self.count]

    @property
    def room(self) -> tuple[np.ndarray, np.ndarray]:
        """The batch's memory, for reuse once the batch is no longer needed."""
        return self.buffer, self._kept

    def add(self, rows: np.ndarray, ring: np.ndarray, first: int, limit: int, taken_ns: int) -> int:
        """Append rows from `first` on, up to `limit` bytes, and return the row to continue with.

        `taken_ns` is when the lane took them up.
        """
        most = min(len(rows), first + len(self._kept) - self.count)
        last = int(produce.add(self.buffer, self.state, self._kept, rows, ring, first, most, limit))
        if last > first:
            if not self.count:
                self.taken_first_ns = taken_ns
            self.taken_last_ns = taken_ns
            self.count += last - first
            self.size = int(self.state[kernels.SIZE])
        return last

    def close(self) -> None:
        """Close the batch, so that no more records are added."""
        self.is_open = False

    def sealed(self) -> memoryview:
        """Return the batch as bytes for the wire, with its current producer id, epoch and sequence."""
        self.is_open = False
        if self.compression is None:
            buffer, state, attributes = self.buffer, self.state, 0
        else:
            attributes, compress = CODECS[self.compression]
            if self._compressed is None:
                self._compressed = self._compress(compress)
            buffer, state = self._compressed
        kernels.seal(buffer, state, attributes, self.producer_id, self.epoch, self.sequence)
        return buffer[: int(state[kernels.SIZE])].data

    def _compress(self, compress: Callable[[bytes], bytes]) -> tuple[np.ndarray, np.ndarray]:
        records = compress(self.buffer[HEADER_BYTES : self.size].tobytes())
        whole = np.empty(HEADER_BYTES + len(records), np.uint8)
        whole[HEADER_BYTES:] = np.frombuffer(records, np.uint8)
        state = self.state.copy()
        state[kernels.SIZE], state[kernels.SEALED_BYTES] = whole.size, 0
        return whole, state


class Rooms:
    """Reuses the memory of batches.

    The buffer that was returned last is used first, because it is still in the CPU's cache.
    """

    def __init__(self) -> None:
        self._kept: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def take(self, batch_bytes: int, least_bytes: int) -> tuple[np.ndarray, np.ndarray]:
        """Return memory for a batch of at most `batch_bytes`, or for one record of `least_bytes` if that is more."""
        size = max(batch_bytes, least_bytes) + HEADER_BYTES + OVERHEAD_MAX
        kept = self._kept.get(size)
        if kept:
            return kept.pop()
        return np.empty(size, np.uint8), np.empty(min(RECORDS_MAX, size // RECORD_BYTES_MIN), ENTRY)

    def give_back(self, batch_bytes: int, room: tuple[np.ndarray, np.ndarray]) -> None:
        """Keep the memory of a batch of at most `batch_bytes` for reuse.

        Memory for one larger record, and memory of a size of which ROOMS_KEPT are kept already, is freed.
        """
        size = batch_bytes + HEADER_BYTES + OVERHEAD_MAX
        if room[0].size == size and room[1].size == min(RECORDS_MAX, size // RECORD_BYTES_MIN):
            kept = self._kept.setdefault(size, [])
            if len(kept) < ROOMS_KEPT:
                kept.append(room)
