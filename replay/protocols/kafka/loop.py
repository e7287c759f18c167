"""An asyncio loop for a thread that keeps a schedule: it sleeps with microsecond precision.

asyncio's own selector rounds every sleep up to a millisecond. This loop also measures how long it sleeps.
"""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np

from replay.lane.polls import Polls
from replay.units import SECOND_NS
from replay_native.ground.libc import PR_GET_TIMERSLACK, PR_SET_TIMERSLACK
from replay_native.kafka import produce

from .gate import Gate, GatedLoop

Result = TypeVar("Result")

_libc = ctypes.CDLL(None)


NEVER_NS = 1 << 62


class PreciseSelector(selectors.EpollSelector):
    """Waits in ppoll on its epoll descriptor, which becomes readable when any of its sockets does.

    At `tick_at_ns` it calls `tick()`, which sets the next tick: asyncio's own timers would be too expensive at
    this rate. `called` is set when a callback is scheduled on the loop. `polls` is notified of every sleep.
    """

    def __init__(self) -> None:
        super().__init__()
        self.idle_ns = 0
        self.tick_at_ns = NEVER_NS
        self.tick: Callable[[], None] = lambda: None
        self.called = False
        self.polls: Polls | None = None
        self._scratch = np.zeros(3, np.int64)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events for at most `timeout` seconds (None: no limit), and run ticks meanwhile."""
        now = time.monotonic_ns()
        until = NEVER_NS if timeout is None else now + int(timeout * 1e9)
        self.called = False
        while True:
            if now >= self.tick_at_ns:
                self.tick_at_ns = NEVER_NS
                self.tick()
                now = time.monotonic_ns()
            if now >= until or self.called:
                return super().select(0)
            wake = min(until, self.tick_at_ns)
            if self.polls is not None:
                self.polls.before_io_wait((wake - now) / SECOND_NS)
            ready = produce.wait_readable(
                self.fileno(), -1 if wake == NEVER_NS else max(wake - now, 0), self._scratch
            )
            if self.polls is not None:
                self.polls.after_io_wait(0.0)
            before, now = now, time.monotonic_ns()
            self.idle_ns += now - before
            if ready:
                return super().select(0)


class _Loop(GatedLoop):
    """Sets `called` of its selector when a callback is scheduled, so that the selector returns to the loop."""

    def __init__(self, gate: Gate, selector: PreciseSelector) -> None:
        self._precise = selector
        super().__init__(gate, selector)

    def call_soon(self, *args: Any, **more: Any) -> asyncio.Handle:  # type: ignore[override]
        """See asyncio."""
        self._precise.called = True
        return super().call_soon(*args, **more)

    def call_at(self, *args: Any, **more: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        """See asyncio."""
        self._precise.called = True
        return super().call_at(*args, **more)


def run_precisely(main: Callable[[PreciseSelector], Awaitable[Result]], gate: Gate) -> Result:
    """Run `main(selector)` on a loop with a `PreciseSelector` in this thread, at the finest timer resolution."""
    slack_ns = _libc.prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
    _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    selector = PreciseSelector()

    async def entry() -> Any:
        return await main(selector)

    try:
        with asyncio.Runner(loop_factory=lambda: _Loop(gate, selector)) as runner:
            result: Result = runner.run(entry())
            return result
    finally:
        if slack_ns > 0:
            _libc.prctl(PR_SET_TIMERSLACK, slack_ns, 0, 0, 0)
