"""Records are cut by partition: every process finds the same partition of each record, and writes those of its share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.lane.contract import LaneRange
from replay.plan.schedule import DueBatch, Schedule, make_schedule
from replay.protocols.kafka import events
from replay.protocols.kafka.adapter import own_parts
from replay.protocols.kafka.events import EventRenderer
from replay.settings.file import load
from replay.trace import Trace
from replay_native.kafka.events import STICKY_RECORDS
from tests.plan.test_render import FOREVER, empty_feed, pushed
from tests.reference import recordbatch as naive

from .test_mock import http_trace, kafka_trace

pytestmark = pytest.mark.boundscheck

KEYS = st.one_of(st.none(), st.binary(max_size=20), st.just(b"long" * 3_000))
RECORDS = st.lists(
    st.tuples(st.integers(0, 1), KEYS, st.just(b"value"), st.just(())), min_size=1, max_size=40
)


def schedule_of(trace: Trace, **kafka: Any) -> Schedule:
    flags = {"target": "kafka://127.0.0.1:9/orders", "methods": "all", "kafka": kafka}
    return make_schedule(trace, load(None, flags, {}))


def written(renderer: EventRenderer, batch: DueBatch, lane: int, lanes: int) -> list[tuple[int, int, bytes]]:
    """The records that a lane gets: sequence number, route, bytes."""
    feed = empty_feed(ring=1 << 23)
    assert renderer.render(batch, 0, lane, lanes, 0, FOREVER, feed) == len(batch)
    return [(int(entry["seq"]), int(entry["route"]), data) for entry, data in pushed(feed)]


def expected(records: Sequence[tuple], batch: DueBatch, partitions: int, *, keep: bool) -> list[int]:
    """The partition of each record, found the obvious way."""
    found = []
    for seq, ((recorded, key, _, _), due_ns) in enumerate(zip(records, batch.due_ns.tolist(), strict=True)):
        if keep:
            found.append(recorded % partitions)
        elif key is not None:
            found.append((naive.murmur2(key) & 0x7FFFFFFF) % partitions)
        else:
            mixed = (due_ns // 1_000_000 + seq // STICKY_RECORDS) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
            found.append((mixed >> 33) % partitions)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=RECORDS, partitions=st.integers(1, 7), lanes=st.integers(1, 4), keep=st.booleans(),
    gap_ns=st.sampled_from([0, 100_000, 1_500_000]),
)  # fmt: skip
def test_shares_are_the_records_of_their_partitions_and_together_all(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple], partitions: int, lanes: int, keep: bool,
    gap_ns: int,
) -> None:  # fmt: skip
    trace = kafka_trace(tmp_path_factory.mktemp("t") / "t.trace", records, gap_ns)
    schedule = schedule_of(trace)
    (batch,) = schedule.batches()
    renderer = EventRenderer(schedule, {"orders": 0}, [partitions], keep)
    whole = written(renderer, batch, 0, 1)
    routes = expected(records, batch, partitions, keep=keep)
    assert [route for _, route, _ in whole] == renderer.routes(batch).tolist() == routes
    assert [renderer.route(batch, row) for row in range(len(batch))] == routes
    # Every process has a renderer of its own, which reads its own clocks.
    for lane in range(lanes):
        own = EventRenderer(schedule, {"orders": 0}, [partitions], keep)
        assert written(own, batch, lane, lanes) == [one for one in whole if one[1] % lanes == lane]


@pytest.mark.parametrize("key", ["{client}", "", "{path}-{n}", "{uuid}"])
def test_events_of_any_recording_are_cut_as_well(tmp_path: Path, key: str) -> None:
    schedule = schedule_of(http_trace(tmp_path / "t.trace", rows=500), key=key)
    (batch,) = schedule.batches()
    whole = written(EventRenderer(schedule, {}, [5], keep_partition=False), batch, 0, 1)
    assert len({route for _, route, _ in whole}) > 1
    for lane in range(3):
        own = EventRenderer(schedule, {}, [5], keep_partition=False)
        assert written(own, batch, lane, 3) == [one for one in whole if one[1] % 3 == lane]


def test_a_key_that_is_longer_than_the_space_gets_more(tmp_path: Path) -> None:
    key = bytes(range(256)) * (3 * events.KEY_BYTES // 256)
    records = [(0, b"short", b"v", ()), (0, key, b"v", ()), (0, b"short", b"v", ())]
    schedule = schedule_of(kafka_trace(tmp_path / "t.trace", records))
    (batch,) = schedule.batches()
    routes = EventRenderer(schedule, {"orders": 0}, [1_000], keep_partition=False).routes(batch)
    assert routes.tolist() == [(naive.murmur2(one) & 0x7FFFFFFF) % 1_000 for _, one, _, _ in records]


@given(partitions=st.integers(1, 20), agents=st.integers(1, 6), lanes=st.integers(1, 4))
def test_each_partition_is_reported_by_the_agent_that_writes_to_it(
    partitions: int, agents: int, lanes: int
) -> None:
    parts = [TopicPartition("orders", number) for number in range(partitions)]
    shares = [own_parts(parts, LaneRange(agent * lanes, lanes, agents * lanes)) for agent in range(agents)]
    assert sorted(index for share in shares for index in share) == list(range(partitions))
    for agent, share in enumerate(shares):
        assert share == {index: parts[index] for index in range(partitions) if index % agents == agent}
    assert own_parts(parts, None) == dict(enumerate(parts))
    assert np.all(np.diff([len(share) for share in shares]) <= 0)
