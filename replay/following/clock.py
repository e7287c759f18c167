"""The wall clock, mapped to the monotonic clock once, so that later changes of the system clock are detected and
reported.
"""

from __future__ import annotations

import time

JUMP_NS = 100_000_000
"""A difference between the clocks below this is the usual slewing."""


class WallClock:
    """Nanoseconds since the epoch that never jump."""

    def __init__(self) -> None:
        self.offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Now, since the epoch."""
        return time.monotonic_ns() + self.offset_ns

    def of(self, monotonic_ns: int) -> int:
        """An instant of CLOCK_MONOTONIC, since the epoch."""
        return monotonic_ns + self.offset_ns

    def jumped_ns(self) -> int:
        """How far the system's clock has been set since the start; 0 if it runs as it did."""
        moved = time.time_ns() - self.now_ns()
        return moved if abs(moved) >= JUMP_NS else 0
