"""The time during which this process ran.

A process that is stopped, or gets no CPU, receives nothing: messages from the other side wait in its sockets. So
the silence of a peer is measured only in time during which this process ran.
"""

from __future__ import annotations

from .protocol import PROBE_NS

PAUSE_NS = 2 * PROBE_NS
"""Both sides run code several times per PROBE_NS. A gap longer than this means that the process did not run."""


class OwnTime:
    """The time during which this process ran: its clock without the pauses."""

    def __init__(self, now_ns: int) -> None:
        self.paused_ns = 0
        self._latest_ns = now_ns

    def pause_until(self, now_ns: int) -> int:
        """Note that the process runs at `now_ns`, and return the length of the pause that has just ended.

        The length is in ns, and usually 0. Call this method with every event. PROBE_NS of each pause counts as
        time in which the process ran, so that even a process that is stopped repeatedly notices a silent peer in
        the end.
        """
        gap_ns = now_ns - self._latest_ns
        self._latest_ns = now_ns
        if gap_ns <= PAUSE_NS:
            return 0
        self.paused_ns += gap_ns - PROBE_NS
        return gap_ns

    def ran_ns(self, at_ns: int) -> int:
        """Convert an instant of the clock to the process's own time."""
        return at_ns - self.paused_ns
