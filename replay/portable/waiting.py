"""The portable engine's wait queue: requests that wait for their first attempt or a retry, and their order."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .protocol import Outcome, Request

EVERYBODY = -1
"""The owner key of shared connections."""


@dataclass(eq=False, slots=True)
class Job:
    """One request taken from the feed.

    `ready_ns` is when it first waited only for a connection, and `since_ns` is when it was last queued. It was
    attempted `tries` times, and `last` is the result of the last attempt. `end` is the position of its last
    byte in the stream of ring bytes. `own_ns` is the lane's own share of the time until it was first sent;
    until then the counter `lost_ns` must be added to it.
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
    """The waiting requests, oldest first.

    With `ordered` a client's request is ready only after the previous one has ended. With `per_client` a
    request waits for a connection of its client, otherwise for a shared one. `unserved` has the owners for
    whose waiting requests no connection was sought yet.
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
        """Return how many requests wait only for a connection of this owner."""
        return len(self._ready.get(owner, ()))

    @property
    def oldest(self) -> Job | None:
        """The request that has waited longest, for any reason; None if no request waits."""
        return next(iter(self._by_age), None)

    def add(self, job: Job) -> None:
        """Add a request that was just taken from the feed."""
        job.since_ns = job.taken_ns
        self._by_age[job] = None
        self.held_bytes += len(job.request.data)
        client = job.request.client
        if self._ordered and client in self._turns:
            self._lines.setdefault(client, deque()).append(job)
        else:
            self._make_ready(job, job.taken_ns)

    def add_again(self, job: Job, now_ns: int) -> None:
        """Add a request that was attempted before.

        It waits for a connection ahead of others, and keeps its client's turn.
        """
        job.since_ns = now_ns
        self._by_age[job] = None
        self.held_bytes += len(job.request.data)
        owner = self._owner(job)
        self._ready[owner] = {job: None, **self._ready.get(owner, {})}
        self.unserved[owner] = None

    def take(self, owner: int) -> Job:
        """Remove and return the first ready request, which is attempted now. The caller must call `ended` later."""
        job = next(iter(self._ready[owner]))
        self.forget(job)
        return job

    def drop(self, job: Job, now_ns: int) -> None:
        """Remove a request that will not be attempted."""
        self.forget(job)
        client = job.request.client
        if not self._ordered or self._turns.get(client) is job:
            self.ended(job, now_ns)
        else:
            self._lines[client].remove(job)

    def ended(self, job: Job, now_ns: int) -> None:
        """Make the next request of a client ready after its request has ended."""
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
        """Remove a request from the queue, but keep its client's turn; the caller ends the turn with `ended`."""
        del self._by_age[job]
        owner = self._owner(job)
        if (ready := self._ready.get(owner)) is not None and ready.pop(job, self) is None and not ready:
            del self._ready[owner]
        self.held_bytes -= len(job.request.data)
