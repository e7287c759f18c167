"""Reassembles TCP streams (RFC 9293, 3.4): duplicates and retransmissions are dropped, missing bytes become holes."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

WAITING_BYTES_MAX = 4 << 20
WAITING_NS_MAX = 10_000_000_000
"""Segments wait at most this long for missing bytes, in capture time; then the gap becomes a hole."""

_MASK, _HALF = 0xFFFFFFFF, 1 << 31
_SEGMENT_BYTES = 200
"""Approximate memory overhead of a waiting segment, in bytes."""


class _Segment(NamedTuple):
    position: int
    data: bytes
    missing: int
    at_ns: int
    acknowledged: int
    number: int


_position = attrgetter("position")


class Direction:
    """One direction of a connection.

    `feed(data, at_ns, acknowledged, number)` and `hole(size)` receive the stream in order. Positions count from the
    first byte and do not wrap. `sequence` is the sequence number of the first byte, or None if the start was not
    captured; the first segment or acknowledgment then sets it.
    """

    def __init__(
        self, sequence: int | None, feed: Callable[[bytes, int, int, int], None], hole: Callable[[int], None]
    ) -> None:
        self._feed, self._hole = feed, hole
        self._first = sequence
        self.position = 0
        self.end: int | None = None
        self._waiting: list[_Segment] = []
        self._waiting_bytes = 0
        self.holes = 0
        self.hole_bytes = 0

    def place(self, sequence: int) -> int:
        """Convert a sequence number to a stream position, the one nearest to the current position."""
        if self._first is None:
            return self.position
        distance = (sequence - self._first - self.position) & _MASK
        return self.position + (distance - (1 << 32) if distance >= _HALF else distance)

    def acknowledge(self, sequence: int) -> None:
        """Process the peer's acknowledgment of everything before `sequence`.

        The peer has received these bytes, so that those still missing were not captured and become holes.
        """
        if self._first is None:
            self._first = sequence
            return
        position = self.place(sequence)
        if self.end is not None:
            # A FIN takes one sequence number but is not a byte.
            position = min(position, self.end)
        while self.position < position:
            first = self._waiting[0].position if self._waiting else position
            self._skip_to(min(first, position))
            self._drain()

    @property
    def is_over(self) -> bool:
        """Whether everything up to the FIN was read."""
        return self.end is not None and self.position >= self.end

    def finish(self, sequence: int) -> None:
        """Set the end of the stream to the position of a FIN."""
        self.end = self.place(sequence)

    def take(
        self, sequence: int, data: bytes, missing: int, at_ns: int, acknowledged: int, number: int
    ) -> None:
        """Add a segment.

        `missing` bytes after `data` were not captured.
        """
        if self._first is None:
            self._first = sequence
        at = self.place(sequence)
        if at > self.position:
            insort(self._waiting, _Segment(at, data, missing, at_ns, acknowledged, number), key=_position)
            self._waiting_bytes += len(data) + _SEGMENT_BYTES
            if self._waiting_bytes > WAITING_BYTES_MAX or at_ns - self._waiting[0].at_ns > WAITING_NS_MAX:
                self._skip_to(self._waiting[0].position)
                self._drain()
            return
        self._deliver(at, data, missing, at_ns, acknowledged, number)
        self._drain()

    def flush(self) -> None:
        """End the stream: deliver the waiting segments, and all gaps up to the FIN as holes."""
        while self._waiting:
            self._skip_to(self._waiting[0].position)
            self._drain()
        if self.end is not None and self.position < self.end:
            self._skip_to(self.end)

    def _skip_to(self, position: int) -> None:
        size = position - self.position
        if size > 0:
            self.holes += 1
            self.hole_bytes += size
            self.position = position
            self._hole(size)

    def _deliver(
        self, at: int, data: bytes, missing: int, at_ns: int, acknowledged: int, number: int
    ) -> None:
        """Deliver the new bytes of a segment that begins at the stream's position or before it."""
        old = self.position - at
        if old < len(data):
            fresh = data[old:]
            self.position += len(fresh)
            self._feed(fresh, at_ns, acknowledged, number)
        self._skip_to(at + len(data) + missing)

    def _drain(self) -> None:
        """Deliver the waiting segments that the stream has reached."""
        while self._waiting and self._waiting[0].position <= self.position:
            segment = self._waiting.pop(0)
            self._waiting_bytes -= len(segment.data) + _SEGMENT_BYTES
            at, data, missing, at_ns, acknowledged, number = segment
            self._deliver(at, data, missing, at_ns, acknowledged, number)
