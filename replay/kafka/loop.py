"""An asyncio loop for a thread that keeps a schedule: it sleeps to the microsecond, and knows how long it slept.

asyncio's own selector rounds every sleep up to a millisecond.
"""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import numpy as np

from replay_native import produce
from replay_native.libc import PR_GET_TIMERSLACK, PR_SET_TIMERSLACK

Result = TypeVar("Result")

_libc = ctypes.CDLL(None)


class PreciseSelector(selectors.EpollSelector):
    """Sleeps in ppoll on its epoll descriptor, which is itself readable when anything in it is."""

    def __init__(self) -> None:
        super().__init__()
        self.idle_ns = 0
        self._scratch = np.zeros(3, np.int64)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events, for so many seconds at most (None: without end)."""
        if timeout is None or timeout > 0:
            before = time.monotonic_ns()
            timeout_ns = -1 if timeout is None else int(timeout * 1e9)
            ready = produce.wait_readable(self.fileno(), timeout_ns, self._scratch)
            self.idle_ns += time.monotonic_ns() - before
            if ready == 0:
                return []
        return super().select(0)


def run_precisely(main: Callable[[PreciseSelector], Awaitable[Result]]) -> Result:
    """Run `main(selector)` in this thread on such a loop, with the thread's timers at their finest meanwhile."""
    slack_ns = _libc.prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
    _libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    selector = PreciseSelector()

    async def entry() -> Any:
        return await main(selector)

    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            result: Result = runner.run(entry())
            return result
    finally:
        if slack_ns > 0:
            _libc.prctl(PR_SET_TIMERSLACK, slack_ns, 0, 0, 0)
