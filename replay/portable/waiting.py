"""The portable engine's wait queue: requests taken up and not yet attempted, and whose turn it is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .protocol import Outcome, Request

EVERYBODY = -1
"""Whose connections are a pool's."""


@dataclass(eq=False, slots=True)
class Job:
    """One request that was taken up. `ready_ns` is when it first waited for a connection alone; `end` is where it ends in
    the stream of ring bytes. It waits since `since_ns`, was tried `tries` times, and `last` is what its last try came to.
    `own_ns` is the lane's own part of the time until it was first sent; until then `lost_ns` is still to be added.
    """

    request: Request
    due_ns: int
    taken_ns: int
    end: int
    ready_ns: int = -1
    sent_ns: int = -1
    since_ns: int = -1
    tries: int = 0
    last: Outcome | None = None
    own_ns: int = 0


class Waiting:
    """Who waits, oldest first. With `ordered` a client's request is ready only when the one before it has ended; with
    `per_client` it waits for a connection of its client's own, else of everybody's.

    `unserved` holds whose connections somebody waits for that nobody looked at since.
    """

    def __init__(self, *, ordered: bool, per_client: bool) -> None:
        self._ordered, self._per_client = ordered, per_client
        self._by_age: dict[Job, None] = {}
        self._ready: dict[int, dict[Job, None]] = {}
        self._turns: dict[int, Job] = {}
        self._lines: dict[int, deque[Job]] = {}
        self.unserved: dict[int, None] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._by_age)

    def ready(self, owner: int) -> int:
        """How many wait for one of these connections alone."""
        return len(self._ready.get(owner, ()))

    @property
    def oldest(self) -> Job | None:
        """Who has waited longest, for whatever."""
        return next(iter(self._by_age), None)

    def add(self, job: Job) -> None:
        """It waits from now on."""
        job.since_ns = job.taken_ns
        self._by_age[job] = None
        self.held_bytes += len(job.request.data)
        client = job.request.client
        if self._ordered and client in self._turns:
            self._lines.setdefault(client, deque()).append(job)
        else:
            self._make_ready(job, job.taken_ns)

    def add_again(self, job: Job, now_ns: int) -> None:
        """It was tried before, and waits for a connection before others. Its turn it has had all along."""
        job.since_ns = now_ns
        self._by_age[job] = None
        self.held_bytes += len(job.request.data)
        owner = self._owner(job)
        self._ready[owner] = {job: None, **self._ready.get(owner, {})}
        self.unserved[owner] = None

    def take(self, owner: int) -> Job:
        """The first that is ready, to be attempted; `ended` must follow."""
        job = next(iter(self._ready[owner]))
        self.forget(job)
        return job

    def drop(self, job: Job, now_ns: int) -> None:
        """It waits no more, and will not be attempted."""
        self.forget(job)
        client = job.request.client
        if not self._ordered or self._turns.get(client) is job:
            self.ended(job, now_ns)
        else:
            self._lines[client].remove(job)

    def ended(self, job: Job, now_ns: int) -> None:
        """It is over: the next of its client is ready."""
        client = job.request.client
        if self._turns.pop(client, None) is not None and (line := self._lines.get(client)):
            self._make_ready(line.popleft(), now_ns)
            if not line:
                del self._lines[client]

    def _make_ready(self, job: Job, now_ns: int) -> None:
        job.ready_ns = now_ns
        owner = self._owner(job)
        self._ready.setdefault(owner, {})[job] = None
        self.unserved[owner] = None
        if self._ordered:
            self._turns[job.request.client] = job

    def _owner(self, job: Job) -> int:
        return job.request.client if self._per_client else EVERYBODY

    def forget(self, job: Job) -> None:
        """It waits no more; whether its turn is over, others say."""
        del self._by_age[job]
        owner = self._owner(job)
        if (ready := self._ready.get(owner)) is not None and ready.pop(job, self) is None and not ready:
            del self._ready[owner]
        self.held_bytes -= len(job.request.data)
