"""Waits before retries, a budget for retries, circuit breakers, and the quota of a name server.

This module uses no clock and no sockets.
"""

from __future__ import annotations

import random
from collections import deque
from enum import Enum

from replay.units import SECOND_NS

from .spec import Breaker, Call, Retry

SIDEKIQ_BASE_S = 15
"""Sidekiq waits n**4 + 15 s before retry n + 1."""


def wait_ns(policy: Retry, attempt: int, random_: random.Random) -> int:
    """Return the wait before retry `attempt` (from 1) in ns, with its jitter."""
    if policy.growth == "sidekiq":
        whole_ns = policy.backoff_ns * (1 + (attempt - 1) ** 4 / SIDEKIQ_BASE_S)
    else:
        whole_ns = policy.backoff_ns * policy.backoff_factor ** min(attempt - 1, 64)
    whole_ns = min(whole_ns, policy.backoff_max_ns)
    return int(whole_ns * (1 - policy.jitter * random_.random()))


def amplification(failing: float, retries: int) -> float:
    """Return the tries per call if each try fails with probability `failing`: 1 + p + ... + p**retries."""
    return float(retries + 1) if failing == 1 else (1 - failing ** (retries + 1)) / (1 - failing)


class Budget:
    """A token bucket: each call adds `call.budget` tokens, each retry takes one. Without a budget it has no effect."""

    __slots__ = ("_call", "tokens")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.tokens = float(call.budget_burst)

    def called(self) -> None:
        """Add the tokens of a call, up to `call.budget_burst`."""
        self.tokens = min(self.tokens + (self._call.budget or 0.0), float(self._call.budget_burst))

    def take(self) -> bool:
        """Take a token if there is one, and return whether the retry is allowed."""
        if self._call.budget is None:
            return True
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class Quota:
    """Limits the number of queries in any interval of one second.

    It keeps the times of the last second's queries. A counter that restarts each second would allow twice the
    quota around the restart, and so would a token bucket after a pause. Refused queries do not count.
    """

    __slots__ = ("_answered_ns",)

    def __init__(self) -> None:
        self._answered_ns: deque[int] = deque()

    def admit(self, quota: int, now_ns: int) -> bool:
        """Return whether a query is within the quota, and count it if it is. A quota of 0 means none."""
        if not quota:
            self._answered_ns.clear()
            return True
        while self._answered_ns and self._answered_ns[0] <= now_ns - SECOND_NS:
            self._answered_ns.popleft()
        if len(self._answered_ns) >= quota:
            return False
        self._answered_ns.append(now_ns)
        return True


class State(Enum):
    """The state of a circuit breaker, with the value of the breaker's figure."""

    CLOSED = 0.0
    PROBING = 0.5
    OPEN = 1.0


class CircuitBreaker:
    """Opens at a share of failures, lets single probe calls through after a while, and closes once they succeed.

    `turns` counts changes of state. A call that was admitted before the last change does not affect the present state:
    a slow call from before the breaker opened is not a probe.
    """

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.turns = 0
        self._calls: deque[tuple[int, bool]] = deque()
        self._failed = 0
        self._opened_ns = 0
        self._is_probing = False
        self._succeeded = 0

    def admit(self, breaker: Breaker, now_ns: int) -> bool:
        """Return whether a call may be made.

        If it may, `ended` must be called for it, with the present value of `turns`.
        """
        if self.state is State.OPEN and now_ns - self._opened_ns >= breaker.open_ns:
            self._turn(State.PROBING)
            self._is_probing, self._succeeded = False, 0
        if self.state is State.OPEN:
            return False
        if self.state is State.PROBING:
            if self._is_probing:
                return False
            self._is_probing = True
        return True

    def ended(self, breaker: Breaker, failed: bool, now_ns: int, turns: int) -> None:
        """Record the end of a call that was admitted when `turns` had this value."""
        if turns != self.turns:
            return
        if self.state is State.PROBING:
            self._is_probing = False
            self._succeeded += 1
            if failed:
                self._open(now_ns)
            elif self._succeeded >= breaker.probes:
                self._turn(State.CLOSED)
            return
        self._calls.append((now_ns, failed))
        self._failed += failed
        while self._calls and self._calls[0][0] <= now_ns - breaker.window_ns:
            self._failed -= self._calls.popleft()[1]
        if len(self._calls) >= breaker.minimum and self._failed >= max(
            breaker.failures * len(self._calls), 1
        ):
            self._open(now_ns)

    def _open(self, now_ns: int) -> None:
        self._turn(State.OPEN)
        self._opened_ns = now_ns
        self._calls.clear()
        self._failed = 0

    def _turn(self, state: State) -> None:
        self.state = state
        self.turns += 1
