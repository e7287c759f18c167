"""The cache: time to live, capacity, popularity, and the number of computations, counted on a virtual clock."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from replay.staging.twin.cache import Entries, Popularity
from replay.staging.twin.service import ServiceHost
from replay.staging.twin.wire import Request
from tests.support.twins import hosted, virtually

KEYS, DRAWS = 50, 200_000


def service(cache: dict[str, Any], **route: Any) -> dict[str, Any]:
    """One service with a cached route that takes 100 ms."""
    answers = {"time": "100ms", "cached": True, **route}
    return {"services": {"food": {"workers": 1000, "cache": cache, "routes": {"all": answers}}}}


def figures(host: ServiceHost, *names: str) -> list[int]:
    return [host._world.figures.total(f"food.cache.{name}") for name in names]


async def at_once(host: ServiceHost, count: int, path: str = "/") -> list[int]:
    """The statuses of requests that arrive at the same instant."""
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await host.handle(Request("GET", path))).status)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return statuses


@given(
    capacity=st.integers(1, 4),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 30)), max_size=60),
)
def test_entries_are_those_of_a_plain_list_in_order_of_use(
    capacity: int, steps: list[tuple[bool, int, int]]
) -> None:
    entries, now_ns = Entries(), 0
    plain: OrderedDict[int, int] = OrderedDict()
    for is_put, key, passed_ns in steps:
        now_ns += passed_ns
        if is_put:
            evicted = entries.put(key, now_ns + 50, capacity)
            plain.pop(key, None)
            plain[key] = now_ns + 50
            assert evicted == max(len(plain) - capacity, 0)
            while len(plain) > capacity:
                del plain[next(iter(plain))]
        else:
            if plain.get(key, now_ns + 1) <= now_ns:
                del plain[key]
            assert entries.get(key, now_ns) == (key in plain)
            if key in plain:
                plain.move_to_end(key)
        assert len(entries) == len(plain)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.4])
def test_popularity_is_that_of_zipf(exponent: float) -> None:
    popularity, draw = Popularity(KEYS, exponent), random.Random(3)
    counts = [0] * KEYS
    for _ in range(DRAWS):
        counts[popularity.draw(draw)] += 1
    weights = [1 / k**exponent for k in range(1, KEYS + 1)]
    expected = [DRAWS * weight / sum(weights) for weight in weights]
    chi_squared = sum((seen - due) ** 2 / due for seen, due in zip(counts, expected, strict=True))
    # 49 degrees of freedom: their 99.9th percentile is 85.4.
    assert chi_squared < 85.4


def test_an_entry_is_good_for_its_time_to_live() -> None:
    async def main() -> None:
        async with hosted(service({"ttl": "60s"})) as host:
            for passed_s, hits, misses in ((0, 0, 1), (59.8, 1, 1), (0.2, 1, 2)):
                await trio.sleep(passed_s)
                await host.handle(Request("GET", "/"))
                assert figures(host, "hits", "misses") == [hits, misses]

    virtually(main)


def test_the_least_recently_used_entry_goes() -> None:
    async def main() -> None:
        async with hosted(service({"ttl": "0s", "capacity": 2})) as host:
            for path in ("/a", "/b", "/a", "/c"):
                await host.handle(Request("GET", path))
            assert figures(host, "hits", "misses", "evictions") == [1, 3, 1]
            await host.handle(Request("GET", "/a"))
            await host.handle(Request("GET", "/b"))
            assert figures(host, "hits", "misses") == [2, 4]

    virtually(main)


def test_hits_of_a_warm_cache_are_the_popularity_of_what_it_holds() -> None:
    async def main() -> None:
        cache = {"keys": 100, "capacity": 20, "ttl": "0s", "start": "warm"}
        document = service(cache)
        # Without a computation nothing is stored, so that the cache stays as it was filled.
        document["services"]["food"]["routes"]["all"]["fails"] = 1.0
        async with hosted(document) as host:
            for _ in range(5_000):
                await host.handle(Request("GET", "/"))
            (hits,) = figures(host, "hits")
        harmonic = [sum(1 / k for k in range(1, n + 1)) for n in (20, 100)]
        share = harmonic[0] / harmonic[1]
        error = (share * (1 - share) / 5_000) ** 0.5
        assert hits / 5_000 == pytest.approx(share, abs=4 * error)

    virtually(main)


@pytest.mark.parametrize(
    ("stampede", "stampedes", "shared", "seconds"),
    [("allow", 49, 0, 0.1), ("single_flight", 0, 49, 0.1)],
)
def test_computations_of_one_missing_entry(
    stampede: str, stampedes: int, shared: int, seconds: float
) -> None:
    async def main() -> None:
        async with hosted(service({"stampede": stampede})) as host:
            begin_s = trio.current_time()
            assert await at_once(host, 50) == [200] * 50
            assert trio.current_time() - begin_s == pytest.approx(seconds)
            assert figures(host, "misses", "stampedes", "shared") == [50, stampedes, shared]
            assert await at_once(host, 50) == [200] * 50
            assert figures(host, "hits", "misses") == [50, 50]

    virtually(main)


@pytest.mark.parametrize(
    ("cache", "route", "status"),
    [
        ({"capacity": 0}, {}, 200),
        ({"ttl": "1ns"}, {}, 200),
        ({}, {"fails": 1.0}, 500),
    ],
)
def test_those_who_wait_get_what_the_computation_came_to(
    cache: dict[str, Any], route: dict[str, Any], status: int
) -> None:
    async def main() -> None:
        async with hosted(service({"stampede": "single_flight", **cache}, **route)) as host:
            assert await at_once(host, 20) == [status] * 20
            assert figures(host, "misses", "shared") == [20, 19]

    virtually(main)


def test_without_room_or_success_every_computation_counts_those_beside_it() -> None:
    async def main() -> None:
        async with hosted(service({"capacity": 0})) as host:
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(host.handle, Request("GET", "/"))
                    await trio.sleep(0.03)
            # The fourth begins at .09 s, beside three; the first ends at .1 s.
            assert figures(host, "stampedes") == [3]
            await at_once(host, 1)
            assert figures(host, "stampedes") == [3]

    virtually(main)


def test_a_response_that_is_an_error_is_not_stored() -> None:
    async def main() -> None:
        document = service({}, time="0s", fails=0.5)
        async with hosted(document) as host:
            seen = [(await host.handle(Request("GET", "/"))).status for _ in range(40)]
            first_good = seen.index(200)
            assert seen[:first_good] == [500] * first_good
            assert seen[first_good:] == [200] * (40 - first_good)
            assert figures(host, "misses") == [first_good + 1]

    virtually(main)


def test_filling_and_emptying_a_cache_that_runs() -> None:
    async def main() -> None:
        async with hosted(service({"keys": 10, "capacity": 10, "ttl": "0s"})) as host:
            assert host._world.figures.document()["food.cache.entries"] == 0
            host.cache_started("warm")
            assert host._world.figures.document()["food.cache.entries"] == 10
            host.cache_started("cold")
            assert host._world.figures.document()["food.cache.entries"] == 0

    virtually(main)
