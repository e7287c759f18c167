"""Random twins with one limit each, for `benchmarks.bottlenecks`.

A twin has three or four front services behind a load balancer, which call one or two services behind them. Some have a
database, a cache or background jobs, and some look up a name for each call. All parts are sized for the highest load,
except the limit, which is full before that. In some twins the requests of another service take longer from the moment at
which the load rises. That service is a bystander, which has nothing in common with the limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from replay.staging.twin.cache import Popularity

KINDS = ("workers", "database", "cache", "dns", "downstream", "jobs")
"""The kinds of limits. `downstream` stands for the workers of a service that others call."""

BASE_PER_S = 40.0
FRONTS = ("shop", "search", "account", "stream", "board", "feed", "blog")
LEAVES = ("auth", "prices", "ledger", "media")
WORDS = ("list", "one", "new", "count")

MEAN_BY_MEDIAN = math.exp(0.3**2 / 2)
"""The ratio of mean and median of the lognormal times (sigma 0.3)."""

QUERIES_PER_LOOKUP = 2
"""An absolute name is asked for IPv4 and IPv6."""

LEAST_WORKERS, SLOWER_MAX = 4, 4.0
DRAWS = 20_000


@dataclass(slots=True)
class RouteDraw:
    """A route that clients request: its rate before the load rises, its own time, and what it uses."""

    service: str
    path: str
    per_s: float
    time_s: float
    calls: tuple[str, ...] = ()
    reads: int = 0
    is_cached: bool = False
    jobs: int = 0

    @property
    def name(self) -> str:
        """The name of the route in results."""
        return f"GET {self.path}"


@dataclass(slots=True)
class ServiceDraw:
    """A front service: its routes, and the parts that it has besides its workers."""

    name: str
    routes: list[RouteDraw] = field(default_factory=list)
    has_database: bool = False
    has_cache: bool = False
    has_jobs: bool = False
    fresh: tuple[str, ...] = ()
    """The services to which each call looks up the name and opens a new connection."""
    missed: float = 1.0
    """The share of lookups in its cache that miss."""

    def computed(self, route: RouteDraw) -> float:
        """Return the share of a route's requests that the cache does not answer."""
        return self.missed if route.is_cached else 1.0


@dataclass(frozen=True, slots=True)
class LimitedTwin:
    """A twin, its load, and the truth about its limit."""

    kind: str
    document: dict[str, Any]
    recipe: dict[str, Any]
    limited: tuple[str, ...]
    """The watched figures that show the limit."""
    affected: tuple[str, ...]
    """The routes that the limit slows."""
    rises_s: float
    bystander: dict[str, str]
    """Settings of the bystander that change when the load rises; empty if there is no bystander."""


