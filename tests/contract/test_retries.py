"""Requests that are tried again."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.lane.contract import Retry
from replay.staging.sink import Sink
from replay_native.lane.retry import FAILURE, RETRY_ON
from replay_native.ledger.lane_metrics import OUTCOMES, Stop

from .driver import (
    FAULTS_IN_ORDER,
    MS_NS,
    Ask,
    RunLane,
    drive,
    stop_after,
    turns,
)

pytestmark = pytest.mark.boundscheck


def retry(*on: int | str, attempts: int = 3, backoff_ms: float = 1.0, **more: Any) -> Retry:
    """What is tried again: statuses and outcomes."""
    table = np.zeros(RETRY_ON, np.uint8)
    table[[name if isinstance(name, int) else FAILURE + OUTCOMES.index(name) for name in on]] = 1
    backoff_ns = round(backoff_ms * MS_NS)
    return Retry(table, attempts, backoff_ns, more.pop("most_ns", 4 * backoff_ns), **more)


async def test_a_request_is_tried_again_and_felt_from_its_first_due_time_to_its_last_answer(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/status=503", at_ms=at) for at in (0, 10)] + [Ask(at_ms=5)]
    asks.sort(key=lambda ask: ask.at_ms)
    driven = await drive(run_lane, tmp_path, asks, sink.port, retry=retry(503, attempts=3, backoff_ms=30))
    assert driven.outcomes == {"5xx": 2, "2xx": 1}
    assert (driven["planned"], driven["sent"]) == (3, 3)
    assert (driven["attempts"], driven["retries"], driven["retried"]) == (7, 4, 2)
    assert sorted(sink.stamps()["seq"]) == [0, 0, 0, 1, 2, 2, 2]
    arrived = sink.stamps()
    assert (np.diff(arrived["arrival_ns"][arrived["seq"] == 0]) >= [30 * MS_NS, 60 * MS_NS]).all()
    assert driven.count_over("response.all", 89 * MS_NS) == 2
    assert driven.count_over("service.all", 89 * MS_NS) == 2


FLAKY = ["reset", "hang_up", "truncate_at=9", "garbage", "never", "status=429"]


@pytest.mark.timing
async def test_what_is_not_named_is_not_tried_again(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask(f"/sink/{fault}", at_ms=2.0 * i) for i, fault in enumerate(FLAKY)]
    asks += [Ask("/sink/status=429", at_ms=14, method="POST")]
    driven = await drive(
        run_lane,
        tmp_path,
        asks,
        sink.port,
        timeout_s=0.15,
        connect="per-request",
        retry=retry("reset", "timeout", 429),
    )
    assert driven.outcomes == {"reset": 1, "truncated": 2, "malformed": 1, "timeout": 1, "4xx": 2}
    tries = Counter(sink.stamps()["seq"].tolist())
    assert [tries[seq] for seq in range(7)] == [3, 1, 1, 1, 3, 3, 1]
    assert driven["attempts"] == sink.arrivals == 13


async def test_a_failed_connect_is_tried_again(run_lane: RunLane, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ways: tuple[Literal["pool", "per-client"], ...] = ("pool", "per-client")
        for number, connect in enumerate(ways):
            driven = await drive(
                run_lane, tmp_path, [Ask(at_ms=5.0 * i, client=i % 3) for i in range(9)],
                taken.getsockname()[1], connect=connect, ordered=number > 0, retry=retry("refused"),
            )  # fmt: skip
            assert driven.outcomes == {"refused": 9}
            assert driven["retried"] == 9
            assert (driven["attempts"], driven["connects_failed"]) == (0, 27)


async def test_a_client_in_order_waits_for_the_last_try(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/status=503", client=1), *(Ask(at_ms=1.0 + i, client=i % 3) for i in range(12))]
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, ordered=True, retry=retry(503, attempts=4, backoff_ms=20)
    )
    assert driven.outcomes == {"5xx": 1, "2xx": 12}
    assert turns(sink, asks)[1] == [0, 0, 0, 0, 2, 5, 8, 11]


async def test_retries_that_wait_end_as_their_last_try_did_at_the_stop(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/status=503")] * 3 + [Ask(at_ms=20_000)] * 3
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, retry=retry(503, backoff_ms=9_000),
        during=stop_after(0.3, Stop.DRAIN),
    )  # fmt: skip
    assert driven.outcomes == {"5xx": 3}
    assert driven["retries"] == 0
    assert driven.took_s < 5


AMPLIFICATIONS = [(3, -1, 1 + 0.3 + 0.3**2), (6, -1, sum(0.3**k for k in range(6))), (6, 100_000, 1.1)]
"""Tries, budget in ppm, and what docs/retries.md says of a service that fails 30%."""


@pytest.mark.parametrize(("attempts", "budget_ppm", "expected"), AMPLIFICATIONS)
async def test_amplification_is_what_the_formula_says(
    run_lane: RunLane, sink: Sink, tmp_path: Path, attempts: int, budget_ppm: int, expected: float
) -> None:
    asks = [Ask("/sink/fails=30", at_ms=0.6 * i) for i in range(2_000)]
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, connections=100,
        retry=retry(503, attempts=attempts, backoff_ms=2, jitter_ppm=1_000_000, budget_ppm=budget_ppm, burst_ppm=10_000_000),
    )  # fmt: skip
    assert driven["sent"] == 2_000
    assert driven["attempts"] == sink.arrivals == 2_000 + driven["retries"]
    # Four standard deviations of 2,000 geometric draws. A retry budget binds up to its burst.
    assert driven["attempts"] / 2_000 == pytest.approx(expected, abs=0.07 if budget_ppm < 0 else 0.006)
    assert (driven["retries_denied"] > 0) == (budget_ppm >= 0)


@pytest.mark.timing
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(sorted(FAULTS_IN_ORDER))), min_size=1, max_size=40
    ),
    connections=st.integers(1, 12),
    connect=st.sampled_from(["pool", "per-client", "per-request"]),
    ordered=st.booleans(),
    budget_ppm=st.sampled_from([-1, 300_000]),
)
async def test_any_mix_of_retries_balances(
    run_lane: RunLane, tmp_path: Path, asked: list[tuple[int, str]], connections: int, connect: Any,
    ordered: bool, budget_ppm: int,
) -> None:  # fmt: skip
    with Sink(capacity=1_000) as sink:
        asks = [Ask(f"/sink/{fault}", at_ms=at, client=client) for at, (client, fault) in enumerate(asked)]
        driven = await drive(
            run_lane, tmp_path, asks, sink.port, connect=connect, connections=connections, ordered=ordered,
            timeout_s=0.2, max_wait_s=20,
            retry=retry(503, "reset", "truncated", budget_ppm=budget_ppm, burst_ppm=2_000_000),
        )  # fmt: skip
        assert driven.outcomes == dict(Counter(FAULTS_IN_ORDER[fault] for _, fault in asked))
        assert sink.arrivals <= driven["attempts"] <= sink.arrivals + driven["resent"]
        assert driven["retried"] <= driven["retries"] <= 2 * len(asked)
