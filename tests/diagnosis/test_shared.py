"""Which routes share a cause, from their latencies alone: claims that must be made, and claims that must not."""

from __future__ import annotations

import numpy as np
import pytest

from replay.diagnosis.by_route import RouteSeries
from replay.diagnosis.shared import Shared, agreement_of, shared_among, worse_from

MS = 1_000_000
WINDOWS, RISES = 40, 15


def walk(seed: int, spread: float = 0.35) -> np.ndarray:
    """What waits in a queue: nothing at first, then a positive random walk."""
    rng = np.random.default_rng(seed)
    found = np.zeros(WINDOWS)
    found[RISES:] = 60 * np.exp(np.cumsum(rng.normal(0.02, spread, WINDOWS - RISES)))
    return found


def route(
    name: str,
    added_ms: np.ndarray,
    base_ms: float = 20.0,
    ended: float = 50.0,
    failed: np.ndarray | None = None,
) -> RouteSeries:
    """A route whose own work takes `base_ms`, and that waits `added_ms` in each window."""
    rng = np.random.default_rng(len(name))
    p50_ns = (base_ms * np.exp(rng.normal(0, 0.02, WINDOWS)) + added_ms) * MS
    return RouteSeries(name, p50_ns, np.full(WINDOWS, ended), np.zeros(WINDOWS) if failed is None else failed)


def steady(name: str) -> RouteSeries:
    return route(name, np.zeros(WINDOWS))


LOAD = np.where(np.arange(WINDOWS) < RISES, 100.0, 200.0) + np.random.default_rng(5).normal(0, 5, WINDOWS)
STARTS_S = np.arange(WINDOWS, dtype=float)


def among(routes: list[RouteSeries], load: np.ndarray, starts_s: np.ndarray = STARTS_S) -> Shared:
    return shared_among(routes, load, starts_s)


def test_the_evidence_states_how_far_apart_the_routes_began_in_seconds_not_in_windows():
    queue = walk(1)
    routes = [route("GET /a", queue), route("GET /bb", 1.5 * queue)]
    assert " within 1 s " in among(routes, LOAD).evidence[0]
    assert " within 60 s " in among(routes, LOAD, 60 * STARTS_S).evidence[0]


def test_routes_that_wait_in_one_queue_share_a_cause_and_others_are_listed_as_before() -> None:
    queue = walk(1)
    found = among([route("GET /a", queue), route("GET /bb", 1.5 * queue, 35), steady("GET /c")], LOAD)
    assert found.routes == ["GET /a", "GET /bb"]
    assert found.words == "these routes share a cause: GET /a, GET /bb"
    assert "2 routes got worse" in found.evidence[0] and found.evidence[1] == "not seen to get worse: GET /c"


@pytest.mark.parametrize("seed", range(10))
def test_queues_that_fill_at_the_same_moment_are_not_shared(seed: int) -> None:
    found = among([route("GET /a", walk(2 * seed)), route("GET /bb", walk(2 * seed + 1))], LOAD)
    assert found.routes == []


def test_routes_that_only_follow_the_load_are_not_shared() -> None:
    waits = walk(3)
    noise = np.random.default_rng(4).normal(0, 4, (2, WINDOWS))
    found = among([route("GET /a", waits + noise[0]), route("GET /bb", waits + noise[1])], 50 + waits)
    assert found.routes == [] and "move together more than their load explains" in found.evidence[0]


def test_a_route_that_got_worse_much_later_is_left_out() -> None:
    queue = walk(6)
    late = np.where(np.arange(WINDOWS) < RISES + 10, 0.0, queue)
    found = among([route("GET /a", queue), route("GET /bb", queue), route("GET /ccc", late)], LOAD)
    assert found.routes == ["GET /a", "GET /bb"]


def test_one_route_alone_shares_nothing() -> None:
    found = among([route("GET /a", walk(1)), steady("GET /bb")], LOAD)
    assert found == Shared(evidence=["fewer than two routes got worse"])
    assert found.words == "the latencies alone do not show it (fewer than two routes got worse)"


def test_routes_that_fail_in_the_same_windows_share_a_cause() -> None:
    share = np.zeros(WINDOWS)
    share[RISES:] = np.random.default_rng(8).uniform(0.1, 0.9, WINDOWS - RISES)
    flat = np.zeros(WINDOWS)
    found = among(
        [route("GET /a", flat, failed=50 * share), route("GET /bb", flat, failed=np.round(50 * share))], LOAD
    )
    assert found.routes == ["GET /a", "GET /bb"]


def test_routes_that_fail_in_different_windows_do_not() -> None:
    failed = np.zeros((2, WINDOWS))
    failed[:, RISES:] = np.random.default_rng(9).uniform(5, 45, (2, WINDOWS - RISES))
    flat = np.zeros(WINDOWS)
    found = among([route("GET /a", flat, failed=failed[0]), route("GET /bb", flat, failed=failed[1])], LOAD)
    assert found.routes == []


@pytest.mark.parametrize("ended", [0.0, 4.0])
def test_windows_with_few_requests_count_for_nothing(ended: float) -> None:
    queue = walk(1)
    found = among([route("GET /a", queue, ended=ended), route("GET /bb", queue, ended=ended)], LOAD)
    assert found.routes == []


def test_too_few_windows_after_the_harm_tell_nothing() -> None:
    queue = walk(1)
    one, other = route("GET /a", queue), route("GET /bb", queue)
    assert agreement_of(one, other, LOAD, RISES - 1) is not None
    assert agreement_of(one, other, LOAD, WINDOWS - 6) is None


def test_worse_takes_two_windows_in_a_row() -> None:
    once, twice = np.zeros(WINDOWS), np.zeros(WINDOWS)
    once[20], twice[20:22] = 500.0, 500.0
    assert worse_from(route("GET /a", once)) is None
    assert worse_from(route("GET /a", twice)) == 20


def test_windows_without_any_response_are_bridged() -> None:
    queue = walk(1)
    gone = route("GET /a", queue)
    gone.p50_ns[5] = np.nan
    gone.p50_ns[RISES + 4] = np.nan
    assert among([gone, route("GET /bb", queue)], LOAD).routes == ["GET /a", "GET /bb"]
