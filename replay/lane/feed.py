"""The producer's side of a lane's feed: publishes request bytes and due entries ahead of time."""

from __future__ import annotations

import os

import numpy as np

from replay.units import SECOND_NS
from replay_native.feed.ring import RING_TAIL, TAIL, Feed, FeedEnd
from replay_native.ground import shared
from replay_native.ledger.lane_metrics import Control

from .contract import LaneSpec

_ONE = (1).to_bytes(8, "little")
AHEAD_NS = 2 * SECOND_NS
"""How long before its due time a request of an open loop is rendered, at most."""


class FeedWriter:
    """Single producer of one lane's feed. Never blocks: `push_nowait` returns False if the rings are full.

    `rings` is for kernels that push many requests at once.
    """

    def __init__(self, spec: LaneSpec) -> None:
        self.control = spec.metrics.control
        self.feed: Feed = spec.feed
        self.tails = np.zeros(2, np.int64)
        self.rings = FeedEnd(self.feed, self.control, self.tails)
        self._wake_fd = spec.wake_fd
        self._published = 0

    def push_nowait(
        self, due_ns: int, seq: int, request: bytes, *, client: int = 0, route: int = 0, flags: int = 0
    ) -> bool:
        """Add one rendered request; the lane sees it only after `publish`. False if the rings are full."""
        entries, ring = self.feed
        tail, offset = self.tails.tolist()
        if tail - shared.read_word(self.control, Control.FEED_HEAD) >= entries.size:
            return False
        if offset % ring.size + len(request) > ring.size:
            offset += ring.size - offset % ring.size
        if offset + len(request) - shared.read_word(self.control, Control.RING_HEAD) > ring.size:
            return False
        start = offset % ring.size
        ring[start : start + len(request)] = memoryview(request)
        entries[tail % entries.size] = (due_ns, seq, offset, len(request), client, route, flags, 0, 0)
        self.tails[TAIL] = tail + 1
        self.tails[RING_TAIL] = offset + len(request)
        return True

    def publish(self) -> None:
        """Publish the requests that were pushed, and wake the lane if there are any."""
        tail = int(self.tails[TAIL])
        if tail != self._published:
            self._published = tail
            shared.write_word(self.control, Control.FEED_TAIL, tail)
            self.wake()

    def end(self) -> None:
        """Publish the remaining requests, and mark the end of the feed."""
        self.publish()
        shared.write_word(self.control, Control.FEED_END, 1)
        self.wake()

    def stop(self, how: int) -> None:
        """Write STOP (see `replay_native.ledger.lane_metrics.Stop`) and wake the lane."""
        shared.write_word(self.control, Control.STOP, how)
        self.wake()

    def wake(self) -> None:
        """Wake the lane if it sleeps."""
        os.write(self._wake_fd, _ONE)
