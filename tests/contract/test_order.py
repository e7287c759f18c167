"""Clients in order: a request waits for the answer to the one before it."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.staging.sink import Sink
from replay_native.ledger.lane_metrics import Stop

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


@pytest.mark.timing
async def test_a_client_waits_for_the_answer_to_its_request_before(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/delay_ms=40", at_ms=5.0 * i, client=7) for i in range(5)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, ordered=True)
    assert driven.outcomes == {"2xx": 5}
    stamps = sink.stamps()
    assert stamps["seq"].tolist() == list(range(5))
    assert (np.diff(stamps["arrival_ns"]) >= 40 * MS_NS).all()
    assert driven["open_max"] == 1
    assert driven.count("wait.order") == 4
    assert driven.percentile_ns("wait.order", 1.0) > 100 * MS_NS
    assert driven.percentile_ns("wait.queue", 1.0) < 40 * MS_NS
    assert driven.percentile_ns("lateness.all", 0.5) < 30 * MS_NS


@pytest.mark.timing
async def test_without_order_it_does_not(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/delay_ms=60", at_ms=5.0 * i, client=7) for i in range(5)]
    driven = await drive(run_lane, tmp_path, asks, sink.port)
    assert driven["open_max"] == 5
    assert driven.count("wait.order") == 0


@pytest.mark.timing
async def test_a_client_that_waits_holds_up_nobody_else(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    stuck = [Ask("/sink/never", client=0), *(Ask(at_ms=1, client=0) for _ in range(30))]
    others = [Ask(at_ms=20.0 + i, client=1 + i % 5) for i in range(200)]
    driven = await drive(
        run_lane, tmp_path, stuck + others, sink.port, ordered=True, timeout_s=0.8, max_wait_s=5
    )
    assert driven.outcomes == {"timeout": 1, "2xx": 230}
    rows = driven.samples("slowest")
    assert set(rows["client"]) == {0}
    seqs = sink.stamps()["seq"].tolist()
    assert seqs.index(230) < seqs.index(1)
    assert turns(sink, stuck + others)[0] == list(range(31))


@pytest.mark.timing
async def test_the_next_of_a_client_goes_whatever_became_of_the_one_before(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    faults = [
        "reset",
        "status=503",
        "garbage",
        "truncate_at=9",
        "close",
        "hang_up_reused",
        "never",
        "delay_ms=1",
    ]
    asks = [Ask(f"/sink/{fault}", at_ms=2.0 * i, client=3) for i, fault in enumerate(faults * 2)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, ordered=True, timeout_s=0.2)
    assert driven.outcomes == {
        "2xx": 6, "5xx": 2, "reset": 2, "malformed": 2, "truncated": 2, "timeout": 2,
    }  # fmt: skip
    arrived = turns(sink, asks)[3]
    assert arrived == sorted(arrived)


async def test_a_client_that_cannot_connect_goes_on(run_lane: RunLane, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        asks = [Ask(at_ms=i, client=i % 3) for i in range(30)]
        driven = await drive(run_lane, tmp_path, asks, taken.getsockname()[1], ordered=True)
    assert driven.outcomes == {"refused": 30}


@pytest.mark.timing
async def test_what_waited_max_wait_for_its_client_is_unsent(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/delay_ms=400"), *[Ask(at_ms=10)] * 4, Ask(at_ms=20, client=1), Ask(at_ms=500)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, ordered=True, max_wait_s=0.15)
    assert driven.outcomes == {"2xx": 3, "unsent": 4}
    assert driven["unsent_max_wait"] == 4
    assert turns(sink, asks) == {0: [0, 6], 1: [5]}


@pytest.mark.timing
async def test_the_room_of_waiting_clients_is_bounded_by_entries(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/never")] * 4_000 + [Ask(at_ms=700, client=1)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, ordered=True, timeout_s=1.2, max_wait_s=0.5)
    assert driven.outcomes == {"timeout": 1, "unsent": 3_999, "2xx": 1}
    assert driven["unsent_limit"] in (1_951, 1_952)
    assert driven["waiting_max"] in (2_048, 2_049)


@pytest.mark.timing
async def test_the_room_of_waiting_clients_is_bounded_by_bytes(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    big = [Ask("/sink/never", method="POST", body=b"b" * 300_000)] * 12
    driven = await drive(run_lane, tmp_path, big, sink.port, ordered=True, timeout_s=0.7, max_wait_s=0.3)
    assert driven.outcomes == {"timeout": 1, "unsent": 11}
    assert driven["unsent_limit"] >= 4
    assert driven["unsent_max_wait"] >= 5


@pytest.mark.timing
async def test_clients_that_wait_are_unsent_at_the_stop(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/delay_ms=300", client=i % 2) for i in range(7)] + [Ask(at_ms=20_000)] * 10
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, ordered=True, during=stop_after(0.15, Stop.DRAIN)
    )
    assert driven.outcomes == {"2xx": 2, "unsent": 5}
    assert driven["unsent_interrupted"] == 5


async def test_a_lane_has_every_so_manyth_client(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask(at_ms=i, client=3 * (i % 40) + 2) for i in range(120)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, ordered=True, lanes=3, clients=40)
    assert driven.outcomes == {"2xx": 120}


@pytest.mark.timing
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(sorted(FAULTS_IN_ORDER))), min_size=1, max_size=60
    ),
    connections=st.integers(1, 8),
    gap_ms=st.sampled_from([0.0, 1.0, 5.0]),
)
async def test_any_mix_of_clients_stays_in_order(
    run_lane: RunLane, tmp_path: Path, asked: list[tuple[int, str]], connections: int, gap_ms: float
) -> None:
    with Sink(capacity=1_000) as sink:
        asks = [
            Ask(f"/sink/{fault}", at_ms=gap_ms * at, client=client)
            for at, (client, fault) in enumerate(asked)
        ]
        driven = await drive(
            run_lane,
            tmp_path,
            asks,
            sink.port,
            connections=connections,
            ordered=True,
            timeout_s=0.3,
            max_wait_s=20,
        )
        assert driven.outcomes == dict(Counter(FAULTS_IN_ORDER[fault] for _, fault in asked))
        for client, seqs in turns(sink, asks).items():
            expected = [seq for seq, ask in enumerate(asks) if ask.client == client]
            assert list(dict.fromkeys(seqs)) == expected
            assert seqs == sorted(seqs)
