"""TCP segments put in order (RFC 9293, 3.4): what was sent again or twice goes once, what is missing becomes a hole."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

WAITING_BYTES_MAX = 4 << 20
WAITING_NS_MAX = 10_000_000_000
"""Segments behind a gap wait for it so long, by the capture's stamps; then the gap is a hole."""

_MASK, _HALF = 0xFFFFFFFF, 1 << 31
_SEGMENT_BYTES = 200
"""About what a waiting segment costs besides its data."""


class _Segment(NamedTuple):
    position: int
    data: bytes
    missing: int
    at_ns: int
    acknowledged: int
    number: int


_position = attrgetter("position")


class Direction:
    """One direction of a connection. `feed(data, at_ns, acknowledged, number)` and `hole(size)` get the stream in order.

    Positions count from the first byte and do not wrap. `sequence` is that of the first byte, or None where the beginning
    was not captured: then the first segment that comes is the first.
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
        """The position of a sequence number, the one next to where the stream is."""
        if self._first is None:
            return self.position
        distance = (sequence - self._first - self.position) & _MASK
        return self.position + (distance - (1 << 32) if distance >= _HALF else distance)

    def acknowledge(self, sequence: int) -> None:
        """The other end has all before `sequence`: what is missing of it was not captured, and does not come any more."""
        if self._first is None:
            self._first = sequence
            return
        position = self.place(sequence)
        if self.end is not None:
            # A FIN counts as one byte, and is none.
            position = min(position, self.end)
        while self.position < position:
            first = self._waiting[0].position if self._waiting else position
            self._skip_to(min(first, position))
            self._drain()

    @property
    def is_over(self) -> bool:
        """Whether all up to the FIN was read."""
        return self.end is not None and self.position >= self.end

    def finish(self, sequence: int) -> None:
        """A FIN stands at `sequence`."""
        self.end = self.place(sequence)

    def take(
        self, sequence: int, data: bytes, missing: int, at_ns: int, acknowledged: int, number: int
    ) -> None:
        """A segment; `missing` bytes of it behind `data` were not captured."""
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
        """No more comes: what waits is handed on, with its gaps as holes."""
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
        """Hand on what is new of a segment that is not ahead of the stream."""
        old = self.position - at
        if old < len(data):
            fresh = data[old:]
            self.position += len(fresh)
            self._feed(fresh, at_ns, acknowledged, number)
        self._skip_to(at + len(data) + missing)

    def _drain(self) -> None:
        """Hand on what waits and is no longer ahead."""
        while self._waiting and self._waiting[0].position <= self.position:
            segment = self._waiting.pop(0)
            self._waiting_bytes -= len(segment.data) + _SEGMENT_BYTES
            at, data, missing, at_ns, acknowledged, number = segment
            self._deliver(at, data, missing, at_ns, acknowledged, number)
