"""What a lane delays itself is counted as its own, and what the target does never is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from replay.lane.feed import FeedWriter
from replay.protocols.http1.portable import lane as portable
from replay.staging.sink import Sink

from .driver import (
    MS_NS,
    Ask,
    Driven,
    RunLane,
    drive,
)


@pytest.mark.timing
async def test_requests_that_a_target_kept_from_being_sent_are_not_the_lanes_own(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/never", at_ms=5 * i) for i in range(40)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=2, timeout_s=1, max_wait_s=0.3)
    assert driven["unsent_max_wait"] > 20
    assert driven["unsent_own"] == 0
    assert driven.count("response.net") == 40
    assert driven.percentile_ns("response.net", 0.5) > 200 * MS_NS


@pytest.mark.timing
async def test_a_thread_that_was_kept_from_its_loop_counts_the_gap(sink: Sink, tmp_path: Path) -> None:
    """The portable engine shares its thread with the test, which can hold it up."""

    async def hold_up(driven: Driven, _writer: FeedWriter) -> None:
        while sink.arrivals < 5:
            await trio.sleep(0.002)
        time.sleep(0.4)

    asks = [Ask("/sink/delay_ms=20", at_ms=10 * i) for i in range(60)]
    driven = await drive(portable.run_lane, tmp_path, asks, sink.port, during=hold_up)
    assert driven.outcomes == {"2xx": 60}
    assert driven["gaps"] >= 1
    assert driven["gap_max_ns"] >= 350 * MS_NS
    assert driven["lost_ns"] >= driven["gap_max_ns"]
    assert driven["sends_postponed"] >= 20
    assert driven["reads_late"] >= 1, "two responses came while it was held up"
    assert driven.percentile_ns("response.all", 0.9) > 200 * MS_NS
    assert driven.percentile_ns("response.net", 0.9) < 200 * MS_NS
