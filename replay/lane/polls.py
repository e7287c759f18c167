"""How late the portable engine's thread polled its sockets: the clock of its Trio loop against what it asked for."""

from __future__ import annotations

import time

import trio

from replay.units import SECOND_NS
from replay_native.ledger.gaps import OWN_PART, note_poll
from replay_native.ledger.lane_metrics import LaneMetrics

BEAT_NS = 5_000_000
"""The longest sleep while an answer may come."""

GAP_NS = 3_000_000
"""A shorter gap is usual here: Trio sleeps in whole milliseconds, and a batch of its tasks takes as much."""


def is_own(own_ns: int, waited_ns: int) -> bool:
    """As `record_net_unsent` judges, for engines that record many at once."""
    return own_ns * OWN_PART > waited_ns


class Polls(trio.abc.Instrument):
    """An instrument of the loop: what each poll says of the time that was lost goes into the lane's counters."""

    def __init__(self, metrics: LaneMetrics) -> None:
        self._metrics = metrics
        self._awake_ns = self._asleep_ns = self._until_ns = time.monotonic_ns()
        self._found_ns = 0

    def before_io_wait(self, timeout: float) -> None:
        """The loop polls, for so many seconds at most."""
        self._asleep_ns = time.monotonic_ns()
        self._until_ns = self._asleep_ns + int(timeout * SECOND_NS)

    def after_io_wait(self, timeout: float) -> None:
        """The poll is over."""
        woke_ns = time.monotonic_ns()
        self._found_ns = note_poll(
            self._metrics, self._awake_ns, self._asleep_ns, self._until_ns, woke_ns, GAP_NS, 0
        )
        self._awake_ns = woke_ns

    def unread_ns(self, now_ns: int) -> int:
        """For how long at most an answer that was read at `now_ns` had lain there unread."""
        batch_ns = now_ns - self._awake_ns
        return int(self._found_ns) + (batch_ns if batch_ns > GAP_NS else 0)
