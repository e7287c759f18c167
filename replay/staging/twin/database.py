"""The database of a service: a primary and read replicas that lag, each with a pool of connections."""

from __future__ import annotations

from collections import OrderedDict

from .clock import clock_ns
from .places import FullError, Places, WaitedError
from .spec import Database
from .wire import Request
from .world import World

WRITERS_KEPT = 10_000
"""The maximum number of clients (by path) whose last write is remembered, to know whether a replica lacks it."""


class PoolError(Exception):
    """The pool's queue is full, or the wait was too long. `str()` is the kind of event in the log."""


class StaleError(Exception):
    """A replica lacks the client's last write."""


class DatabasePool:
    """The reads and writes of one service."""

    def __init__(self, world: World, service: str) -> None:
        self._world, self._service = world, service
        given = self._given
        self._random = world.random(f"{service}.database")
        self._primary = Places(given.connections, given.queue)
        self._replicas: list[Places] = []
        self._applied_ns: list[int] = []
        self._written: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._turn = 0
        self._declare()
        self.resize()

    def _declare(self) -> None:
        figures, prefix = self._world.figures, f"{self._service}.database"
        primary = self._primary.station
        figures.declare(*(f"{prefix}.{what}" for what in ("reads", "writes", "stale_reads", "pool_failures")))
        figures.gauge(f"{prefix}.busy", lambda: primary.busy, lambda: self._given.connections)
        figures.gauge(f"{prefix}.queue", lambda: len(primary.waiting), lambda: self._given.queue)

    def _declare_replicas(self) -> None:
        figures, prefix = self._world.figures, f"{self._service}.database"
        figures.gauge(
            f"{prefix}.replicas_busy",
            lambda: sum(places.station.busy for places in self._replicas),
            lambda: self._given.replica_connections * self._given.replicas,
        )
        figures.gauge(
            f"{prefix}.replicas_queue",
            lambda: sum(len(places.station.waiting) for places in self._replicas),
        )
        figures.gauge(f"{prefix}.lag_ms", self._lag_ms)

    @property
    def _given(self) -> Database:
        given = self._world.service(self._service).database
        assert given is not None
        return given

    def resize(self) -> None:
        """Apply changed limits."""
        given = self._given
        self._primary.resize(given.connections, given.queue)
        if given.replicas and not self._replicas:
            self._declare_replicas()
        while len(self._replicas) < given.replicas:
            self._replicas.append(Places(given.replica_connections, given.queue))
            self._applied_ns.append(0)
        for places in self._replicas:
            places.resize(given.replica_connections, given.queue)

    async def read(self, request: Request) -> None:
        """Perform one read.

        Raises PoolError if no connection is free in time, StaleError if the replica lacks the client's own last write
        and `stale` is "fail".
        """
        given = self._given
        places = self._primary
        self._world.figures.count(f"{self._service}.database.reads")
        if given.replicas:
            self._turn = (self._turn + 1) % given.replicas
            places = self._replicas[self._turn]
            if self._is_stale(request.path, self._turn):
                self._world.figures.count(f"{self._service}.database.stale_reads")
                self._world.log.note(self._service, "stale_read", f"{given.stale}: {request.path}")
                if given.stale == "fail":
                    raise StaleError
                places = self._primary if given.stale == "primary" else places
        await self._hold(places, given.read.draw_ns(self._random))

    async def write(self, request: Request) -> None:
        """Perform one write. Raises PoolError if no connection is free in time."""
        given = self._given
        self._world.figures.count(f"{self._service}.database.writes")
        await self._hold(self._primary, given.write.draw_ns(self._random))
        now_ns = clock_ns()
        self._applied_ns = [max(applied_ns, now_ns) + given.apply_ns for applied_ns in self._applied_ns]
        self._written[request.path] = tuple(self._applied_ns)
        self._written.move_to_end(request.path)
        if len(self._written) > WRITERS_KEPT:
            self._written.popitem(last=False)

    def _is_stale(self, path: str, replica: int) -> bool:
        """Return whether a replica does not show the last write to a path yet.

        A replica applies writes in order. A replica that is added later begins as a copy of the primary, so it shows
        the write.
        """
        applied_ns = self._written.get(path, ())
        return replica < len(applied_ns) and clock_ns() < applied_ns[replica] + self._given.lag_ns

    def _lag_ms(self) -> float:
        in_use = self._applied_ns[: self._given.replicas]
        backlog_ns = max((applied_ns - clock_ns() for applied_ns in in_use), default=0)
        return round((self._given.lag_ns + max(backlog_ns, 0)) / 1e6, 1)

    async def _hold(self, places: Places, time_ns: int) -> None:
        try:
            await places.take(self._given.wait_ns)
        except (FullError, WaitedError) as error:
            what = "pool_full" if isinstance(error, FullError) else "pool_timeout"
            station = places.station
            self._world.log.note(
                self._service,
                what,
                f"{station.busy} of {station.workers} connections busy, {len(station.waiting)} wait",
            )
            self._world.figures.count(f"{self._service}.database.pool_failures")
            raise PoolError(what) from None
        try:
            await self._world.work(time_ns, "wait")
        finally:
            places.give_back()
