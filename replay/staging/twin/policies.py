"""What happens when calls fail: waits before retries, a budget for them, and circuit breakers. No clock, no sockets."""

from __future__ import annotations

import random
from collections import deque
from enum import Enum

from .spec import Breaker, Call, Retry

SIDEKIQ_BASE_S = 15
"""Sidekiq waits n**4 + 15 s before retry n + 1."""


def wait_ns(policy: Retry, attempt: int, random_: random.Random) -> int:
    """The wait before retry `attempt` (from 1)."""
    if policy.growth == "sidekiq":
        whole_ns = policy.backoff_ns * (1 + (attempt - 1) ** 4 / SIDEKIQ_BASE_S)
    else:
        whole_ns = policy.backoff_ns * policy.backoff_factor ** min(attempt - 1, 64)
    whole_ns = min(whole_ns, policy.backoff_max_ns)
    return int(whole_ns * (1 - policy.jitter * random_.random()))


def amplification(failing: float, retries: int) -> float:
    """Tries per call where each try fails with probability `failing`: 1 + p + ... + p**retries."""
    return float(retries + 1) if failing == 1 else (1 - failing ** (retries + 1)) / (1 - failing)


class Budget:
    """A token bucket: each call adds `call.budget` tokens, each retry takes one."""

    __slots__ = ("_call", "tokens")

    def __init__(self, call: Call) -> None:
        self._call = call
        self.tokens = float(call.budget_burst)

    def called(self) -> None:
        """A call begins."""
        self.tokens = min(self.tokens + (self._call.budget or 0.0), float(self._call.budget_burst))

    def take(self) -> bool:
        """Whether a retry is allowed; takes its token."""
        if self._call.budget is None:
            return True
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class State(Enum):
    """State of a circuit breaker. The value is its figure."""

    CLOSED = 0.0
    PROBING = 0.5
    OPEN = 1.0


class CircuitBreaker:
    """Opens at a share of failures, lets single calls probe after a while, and closes once they succeed."""

    def __init__(self) -> None:
        self.state = State.CLOSED
        self._calls: deque[tuple[int, bool]] = deque()
        self._failed = 0
        self._opened_ns = 0
        self._probing = 0
        self._succeeded = 0

    def admit(self, breaker: Breaker, now_ns: int) -> bool:
        """Whether a call may be made. One that is admitted must be `ended`."""
        if self.state is State.OPEN and now_ns - self._opened_ns >= breaker.open_ns:
            self.state, self._probing, self._succeeded = State.PROBING, 0, 0
        if self.state is State.OPEN:
            return False
        if self.state is State.PROBING:
            if self._probing:
                return False
            self._probing = 1
        return True

    def ended(self, breaker: Breaker, failed: bool, now_ns: int) -> None:
        """A call that was admitted has ended."""
        if self.state is State.PROBING:
            self._probing = 0
            self._succeeded += 1
            if failed:
                self._open(now_ns)
            elif self._succeeded >= breaker.probes:
                self._close()
            return
        if self.state is State.OPEN:
            return
        self._calls.append((now_ns, failed))
        self._failed += failed
        while self._calls and self._calls[0][0] <= now_ns - breaker.window_ns:
            self._failed -= self._calls.popleft()[1]
        if len(self._calls) >= breaker.minimum and self._failed >= breaker.failures * len(self._calls):
            self._open(now_ns)

    def _open(self, now_ns: int) -> None:
        self.state, self._opened_ns = State.OPEN, now_ns
        self._calls.clear()
        self._failed = 0

    def _close(self) -> None:
        self.state = State.CLOSED
