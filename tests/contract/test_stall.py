"""The founding test: a stall is what users would have felt, and none of our lateness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from replay.lane.feed import FeedWriter
from replay.staging.sink import Sink

from .driver import (
    MS_NS,
    SECOND_NS,
    Ask,
    Driven,
    RunLane,
    by_tls,
    drive,
)

pytestmark = pytest.mark.boundscheck

CONNECTIONS = 8
"""So many requests are under way when the target stalls, of the hundreds that will have felt it."""


async def _stalled_run(
    run_lane: RunLane, sink: Sink, path: Path, *, rate: int, seconds: float, stall_s: float
) -> Driven:
    async def stall(driven: Driven, _writer: FeedWriter) -> None:
        sink.stall(stall_s, driven.start_ns + round(seconds / 3 * SECOND_NS))

    asks = [Ask(at_ms=1_000 * i / rate) for i in range(int(rate * seconds))]
    driven = await drive(run_lane, path, asks, sink.port, connections=CONNECTIONS, during=stall)
    assert driven.outcomes == {"2xx": len(asks)}
    # Requests due during the stall wait for the rest of it, so the slowest 1% of all requests are on that ramp.
    ramp_ns = (stall_s - seconds / 100) * SECOND_NS
    felt_ns = _percentile_by_the_sink_ns(driven, sink, asks, 0.99)
    assert felt_ns > 0.95 * ramp_ns
    assert driven.percentile_ns("response.all", 0.99) == pytest.approx(felt_ns, rel=0.1)
    assert driven.count_over("service.all", 100 * MS_NS) <= 2 * CONNECTIONS
    assert driven.percentile_ns("lateness.all", 0.5) < 20 * MS_NS
    _is_the_targets(driven)
    return driven


def _percentile_by_the_sink_ns(driven: Driven, sink: Sink, asks: list[Ask], quantile: float) -> float:
    """How long after they were due requests arrived, as the sink saw it: a slow machine delays both.

    The sink reads the requests that were sent during its stall when the stall has ended.
    """
    stamps = sink.stamps()
    due_ns = driven.start_ns + np.array([round(ask.at_ms * MS_NS) for ask in asks])
    return float(np.quantile(stamps["arrival_ns"] - due_ns[stamps["seq"]], quantile))


def _is_the_targets(driven: Driven) -> None:
    """Nothing of a stall is the lane's own: without its own part the response is what it was.

    What this machine kept the lane from doing is the lane's own part, and no more than that is taken off.
    """
    counts = [driven.count(f"response.{of}") for of in ("all", "net", "arrived")]
    assert counts == [driven.count("service.all")] * 3 == [driven.count("service.net")] * 3
    net_ns, response_ns = (driven.percentile_ns(f"response.{of}", 0.99) for of in ("net", "all"))
    own_ns = driven["lost_ns"] + driven.percentile_ns("lateness.all", 1.0)
    assert 0.9 * response_ns - own_ns <= net_ns <= response_ns
    assert driven["unsent_own"] == 0


@pytest.mark.timing
@by_tls
async def test_a_stall_is_felt_by_all_who_were_due(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    await _stalled_run(run_lane, sink, tmp_path, rate=500, seconds=2, stall_s=0.4)


@pytest.mark.timing
@by_tls
@pytest.mark.founding
async def test_the_founding_test(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    driven = await _stalled_run(run_lane, sink, tmp_path, rate=1_000, seconds=10, stall_s=1.0)
    assert driven.percentile_ns("lateness.all", 0.99) < 5 * MS_NS


@pytest.mark.timing
@pytest.mark.founding
async def test_with_connections_enough_service_shows_the_stall_too(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask(at_ms=i) for i in range(4_000)]

    async def stall(driven: Driven, _writer: FeedWriter) -> None:
        sink.stall(1.0, driven.start_ns + SECOND_NS)

    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=2_000, during=stall)
    assert driven.outcomes == {"2xx": 4_000}
    assert driven.count_over("service.all", 100 * MS_NS) > 500
