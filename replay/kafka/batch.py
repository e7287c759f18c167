"""A record batch that kernels wrote, as aiokafka's sender takes one.

aiokafka knows batches by `record_count`, `closed`, `_set_producer_state` and `_build` (its names: the minor version is
pinned). Until the sender drains it a batch stays open: what is due meanwhile is added, so a queue grows in bytes and
not in requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import aiokafka.codec as codecs
import numpy as np
from aiokafka.producer.message_accumulator import BatchBuilder

from replay_native import recordbatch as kernels
from replay_native.feed import ENTRY

GZIP_LEVEL = 6

CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, lambda data: codecs.gzip_encode(data, GZIP_LEVEL)),
    "snappy": (2, codecs.snappy_encode),
    "lz4": (3, codecs.lz4_encode),
    "zstd": (4, codecs.zstd_encode),
}
"""Name to its number in a batch's attributes, and what compresses."""


class Batch(BatchBuilder):  # type: ignore[misc]
    """Records of one partition. `rows` are their feed entries, in order; `sent_ns` is -1 until it is drained."""

    def __init__(
        self,
        route: int,
        buffer: np.ndarray,
        compression: str | None,
        drained: Callable[[Batch], None],
    ) -> None:
        self.route, self.buffer = route, buffer
        self.state = np.zeros(kernels.BATCH_WORDS, np.int64)
        kernels.begin(buffer, self.state)
        self.sent_ns = -1
        self.taken_first_ns = self.taken_last_ns = 0
        self.settled = False
        self.producer = (-1, -1, -1)
        self._rows: list[np.ndarray] = []
        self._compression = compression
        self._drained = drained
        self._sealed: memoryview | None = None
        self._open = True

    @property
    def is_open(self) -> bool:
        """Whether records may still be added."""
        return self._open

    @property
    def count(self) -> int:
        """Records in it."""
        return int(self.state[kernels.COUNT])

    @property
    def rows(self) -> np.ndarray:
        """The entries of its records, ENTRY[count]."""
        if len(self._rows) != 1:
            self._rows = [np.concatenate(self._rows) if self._rows else np.empty(0, ENTRY)]
        return self._rows[0]

    def add(self, rows: np.ndarray, ring: np.ndarray, first: int, limit: int) -> int:
        """Append rows from `first` on, up to `limit` bytes; the row to go on with."""
        last = kernels.append(self.buffer, self.state, rows, ring, first, len(rows), limit)
        if last > first:
            if not self._rows:
                self.taken_first_ns = int(rows[first]["taken_ns"])
            self._rows.append(rows[first:last])
            self.taken_last_ns = int(rows[last - 1]["taken_ns"])
        return int(last)

    def give_up(self) -> None:
        """It will not be sent: the sender finds it empty."""
        self.settled, self._open = True, False

    def record_count(self) -> int:
        """Records in it. The sender asks when it takes the batch: nothing is added from then on."""
        self._open = False
        return 0 if self.settled and self.sent_ns < 0 else self.count

    def append(self, *, timestamp: Any, key: Any, value: Any, headers: Any = ()) -> None:
        """Full, for anyone but the lane."""

    def closed(self) -> bool:
        """Ready to be sent, as far as the sender is concerned."""
        return True

    def close(self) -> None:
        """Nothing is added any more."""
        self._open = False

    def size(self) -> int:
        """Bytes so far."""
        return int(self.state[kernels.SIZE])

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self.producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> memoryview:
        """The batch as it goes on the wire; at the first call it is stamped as sent."""
        if self._sealed is None:
            self._open = False
            self._sealed = self._compressed() if self._compression else self._plain()
            self.sent_ns = time.monotonic_ns()
            self._drained(self)
        return self._sealed

    def _plain(self) -> memoryview:
        kernels.seal(self.buffer, self.state, 0, *self.producer)
        return self.buffer[: self.size()].data

    def _compressed(self) -> memoryview:
        number, compress = CODECS[self._compression or ""]
        records = compress(self.buffer[kernels.HEADER_BYTES : self.size()].tobytes())
        whole = np.empty(kernels.HEADER_BYTES + len(records), np.uint8)
        whole[kernels.HEADER_BYTES :] = np.frombuffer(records, np.uint8)
        state = self.state.copy()
        state[kernels.SIZE], state[kernels.SEALED_BYTES] = whole.size, 0
        kernels.seal(whole, state, number, *self.producer)
        return whole.data
