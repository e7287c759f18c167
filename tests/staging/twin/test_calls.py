"""Calls between services on real sockets: retries, budget, circuit breaker, limits, bus. Nothing but counts is asserted."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from replay.staging.twin.calling import HOPS_MAX
from replay.staging.twin.policies import amplification
from tests.support.twins import Served, served

LONG_S = 300.0
"""How long a test waits for what must come."""


def chain(call: dict[str, Any], back: dict[str, Any], **front: Any) -> dict[str, Any]:
    """A front whose every request calls the back once."""
    return {
        "services": {
            "front": {"workers": 100, "routes": {"all": {"calls": ["back"]}}, "calls": {"back": call}, **front},
            "back": {"workers": 100, "routes": {"all": back}},
        }
    }  # fmt: skip


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(LONG_S):
        while not condition():
            await trio.sleep(0.005)


async def get_all(twin: Served, count: int) -> Counter[int]:
    """The statuses of requests, one after another."""
    return Counter([await twin.get() for _ in range(count)])


def events(log: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        event = json.loads(line)
        found[event["what"]] += event.get("more", 1)
    return found


def play(
    document: dict[str, Any], main: Callable[[Served], Awaitable[None]], log: Path | None = None
) -> None:
    async def run() -> None:
        async with served(document, log) as twin:
            await main(twin)

    trio.run(run)


@pytest.mark.parametrize(("failing", "retries"), [(0.5, 1), (0.5, 3), (0.8, 2), (1.0, 2), (0.0, 2)])
def test_retries_amplify_by_their_closed_form(failing: float, retries: int) -> None:
    calls = 400

    async def main(twin: Served) -> None:
        statuses = await get_all(twin, calls)
        expected = amplification(failing, retries)
        tries = twin.total("front.calls.back.tries") / calls
        # The number of tries of a call is k with probability p**(k-1) (1 - p), and at most retries + 1.
        second = sum((2 * k + 1) * failing**k for k in range(retries + 1))
        error = math.sqrt((second - expected**2) / calls)
        assert tries == pytest.approx(expected, abs=4 * error + 1e-9)
        assert twin.total("back.requests") == twin.total("front.calls.back.tries")
        given_up = failing ** (retries + 1)
        error = math.sqrt(given_up * (1 - given_up) / calls)
        assert statuses[503] / calls == pytest.approx(given_up, abs=4 * error + 1e-9)

    play(chain({"retries": retries}, {"fails": failing}), main)


def test_retries_of_retries_multiply(tmp_path: Path) -> None:
    document = chain({"retries": 2}, {"calls": ["deep"]})
    document["services"]["back"]["calls"] = {"deep": {"retries": 2}}
    document["services"]["deep"] = {"routes": {"all": {"fails": 1.0}}}

    async def main(twin: Served) -> None:
        assert await get_all(twin, 10) == {503: 10}
        assert twin.total("deep.requests") == 10 * 3 * 3

    play(document, main, tmp_path / "log")
    # Of the three tries of the front, two are retries: their own two retries each are retries of retries.
    assert events(tmp_path / "log")["retry_of_retry"] == 10 * 2 * 2
    assert events(tmp_path / "log")["retry"] == 10 * (2 + 2)


def test_a_budget_bounds_retries_by_its_burst_and_its_share_of_calls(tmp_path: Path) -> None:
    async def main(twin: Served) -> None:
        await get_all(twin, 200)
        # The burst is 10 tokens, and each of 200 calls adds .1 as soon as there is room.
        assert 28 <= twin.total("front.calls.back.retries") <= 30

    play(chain({"retries": 3, "budget": 0.1}, {"fails": 1.0}), main, tmp_path / "log")
    assert events(tmp_path / "log")["budget_spent"] >= 170


def test_an_open_breaker_spares_the_back_until_it_closes(tmp_path: Path) -> None:
    breaker = {"failures": 0.5, "minimum": 5, "open": "1h", "probes": 3}

    async def main(twin: Served) -> None:
        assert await get_all(twin, 40) == {503: 40}
        assert twin.total("back.requests") == 5
        assert twin.process.world.figures.document()["front.calls.back.breaker"] == 1
        twin.process.apply({"back.routes.all.fails": "0", "front.calls.back.breaker.open": "0s"})
        assert await get_all(twin, 40) == {200: 40}
        assert twin.total("back.requests") == 45
        assert twin.process.world.figures.document()["front.calls.back.breaker"] == 0

    play(chain({"breaker": breaker}, {"fails": 1.0}), main, tmp_path / "log")
    seen = events(tmp_path / "log")
    assert [seen[f"breaker_{what}"] for what in ("open", "probing", "closed")] == [1, 1, 1]


def test_a_call_that_takes_too_long_fails_and_its_work_is_counted_as_abandoned(tmp_path: Path) -> None:
    async def main(twin: Served) -> None:
        assert await get_all(twin, 2) == {504: 2}
        assert twin.total("front.calls.back.timeouts") == twin.total("front.calls.back.tries") == 6
        await until(lambda: twin.total("back.abandoned") == twin.total("back.requests"))

    play(chain({"retries": 2, "timeout": "50ms"}, {"time": "300ms"}), main, tmp_path / "log")
    assert events(tmp_path / "log")["timed_out"] == 6


def test_an_answer_that_was_wanted_is_not_abandoned() -> None:
    async def main(twin: Served) -> None:
        assert await get_all(twin, 20) == {200: 20}
        assert twin.total("back.abandoned") == twin.total("front.abandoned") == 0

    play(chain({}, {}), main)
    play(chain({"keep_alive": False}, {}), main)


async def crowd(twin: Served, count: int, is_full: Callable[[], bool]) -> None:
    """So many requests at once, until `is_full`; what then is still being served is dropped."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(twin.get)
        await until(is_full)
        nursery.cancel_scope.cancel()


