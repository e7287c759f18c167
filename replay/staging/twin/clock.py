"""The clock of a twin: Trio's, so that tests can run the same code on a virtual clock (`trio.testing.MockClock`)."""

from __future__ import annotations

import trio


def clock_ns() -> int:
    """Return Trio's current time in ns, from an arbitrary origin. Call it only inside `trio.run`."""
    return int(trio.current_time() * 1e9)