class Draw:
    """Draws one twin. `over` is the highest load relative to the capacity of the limit."""

    def __init__(self, seed: int, number: int, length_s: float) -> None:
        self.rng = np.random.default_rng([seed, number])
        self.kind = KINDS[number % len(KINDS)]
        self.length_s = length_s
        # Queries arrive in bursts, and the quota is counted per second, so its use before the rise must be lower.
        self.used = self._between(0.45, 0.55) if self.kind == "dns" else self._between(0.55, 0.75)
        self.over = self._between(1.3, 1.8)
        self.factor = self.over / self.used
        self.limited: tuple[str, ...] = ()
        self.document: dict[str, Any] = {
            "name": f"{self.kind}-{number}",
            "seed": int(self.rng.integers(1, 1 << 30)),
            "services": {},
        }

    def made(self) -> LimitedTwin:
        """Draw the twin and its load."""
        fronts, leaves = self._services()
        self._caches(fronts)
        holds = self._leaves(fronts, leaves)
        for at, front in enumerate(fronts):
            self._front(front, holds, is_owner=at == 0)
        if self.kind == "dns" or self._chance(0.4):
            self._names(fronts)
        self.document["balancer"] = {
            "timeout": "10s",
            "routes": {f"/{each.name}": each.name for each in fronts},
        }
        affected = tuple(route.name for route in self._affected(fronts))
        rises_s, curve = self._curve()
        return LimitedTwin(
            self.kind, self.document, self._recipe(fronts, curve), self.limited, affected, rises_s,
            self._bystander(fronts, set(affected)),
        )  # fmt: skip

    # These methods draw the parts.

    def _services(self) -> tuple[list[ServiceDraw], list[str]]:
        names = self.rng.permutation(FRONTS)[: self.rng.integers(3, 5)]
        leaves = [str(name) for name in self.rng.permutation(LEAVES)[: self.rng.integers(1, 3)]]
        fronts = [ServiceDraw(str(name)) for name in names]
        owner = fronts[0]
        for front in fronts:
            is_owner = front is owner
            front.has_database = self._chance(0.4) or (is_owner and self.kind == "database")
            front.has_cache = self._chance(0.3) or (is_owner and self.kind == "cache")
            front.has_jobs = self._chance(0.3) or (is_owner and self.kind == "jobs")
            count = int(self.rng.integers(2, 4)) if is_owner else int(self.rng.integers(1, 3))
            for word in WORDS[:count]:
                front.routes.append(self._route(front, word, leaves))
            if is_owner:
                self._uses_limit(front, leaves)
            called = dict.fromkeys(leaf for route in front.routes for leaf in route.calls)
            front.fresh = tuple(
                leaf for leaf in called if (is_owner and self.kind == "dns") or self._chance(0.5)
            )
        whole = sum(route.per_s for front in fronts for route in front.routes)
        for front in fronts:
            for route in front.routes:
                route.per_s *= BASE_PER_S / whole
        return fronts, leaves

    def _route(self, front: ServiceDraw, word: str, leaves: list[str]) -> RouteDraw:
        calls = tuple(leaf for leaf in leaves if self._chance(0.4))
        return RouteDraw(
            front.name, f"/{front.name}/{word}", self._between(1, 3), self._between(0.01, 0.06), calls,
            int(self.rng.integers(1, 4)) if front.has_database and self._chance(0.7) else 0,
            front.has_cache and self._chance(0.6), int(front.has_jobs and self._chance(0.6)),
        )  # fmt: skip

    def _uses_limit(self, owner: ServiceDraw, leaves: list[str]) -> None:
        """Make the routes of the service that owns the limit use it."""
        for at, route in enumerate(owner.routes):
            route.per_s = self._between(2, 4)
            if self.kind == "database":
                route.is_cached = False
                route.reads = max(route.reads, int(at == 0))
            elif self.kind == "cache":
                route.is_cached = True
                route.reads = max(route.reads, int(owner.has_database))
            elif self.kind in ("dns", "downstream"):
                route.is_cached = False
                route.calls = route.calls if leaves[0] in route.calls or at > 1 else (leaves[0], *route.calls)
            elif self.kind == "jobs":
                route.jobs = 1 if at < 2 else route.jobs
                route.is_cached = False

    # These methods draw the sizes of the parts.

    def _used_of(self, is_limited: bool) -> float:
        """Draw the share of a part that is in use before the load rises."""
        return self.used if is_limited else self._between(0.35, 0.7) / self.factor

    def _sized(self, demand: float, is_limited: bool) -> tuple[int, float]:
        """Return the number of places for a demand, and the factor by which their times grow to reach the drawn use.

        The demand is the mean number of busy places. The factor is at most SLOWER_MAX, except for the limit.
        """
        used = self._used_of(is_limited)
        count = max(LEAST_WORKERS, math.ceil(demand / used))
        slower = used * count / max(demand, 1e-9)
        return count, slower if is_limited else min(slower, SLOWER_MAX)

    def _caches(self, fronts: list[ServiceDraw]) -> None:
        for at, front in enumerate(fronts):
            if not front.has_cache:
                continue
            is_limited = at == 0 and self.kind == "cache"
            keys = int(self.rng.integers(500, 3_000))
            share = self._between(0.03, 0.1) if is_limited else self._between(0.3, 1.2)
            zipf = round(self._between(0.6, 0.9) if is_limited else self._between(1.0, 1.3), 2)
            capacity = max(int(keys * share), 5)
            front.missed = missed_share(keys, min(capacity, keys), zipf)
            self._table(front.name)["cache"] = {
                "ttl": "0s", "capacity": capacity, "keys": keys, "zipf": zipf,
                "start": "warm" if self._chance(0.7) else "cold",
            }  # fmt: skip
            if is_limited:
                self.limited = (f"{front.name}.cache.entries",)

    def _leaves(self, fronts: list[ServiceDraw], leaves: list[str]) -> dict[str, float]:
        """Make the called services, and return the mean time of a call to each."""
        holds = {}
        for at, leaf in enumerate(leaves):
            per_s = sum(
                route.per_s * front.computed(route)
                for front in fronts for route in front.routes if leaf in route.calls
            )  # fmt: skip
            is_limited = at == 0 and self.kind == "downstream"
            time_s = self._between(0.02, 0.08)
            workers, slower = self._sized(per_s * time_s, is_limited)
            holds[leaf] = time_s * slower
            self._table(leaf).update(
                workers=workers, queue=int(self.rng.integers(32, 129)),
                routes={"all": {"match": "GET /", "time": self._time(holds[leaf])}},
            )  # fmt: skip
            if is_limited:
                self.limited = (f"{leaf}.busy", f"{leaf}.queue")
        return holds

    def _front(self, front: ServiceDraw, holds: dict[str, float], *, is_owner: bool) -> None:
        read_s = (
            self._database(front, is_owner and self.kind in ("database", "cache"))
            if front.has_database
            else 0.0
        )
        own = sum(route.per_s * front.computed(route) * route.time_s for route in front.routes)
        below = sum(
            route.per_s
            * front.computed(route)
            * (route.reads * read_s + sum(holds[leaf] for leaf in route.calls))
            for route in front.routes
        )
        # A cache that is too small overloads what computes its misses: the database, or else the workers.
        is_limited = is_owner and self.kind == "workers"
        if self.kind == "cache" and not front.has_database:
            is_limited = is_owner
        used = self._used_of(is_limited)
        workers = max(LEAST_WORKERS, math.ceil((own + below) / used))
        slower = (used * workers - below) / own
        slower = slower if is_limited else min(slower, SLOWER_MAX)
        table = self._table(front.name)
        table.update(workers=workers, queue=int(self.rng.integers(32, 129)))
        table["routes"] = {
            route.path.rpartition("/")[2]: self._route_table(route, slower) for route in front.routes
        }
        table["calls"] = {
            leaf: {"request": "GET /", "timeout": "2500ms", "keep_alive": leaf not in front.fresh}
            for leaf in dict.fromkeys(leaf for route in front.routes for leaf in route.calls)
        }
        if is_limited and self.kind == "workers":
            self.limited = (f"{front.name}.busy", f"{front.name}.queue")
        if front.has_jobs:
            self._jobs(front, is_owner and self.kind == "jobs")

    def _database(self, front: ServiceDraw, is_limited: bool) -> float:
        """Make the database of a service, and return the mean time of a read."""
        per_s = sum(route.per_s * front.computed(route) * route.reads for route in front.routes)
        read_s = self._between(0.005, 0.03)
        connections, slower = self._sized(per_s * read_s, is_limited)
        read_s *= slower
        self._table(front.name)["database"] = {
            "connections": connections, "queue": int(self.rng.integers(32, 257)), "wait": "2s",
            "read": self._time(read_s),
        }  # fmt: skip
        if is_limited and self.kind == "database":
            self.limited = (f"{front.name}.database.busy", f"{front.name}.database.queue")
        return read_s

    def _jobs(self, front: ServiceDraw, is_limited: bool) -> None:
        per_s = sum(route.per_s * route.jobs for route in front.routes)
        if not per_s:
            return
        time_s = self._between(0.05, 0.3)
        workers, slower = self._sized(per_s * time_s, is_limited)
        bound = 200
        if is_limited:
            excess_per_s = per_s * self.factor * (1 - 1 / self.over)
            bound = max(int(excess_per_s * self._between(1.0, 3.0)), 5)
            self.limited = (f"{front.name}.jobs.busy", f"{front.name}.jobs.queue")
        self._table(front.name)["jobs"] = {
            "workers": workers,
            "queue": bound,
            "time": self._time(time_s * slower),
        }

    def _names(self, fronts: list[ServiceDraw]) -> None:
        is_limited = self.kind == "dns"
        per_s = sum(
            route.per_s * front.computed(route) * len(set(route.calls) & set(front.fresh))
            for front in fronts for route in front.routes
        )  # fmt: skip
        queries_per_s = QUERIES_PER_LOOKUP * per_s
        quota = math.ceil(queries_per_s / self._used_of(is_limited)) or 100
        self.document["dns"] = {"names": "absolute", "quota": quota}
        if is_limited:
            self.limited = ("dns.queries_per_s",)

    # These methods draw the load.

    def _affected(self, fronts: list[ServiceDraw]) -> Iterator[RouteDraw]:
        for front in fronts:
            for route in front.routes:
                if self.kind == "jobs":
                    is_affected = front is fronts[0] and bool(route.jobs)
                elif self.kind == "dns":
                    is_affected = bool(set(route.calls) & set(front.fresh))
                elif self.kind == "downstream":
                    # Workers of its callers wait for it, so every route of these services is slowed.
                    leaf = self.limited[0].partition(".")[0]
                    is_affected = any(leaf in each.calls for each in front.routes)
                else:
                    is_affected = front is fronts[0]
                if is_affected:
                    yield route

    def _curve(self) -> tuple[float, dict[str, Any]]:
        """Return the time at which the load begins to rise, and the curve of the load."""
        rises_s = self.length_s * self._between(0.3, 0.45)
        full_s = rises_s + self.length_s * self._between(0.01, 0.25)
        high = BASE_PER_S * self.factor
        rates, times = [BASE_PER_S, BASE_PER_S, high], [0.0, rises_s, full_s]
        if self._chance(0.3):
            down_s = self.length_s * self._between(0.85, 0.9)
            rates, times = [*rates, high, BASE_PER_S], [*times, down_s, down_s + 1]
        if times[-1] < self.length_s:
            rates, times = [*rates, rates[-1]], [*times, self.length_s]
        return rises_s, {"rates": rates, "times": [f"{at:.3f}s" for at in times]}

    def _recipe(self, fronts: list[ServiceDraw], curve: dict[str, Any]) -> dict[str, Any]:
        return {
            "duration": f"{self.length_s:g}s", "process": "poisson", "clients": 400,
            "seed": int(self.rng.integers(1, 1 << 30)), "curve": curve,
            "request": [
                {"method": "GET", "path": route.path, "weight": round(route.per_s, 4)}
                for front in fronts for route in front.routes
            ],
        }  # fmt: skip

    def _bystander(self, fronts: list[ServiceDraw], affected: set[str]) -> dict[str, str]:
        """Choose an unaffected service, and return its longer times from the rise of the load on, or {} if there is none.

        It gets more workers, so that they still suffice.
        """
        able = [
            front for front in fronts[1:]
            if not any(route.name in affected or route.is_cached for route in front.routes)
        ]  # fmt: skip
        if not able or not self._chance(1 / 2):
            return {}
        front, times = able[0], self._between(2.5, 4)
        table = self._table(front.name)
        table["workers"] = math.ceil(table["workers"] * times)
        return {
            f"{front.name}.routes.{name}.time": self._longer(route["time"], times)
            for name, route in table["routes"].items()
        }

    # These are helpers of the methods above.

    def _table(self, service: str) -> dict[str, Any]:
        table: dict[str, Any] = self.document["services"].setdefault(service, {})
        return table

    def _route_table(self, route: RouteDraw, slower: float) -> dict[str, Any]:
        return {
            "match": route.name, "time": self._time(route.time_s * slower), "calls": list(route.calls),
            "reads": route.reads, "cached": route.is_cached, "jobs": route.jobs,
        }  # fmt: skip

    def _time(self, mean_s: float) -> str:
        if self._chance(0.3):
            return f"exponential {mean_s * 1e6:.0f}us"
        return f"lognormal {mean_s / MEAN_BY_MEDIAN * 1e6:.0f}us 0.3"

    @staticmethod
    def _longer(time: str, times: float) -> str:
        shape, value, *more = time.split()
        return " ".join([shape, f"{float(value.removesuffix('us')) * times:.0f}us", *more])

    def _between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def _chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)


@cache
def missed_share(keys: int, capacity: int, zipf: float) -> float:
    """Return the share of lookups that miss a full LRU cache, by Che's approximation.

    It is 2% by assumption if the cache has room for all keys.
    """
    sums = np.array(Popularity(keys, zipf)._sums)
    share = np.diff(sums, prepend=0.0) / sums[-1]
    if capacity >= keys:
        return 0.02
    low, high = 0.0, 1e9
    for _ in range(100):
        age = (low + high) / 2
        low, high = (age, high) if (1 - np.exp(-share * age)).sum() < capacity else (low, age)
    return float((share * np.exp(-share * low)).sum())
