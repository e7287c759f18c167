"""Background jobs: a queue, workers, retries with growing waits, and a dead set.

The bus's topics are such queues, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import trio

from .places import Places
from .policies import wait_ns
from .spec import QUEUE_MAX, Retry
from .wire import Request
from .world import World


class Limits(NamedTuple):
    """The current limits of a job queue."""

    workers: int
    queue: int
    dead: int


class Perform(Protocol):
    """Performs a job once."""

    def __call__(self, request: Request) -> Awaitable[str]:
        """Perform the job, and return the reason of a failure; empty for a success."""


class JobQueue:
    """The jobs of one service, or the messages of one topic."""

    def __init__(
        self, world: World, owner: str, prefix: str, limits: Callable[[], Limits], policy: Callable[[], Retry],
        perform: Perform,
    ) -> None:  # fmt: skip
        self._world, self._owner, self._prefix = world, owner, prefix
        self._limits, self._policy, self._perform = limits, policy, perform
        self._places = Places(limits().workers, QUEUE_MAX)
        self._random = world.random(prefix)
        self._dead: deque[Request] = deque()
        self._retrying = 0
        self._arriving = 0
        figures, station = world.figures, self._places.station
        figures.declare(*(f"{prefix}.{what}" for what in ("enqueued", "done", "retries", "died", "refused")))
        figures.gauge(f"{prefix}.queue", lambda: len(station.waiting), lambda: limits().queue)
        figures.gauge(f"{prefix}.busy", lambda: station.busy, lambda: limits().workers)
        figures.gauge(f"{prefix}.retrying", lambda: self._retrying)
        figures.gauge(f"{prefix}.dead", lambda: len(self._dead), lambda: limits().dead)

    def resize(self) -> None:
        """Apply changed limits."""
        self._places.resize(self._limits().workers, QUEUE_MAX)

    def enqueue(self, request: Request) -> bool:
        """Queue a job; return False if the queue is full."""
        limits, station = self._limits(), self._places.station
        # Until its task runs, a job is neither busy nor waiting, so `_arriving` counts it.
        if station.busy + len(station.waiting) + self._arriving >= limits.workers + limits.queue:
            self._world.figures.count(f"{self._prefix}.refused")
            self._world.log.note(
                self._owner, "jobs_full", f"{len(station.waiting):,} jobs wait", queue=self._prefix
            )
            return False
        self._world.figures.count(f"{self._prefix}.enqueued")
        assert self._world.nursery is not None
        self._arriving += 1
        self._world.nursery.start_soon(self._run, request)
        return True

    async def _run(self, request: Request) -> None:
        attempt = 0
        self._arriving -= 1
        while True:
            await self._places.take()
            try:
                why = await self._perform(request._replace(retry=request.retry + attempt))
            finally:
                self._places.give_back()
            if not why:
                self._world.figures.count(f"{self._prefix}.done")
                return
            policy = self._policy()
            if attempt >= policy.retries:
                self._bury(request, why, attempt)
                return
            attempt += 1
            self._world.figures.count(f"{self._prefix}.retries")
            wait_s = wait_ns(policy, attempt, self._random) / 1e9
            self._world.log.note(
                self._owner, "job_retry", f"{why}; retry {attempt} in {wait_s:.3g} s", queue=self._prefix
            )
            self._retrying += 1
            await trio.sleep(wait_s)
            self._retrying -= 1

    def _bury(self, request: Request, why: str, attempt: int) -> None:
        self._world.figures.count(f"{self._prefix}.died")
        self._world.log.note(self._owner, "job_dead", f"{why}; tries: {attempt + 1}", queue=self._prefix)
        self._dead.append(request)
        while len(self._dead) > self._limits().dead:
            self._dead.popleft()
            self._world.log.note(
                self._owner, "dead_dropped", f"{len(self._dead):,} are kept", queue=self._prefix
            )
