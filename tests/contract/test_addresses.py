"""Addresses of a lane, by both engines: spread over its connections, changed while it runs, counted each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from replay.lane.addresses import AddressTable
from replay.lane.contract import Address
from replay.lane.feed import FeedWriter
from replay.staging.sink import Sink
from replay_native.feed.addresses import (
    ADDRESSES_MAX,
    A,
    pack_address,
    unpack_address,
)
from replay_native.ledger import lane_metrics

from .driver import (
    MS_NS,
    Ask,
    Driven,
    RunLane,
    drive,
)

pytestmark = pytest.mark.boundscheck


@pytest.fixture
def sinks() -> Iterator[tuple[Sink, Sink]]:
    with Sink(host="127.0.0.2", capacity=1_000) as first, Sink(host="127.0.0.3", capacity=1_000) as second:
        yield first, second


def place(sink: Sink, host: str) -> Address:
    return Address(host, sink.port)


def places(sinks: tuple[Sink, Sink]) -> tuple[Address, Address]:
    return place(sinks[0], "127.0.0.2"), place(sinks[1], "127.0.0.3")


def by_address(driven: Driven, column: int) -> list[int]:
    used = int((driven.metrics.address_states != 0).sum())
    counts: list[int] = driven.metrics.address_counts[:used, column].tolist()
    return counts


@pytest.mark.timing
async def test_connections_are_spread_over_the_addresses(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    asks = [Ask("/sink/delay_ms=60", at_ms=5.0 * i) for i in range(8)]
    driven = await drive(run_lane, tmp_path, asks, addresses=places(sinks))
    assert driven.outcomes == {"2xx": 8}
    assert by_address(driven, A.connects) == [4, 4]
    assert by_address(driven, A.requests) == [sink.arrivals for sink in sinks] == [4, 4]


async def test_a_second_lane_begins_with_the_second_address(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    driven = await drive(run_lane, tmp_path, [Ask()], addresses=places(sinks), number=1)
    assert by_address(driven, A.requests) == [0, 1]


async def test_traffic_follows_an_address_that_moves(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    first, second = places(sinks)
    asks = [Ask(at_ms=4.0 * i) for i in range(50)]
    came: list[int] = []

    async def during(driven: Driven, writer: FeedWriter) -> None:
        await trio.sleep(0.1)
        AddressTable(driven.metrics).use([second])
        writer.wake()
        await trio.sleep(0.03)
        came.append(sinks[0].arrivals)

    driven = await drive(run_lane, tmp_path, asks, addresses=(first,), during=during)
    assert driven.outcomes == {"2xx": 50}
    assert driven["resent"] == driven["closed_by_target"] == 0
    assert 0 < sinks[0].arrivals == came[0] < 50
    assert by_address(driven, A.requests) == [sinks[0].arrivals, sinks[1].arrivals]
    assert by_address(driven, A.drained) == [by_address(driven, A.connects)[0], 0]


@pytest.mark.timing
async def test_a_busy_connection_to_a_removed_address_ends_after_its_answer(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    first, second = places(sinks)

    async def during(driven: Driven, writer: FeedWriter) -> None:
        await trio.sleep(0.1)
        AddressTable(driven.metrics).use([second])
        writer.wake()

    asks = [Ask("/sink/delay_ms=250"), Ask(at_ms=300)]
    driven = await drive(run_lane, tmp_path, asks, addresses=(first,), during=during)
    assert driven.outcomes == {"2xx": 2}
    assert [sink.arrivals for sink in sinks] == [1, 1]
    assert by_address(driven, A.drained) == [1, 0]


async def test_an_address_that_comes_back_is_used_again(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    first, second = places(sinks)

    async def during(driven: Driven, writer: FeedWriter) -> None:
        for addresses in ([second], [first]):
            await trio.sleep(0.1)
            AddressTable(driven.metrics).use(addresses)
            writer.wake()

    asks = [Ask(at_ms=5.0 * i) for i in range(60)]
    driven = await drive(run_lane, tmp_path, asks, addresses=(first,), during=during)
    assert driven.outcomes == {"2xx": 60}
    assert by_address(driven, A.requests) == [sink.arrivals for sink in sinks]
    assert by_address(driven, A.connects)[0] >= 2
    assert len(by_address(driven, A.connects)) == 2


async def test_failures_are_counted_by_address(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    closed = Address("127.0.0.4", sinks[0].port)
    asks = [Ask("/sink/reset", at_ms=10.0 * i) for i in range(4)]
    driven = await drive(run_lane, tmp_path, asks, addresses=(place(sinks[0], "127.0.0.2"), closed))
    failed = by_address(driven, A.connects_failed)
    assert failed[0] == 0 and failed[1] == driven["connects_failed"] > 0
    assert by_address(driven, A.errors) == by_address(driven, A.requests)
    assert by_address(driven, A.errors)[0] == driven["outcome_reset"] > 0
    assert sum(by_address(driven, A.connects)) == driven["connects"]


async def test_each_connection_goes_where_its_lookup_says(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    rows = [1, 1, 0, 1, 0, 0, 1]
    found = iter(rows)

    async def find_row() -> int:
        await trio.sleep(0.02)
        return next(found)

    asks = [Ask("/sink/close", at_ms=60.0 * i) for i in range(7)]
    driven = await drive(run_lane, tmp_path, asks, addresses=places(sinks), find_row=find_row)
    assert driven.outcomes == {"2xx": 7}
    assert by_address(driven, A.connects) == by_address(driven, A.requests) == [3, 4]
    assert [sink.arrivals for sink in sinks] == [3, 4]
    assert driven.count_over("wait.connect", 19 * MS_NS) == 7


@pytest.mark.timing
async def test_a_lookup_that_never_ends_is_a_connect_that_times_out(
    run_lane: RunLane, sinks: tuple[Sink, Sink], tmp_path: Path
) -> None:
    asked: list[int] = []

    async def find_row() -> int:
        asked.append(len(asked))
        if len(asked) <= 2:
            await trio.sleep(0.6)
        return 0

    asks = [Ask(), Ask(at_ms=5), Ask(at_ms=900)]
    driven = await drive(
        run_lane, tmp_path, asks, addresses=places(sinks), find_row=find_row, timeout_s=0.3, connections=2
    )
    assert driven.outcomes == {"2xx": 1, "timeout": 2}
    assert driven["connects_failed"] == 2
    assert by_address(driven, A.connects) == [1, 0]
    assert sinks[0].arrivals == 1


def test_the_table_keeps_rows_and_says_what_it_has_no_room_for(tmp_path: Path) -> None:
    metrics = lane_metrics.create(tmp_path / "lane", 1)
    table = AddressTable(metrics)
    many = [Address(f"10.0.{n // 250}.{n % 250 + 1}", 80) for n in range(ADDRESSES_MAX + 3)]
    assert table.use(many[:2]) == []
    assert table.use(many[1:3]) == []
    assert table.chosen() == [(1, many[1]), (2, many[2])]
    assert [table.is_removed(row) for row in range(4)] == [True, False, False, False]
    assert table.use(many) == many[-3:]
    assert table.chosen() == list(enumerate(many[:-3]))
    assert table.version == 3
    assert np.count_nonzero(metrics.address_states) == ADDRESSES_MAX


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_an_address_is_read_back_as_it_was_packed(address: object, port: int) -> None:
    assert unpack_address(pack_address(str(address), port)) == (str(address), port)
