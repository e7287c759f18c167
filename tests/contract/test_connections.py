"""Connections: used again, capped, of whoever has them."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.lane.contract import Address
from replay.staging.sink import Identity, Sink

from .driver import (
    FAULTS_IN_ORDER,
    MS_NS,
    Ask,
    RunLane,
    by_tls,
    drive,
    turns,
)

pytestmark = pytest.mark.boundscheck


@by_tls
async def test_one_connection_is_used_again_and_again(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    driven = await drive(
        run_lane, tmp_path, [Ask(at_ms=20.0 * i) for i in range(8)], sink.port, connections=1
    )
    assert driven["connects"] == driven["open_max"] == 1
    assert set(sink.stamps()["connection"]) == {0}


@pytest.mark.timing
async def test_the_connection_freed_last_is_used_first(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    burst = [Ask(f"/sink/delay_ms={40 + 40 * (i == 2)}") for i in range(4)]
    driven = await drive(run_lane, tmp_path, burst + [Ask(at_ms=250 + 20 * i) for i in range(4)], sink.port)
    assert driven.outcomes == {"2xx": 8}
    stamps = sink.stamps()
    slow = stamps["connection"][stamps["seq"] == 2][0]
    assert set(stamps["connection"][stamps["seq"] >= 4]) == {slow}


@pytest.mark.timing
@by_tls
async def test_a_cap_makes_requests_wait_in_order(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/delay_ms=10", at_ms=i) for i in range(10)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1)
    assert driven.outcomes == {"2xx": 10}
    assert sink.stamps()["seq"].tolist() == list(range(10))
    assert driven["cap_bound"] > 0
    assert driven["open_max"] == 1
    assert driven["waiting_max"] >= 5
    assert driven.percentile_ns("wait.all", 1.0) > 60 * MS_NS
    assert driven.percentile_ns("service.all", 0.5) < 60 * MS_NS


@pytest.mark.timing
async def test_auto_opens_no_more_than_wait(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    driven = await drive(run_lane, tmp_path, [Ask("/sink/delay_ms=50")] * 6, sink.port, connections=100)
    assert driven["open_max"] == 6


@by_tls
async def test_large_requests_and_answers_go_in_parts(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    body = b"b" * 1_000_000
    asks = [Ask("/sink/body=3000000", method="POST", body=body, at_ms=150 * i) for i in range(2)]
    driven = await drive(run_lane, tmp_path, asks, sink.port)
    assert driven.outcomes == {"2xx": 2}
    assert driven["bytes_sent"] > 2_000_000
    assert driven["bytes_received"] > 6_000_000
    assert driven["connects"] == 1


@pytest.mark.timing
@by_tls
async def test_addresses_are_taken_in_turn(
    run_lane: RunLane, sink: Sink, identity: Identity | None, tmp_path: Path
) -> None:
    with Sink(capacity=10, tls=identity) as second:
        addresses = (Address("127.0.0.1", sink.port), Address("127.0.0.1", second.port))
        await drive(run_lane, tmp_path, [Ask("/sink/delay_ms=60")] * 4, addresses=addresses)
        assert (sink.arrivals, second.arrivals) == (2, 2)


async def test_an_address_may_be_ipv6(run_lane: RunLane, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6 loopback")
    with Sink(capacity=10, host="::1") as sink:
        addresses = (Address("::1", sink.port, ipv6=True),)
        driven = await drive(run_lane, tmp_path, [Ask()] * 2, addresses=addresses)
        assert driven.outcomes == {"2xx": 2}


def connections_of(sink: Sink, asks: list[Ask]) -> dict[int, set[int]]:
    """The sink's connections that each client used."""
    found: dict[int, set[int]] = {}
    for stamp in sink.stamps():
        found.setdefault(asks[int(stamp["seq"])].client, set()).add(int(stamp["connection"]))
    return found


