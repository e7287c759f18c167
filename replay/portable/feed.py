"""The lane's end of the feed: takes due requests and frees their space in the rings."""

from __future__ import annotations

import time

from replay.lane.contract import LaneSpec
from replay_native.ground import shared
from replay_native.ledger.gaps import GAP_NS
from replay_native.ledger.lane_metrics import C, Control
from replay_native.ledger.record import record_taken

from .protocol import Request
from .waiting import Job


class FeedReader:
    """Single consumer of one lane's feed. At most `answer_limit` bytes of a response are kept for rules.

    `taken` counts the entries taken. `is_starved` means that the lane was ready before the next entry was
    published. Up to `entries_limit` requests with `ring_limit` bytes may wait: half of the rings.
    """

    def __init__(self, spec: LaneSpec, answer_limit: int) -> None:
        self._metrics, self._counters = spec.metrics, spec.metrics.counters
        self._entries, self._ring = spec.feed
        self._size, self._ring_bytes = self._entries.size, self._ring.size
        self.entries_limit, self.ring_limit = self._size // 2, self._ring_bytes // 2
        self._closed_loop, self._answer_limit = spec.closed_loop, answer_limit
        self._released = 0
        self.taken = 0
        self.is_starved = False

    @property
    def tail(self) -> int:
        """Number of entries published so far."""
        return int(shared.read_word(self._metrics.control, Control.FEED_TAIL))

    @property
    def is_ended(self) -> bool:
        """Whether no more entries will be published."""
        return bool(shared.read_word(self._metrics.control, Control.FEED_END) == 1)

    @property
    def next_due_ns(self) -> int:
        """When the next entry is due. Valid only while an entry is published that was not taken."""
        return int(self._entries[self.taken % self._size]["due_ns"])

    def take_up(self) -> Job:
        """Take the next entry, which counts as planned from now on."""
        entry = self._entries[self.taken % self._size]
        taken_ns = time.monotonic_ns()
        due_ns, seq, offset, length, client, route, flags = entry.item()[:7]
        self._count(due_ns, taken_ns, flags)
        self.taken += 1
        begin = offset % self._ring_bytes
        request = Request(self._ring[begin : begin + length].tobytes(), seq, client, route, flags)
        request.answer_limit = self._answer_limit
        own_ns = taken_ns - due_ns - int(self._counters[C.lost_ns])
        return Job(request, due_ns, taken_ns, offset + length, own_ns=own_ns)

    def _count(self, due_ns: int, taken_ns: int, flags: int) -> None:
        """Count an entry as planned, with its lateness."""
        if self.is_starved:
            self.is_starved = False
            if due_ns < taken_ns and not self._closed_loop:
                self._counters[C.underruns] += 1
        if self._counters[C.planned] == 0:
            self._counters[C.first_due_ns] = due_ns
            self._counters[C.cpu_first_ns] = time.thread_time_ns()
        record_taken(self._metrics, flags, taken_ns - due_ns, self._closed_loop)
        if taken_ns - due_ns > GAP_NS and not self._closed_loop:
            self._counters[C.sends_postponed] += 1
            self._counters[C.sends_postponed_ns] += taken_ns - due_ns

    def release(self, job: Job) -> None:
        """Free the oldest entry in the rings for the producer."""
        self._released += 1
        shared.write_word(self._metrics.control, Control.RING_HEAD, job.end)
        shared.write_word(self._metrics.control, Control.FEED_HEAD, self._released)