def test_calls_over_the_limit_in_flight_fail_at_once(tmp_path: Path) -> None:
    async def main(twin: Served) -> None:
        await crowd(twin, 10, lambda: twin.total("front.calls.back.failures") == 6)
        assert twin.total("back.requests") <= 4
        assert twin.process.world.figures.document()["front.calls.back.in_flight"] == 4

    play(chain({"in_flight": 4, "timeout": "1h"}, {"time": "1h"}), main, tmp_path / "log")
    assert events(tmp_path / "log")["in_flight_limit"] == 6


def test_requests_over_workers_and_queue_are_rejected(tmp_path: Path) -> None:
    async def main(twin: Served) -> None:
        await crowd(twin, 10, lambda: twin.total("front.rejected") == 3)
        figures = twin.process.world.figures.document()
        assert (figures["front.busy"], figures["front.queue"]) == (2, 5)

    document = {"services": {"front": {"workers": 2, "queue": 5, "routes": {"all": {"time": "1h"}}}}}
    play(document, main, tmp_path / "log")
    assert events(tmp_path / "log")["queue_full"] == 3


def test_a_call_that_may_fail_only_degrades_the_answer() -> None:
    async def main(twin: Served) -> None:
        assert await get_all(twin, 5) == {200: 5}
        assert twin.total("front.degraded") == 5

    play(chain({"required": False}, {"fails": 1.0}), main)


@pytest.mark.parametrize(("order", "calls"), [("in_order", 0), ("at_once", 3)])
def test_calls_after_one_that_failed_are_made_only_at_once(order: str, calls: int) -> None:
    document = chain({}, {"fails": 1.0})
    document["services"]["front"]["routes"]["all"] = {"calls": ["back", "other"], "order": order}
    document["services"]["front"]["calls"]["other"] = {}
    document["services"]["other"] = {"routes": {"all": {}}}

    async def main(twin: Served) -> None:
        assert await get_all(twin, 3) == {503: 3}
        assert twin.total("other.requests") == calls

    play(document, main)


def test_a_request_that_goes_round_ends_after_its_hops(tmp_path: Path) -> None:
    document = chain({"retries": 5}, {"calls": ["front"]})
    document["services"]["back"]["calls"] = {"front": {"closes_cycle": True, "retries": 5}}

    async def main(twin: Served) -> None:
        assert await twin.get() == 508
        assert twin.total("front.requests") + twin.total("back.requests") == HOPS_MAX + 2

    play(document, main, tmp_path / "log")
    assert events(tmp_path / "log")["loop"] == 1


def bus(topic: dict[str, Any], consumer: dict[str, Any]) -> dict[str, Any]:
    """A front that publishes a message for each request, and the service that consumes it."""
    return {
        "services": {
            "front": {"routes": {"all": {"calls": ["news"]}}, "calls": {"news": {"topic": "news"}}},
            "reader": {"workers": 100, "routes": {"all": consumer}},
        },
        "bus": {"topics": {"news": {"to": "reader", **topic}}},
    }


def test_a_message_is_passed_on_until_it_is_taken_or_dead() -> None:
    async def main(twin: Served) -> None:
        assert await get_all(twin, 20) == {200: 20}
        await until(lambda: twin.total("bus.news.done") + twin.total("bus.news.died") == 20)
        assert twin.total("reader.requests") == 20 + twin.total("bus.news.retries")
        assert twin.total("reader.errors") == twin.total("bus.news.retries") + twin.total("bus.news.died")
        assert (twin.total("bus.news.died") == 20) == (fails == 1.0)

    for fails in (0.4, 1.0):
        play(bus({"retries": 3}, {"fails": fails}), main)


def test_a_topic_at_its_capacity_refuses_its_producer() -> None:
    async def main(twin: Served) -> None:
        assert [await twin.get() for _ in range(8)] == [200] * 5 + [503] * 3
        assert twin.process.world.figures.document()["bus.news.queue"] == 4
        assert twin.total("bus.news.refused") == 3

    play(bus({"consumers": 1, "capacity": 4, "timeout": "1h"}, {"time": "1h"}), main)


def test_the_balancer_passes_requests_on_by_their_longest_match_and_gives_up_in_time() -> None:
    document = {
        "balancer": {"routes": {"/": "home", "/v1": "app", "/v1/slow": "slow"}, "timeout": "100ms"},
        "services": {
            "home": {"routes": {"all": {"status": 201}}},
            "app": {"routes": {"all": {"status": 202}}},
            "slow": {"routes": {"all": {"time": "1h"}}},
        },
    }

    async def main(twin: Served) -> None:
        found = [await twin.get(path) for path in ("/", "/about", "/v1/plans", "/v1/slow/x")]
        assert found == [201, 201, 202, 504]

    play(document, main)
