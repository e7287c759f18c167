"""A thread that Python runs on notices when it was away from its sockets, under Trio and under Kafka's asyncio loop."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
import trio

from replay.lane.polls import BEAT_NS, Polls, is_own
from replay.protocols.kafka.gate import Gate
from replay.protocols.kafka.loop import PreciseSelector, run_precisely
from replay_native.ledger import lane_metrics
from replay_native.ledger.lane_metrics import C, LaneMetrics

HELD_UP_S = 0.2


@pytest.fixture
def metrics(tmp_path: Path) -> LaneMetrics:
    return lane_metrics.create(tmp_path / "metrics", 1, arena_bytes=1)


def is_seen(metrics: LaneMetrics) -> bool:
    """Whether the gap was counted, and with it the time lost."""
    gap_ns = 0.9 * HELD_UP_S * 1e9
    return bool(metrics.counters[C.gap_max_ns] > gap_ns and metrics.counters[C.lost_ns] > gap_ns)


async def test_trio(metrics: LaneMetrics) -> None:
    polls = Polls(metrics)
    trio.lowlevel.add_instrument(polls)
    try:
        await trio.sleep(BEAT_NS / 1e9)
        time.sleep(HELD_UP_S)
        await trio.sleep(0)
    finally:
        trio.lowlevel.remove_instrument(polls)
    assert is_seen(metrics)
    assert polls.unread_ns(time.monotonic_ns()) > 0.9 * HELD_UP_S * 1e9


def test_asyncio(metrics: LaneMetrics) -> None:
    async def main(selector: PreciseSelector) -> None:
        selector.polls = Polls(metrics)
        await asyncio.sleep(0.005)
        time.sleep(HELD_UP_S)
        await asyncio.sleep(0.005)

    run_precisely(main, Gate(lambda host, addresses: None))
    assert is_seen(metrics)


@pytest.mark.parametrize(("own_ns", "waited_ns", "own"), [(0, 0, False), (25, 100, False), (26, 100, True)])
def test_a_quarter_is_enough_to_be_to_blame(own_ns: int, waited_ns: int, own: bool) -> None:
    assert is_own(own_ns, waited_ns) is own
