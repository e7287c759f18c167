"""The database: its pool, its bound, its time limit, and how long a replica lacks a write. On a virtual clock."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from replay.staging.twin.service import ServiceHost
from replay.staging.twin.wire import Request
from tests.support.twins import hosted, virtually

READ, WRITE = Request("GET", "/me"), Request("PUT", "/me")


def service(**database: Any) -> dict[str, Any]:
    """A service whose GET reads once and whose PUT writes once."""
    routes = {"read": {"match": "GET /", "reads": 1}, "write": {"match": "PUT /", "writes": 1}}
    return {"services": {"app": {"workers": 10_000, "routes": routes, "database": database}}}


def total(host: ServiceHost, name: str) -> int:
    return host._world.figures.total(f"app.database.{name}")


async def burst(host: ServiceHost, request: Request, count: int) -> tuple[list[int], float]:
    """The statuses of requests that arrive at the same instant, and how long all of them took."""
    statuses: list[int] = []
    begin_s = trio.current_time()

    async def one() -> None:
        statuses.append((await host.handle(request)).status)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return statuses, trio.current_time() - begin_s


@pytest.mark.parametrize("connections", [1, 4, 10])
def test_a_burst_takes_as_many_turns_as_its_pool_needs(connections: int) -> None:
    async def main() -> None:
        async with hosted(service(connections=connections, read="10ms", wait="0s")) as host:
            statuses, took_s = await burst(host, READ, 40)
            assert statuses == [200] * 40
            assert took_s == pytest.approx(40 / connections * 0.01)

    virtually(main)


def test_requests_over_the_bound_of_its_queue_fail_at_once() -> None:
    async def main() -> None:
        async with hosted(service(connections=3, queue=5, read="10ms")) as host:
            statuses, took_s = await burst(host, READ, 20)
            assert sorted(statuses) == [200] * 8 + [503] * 12
            assert total(host, "pool_failures") == 12
            assert took_s == pytest.approx(0.03)

    virtually(main)


def test_a_request_waits_for_a_connection_no_longer_than_its_limit() -> None:
    async def main() -> None:
        # Two at a time, 100 ms each: with 250 ms of patience three turns begin.
        async with hosted(service(connections=2, read="100ms", wait="250ms")) as host:
            statuses, took_s = await burst(host, READ, 20)
            assert sorted(statuses) == [200] * 6 + [503] * 14
            assert total(host, "pool_failures") == 14
            assert took_s == pytest.approx(0.3)

    virtually(main)


def test_replicas_take_reads_in_turn_and_the_primary_takes_writes() -> None:
    async def main() -> None:
        given = service(connections=1, replicas=2, replica_connections=1, read="10ms", write="30ms")
        async with hosted(given) as host:
            _, reading_s = await burst(host, READ, 20)
            assert reading_s == pytest.approx(0.1)
            _, writing_s = await burst(host, WRITE, 3)
            assert writing_s == pytest.approx(0.09)

    virtually(main)


@pytest.mark.parametrize(
    ("lag_s", "apply_s", "writes"),
    [(0.5, 0.0, 1), (0.0, 0.5, 1), (0.2, 0.3, 1), (0.0, 0.1, 4), (0.3, 0.1, 4)],
)
def test_a_replica_lacks_a_write_for_its_lag_and_all_that_it_has_to_apply(
    lag_s: float, apply_s: float, writes: int
) -> None:
    """Writes are made at the same instant; a replica applies them one after another, and shows each after its lag."""
    until_s = writes * apply_s + lag_s

    async def main() -> None:
        given = service(
            connections=10, replicas=1, read="0s", write="0s", lag=f"{lag_s}s", apply=f"{apply_s}s", stale="fail"
        )  # fmt: skip
        async with hosted(given) as host:
            await burst(host, WRITE, writes)
            assert host._world.figures.document()["app.database.lag_ms"] == pytest.approx(until_s * 1e3)
            for at_s, status in ((until_s - 0.001, 404), (until_s + 0.001, 200)):
                await trio.sleep_until(at_s)
                assert (await host.handle(READ)).status == status
            assert total(host, "stale_reads") == 1
            other = await host.handle(Request("GET", "/somebody-else"))
            assert other.status == 200

    virtually(main)


def test_later_writes_of_others_do_not_delay_ones_own() -> None:
    async def main() -> None:
        given = service(connections=10, replicas=1, read="0s", write="0s", apply="1s", stale="fail")
        async with hosted(given) as host:
            await host.handle(WRITE)
            for _ in range(9):
                await host.handle(Request("PUT", "/somebody-else"))
            await trio.sleep(1.001)
            assert (await host.handle(READ)).status == 200
            assert (await host.handle(Request("GET", "/somebody-else"))).status == 404
            await trio.sleep(9)
            assert (await host.handle(Request("GET", "/somebody-else"))).status == 200

    virtually(main)


@pytest.mark.parametrize(("stale", "status"), [("serve", 200), ("primary", 200), ("fail", 404)])
def test_what_happens_when_a_replica_lacks_ones_own_write(stale: str, status: int) -> None:
    async def main() -> None:
        given = service(replicas=1, read="7ms", write="0s", lag="10s", stale=stale)
        async with hosted(given) as host:
            await host.handle(WRITE)
            assert (await host.handle(READ)).status == status
            assert total(host, "stale_reads") == 1

    virtually(main)


def test_replicas_that_are_added_while_it_runs_have_their_figures() -> None:
    async def main() -> None:
        async with hosted(service(write="0s", lag="1s", stale="fail")) as host:
            await host.handle(WRITE)
            assert "app.database.lag_ms" not in host._world.figures.document()
            database = host._world.twin.services["app"].database
            assert database is not None
            database.replicas = 2
            host.changed()
            figures = host._world.figures.document()
            assert figures["app.database.lag_ms"] == 1_000
            assert figures["app.database.replicas_busy.limit"] == 20
            assert (await host.handle(READ)).status == 200

    virtually(main)
