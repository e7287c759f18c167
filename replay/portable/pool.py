"""The connections of a portable lane: their owners, which are idle, and how many are open."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from replay.lane.addresses import AddressTable
from replay.lane.contract import LaneSpec
from replay_native.feed.addresses import A
from replay_native.ledger.lane_metrics import C

from .protocol import Connection
from .waiting import EVERYBODY, Job


@dataclass(eq=False, slots=True)
class Worker:
    """One connection and its task. `owner` is its client, or EVERYBODY for a shared connection.

    `job` is the next request to send, or None after a wake-up without one. `is_counted` becomes false when
    another connection was opened in its place.
    """

    owner: int = EVERYBODY
    connection: Connection | None = None
    fresh: bool = True
    is_counted: bool = True
    job: Job | None = None
    wake: trio.Event = field(default_factory=trio.Event)


@dataclass(eq=False, slots=True)
class Owned:
    """The connections of a client, or the shared ones; idle ones in the order in which they became idle."""

    open: int = 0
    connecting: int = 0
    idle: list[Worker] = field(default_factory=list)


class Pool:
    """All connections of a lane. The connection that became idle last is used first."""

    def __init__(self, spec: LaneSpec) -> None:
        self._metrics, self._counters = spec.metrics, spec.metrics.counters
        self._addresses, self._addresses_seen = AddressTable(spec.metrics), 0
        self._owned: dict[int, Owned] = {}
        self._idle_by_age: dict[Worker, None] = {}
        self.open = 0

    def of(self, owner: int) -> Owned:
        """Return the connections of a client, or the shared ones."""
        return self._owned.setdefault(owner, Owned())

    def forget(self, owner: int, owned: Owned) -> None:
        """Drop a client if it has no connections left."""
        if not owned.open and self._owned.get(owner) is owned:
            del self._owned[owner]

    def count(self, owned: Owned, change: int) -> None:
        """Count connections that were opened (`change` 1) or closed (-1)."""
        owned.open += change
        self.open += change
        self._counters[C.open] = self.open
        self._counters[C.open_max] = max(self._counters[C.open_max], self.open)

    @property
    def has_idle(self) -> bool:
        """Whether any connection is idle."""
        return bool(self._idle_by_age)

    def is_idle(self, worker: Worker) -> bool:
        """Return whether this connection is idle."""
        return worker in self._idle_by_age

    def push_idle(self, worker: Worker) -> None:
        """Mark a connection as idle."""
        worker.job = None
        worker.wake = trio.Event()
        self._owned[worker.owner].idle.append(worker)
        self._idle_by_age[worker] = None

    def pop_idle(self, worker: Worker) -> Worker:
        """Remove a connection from the idle ones, to use or end it."""
        self._owned[worker.owner].idle.remove(worker)
        del self._idle_by_age[worker]
        return worker

    def end_idle(self, worker: Worker) -> None:
        """Close an idle connection, and wake its task without a job."""
        self.close(self.pop_idle(worker))
        worker.wake.set()

    def make_room(self) -> bool:
        """At the connection limit, close the connection that has been idle for longest; False if all are busy."""
        oldest = next(iter(self._idle_by_age), None)
        if oldest is not None:
            self._counters[C.cap_bound] += 1
            self.end_idle(oldest)
            self.count(self._owned[oldest.owner], -1)
            oldest.is_counted = False
        return oldest is not None

    def is_open(self, worker: Worker) -> bool:
        """Return whether an idle connection still works; if not, close it."""
        if worker.connection is not None and worker.connection.is_open():
            return True
        self._counters[C.closed_by_target] += 1
        self.close(worker)
        return False

    def close(self, worker: Worker, *, abort: bool = False) -> None:
        """Close a connection, if it is not closed yet."""
        if worker.connection is not None:
            worker.connection.close(abort=abort)
            worker.connection = None

    def heed_addresses(self) -> None:
        """Close idle connections to removed addresses after a change of the address table.

        Busy ones are closed after their response.
        """
        if self._addresses_seen == self._addresses.version:
            return
        self._addresses_seen = self._addresses.version
        for worker in [worker for worker in self._idle_by_age if self.is_removed(worker)]:
            self.close_drained(self.pop_idle(worker))
            worker.wake.set()

    def is_removed(self, worker: Worker) -> bool:
        """Return whether a connection goes to an address that was removed."""
        connection = worker.connection
        return (
            connection is not None
            and connection.address >= 0
            and self._addresses.is_removed(connection.address)
        )

    def close_drained(self, worker: Worker) -> None:
        """Close a connection to a removed address, and count it as drained."""
        assert worker.connection is not None
        self._metrics.address_counts[worker.connection.address, A.drained] += 1
        self.close(worker)
