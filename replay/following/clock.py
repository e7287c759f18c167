"""A wall clock derived from the monotonic clock, so that changes of the system's clock are detected and reported."""

from __future__ import annotations

import time

JUMP_NS = 100_000_000
"""A smaller difference between the clocks is ordinary slewing, not a change of the system's clock."""


class WallClock:
    """A clock that counts nanoseconds since the Unix epoch and never jumps."""

    def __init__(self) -> None:
        self.offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Return the present time in ns since the Unix epoch."""
        return time.monotonic_ns() + self.offset_ns

    def of(self, monotonic_ns: int) -> int:
        """Convert an instant of CLOCK_MONOTONIC to ns since the Unix epoch."""
        return monotonic_ns + self.offset_ns

    def jumped_ns(self) -> int:
        """Return how far the system's clock is ahead of this one, in ns, or 0 if they differ by less than JUMP_NS."""
        moved = time.time_ns() - self.now_ns()
        return moved if abs(moved) >= JUMP_NS else 0
