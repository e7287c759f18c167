"""Splits batches that a broker finds too large, and learns limits from them.

The `max.message.bytes` of a topic limits the batch, not the record. If the brokers describe their topics, the
limit is known in advance. Otherwise it is learned: a batch of several records that is too large is split in
two, and later batches are limited to half of its size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from replay_native.feed.ring import ENTRY
from replay_native.kafka.recordbatch import HEADER_BYTES, OVERHEAD_MAX

from .batch import Batch

LEAST_BYTES = 1_024
"""The lowest limit that is learned."""


class Limits:
    """The limit on the size of a batch by partition, in bytes."""

    def __init__(self, limits: Sequence[int]) -> None:
        self._limits = list(limits)
        self._taken = [0] * len(limits)

    def __getitem__(self, index: int) -> int:
        return self._limits[index]

    def took(self, batch: Batch) -> None:
        """Record that the broker accepted a batch, so that no lower limit than its size is learned."""
        self._taken[batch.index] = max(self._taken[batch.index], batch.size)

    def refused(self, batch: Batch) -> None:
        """Record that a batch of several records was too large, and limit later ones to half of its size.

        The limit is not set below LEAST_BYTES, or below the size of an accepted batch.
        """
        least = max(self._taken[batch.index], LEAST_BYTES)
        self._limits[batch.index] = min(self._limits[batch.index], max(batch.size // 2, least))


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Split the records of a batch into two batches, in order. Records keep their sequence numbers."""
    middle = batch.count // 2
    rows = batch.rows.copy()
    ring = _ring(batch, rows)
    parts = []
    for begin, end in ((0, middle), (middle, batch.count)):
        size = HEADER_BYTES + int(rows["length"][begin:end].sum()) + (end - begin) * OVERHEAD_MAX
        room = np.empty(size, np.uint8), np.empty(end - begin, ENTRY)
        half = Batch(batch.index, batch.number + begin, room, batch.compression)
        half.add(rows, ring, begin, size, batch.taken_first_ns)
        half.close()
        half.sent_ns, half.settled = batch.sent_ns, batch.settled
        half.taken_last_ns = batch.taken_last_ns
        if batch.sequence >= 0:
            half.producer_id, half.epoch, half.sequence = (
                batch.producer_id,
                batch.epoch,
                batch.sequence + begin,
            )
        parts.append(half)
    return parts[0], parts[1]


def _ring(batch: Batch, rows: np.ndarray) -> np.ndarray:
    """Return the batch's bytes as a ring from which its records can be taken again.

    The function writes each record's position in the ring into `rows`. A record consists of its length,
    attributes, two deltas, and the tail that a row describes. Record and tail end at the same position.
    """
    ring = np.zeros(1 << (batch.size - 1).bit_length(), np.uint8)
    ring[: batch.size] = batch.buffer[: batch.size]
    data = batch.buffer.data
    at = HEADER_BYTES
    for row in range(batch.count):
        length, at = _varint(data, at)
        at += length
        rows["offset"][row] = at - int(rows["length"][row])
    return ring


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a record's length (zigzag varint), and return it and the position after it."""
    word = shift = 0
    while True:
        byte = data[at]
        at += 1
        word |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return word >> 1, at
