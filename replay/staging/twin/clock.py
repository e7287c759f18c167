"""The clock of a twin: Trio's, so that the same code runs on a virtual clock (`trio.testing.MockClock`) in tests."""

from __future__ import annotations

import trio


def clock_ns() -> int:
    """Trio's current time in ns, from an arbitrary origin. Only inside `trio.run`."""
    return int(trio.current_time() * 1e9)
