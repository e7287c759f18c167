"""A service of a twin: its replicas with workers and queues, and its routes with their work and their limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from .cache import ServiceCache
from .calling import HOPS_MAX, Caller, Outcome
from .clock import clock_ns
from .database import DatabasePool, PoolError, StaleError
from .graph import route_of, target_of
from .jobs import JobQueue, Limits
from .places import FullError, Places, WaitedError
from .resolving import Resolver
from .scaling import Scaler
from .spec import Jobs, Route, Service
from .wire import Request, Response
from .world import World

TURN_S = 0.05
"""How often an autoscaler checks whether its period has passed."""


@dataclass(eq=False)
class _Replica:
    places: Places
    ready: bool = True
    counted_ns: int = 0
    queued_ns: int = 0
    started_ns: int = field(default_factory=clock_ns)


class ServiceHost:
    """One service of a running twin."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        given = self._given
        self._random = world.random(name)
        self._replicas = [_Replica(self._places()) for _ in range(given.replicas)]
        self._draining: list[_Replica] = []
        self._initial = given.replicas
        self._turn = 0
        resolver = Resolver(world, name)
        self._calls = {
            key: Caller(world, name, key, target_of(key, call), resolver) for key, call in given.calls.items()
        }
        self._database = DatabasePool(world, name) if given.database else None
        self._cache = ServiceCache(world, name, clock_ns) if given.cache else None
        self._jobs = self._job_queue() if given.jobs else None
        self._declare()

    def _declare(self) -> None:
        figures, name = self._world.figures, self.name
        figures.declare(
            *(f"{name}.{what}" for what in ("requests", "errors", "rejected", "abandoned", "degraded"))
        )
        figures.gauge(f"{name}.queue", self._queue, lambda: self._given.queue * self._ready)
        figures.gauge(f"{name}.busy", self._busy, lambda: self._given.workers * self._ready)
        figures.gauge(f"{name}.replicas", lambda: self._ready, lambda: self._most)
        figures.gauge(f"{name}.starting", lambda: len(self._replicas) - self._ready)

    @property
    def _given(self) -> Service:
        return self._world.service(self.name)

    @property
    def _most(self) -> int:
        scaler = self._given.autoscaler
        return scaler.max if scaler else 0

    @property
    def _ready(self) -> int:
        return sum(replica.ready for replica in self._replicas)

    def _places(self) -> Places:
        given = self._given
        return Places(given.workers, given.queue, given.discipline)

    def _queue(self) -> int:
        return sum(len(r.places.station.waiting) for r in (*self._replicas, *self._draining))

    def _busy(self) -> int:
        return sum(r.places.station.busy for r in (*self._replicas, *self._draining))

    def changed(self) -> None:
        """Apply changed settings."""
        given = self._given
        for replica in self._replicas:
            replica.places.resize(given.workers, given.queue, given.discipline)
        if given.replicas != self._initial:
            self._initial = given.replicas
            self._scale_to(given.replicas, 0)
        if self._database is not None:
            self._database.resize()
        if self._jobs is not None:
            self._jobs.resize()
        if self._cache is not None:
            self._cache.changed()

    def cache_started(self, start: str) -> None:
        """Empty or fill the cache, because `cache.start` was set at run time."""
        if self._cache is not None:
            self._cache.started(start)

    def close(self) -> None:
        """Close idle connections to other services."""
        for caller in self._calls.values():
            caller.close()

    async def handle(self, request: Request) -> Response:
        """Serve a request, and count it."""
        figures, name = self._world.figures, self.name
        figures.count(f"{name}.requests")
        response = await self._admitted(request)
        if response.status >= 500:
            figures.count(f"{name}.errors")
        return response

    def abandoned(self, request: Request) -> None:
        """Count and log that the caller disconnected before its answer."""
        self._world.figures.count(f"{self.name}.abandoned")
        self._world.log.note(self.name, "abandoned", f"{request.method} {request.path}")

    async def _admitted(self, request: Request) -> Response:
        route_name = route_of(self._given, request.method, request.path)
        if not route_name:
            return Response(404, 0, "no_route", b"{}")
        if request.hops > HOPS_MAX:
            self._world.log.note(self.name, "loop", f"{request.method} {request.path} after {HOPS_MAX} calls")
            return Response(508, 0, "loop", b"{}")
        replica = self._pick()
        try:
            await replica.places.take(self._given.queue_wait_ns)
        except (FullError, WaitedError) as error:
            what = "queue_full" if isinstance(error, FullError) else "waited_too_long"
            station = replica.places.station
            why = f"{station.busy} of {station.workers} workers busy, {len(station.waiting)} wait"
            self._world.log.note(self.name, what, why)
            self._world.figures.count(f"{self.name}.rejected")
            return Response(503, 0, what, b"{}")
        try:
            return await self._serve(self._given.routes[route_name], request)
        finally:
            replica.places.give_back()

    def _pick(self) -> _Replica:
        """Return the replica that gets the next request."""
        ready = [replica for replica in self._replicas if replica.ready]
        if len(ready) == 1:
            return ready[0]
        balance = self._given.balance
        if balance == "random":
            return self._random.choice(ready)
        self._turn += 1
        if balance == "round_robin":
            return ready[self._turn % len(ready)]
        first = self._turn % len(ready)
        turned = ready[first:] + ready[:first]
        return min(
            turned,
            key=lambda r: (r.places.station.busy + len(r.places.station.waiting)) / r.places.station.workers,
        )

    async def _serve(self, route: Route, request: Request) -> Response:
        if route.cached and self._cache is not None:
            response = await self._cache.through(request.path, partial(self._compute, route, request))
        else:
            response = await self._compute(route, request)
        if response.status >= 400:
            return response
        if route.jobs and self._jobs is not None:
            for _ in range(route.jobs):
                if not self._jobs.enqueue(request):
                    return Response(503, 0, "jobs_full", b"{}")
        return response if response.status else Response(route.status, route.bytes_)

    async def _compute(self, route: Route, request: Request) -> Response:
        """Do the work, database queries and calls of a route.

        A status of 0 means success with no response to pass on, so that the service sends the route's own.
        """
        await self._world.work(route.time.draw_ns(self._random), route.work)
        if route.fails and self._random.random() < route.fails:
            return Response(500, 0, "fails", b"{}")
        try:
            if self._database is not None:
                for _ in range(route.reads):
                    await self._database.read(request)
                for _ in range(route.writes):
                    await self._database.write(request)
        except PoolError as error:
            return Response(503, 0, str(error), b"{}")
        except StaleError:
            return Response(404, 0, "stale_read", b"{}")
        return await self._make_calls(route, request)

    async def _make_calls(self, route: Route, request: Request) -> Response:
        outcomes: dict[str, Outcome] = {}

        async def make(key: str) -> None:
            outcomes[key] = await self._calls[key].make(request)

        if route.order == "at_once" and len(route.calls) > 1:
            async with trio.open_nursery() as nursery:
                for key in route.calls:
                    nursery.start_soon(make, key)
        else:
            for key in route.calls:
                await make(key)
                if outcomes[key].why and self._given.calls[key].required:
                    break
        return self._joined(route, outcomes)

    def _joined(self, route: Route, outcomes: Mapping[str, Outcome]) -> Response:
        """Combine the results of calls: a failure if a required call failed, otherwise the response to pass on.

        A status of 0 means that there is none to pass on.
        """
        calls = self._given.calls
        made = [(calls[key], key, outcomes[key]) for key in route.calls if key in outcomes]
        for call, key, outcome in made:
            if outcome.why and call.required:
                status = 508 if outcome.why == "loop" else 504 if outcome.status == 504 else 503
                return Response(status, 0, f"{key}_failed", b"{}")
        self._world.figures.count(f"{self.name}.degraded", sum(bool(outcome.why) for _, _, outcome in made))
        for call, _, outcome in made:
            if not outcome.why and not call.request and not call.topic:
                # The call forwarded the request itself, so its status is passed on, with a body of this route's size.
                return Response(outcome.status, route.bytes_)
        return Response(0)

    def _job_queue(self) -> JobQueue:
        def jobs() -> Jobs:
            given = self._given.jobs
            assert given is not None
            return given

        def limits() -> Limits:
            return Limits(jobs().workers, jobs().queue, jobs().dead)

        async def perform(request: Request) -> str:
            await self._world.work(jobs().time.draw_ns(self._random), jobs().work)
            for key in jobs().calls:
                outcome = await self._calls[key].make(request)
                if outcome.why and self._given.calls[key].required:
                    return f"{key}: {outcome.why}"
            return ""

        return JobQueue(self._world, self.name, f"{self.name}.jobs", limits, jobs, perform)

    async def autoscale(self) -> None:
        """Set the number of replicas once in each period, until cancelled.

        Without an autoscaler, wait for one, because it can be added at run time.
        """
        scaler, begin_ns = Scaler(), clock_ns()
        while True:
            given = self._given.autoscaler
            now_ns = clock_ns()
            if given is None or now_ns - begin_ns < given.period_ns:
                await trio.sleep(TURN_S)
                continue
            signal = self._signal(given.signal, now_ns, now_ns - begin_ns)
            begin_ns = now_ns
            wanted, unbounded = scaler.decide(given, now_ns, len(self._replicas), self._ready, signal)
            if unbounded > given.max:
                self._world.log.note(
                    self.name, "at_most", f"{given.signal} {signal:.2f}: {unbounded} are wanted"
                )
            if wanted != len(self._replicas):
                what = "scaling_up" if wanted > len(self._replicas) else "scaled_down"
                why = (
                    f"{given.signal} {signal:.2f}, target {given.target:g}: {len(self._replicas)} to {wanted}"
                )
                self._world.log.note(self.name, what, why, replicas=wanted)
                self._scale_to(wanted, given.start_delay_ns)

    def _signal(self, kind: str, now_ns: int, passed_ns: int) -> float:
        """Return the mean of the signal over the replicas that are ready, since the last decision."""
        total = 0.0
        ready = [replica for replica in self._replicas if replica.ready]
        for replica in ready:
            station = replica.places.station
            station.observe(now_ns)
            lived_ns = max(min(passed_ns, now_ns - replica.started_ns), 1)
            if kind == "busy":
                total += (station.busy_ns - replica.counted_ns) / lived_ns / station.workers
            else:
                total += (station.queue_ns - replica.queued_ns) / lived_ns
            replica.counted_ns, replica.queued_ns = station.busy_ns, station.queue_ns
        return total / len(ready)

    def _scale_to(self, wanted: int, delay_ns: int) -> None:
        while len(self._replicas) < wanted:
            replica = _Replica(self._places(), ready=not delay_ns)
            self._replicas.append(replica)
            if delay_ns:
                assert self._world.nursery is not None
                self._world.nursery.start_soon(self._start, replica, delay_ns)
        while len(self._replicas) > wanted:
            # Starting replicas are removed first; a serving one finishes its requests.
            leaving = next((r for r in reversed(self._replicas) if not r.ready), self._replicas[-1])
            self._replicas.remove(leaving)
            self._draining = [r for r in self._draining if r.places.station.busy or r.places.station.waiting]
            self._draining.append(leaving)

    async def _start(self, replica: _Replica, delay_ns: int) -> None:
        await trio.sleep(delay_ns / 1e9)
        if replica in self._replicas:
            replica.ready, replica.started_ns = True, clock_ns()
            self._world.log.note(
                self.name, "scaled_up", f"{self._ready} replicas serve", replicas=self._ready
            )
