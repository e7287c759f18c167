"""What waits, what is never sent, and how a lane ends."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import numpy as np
import pytest
import trio

from replay.lane.feed import FeedWriter
from replay.staging.sink import Sink
from replay_native.ledger.lane_metrics import C, Control, Stop

from .driver import (
    MS_NS,
    SECOND_NS,
    Ask,
    Driven,
    RunLane,
    by_tls,
    drive,
    stop_after,
)

pytestmark = pytest.mark.boundscheck


@pytest.mark.timing
async def test_what_waited_for_max_wait_is_unsent(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/delay_ms=400"), *[Ask(at_ms=10)] * 4, Ask(at_ms=500)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1, max_wait_s=0.15)
    assert driven.outcomes == {"2xx": 2, "unsent": 4}
    assert driven["unsent_max_wait"] == 4
    assert driven.count_over("response.all", 149 * MS_NS) == 5
    assert driven.count("response.ok") == 2
    assert sink.arrivals == 2
    assert (driven.samples("failed")["sent_ns"] == -1).all()
    assert (driven.samples("failed")["status"] == C.unsent_max_wait).all()


@pytest.mark.timing
async def test_the_queue_is_bounded_by_entries(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    driven = await drive(
        run_lane,
        tmp_path,
        [Ask("/sink/never")] * 4_000,
        sink.port,
        connections=1,
        timeout_s=1.2,
        max_wait_s=0.5,
    )
    assert driven.outcomes == {"timeout": 1, "unsent": 3_999}
    assert driven["unsent_limit"] in (1_951, 1_952)
    assert set(driven.samples("failed")["status"].tolist()) == {C.unsent_limit}
    assert driven["waiting_max"] in (2_048, 2_049)


@pytest.mark.timing
async def test_the_queue_is_bounded_by_bytes(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    big = [Ask("/sink/never", method="POST", body=b"b" * 300_000)] * 12
    driven = await drive(run_lane, tmp_path, big, sink.port, connections=1, timeout_s=0.7, max_wait_s=0.3)
    assert driven.outcomes == {"timeout": 1, "unsent": 11}
    assert driven["unsent_limit"] >= 4
    assert driven["unsent_max_wait"] >= 5


@pytest.mark.timing
@by_tls
async def test_a_stalled_target_never_makes_lateness(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask(at_ms=2.0 * i) for i in range(200)]
    sink.stall(0.4)
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=2)
    assert driven.outcomes == {"2xx": 200}
    assert driven.percentile_ns("response.all", 0.9) > 200 * MS_NS
    assert driven.percentile_ns("lateness.all", 0.5) < 50 * MS_NS


async def test_more_than_the_rings_hold_goes_through_in_order(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask(f"/{'p' * 1_000}")] * 4_200
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1, closed_loop=True)
    assert driven.outcomes == {"2xx": 4_200}
    assert (np.diff(sink.stamps()["seq"]) == 1).all()
    assert driven["bytes_sent"] > driven.spec.feed.ring.size


@pytest.mark.timing
async def test_an_entry_that_comes_too_late_is_an_underrun(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    async def push(driven: Driven, writer: FeedWriter) -> None:
        for seq, (sleep_s, due_in_ns) in enumerate(
            [(0.1, 60 * MS_NS), (0.2, -20 * MS_NS), (0.1, 60 * MS_NS)]
        ):
            await trio.sleep(sleep_s)
            due_ns = time.monotonic_ns() + due_in_ns
            assert writer.push_nowait(due_ns, seq, Ask().render(seq))
            writer.publish()
        writer.end()

    driven = await drive(run_lane, tmp_path, [], sink.port, during=push, ends=False)
    assert driven.outcomes == {"2xx": 3}
    assert driven["underruns"] == 1


async def test_a_feed_that_ends_empty_ends_the_lane(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    driven = await drive(run_lane, tmp_path, [], sink.port)
    assert driven["planned"] == 0
    assert driven.took_s < 5


@pytest.mark.timing
@by_tls
async def test_drain_finishes_what_is_in_flight(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/delay_ms=300")] * 2 + [Ask(at_ms=20)] * 5 + [Ask(at_ms=20_000)] * 10
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, connections=2, during=stop_after(0.15, Stop.DRAIN)
    )
    assert driven["planned"] == 7
    assert driven.outcomes == {"2xx": 2, "unsent": 5}
    assert driven["unsent_interrupted"] == 5
    assert driven.took_s < 5


@pytest.mark.timing
@by_tls
async def test_abandon_leaves_at_once(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/never")] * 2 + [Ask(at_ms=20)] * 5 + [Ask(at_ms=20_000)] * 10
    driven = await drive(
        run_lane,
        tmp_path,
        asks,
        sink.port,
        connections=2,
        timeout_s=20,
        during=stop_after(0.15, Stop.ABANDON),
    )
    assert driven["planned"] == 7
    assert driven.accounts.in_flight == 2
    assert driven["unsent_interrupted"] == 5
    assert driven.took_s < 5


@pytest.mark.timing
async def test_drain_then_abandon(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    async def stop_twice(driven: Driven, writer: FeedWriter) -> None:
        await trio.sleep(0.1)
        writer.stop(Stop.DRAIN)
        await trio.sleep(0.1)
        heartbeat_ns = driven.metrics.control[Control.HEARTBEAT_NS]
        writer.stop(Stop.ABANDON)
        assert time.monotonic_ns() - heartbeat_ns < 2 * SECOND_NS

    driven = await drive(
        run_lane, tmp_path, [Ask("/sink/never")] * 3, sink.port, timeout_s=20, during=stop_twice
    )
    assert (driven["planned"], driven.accounts.in_flight) == (3, 3)
    assert driven.took_s < 5


@pytest.mark.timing
async def test_the_closed_loop_sends_as_fast_as_answers_come(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    driven = await drive(
        run_lane, tmp_path, [Ask("/sink/delay_ms=2")] * 400, sink.port, connections=4, closed_loop=True
    )
    assert driven.outcomes == {"2xx": 400}
    assert driven["open_max"] == 4
    assert driven.count("service.all") == 400
    assert sink.word(7 * 8) == 4
    assert driven["underruns"] == 0


@by_tls
async def test_the_closed_loop_meets_faults_too(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    faults = ["close", "reset", "truncate_at=9", "garbage", "status=500", "hang_up_reused"]
    asks = [Ask(f"/sink/{faults[i % 6]}") for i in range(60)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=3, closed_loop=True)
    assert driven.outcomes == {"2xx": 20, "5xx": 10, "reset": 10, "truncated": 10, "malformed": 10}


async def test_the_closed_loop_ends_where_nobody_listens(run_lane: RunLane, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        driven = await drive(
            run_lane, tmp_path, [Ask()] * 20, taken.getsockname()[1], connections=3, closed_loop=True
        )
    assert driven.outcomes == {"refused": 20}


@pytest.mark.timing
async def test_the_closed_loop_stops_when_told(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    driven = await drive(
        run_lane, tmp_path, [Ask("/sink/delay_ms=20")] * 4_000, sink.port, connections=2, closed_loop=True,
        during=stop_after(0.3, Stop.DRAIN),
    )  # fmt: skip
    assert driven["planned"] == driven["sent"] == driven.accounts.ok
    assert 2 <= driven["planned"] < 400
