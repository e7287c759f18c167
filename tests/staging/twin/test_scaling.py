"""Replicas: the autoscaler's lag and bounds, and which replica gets a request. On a virtual clock."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from replay.settings.kinds import Duration
from replay.staging.twin.scaling import Scaler
from replay.staging.twin.service import TURN_S, ServiceHost
from replay.staging.twin.spec import Autoscaler
from replay.staging.twin.wire import Request
from replay.units import SECOND_NS
from tests.support.twins import hosted, virtually

DOWN_AFTER_NS = Duration(60 * SECOND_NS)
SCALER = {"target": 0.5, "period": "10s", "start_delay": "25s", "min": 1, "max": 8, "down_after": "60s"}


def service(autoscaler: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    app = {"workers": 4, "queue": 1000, "routes": {"all": {"time": "1s"}}, **settings}
    if autoscaler is not None:
        app["autoscaler"] = SCALER | autoscaler
    return {"services": {"app": app}}


async def load(host: ServiceHost, clients: int) -> None:
    """So many clients that send their next request once they have an answer."""

    async def client() -> None:
        while True:
            await host.handle(Request("GET", "/"))

    async with trio.open_nursery() as nursery:
        for _ in range(clients):
            nursery.start_soon(client)


async def replicas_over_time(host: ServiceHost, until_s: float) -> list[tuple[float, int]]:
    """When the number of serving replicas changed, and to what."""
    seen = [(0.0, 1)]
    while trio.current_time() < until_s:
        ready = int(host._world.figures.document()["app.replicas"])
        if ready != seen[-1][1]:
            seen.append((trio.current_time(), ready))
        await trio.sleep(0.05)
    return seen


@pytest.mark.parametrize(("period_s", "delay_s"), [(10, 25), (2, 7), (15, 0)])
def test_new_replicas_serve_one_period_and_one_start_after_a_sudden_load(period_s: int, delay_s: int) -> None:
    """The signal is the mean of a whole period: a load from the first instant on is seen at its end."""

    async def main() -> None:
        given = service({"period": f"{period_s}s", "start_delay": f"{delay_s}s", "target": 0.5})
        async with hosted(given) as host, trio.open_nursery() as nursery:
            nursery.start_soon(load, host, 4)
            seen = await replicas_over_time(host, period_s + delay_s + 3 * TURN_S)
            nursery.cancel_scope.cancel()
        # All workers are busy, which is twice the target: two replicas.
        assert [ready for _, ready in seen] == [1, 2]
        assert seen[1][0] == pytest.approx(period_s + delay_s, abs=3 * TURN_S)

    virtually(main)


def test_a_load_that_needs_more_than_the_bound_gets_the_bound_and_a_line_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"

    async def main() -> None:
        async with hosted(service({"max": 3}), log) as host, trio.open_nursery() as nursery:
            nursery.start_soon(load, host, 400)
            seen = await replicas_over_time(host, 200)
            nursery.cancel_scope.cancel()
        assert max(ready for _, ready in seen) == 3

    virtually(main)
    whats = Counter(json.loads(line)["what"] for line in log.read_text().splitlines())
    assert whats["scaling_up"] == 2 and whats["at_most"] >= 1


def test_replicas_go_once_nothing_wanted_them_for_long_enough() -> None:
    async def main() -> None:
        given = service({"min": 2, "start_delay": "0s"}, replicas=2)
        async with hosted(given) as host:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(load, host, 16)
                    await trio.sleep(45)
                    scope.cancel()
            loaded = host._world.figures.document()["app.replicas"]
            assert loaded >= 4
            await trio.sleep(55)
            assert host._world.figures.document()["app.replicas"] == loaded
            await trio.sleep(30)
            assert host._world.figures.document()["app.replicas"] == 2

    virtually(main)


@pytest.mark.parametrize("signal", [0.1, 0.3, 0.54, 0.56, 0.9, 1.0, 7.3])
@pytest.mark.parametrize("replicas", [1, 3, 7])
def test_decisions_are_the_rule_of_kubernetes(signal: float, replicas: int) -> None:
    given = Autoscaler(target=0.5, min=1, max=20)
    wanted, unbounded = Scaler().decide(given, 0, replicas, replicas, signal)
    ratio = signal / 0.5
    expected = replicas if abs(ratio - 1) <= 0.1 else math.ceil(replicas * ratio)
    assert unbounded == expected
    # One decision alone takes nothing away from those of the time before it; here there was none.
    assert wanted == min(max(expected, 1), 20)


def test_replicas_that_start_are_not_asked_for_twice() -> None:
    given = Autoscaler(target=0.5, max=20)
    scaler = Scaler()
    assert scaler.decide(given, 0, 2, 2, 1.0)[0] == 4
    assert scaler.decide(given, 15 * SECOND_NS, 4, 2, 1.0)[0] == 4


def test_a_highest_wish_within_the_time_keeps_its_replicas() -> None:
    given = Autoscaler(target=0.5, max=20, down_after_ns=DOWN_AFTER_NS)
    scaler = Scaler()
    assert scaler.decide(given, 0, 4, 4, 0.5)[0] == 4
    assert scaler.decide(given, DOWN_AFTER_NS, 4, 4, 0.1)[0] == 4
    assert scaler.decide(given, DOWN_AFTER_NS + 1, 4, 4, 0.1)[0] == 1


@pytest.mark.parametrize("balance", ["round_robin", "least_busy"])
def test_a_balancer_spreads_equal_requests_evenly(balance: str) -> None:
    async def main() -> None:
        async with hosted(service(replicas=5, balance=balance)) as host:
            busy = await busy_after(host, 15)
            assert busy == [3] * 5

    virtually(main)


def test_a_random_balancer_picks_replicas_with_equal_probability() -> None:
    async def main() -> None:
        async with hosted(service(replicas=4, balance="random", workers=10_000)) as host:
            busy = await busy_after(host, 8_000)
            chi_squared = sum((seen - 2_000) ** 2 / 2_000 for seen in busy)
            # 3 degrees of freedom: their 99.9th percentile is 16.3.
            assert sum(busy) == 8_000 and chi_squared < 16.3

    virtually(main)


def test_the_least_busy_replica_gets_the_next_request() -> None:
    async def main() -> None:
        async with hosted(service(replicas=2, workers=8)) as host:
            replicas = host._replicas
            for _ in range(6):
                await replicas[0].places.take()
            assert await busy_after(host, 6) == [6, 6]

    virtually(main)


async def busy_after(host: ServiceHost, requests: int) -> list[int]:
    """How many workers of each replica are busy with requests that arrived at the same instant."""
    async with trio.open_nursery() as nursery:
        for _ in range(requests):
            nursery.start_soon(host.handle, Request("GET", "/"))
        await trio.sleep(0.5)
        return [replica.places.station.busy for replica in host._replicas]


def test_a_replica_that_leaves_finishes_what_it_has() -> None:
    async def main() -> None:
        async with hosted(service(replicas=2, workers=1)) as host:
            statuses: list[int] = []

            async def one() -> None:
                statuses.append((await host.handle(Request("GET", "/"))).status)

            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(one)
                await trio.sleep(0.5)
                host._world.twin.services["app"].replicas = 1
                host.changed()
                assert host._world.figures.document()["app.busy"] == 2
            assert statuses == [200] * 6

    virtually(main)
