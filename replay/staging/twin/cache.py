"""The cache of a service: entries that expire, a capacity, and concurrent requests that miss the same entry."""

from __future__ import annotations

import bisect
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from itertools import accumulate

import trio

from .spec import Cache
from .wire import Response
from .world import World


class Entries:
    """Entries with a time to live; the least recently used is evicted. The caller passes the time."""

    def __init__(self) -> None:
        self._until_ns: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until_ns)

    def get(self, key: Hashable, now_ns: int) -> bool:
        """Return whether the cache has an entry for a key that has not expired."""
        until_ns = self._until_ns.get(key)
        if until_ns is None:
            return False
        if until_ns <= now_ns:
            del self._until_ns[key]
            return False
        self._until_ns.move_to_end(key)
        return True

    def put(self, key: Hashable, until_ns: int, capacity: int) -> int:
        """Store an entry, and return how many entries were evicted for it."""
        self._until_ns[key] = until_ns
        self._until_ns.move_to_end(key)
        evicted = 0
        while len(self._until_ns) > capacity:
            self._until_ns.popitem(last=False)
            evicted += 1
        return evicted

    def clear(self) -> None:
        """Remove all entries."""
        self._until_ns.clear()


class Popularity:
    """Keys drawn by Zipf's law: key k with a probability proportional to 1 / k**exponent."""

    def __init__(self, keys: int, exponent: float) -> None:
        self.keys, self.exponent = keys, exponent
        self._sums = list(accumulate(1 / k**exponent for k in range(1, keys + 1)))

    def draw(self, random_: random.Random) -> int:
        """Draw a key. Keys count from 0, which is the most popular one."""
        return min(bisect.bisect_left(self._sums, random_.random() * self._sums[-1]), self.keys - 1)


_NEVER_NS = 1 << 62
_CANCELLED = Response(503, 0, "cancelled", b"{}")


@dataclass(eq=False)
class _Flight:
    """The computation of one entry: how many requests compute it, and the result."""

    computing: int = 0
    landed: trio.Event = field(default_factory=trio.Event)
    response: Response = _CANCELLED


class ServiceCache:
    """The cache of one service."""

    def __init__(self, world: World, service: str, now_ns: Callable[[], int]) -> None:
        self._world, self._service, self._now_ns = world, service, now_ns
        self._entries = Entries()
        self._random = world.random(f"{service}.cache")
        self._popularity = Popularity(max(self._given.keys, 1), self._given.zipf)
        self._flights: dict[Hashable, _Flight] = {}
        self._computing = 0
        figures, prefix = world.figures, f"{service}.cache"
        figures.declare(
            *(f"{prefix}.{what}" for what in ("hits", "misses", "evictions", "stampedes", "shared"))
        )
        figures.gauge(f"{prefix}.entries", lambda: len(self._entries), lambda: self._given.capacity)
        figures.gauge(f"{prefix}.computing", lambda: self._computing)
        if self._given.start == "warm":
            self._fill()

    @property
    def _given(self) -> Cache:
        given = self._world.service(self._service).cache
        assert given is not None
        return given

    def started(self, start: str) -> None:
        """Empty or fill the cache now, because `start` was set at run time."""
        self._entries.clear()
        if start == "warm":
            self._fill()
        what = "cache_filled" if start == "warm" else "cache_emptied"
        self._world.log.note(self._service, what, f"cache.start was set to {start}")

    def changed(self) -> None:
        """Apply changed settings."""
        given = self._given
        if (given.keys, given.zipf) != (self._popularity.keys, self._popularity.exponent):
            self._popularity = Popularity(max(given.keys, 1), given.zipf)

    def _fill(self) -> None:
        """Fill the cache with the most popular keys. Without `keys` it stays empty, because the keys are not known."""
        given, now_ns = self._given, self._now_ns()
        for key in reversed(range(min(given.keys, given.capacity))):
            # The entries get different ages, as in a real cache, so that they do not all expire at once.
            until_ns = now_ns + int(self._random.random() * given.ttl_ns) if given.ttl_ns else _NEVER_NS
            self._entries.put(key, until_ns, given.capacity)

    async def through(self, path: str, compute: Callable[[], Awaitable[Response]]) -> Response:
        """Answer from the cache, or compute the response and store it.

        A hit has status 0, for which the service sends the route's own response. With single flight, all waiting
        requests get the response of the one that computes, whether it succeeds or fails.
        """
        given, figures, prefix = self._given, self._world.figures, f"{self._service}.cache"
        key: Hashable = self._popularity.draw(self._random) if given.keys else path
        if self._entries.get(key, self._now_ns()):
            figures.count(f"{prefix}.hits")
            return Response(0)
        figures.count(f"{prefix}.misses")
        flight = self._flights.get(key)
        if flight is not None and given.stampede == "single_flight" and not flight.landed.is_set():
            figures.count(f"{prefix}.shared")
            await flight.landed.wait()
            return flight.response
        if flight is None:
            flight = self._flights[key] = _Flight()
        return await self._compute(key, flight, compute)

    async def _compute(
        self, key: Hashable, flight: _Flight, compute: Callable[[], Awaitable[Response]]
    ) -> Response:
        given, figures, prefix = self._given, self._world.figures, f"{self._service}.cache"
        flight.computing += 1
        self._computing += 1
        if flight.computing > 1:
            figures.count(f"{prefix}.stampedes")
            why = f"{flight.computing} requests compute key {key}"
            self._world.log.note(self._service, "stampede", why)
        try:
            flight.response = await compute()
            if flight.response.status < 400 and given.capacity:
                until_ns = self._now_ns() + given.ttl_ns if given.ttl_ns else _NEVER_NS
                figures.count(f"{prefix}.evictions", self._entries.put(key, until_ns, given.capacity))
            return flight.response
        finally:
            self._computing -= 1
            flight.computing -= 1
            flight.landed.set()
            if not flight.computing:
                del self._flights[key]
