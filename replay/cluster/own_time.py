"""How long this process itself has run.

A process that is stopped, or gets no CPU, hears nobody: what the other side sent waits in its sockets. So how long a peer
was silent is measured in time in which this process ran.
"""

from __future__ import annotations

from .protocol import PROBE_NS

PAUSE_NS = 2 * PROBE_NS
"""Both sides do something several times per PROBE_NS. If this much time passes without it, the process did not run."""


class OwnTime:
    """The time in which this process ran, by its own clock without its pauses."""

    def __init__(self, now_ns: int) -> None:
        self.paused_ns = 0
        self._latest_ns = now_ns

    def pause_until(self, now_ns: int) -> int:
        """Call it with every event. Returns the length of the pause that has just ended (ns), usually 0.

        PROBE_NS of a pause counts as time in which the process ran. So a silent peer is noticed in the end even by a
        process that is stopped again and again.
        """
        gap_ns = now_ns - self._latest_ns
        self._latest_ns = now_ns
        if gap_ns <= PAUSE_NS:
            return 0
        self.paused_ns += gap_ns - PROBE_NS
        return gap_ns

    def ran_ns(self, at_ns: int) -> int:
        """Convert an instant of the clock to this time."""
        return at_ns - self.paused_ns
