"""What is recorded of answers, and of each fault: it lands in its outcome, and the lane goes on."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.lane.feed import FeedWriter
from replay.staging.sink import Identity, Sink
from tests.support.scripted_server import ScriptedServer, answer

from .driver import (
    MS_NS,
    Ask,
    Driven,
    RunLane,
    by_tls,
    drive,
)

pytestmark = pytest.mark.boundscheck


@pytest.fixture(scope="module")
def sink_process() -> Iterator[int]:
    """The port of a sink in a process of its own, whose descriptors are its own."""
    command = [sys.executable, "-m", "replay.staging.sink", "--capacity", "1000", "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
        process.terminate()


@pytest.mark.timing
@by_tls
async def test_answers_are_counted_and_stamped(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/delay_ms=3", at_ms=20.0 * i) for i in range(10)]
    driven = await drive(run_lane, tmp_path, asks, sink.port)
    assert driven.outcomes == {"2xx": 10}
    # A connection that a slow machine delays may be overtaken by the next one.
    stamps = np.sort(sink.stamps(), order="seq")
    assert stamps["seq"].tolist() == list(range(10))
    rows = driven.samples("slowest")
    assert sorted(rows["seq"]) == list(range(10))
    for row in rows:
        assert row["due_ns"] <= row["taken_ns"] <= row["sent_ns"] <= row["first_byte_ns"] <= row["done_ns"]
        assert row["done_ns"] - row["sent_ns"] >= 3 * MS_NS
        arrived = stamps["arrival_ns"][row["seq"]]
        assert row["due_ns"] <= arrived <= row["first_byte_ns"]
    assert driven["first_due_ns"] == driven.start_ns
    assert driven["last_done_ns"] == max(rows["done_ns"])
    assert driven["bytes_sent"] == sum(len(ask.render(seq)) for seq, ask in enumerate(asks))
    assert driven["bytes_received"] == sum(rows["bytes"])
    assert driven["cpu_last_ns"] >= driven["cpu_first_ns"] > 0


@pytest.mark.parametrize("status", [200, 299, 301, 404, 500, 599])
async def test_an_answer_of_any_status_is_whole(
    run_lane: RunLane, sink: Sink, tmp_path: Path, status: int
) -> None:
    driven = await drive(run_lane, tmp_path, [Ask(f"/sink/status={status}")] * 2, sink.port)
    assert driven.outcomes == {f"{status // 100}xx": 2}
    assert driven.accounts.ok == 2


async def test_a_redirect_is_an_answer_and_not_followed(run_lane: RunLane, tmp_path: Path) -> None:
    moved = answer(b"", b"Location: /there\r\n", status=302)
    with ScriptedServer({"/here": [moved], "/there": [answer(b"")]}) as server:
        driven = await drive(run_lane, tmp_path, [Ask("/here")] * 2, server.port)
        assert [asked.split()[1] for asked in server.asked] == [b"/here"] * 2
    assert driven.outcomes == {"3xx": 2}
    assert driven.accounts.ok == 2


@pytest.mark.timing
async def test_the_slowest_and_the_first_failed_of_each_route_are_kept(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/status=500", at_ms=2.0 * i, route=1) for i in range(25)]
    asks += [Ask("/sink/delay_ms=80", at_ms=60), *(Ask(at_ms=62.0 + 6 * i) for i in range(30))]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1)
    assert driven.samples("failed", 1)["seq"].tolist() == list(range(20))
    assert driven.samples("failed", 0).size == 0
    slowest = driven.samples("slowest", 0)
    assert slowest.size == 20
    assert 25 in slowest["seq"]
    assert driven.metrics.route_counts.sum(axis=1).tolist() == [31, 25, 0]


@pytest.mark.timing
async def test_warm_up_is_in_the_accounts_only(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/delay_ms=1", at_ms=5.0 * i, warm_up=i < 4) for i in range(7)]
    driven = await drive(run_lane, tmp_path, asks, sink.port)
    assert (driven["planned"], driven["warm_up"], driven.accounts.ok) == (7, 4, 7)
    assert driven.count("response.all") == driven.count("service.all") == 3
    assert sorted(driven.samples("slowest")["seq"]) == [4, 5, 6]


async def test_a_histogram_past_the_arena_goes_to_other(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask(at_ms=i, route=i) for i in range(5)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, routes=5, arena_bytes=1)
    assert driven["routes_merged"] == 5
    assert driven.metrics.arena[0].sum(axis=1).tolist() == [5, 5]
    assert driven.metrics.route_counts[:, 0].tolist() == [1, 1, 1, 1, 1, 0]


FAULTS = {
    "delay_ms=30": "2xx",
    "drip_ms=1": "2xx",
    "drip_ms=1/chunked=2/trailers": "2xx",
    "drip_ms=1/status=204/informational=1": "2xx",
    "chunked=1/body=3000/trailers": "2xx",
    "body=0": "2xx",
    "body=0/chunked": "2xx",
    "body=200000": "2xx",
    "until_close": "2xx",
    "until_close/body=100000": "2xx",
    "informational=3": "2xx",
    "status=204": "2xx",
    "status=304": "3xx",
    "close": "2xx",
    "close_silently": "2xx",
    "close/chunked/informational=1": "2xx",
    "reset": "reset",
    "reset_at=10": "reset",
    "reset_at=50": "reset",
    "hang_up": "truncated",
    "truncate_at=10": "truncated",
    "truncate_at=50": "truncated",
    "truncate_at=70/chunked=3": "truncated",
    "garbage": "malformed",
    "endless_headers": "malformed",
    "status=99": "malformed",
    "status=101": "malformed",
    "status=600": "malformed",
    "never": "timeout",
    "truncate_at=20/drip_ms=50": "timeout",
    "drip_ms=100": "timeout",
}
"""What the sink is asked for (see `replay.staging.sink`), and the outcome it must have."""


@pytest.mark.timing
@by_tls
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_lands_in_its_outcome(
    run_lane: RunLane, sink: Sink, tmp_path: Path, fault: str
) -> None:
    outcome = FAULTS[fault]
    asks = [Ask(f"/sink/{fault}")] * 3 + [Ask(at_ms=40)] * 3
    timeout_s = 0.2 if outcome == "timeout" else 5.0
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=3, timeout_s=timeout_s)
    assert driven.outcomes == dict(Counter([outcome] * 3 + ["2xx"] * 3))
    failed = driven.samples("failed")
    assert failed.size == (0 if outcome in ("2xx", "3xx") else 3)
    assert set(failed["status"]) <= {0, 600}


@by_tls
async def test_informational_answers_are_counted(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    driven = await drive(run_lane, tmp_path, [Ask("/sink/informational=3")] * 2, sink.port)
    assert driven["informational"] == 6


@by_tls
async def test_the_answer_to_head_has_no_body(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/body=5000", method="HEAD", at_ms=20.0 * i) for i in range(4)]
    driven = await drive(run_lane, tmp_path, [*asks, Ask(at_ms=90)], sink.port, connections=1)
    assert driven.outcomes == {"2xx": 5}
    assert driven["connects"] == 1


@by_tls
async def test_a_refused_connection_fails_one_request(
    run_lane: RunLane, identity: Identity | None, tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        asks = [Ask(at_ms=10.0 * i) for i in range(5)] + [Ask(at_ms=400)] * 3

        async def listen_later(_driven: Driven, _writer: FeedWriter) -> None:
            await trio.sleep(0.2)
            taken.close()
            later.append(Sink(port=port, capacity=10, tls=identity))
            later[0].start()

        later: list[Sink] = []
        try:
            driven = await drive(run_lane, tmp_path, asks, port, during=listen_later)
        finally:
            for sink in later:
                sink.stop()
    assert driven.outcomes == {"refused": 5, "2xx": 3}
    assert driven["connects_failed"] == 5
    assert driven.count("service.all") == 3


@pytest.mark.timing
@by_tls
async def test_a_connect_that_never_ends_is_a_timeout(run_lane: RunLane, tmp_path: Path) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            driven = await drive(run_lane, tmp_path, [Ask(), Ask()], full.getsockname()[1], timeout_s=0.2)
        finally:
            for filler in fillers:
                filler.close()
    assert driven.outcomes == {"timeout": 2}
    assert driven.count("service.all") == 0


@by_tls
@pytest.mark.parametrize("fault", ["hang_up_reused", "reset_reused"])
async def test_a_reused_connection_that_ends_is_no_error_of_an_idempotent_request(
    run_lane: RunLane, sink: Sink, tmp_path: Path, fault: str
) -> None:
    asks = [Ask(), Ask(f"/sink/{fault}", at_ms=50), Ask(at_ms=100)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1)
    assert driven.outcomes == {"2xx": 3}
    assert driven["resent"] == 1
    assert driven["sent"] == 3
    assert sorted(sink.stamps()["seq"]) == [0, 1, 1, 2]


@by_tls
@pytest.mark.parametrize(("fault", "outcome"), [("hang_up_reused", "truncated"), ("reset_reused", "reset")])
async def test_other_requests_are_never_sent_twice(
    run_lane: RunLane, sink: Sink, tmp_path: Path, fault: str, outcome: str
) -> None:
    asks = [Ask(), Ask(f"/sink/{fault}", method="POST", body=b"once", at_ms=50), Ask(at_ms=100)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1)
    assert driven.outcomes == {"2xx": 2, outcome: 1}
    assert driven["resent"] == 0
    assert sink.stamps()["seq"].tolist() == [0, 1, 2]


@by_tls
async def test_a_request_is_sent_again_only_once(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask(), Ask("/sink/reset", at_ms=50), Ask(at_ms=100)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1)
    assert driven.outcomes == {"2xx": 2, "reset": 1}
    assert driven["resent"] == 1


@by_tls
async def test_an_idle_close_goes_unnoticed(run_lane: RunLane, sink: Sink, tmp_path: Path) -> None:
    asks = [Ask("/sink/idle_close_ms=15", method="POST", at_ms=50.0 * i) for i in range(4)]
    driven = await drive(run_lane, tmp_path, asks, sink.port)
    assert driven.outcomes == {"2xx": 4}
    assert driven["connects"] == 4


@pytest.mark.timing
async def test_being_out_of_descriptors_is_our_own_failure(
    run_lane: RunLane, sink_process: int, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def lower_the_limit(_driven: Driven, _writer: FeedWriter) -> None:
        taken = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208
        free = [number for number in range(len(taken) + 4) if number not in taken]
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[3], hard))
        await trio.sleep(0.3)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    asks = [Ask("/sink/delay_ms=100", at_ms=70)] * 6 + [Ask(at_ms=400)] * 6
    try:
        driven = await drive(run_lane, tmp_path, asks, sink_process, during=lower_the_limit)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert set(driven.outcomes) == {"2xx", "generator"}
    assert 7 <= driven.outcomes["2xx"] <= 11


MIX = {
    "": "2xx", **{name: FAULTS[name] for name in (
        "close", "close_silently", "until_close", "chunked=1/body=3000/trailers", "informational=3",
        "status=304", "reset", "reset_at=50", "hang_up", "truncate_at=50", "garbage", "status=600", "never",
    )},
    "idle_close_ms=5": "2xx", "hang_up_reused": "2xx", "status=503": "5xx",
}  # fmt: skip


@pytest.mark.timing
@by_tls
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    faults=st.lists(st.sampled_from(sorted(MIX)), min_size=1, max_size=40),
    connections=st.integers(1, 12),
    gap_ms=st.sampled_from([0.0, 1.0, 5.0]),
)
async def test_any_mix_of_faults_balances(
    run_lane: RunLane,
    identity: Identity | None,
    tmp_path: Path,
    faults: list[str],
    connections: int,
    gap_ms: float,
) -> None:
    with Sink(capacity=1_000, tls=identity) as sink:
        asks = [Ask(f"/sink/{fault}", at_ms=gap_ms * at) for at, fault in enumerate(faults)]
        driven = await drive(
            run_lane, tmp_path, asks, sink.port, connections=connections, timeout_s=1.5, max_wait_s=60
        )
        assert driven.outcomes == dict(Counter(MIX[fault] for fault in faults))
        assert driven["sent"] <= sink.arrivals <= driven["sent"] + driven["resent"]
