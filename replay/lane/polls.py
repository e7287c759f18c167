"""Measures how late the portable engine polled its sockets, from the clock of its Trio loop."""

from __future__ import annotations

import time

import trio

from replay.units import SECOND_NS
from replay_native.ledger.gaps import OWN_PART, note_poll
from replay_native.ledger.lane_metrics import LaneMetrics

BEAT_NS = 5_000_000
"""The longest sleep while a response may arrive."""

GAP_NS = 3_000_000
"""Shorter delays are normal here: Trio sleeps in whole milliseconds, and running a batch of its tasks takes time."""


def is_own(own_ns: int, waited_ns: int) -> bool:
    """Return whether unsent requests are the generator's fault, by the rule of `record_net_unsent`.

    Engines that record many requests at once use it.
    """
    return own_ns * OWN_PART > waited_ns


class Polls(trio.abc.Instrument):
    """A Trio instrument that adds the time lost between polls to the lane's counters."""

    def __init__(self, metrics: LaneMetrics) -> None:
        self._metrics = metrics
        self._awake_ns = self._asleep_ns = self._until_ns = time.monotonic_ns()
        self._found_ns = 0

    def before_io_wait(self, timeout: float) -> None:
        """Note when the loop begins to poll, and for how long (`timeout`, in seconds) at most."""
        self._asleep_ns = time.monotonic_ns()
        self._until_ns = self._asleep_ns + int(timeout * SECOND_NS)

    def after_io_wait(self, timeout: float) -> None:
        """Note when the poll ended, and count the time lost before it."""
        woke_ns = time.monotonic_ns()
        self._found_ns = note_poll(
            self._metrics, self._awake_ns, self._asleep_ns, self._until_ns, woke_ns, GAP_NS, 0
        )
        self._awake_ns = woke_ns

    def unread_ns(self, now_ns: int) -> int:
        """Return the longest time for which a response read at `now_ns` can have been in the socket."""
        batch_ns = now_ns - self._awake_ns
        return int(self._found_ns) + (batch_ns if batch_ns > GAP_NS else 0)
