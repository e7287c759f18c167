"""A bounded queue in front of workers: services, database pools and job workers of the twin are such stations.

A station has no clock; its caller passes the time. The twin uses Trio's clock, and the tests and benchmarks of
its accuracy use a virtual one (`virtual.py`).
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import Generic, Literal, TypeVar

Discipline = Literal["fifo", "lifo"]
Who = TypeVar("Who")


class Admission(Enum):
    """The result of an arrival."""

    STARTED = auto()
    WAITS = auto()
    FULL = auto()


class Station(Generic[Who]):
    """A station in which `workers` serve one customer each, and at most `queue_max` customers wait.

    `busy_ns` and `queue_ns` are sums over time, from which utilization and mean queue length follow.
    """

    __slots__ = ("_at_ns", "busy", "busy_ns", "discipline", "queue_max", "queue_ns", "waiting", "workers")

    def __init__(
        self, workers: int, queue_max: int, discipline: Discipline = "fifo", now_ns: int = 0
    ) -> None:
        self.workers, self.queue_max, self.discipline = workers, queue_max, discipline
        self.busy = 0
        self.waiting: deque[Who] = deque()
        self.busy_ns = self.queue_ns = 0
        self._at_ns = now_ns

    def observe(self, now_ns: int) -> None:
        """Add the time until now to `busy_ns` (busy workers x time) and `queue_ns` (waiting customers x time)."""
        passed_ns = now_ns - self._at_ns
        self.busy_ns += self.busy * passed_ns
        self.queue_ns += len(self.waiting) * passed_ns
        self._at_ns = now_ns

    def arrive(self, who: Who, now_ns: int) -> Admission:
        """Add a customer, and return whether it is served at once, waits, or is refused."""
        self.observe(now_ns)
        if self.busy < self.workers and not self.waiting:
            self.busy += 1
            return Admission.STARTED
        if len(self.waiting) >= self.queue_max:
            return Admission.FULL
        self.waiting.append(who)
        return Admission.WAITS

    def finish(self, now_ns: int) -> Who | None:
        """Record that a worker has finished, and return the customer that it serves next, or None."""
        self.observe(now_ns)
        if self.waiting and self.busy <= self.workers:
            return self._next()
        self.busy -= 1
        return None

    def give_up(self, who: Who, now_ns: int) -> None:
        """Remove a customer that stops waiting."""
        self.observe(now_ns)
        self.waiting.remove(who)

    def resize(self, workers: int, queue_max: int, now_ns: int) -> list[Who]:
        """Change the limits, and return the customers that new workers serve at once.

        No customer is dropped: with fewer workers, the busy ones finish first, and a queue above its limit
        drains.
        """
        self.observe(now_ns)
        self.workers, self.queue_max = workers, queue_max
        started: list[Who] = []
        while self.waiting and self.busy < self.workers:
            self.busy += 1
            started.append(self._next())
        return started

    def _next(self) -> Who:
        return self.waiting.popleft() if self.discipline == "fifo" else self.waiting.pop()