@by_tls
async def test_each_client_has_a_connection_of_its_own(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask(at_ms=40.0 * (i // 6), client=i % 6) for i in range(30)]
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, connect="per-client", connections=50, ordered=True
    )
    assert driven.outcomes == {"2xx": 30}
    used = connections_of(sink, asks)
    assert all(len(own) == 1 for own in used.values())
    assert len(set.union(*used.values())) == driven["connects"] == driven["open_max"] == 6


@pytest.mark.timing
async def test_a_client_that_asks_for_much_at_once_has_several(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/delay_ms=60", client=i % 2) for i in range(10)]
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, connect="per-client", connections=50, client_connections=3
    )
    assert driven.outcomes == {"2xx": 10}
    assert driven["open_max"] == 6
    assert [len(own) for own in connections_of(sink, asks).values()] == [3, 3]
    assert driven.count("wait.order") == 0


@pytest.mark.timing
async def test_a_client_whose_connection_was_idle_for_too_long_makes_another(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask(at_ms=at, client=client) for client in (0, 1) for at in (5 * client, 60, 500)]
    driven = await drive(
        run_lane, tmp_path, sorted(asks, key=lambda ask: ask.at_ms), sink.port, connect="per-client",
        connections=50, idle_timeout_s=0.2,
    )  # fmt: skip
    assert driven.outcomes == {"2xx": 6}
    assert driven["connects"] == 4
    assert driven["idle_closed"] >= 2
    assert driven["resent"] == 0


async def test_at_the_cap_the_connection_idle_for_longest_makes_room(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask(at_ms=25.0 * i, client=client) for i, client in enumerate((0, 1, 2, 1, 2, 0, 3, 4, 0))]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connect="per-client", connections=3)
    assert driven.outcomes == {"2xx": 9}
    assert driven["open_max"] == 3
    assert driven["connects"] == 5
    assert len(connections_of(sink, asks)[0]) == 1


@pytest.mark.timing
async def test_clients_wait_where_all_connections_are_busy(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/delay_ms=30", client=i) for i in range(12)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connect="per-client", connections=2)
    assert driven.outcomes == {"2xx": 12}
    assert driven["open_max"] == 2
    assert driven["cap_bound"] > 0
    assert driven["connects"] == 12


async def test_clients_that_cannot_connect_fail(run_lane: RunLane, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        asks = [Ask(at_ms=i, client=i % 3) for i in range(30)]
        driven = await drive(run_lane, tmp_path, asks, taken.getsockname()[1], connect="per-client")
    assert driven.outcomes == {"refused": 30}


@by_tls
async def test_each_request_has_a_connection_of_its_own(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask(at_ms=5.0 * i) for i in range(20)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connect="per-request")
    assert driven.outcomes == {"2xx": 20}
    assert len(set(sink.stamps()["connection"])) == driven["connects"] == 20
    assert driven.count("wait.connect") == 20
    assert driven["resent"] == 0


async def test_a_closed_loop_can_connect_for_each_request(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    driven = await drive(
        run_lane, tmp_path, [Ask()] * 60, sink.port, connect="per-request", connections=4, closed_loop=True
    )
    assert driven.outcomes == {"2xx": 60}
    assert len(set(sink.stamps()["connection"])) == 60


@pytest.mark.timing
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    asked=st.lists(
        st.tuples(st.integers(0, 5), st.sampled_from(sorted(FAULTS_IN_ORDER))), min_size=1, max_size=60
    ),
    connections=st.integers(1, 12),
    gap_ms=st.sampled_from([0.0, 1.0, 5.0]),
    client_connections=st.integers(1, 3),
    ordered=st.booleans(),
    idle_timeout_s=st.sampled_from([0.002, 0.02, 60.0]),
)
async def test_any_mix_of_clients_with_connections_of_their_own(
    run_lane: RunLane, tmp_path: Path, asked: list[tuple[int, str]], connections: int, gap_ms: float,
    client_connections: int, ordered: bool, idle_timeout_s: float,
) -> None:  # fmt: skip
    with Sink(capacity=1_000) as sink:
        asks = [
            Ask(f"/sink/{fault}", at_ms=gap_ms * at, client=client)
            for at, (client, fault) in enumerate(asked)
        ]
        driven = await drive(
            run_lane, tmp_path, asks, sink.port, connect="per-client", connections=connections,
            client_connections=client_connections, ordered=ordered, idle_timeout_s=idle_timeout_s,
            timeout_s=0.3, max_wait_s=20,
        )  # fmt: skip
        assert driven.outcomes == dict(Counter(FAULTS_IN_ORDER[fault] for _, fault in asked))
        assert driven["open_max"] <= connections
        used = [own for owns in connections_of(sink, asks).values() for own in owns]
        assert len(used) == len(set(used)), "no connection served two clients"
        for client, seqs in turns(sink, asks).items() if ordered else ():
            assert list(dict.fromkeys(seqs)) == [seq for seq, ask in enumerate(asks) if ask.client == client]
