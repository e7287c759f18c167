"""Watches a run: signals, the circuit breaker, and whether lanes run or have ended."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable

import trio

from replay.lane.contract import LaneSpec
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started
from replay.results.timeline import Second
from replay.settings.scenario import Breaker
from replay.units import SECOND_NS
from replay_native.ground import shared
from replay_native.ledger.lane_metrics import Control, State

BREAKER_LEAST = 20
"""The circuit breaker never opens on fewer ended requests than this within its window."""


class CircuitBreaker:
    """Opens when too many of the requests that ended over the last seconds failed.

    The limits are those of the scenario's breaker. A request that the target prevented from being sent counts as
    failed; one unsent for another reason does not count. The breaker is a sink of the run
    (`replay.engine.sinks`), and calls `stop` with the reason in each second in which it is open.
    """

    def __init__(self, breaker: Breaker, stop: Callable[[str], None]) -> None:
        self._breaker, self._stop = breaker, stop
        self._seconds: deque[Second] = deque()

    def start(self, started: Started) -> None:
        """Do nothing: there are no results of the target yet."""

    def second(self, second: Second, deltas: Deltas) -> None:
        """Add one second, and stop the run if too many of the latest requests failed."""
        if why := self.open(second):
            self._stop(why)

    def end(self, document: RunDocument) -> None:
        """Do nothing: the run has ended."""

    def close(self) -> None:
        """Do nothing: the breaker has no resources."""

    def open(self, second: Second) -> str:
        """Add a second, and return why the run should stop; empty if it should not."""
        if not self._breaker.on:
            return ""
        self._seconds.append(second)
        span_s = self._breaker.over_ns / SECOND_NS
        while len(self._seconds) > 1 and self._spanned_s() - self._seconds[0].length_s >= span_s:
            self._seconds.popleft()
        unsent = sum(s.unsent_of_target for s in self._seconds)
        failed = sum(s.error + s.timeout + s.outcomes.get("5xx", 0) for s in self._seconds) + unsent
        ended = sum(s.error + s.timeout + s.ok for s in self._seconds) + unsent
        if self._spanned_s() + 0.5 < span_s or ended < BREAKER_LEAST:
            return ""
        if failed <= self._breaker.share * ended:
            return ""
        kept = f", {unsent:,} of them unsent because the target kept every connection busy" if unsent else ""
        return (
            f"{failed / ended:.0%} of the requests of the last {self._spanned_s():.0f} s failed{kept}"
            f" (the circuit breaker opens above {self._breaker.share:.0%})"
        )

    def _spanned_s(self) -> float:
        return sum(second.length_s for second in self._seconds)


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that end a run."""


class EndRequests:
    """Requests to end a run: the first drains, the second aborts. `name` is the source of the first request."""

    def __init__(self) -> None:
        self.first, self.second = trio.Event(), trio.Event()
        self.name = ""

    def ask(self, name: str, *, at_once: bool = False) -> None:
        """Request the end of the run; `at_once`, or a second request, aborts it. Call it in the thread of the run."""
        self.name = self.name or name
        if self.first.is_set() or at_once:
            self.second.set()
        self.first.set()


class Signals(EndRequests):
    """Handles SIGINT, SIGTERM, and SIGHUP except under nohup: the first signal drains, the second aborts.

    A shell without job control makes background jobs (`&`) ignore SIGINT. Sending one to a run is deliberate, so
    it is handled.
    """

    async def watch(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive signals until cancelled."""
        under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        heard = [number for number in ENDING if number != signal.SIGHUP or not under_nohup]
        with trio.open_signal_receiver(*heard) as received:
            task_status.started()
            async for number in received:
                self.ask(signal.Signals(number).name)


def ended(spec: LaneSpec) -> bool:
    """Return whether a lane has ended, normally or because it failed or could not start."""
    state = shared.read_word(spec.metrics.control, Control.STATE)
    return bool(state == State.ENDED or state < 0)


def running(spec: LaneSpec) -> bool:
    """Return whether a lane has begun, or has failed to."""
    return bool(shared.read_word(spec.metrics.control, Control.STATE) != State.NEW)
