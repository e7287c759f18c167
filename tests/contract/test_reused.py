"""What is used again (a connection's row, a waiting request's row, a scratch array) shows nothing of what used it before."""

from __future__ import annotations

import socket
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from replay.lane import native as lanes
from replay.lane.contract import LaneSpec
from replay.protocols.http1.session_spec import make_session_spec
from replay.settings.file import load
from replay.staging.sink import Sink
from replay_native.feed.ring import Feed, make_feed
from replay_native.lane.clients import WAITING
from replay_native.lane.connections import CONNECTION, Lane
from replay_native.ledger.lane_metrics import REFUSED, Stop
from replay_native.staging.sink_memory import PEER
from tests.oracles.http1_forms import FORMS
from tests.support.scripted_server import (
    Reply,
    ReplyServer,
    ScriptedServer,
    answer,
)
from tests.support.there import there

from . import driver
from .driver import (
    FAULTS_IN_ORDER,
    Ask,
    RunLane,
    by_tls,
    drive,
    stop_after,
)
from .test_forms import outcome_of
from .test_retries import retry
from .test_sessions import BODY, RULES, TOKEN

pytestmark = pytest.mark.boundscheck

GOOD = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "1.0": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
}
CUT = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1f",
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 15",
    b"HTTP/1.1 200 OK\r\nConnection: clo",
    b"HTTP/1.0 20",
]


# A bad response must not affect later requests in the same row.


async def test_one_bad_answer_changes_nothing_for_those_behind_it(run_lane: RunLane, tmp_path: Path) -> None:
    bad = [form for form in FORMS if form.state == "malformed" and len(form.data) < 1_000]
    answers = [*((form.data, outcome_of(form)) for form in bad), *((data, "truncated") for data in CUT)]

    def reply(path: str, turn: int) -> Reply:
        kind, _, number = path[1:].partition("/")
        if kind == "bad":
            return [answers[int(number)][0]], "close"
        return [GOOD[kind]], "close" if kind == "close" else "keep"

    kinds, asks = sorted(GOOD), []
    for number in range(len(answers)):
        asks.append(Ask(f"/bad/{number}", at_ms=6.0 * number, method="POST"))
        asks += [Ask(f"/{kind}/", at_ms=6.0 * number + 1 + at, route=1) for at, kind in enumerate(kinds)]
    with ReplyServer(reply) as server:
        driven = await drive(run_lane, tmp_path, asks, server.port, connections=1, max_wait_s=60)
    assert driven.outcomes == dict(
        Counter([outcome for _, outcome in answers] + ["2xx"] * len(kinds) * len(answers))
    )
    assert driven.samples("failed", 1).size == 0


# The server sends a 408 that no request caused.


UNASKED = {
    "with a length": [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"],
    "until the close": [b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n"],
    "of version 1.0": [b"HTTP/1.0 408 Request Time-out\r\nContent-Type: text/html\r\n\r\n<h1>408</h1>"],
    "with chunks": [b"HTTP/1.1 408 Late\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbye\r\n0\r\n\r\n"],
    "with half a body": [b"HTTP/1.1 408 Late\r\nConnection: close\r\nContent-Length: 50\r\n\r\nhalf"],
    "in pieces": [b"HTTP/1.1 40", b"8 Late\r\nConnec", b"tion: close\r\nContent-Length: 2\r\n\r\n", b"ok"],
}  # fmt: skip


def replies(unasked: list[bytes], after: str = "close") -> Any:
    """A server that answers well, but says 408 to what comes second on a connection."""
    return lambda path, turn: (unasked, after) if turn else ([GOOD["length"]], "keep")


@by_tls
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_408_of_the_sink_is_an_answer_on_a_fresh_connection(
    run_lane: RunLane, sink: Sink, tmp_path: Path, method: str
) -> None:
    asks = [Ask("/sink/status=408/close", method=method, at_ms=20.0 * at) for at in range(3)]
    driven = await drive(run_lane, tmp_path, asks, sink.port)
    assert driven.outcomes == {"4xx": 3}
    assert (driven["resent"], sink.arrivals) == (0, 3)


@pytest.mark.timing
@pytest.mark.parametrize("after", ["close", "reset"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("how", UNASKED)
async def test_a_408_that_nobody_asked_for_is_a_close(
    run_lane: RunLane, tmp_path: Path, how: str, method: str, after: str
) -> None:
    body = b"once" if method == "POST" else b""
    asks = [
        Ask(method="GET" if at == 0 else method, body=body if at else b"", at_ms=150.0 * at)
        for at in range(3)
    ]
    if method == "HEAD":
        unanswered = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        reply = lambda path, turn: (UNASKED[how], after) if turn else ([unanswered], "keep")  # noqa: E731
    else:
        reply = replies(UNASKED[how], after)
    with ReplyServer(reply) as server:
        driven = await drive(run_lane, tmp_path, asks, server.port, connections=1)
    assert driven.outcomes == {"2xx": 3}
    assert driven["resent"] == driven["closed_by_target"] == 2
    assert driven["attempts"] == len(server.asked) == 5
    assert driven["connects"] == 3
    if how == "with a length":
        received = sum(driven.samples("slowest")["bytes"])
        assert driven["bytes_received"] == received + 2 * len(UNASKED[how][0])


STANDING = {
    "keeps the connection": ([b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"], "keep"),
    "behind a hint": ([b"HTTP/1.1 103 Hints\r\n\r\n" + UNASKED["with a length"][0]], "close"),
    "another status": ([b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"], "close"),
}


@pytest.mark.parametrize("how", STANDING)
async def test_other_answers_stand(run_lane: RunLane, tmp_path: Path, how: str) -> None:
    pieces, after = STANDING[how]
    with ReplyServer(replies(pieces, after)) as server:
        driven = await drive(run_lane, tmp_path, [Ask(), Ask(at_ms=60)], server.port, connections=1)
    assert driven.outcomes == {"2xx": 1, "5xx" if how == "another status" else "4xx": 1}
    assert (driven["resent"], len(server.asked)) == (0, 2)


async def test_a_408_to_a_request_that_was_sent_again_stands(run_lane: RunLane, tmp_path: Path) -> None:
    calls: list[int] = []

    def reply(path: str, turn: int) -> Reply:
        calls.append(turn)
        return ([GOOD["length"]], "keep") if len(calls) == 1 else (UNASKED["with a length"], "close")

    with ReplyServer(reply) as server:
        driven = await drive(run_lane, tmp_path, [Ask(), Ask(at_ms=60)], server.port, connections=1)
    assert driven.outcomes == {"2xx": 1, "4xx": 1}
    assert (driven["resent"], calls) == (1, [0, 1, 0])
    assert driven.samples("failed").size == 0


async def test_a_408_that_nobody_asked_for_is_held_against_no_rule(run_lane: RunLane, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(RULES)
    requests = SimpleNamespace(routes=["GET /0", "GET /1"], actions=["", ""])
    rules = make_session_spec(requests, load(path), 64)  # type: ignore[arg-type]
    asks = [Ask("/", at_ms=60.0 * at, looked_at=True, recorded_status=200, client=1) for at in range(3)]
    reply = lambda path, turn: (UNASKED["in pieces"], "close") if turn else ([answer(BODY)], "keep")  # noqa: E731
    with ReplyServer(reply) as server:
        driven = await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules)
    assert driven.outcomes == {"2xx": 3}
    assert driven["resent"] == 2
    assert driven.metrics.rule_counts.tolist() == [[3, 0], [3, 0], [3, 0]]


# Rows may hold any values when they are taken.


KEPT = ("fd", "ssl", "generation", "request", "capacity", "spare", "spare_capacity")
"""Fields of a connection that outlast its use: what it owns, and who it is."""

ROW_KEPT = ("request", "capacity")


def poisoned(lane: Lane, rng: np.random.Generator) -> Lane:
    """The lane with all its rows as if they had been used by others before, and its scratch memory as well."""
    for rows, kept in ((lane.connections, KEPT), (lane.wait_queue, ROW_KEPT)):
        for name in there(rows.dtype.names):
            if name not in kept:
                rows[name] = rng.integers(1, 1 << 30, rows.size)
    for scratch in (lane.backoff, lane.events, lane.buffer, lane.scratch, lane.chosen, lane.beginnings):
        scratch[...] = rng.integers(1, 100, scratch.shape)
    for scratch in (lane.sessions.found, lane.sessions.jar, lane.sessions.kept):
        scratch[...] = rng.integers(1, 100, scratch.shape)
    return lane


@pytest.fixture
def dirty(monkeypatch: pytest.MonkeyPatch) -> None:
    make = lanes.make_lane
    rng = np.random.default_rng(7)

    def made(spec: LaneSpec) -> Lane:
        return poisoned(make(spec), rng)

    def fed(entries: int, ring_bytes: int) -> Feed:
        feed = make_feed(entries, ring_bytes)
        feed.entries.view(np.uint8)[:] = rng.integers(1, 100, feed.entries.nbytes)
        feed.ring[:] = 120
        return feed

    monkeypatch.setattr(lanes, "make_lane", made)
    monkeypatch.setattr(driver, "make_feed", fed)


FAULTS = [
    *FAULTS_IN_ORDER,
    "chunked=1/body=3000/trailers",
    "informational=3",
    "until_close",
    "status=304",
    "truncate_at=50",
]


@pytest.mark.timing
@by_tls
@pytest.mark.parametrize("connect", ["pool", "per-client", "per-request"])
@pytest.mark.parametrize("engine", ["native"], indirect=True)
async def test_rows_that_hold_anything_serve_as_fresh_ones(
    run_lane: RunLane, sink: Sink, tmp_path: Path, dirty: None, connect: Any
) -> None:
    asks = [
        Ask(
            f"/sink/{fault}",
            at_ms=3.0 * at,
            client=at % 4,
            method="HEAD" if at % 7 == 3 and not fault else "GET",
        )
        for at, fault in enumerate(FAULTS * 3)
    ]
    driven = await drive(
        run_lane, tmp_path, asks, sink.port, connections=6, timeout_s=1.5, max_wait_s=30, connect=connect,
        ordered=connect != "pool", retry=retry(503, "malformed", attempts=2, backoff_ms=5),
    )  # fmt: skip
    outcomes = FAULTS_IN_ORDER | {name: "2xx" for name in FAULTS if name not in FAULTS_IN_ORDER}
    outcomes |= {"status=304": "3xx", "truncate_at=50": "truncated"}
    assert driven.outcomes == dict(Counter(outcomes[fault] for fault in FAULTS * 3))
    assert driven["retried"] == 6
    for row in driven.samples("failed"):
        assert 0 <= row["bytes"] < 10_000 and row["status"] in (0, 503)


@pytest.mark.parametrize("connect", ["pool", "per-client"])
@pytest.mark.parametrize("engine", ["native"], indirect=True)
async def test_a_request_that_never_connected_has_no_bytes_of_another(
    run_lane: RunLane, tmp_path: Path, dirty: None, connect: Any
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        driven = await drive(
            run_lane, tmp_path, [Ask(at_ms=2.0 * at, client=at % 2) for at in range(6)], taken.getsockname()[1],
            connect=connect, ordered=connect != "pool", retry=retry("refused", backoff_ms=60_000),
            during=stop_after(0.4, Stop.DRAIN), ends=False,
        )  # fmt: skip
    ended = [row for row in driven.samples("failed") if row["outcome"] == REFUSED]
    assert ended
    assert all((row["bytes"], row["status"], row["sent_ns"]) == (0, 0, -1) for row in ended)


@pytest.mark.parametrize("engine", ["native"], indirect=True)
async def test_values_are_taken_from_dirty_memory_as_from_clean(
    run_lane: RunLane, tmp_path: Path, dirty: None
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(RULES)
    requests = SimpleNamespace(routes=["GET /0", "GET /1"], actions=["", ""])
    rules = make_session_spec(requests, load(path), 64)  # type: ignore[arg-type]
    whole = answer(BODY)
    pieces = [whole[at : at + 17] for at in range(0, len(whole), 17)]
    with ScriptedServer({"/login": pieces, "/next": [answer(b"token")]}) as server:
        asks = [Ask("/login", looked_at=True, client=3)]
        asks.append(Ask("/next", at_ms=1, looked_at=True, route=1, client=3, takes=(TOKEN,)))
        driven = await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules)
        assert server.asked[1].endswith(b"\r\nX-1: t-42\r\n\r\n")
    assert driven.outcomes == {"2xx": 2}
    assert driven.metrics.rule_counts.tolist() == [[1, 0], [2, 0], [2, 0]]


def test_what_outlasts_a_row_is_listed_by_name() -> None:
    assert set(KEPT) < set(CONNECTION.names or ())
    assert set(ROW_KEPT) < set(WAITING.names or ())


async def test_a_connection_that_the_sink_was_to_close_when_idle_is_closed_only_when_idle(
    run_lane: RunLane, sink: Sink, tmp_path: Path
) -> None:
    asks = [Ask("/sink/idle_close_ms=400"), Ask(at_ms=20), Ask(at_ms=600)]
    driven = await drive(run_lane, tmp_path, asks, sink.port, connections=1)
    assert driven.outcomes == {"2xx": 3}
    assert driven["connects"] == 1


SINK_KEPT = ("fd", "ssl", "generation", "next", "state")


@pytest.mark.timing
async def test_peers_of_the_sink_that_hold_anything_serve_as_fresh_ones(
    run_lane: RunLane, tmp_path: Path
) -> None:
    rng = np.random.default_rng(8)
    with Sink(capacity=1_000) as sink:
        peers = sink._kernel_memory.peers
        sink._kernel_memory.options[:] = 3
        for name in PEER.names or ():
            if name not in SINK_KEPT:
                peers[name] = rng.integers(1, 1 << 30, peers.size)
        asks = [
            Ask(f"/sink/{fault}", at_ms=3.0 * at, method="PUT", body=b"x" * at)
            for at, fault in enumerate(FAULTS)
        ]
        driven = await drive(run_lane, tmp_path, asks, sink.port, connections=4, timeout_s=0.4, max_wait_s=30)
    assert driven["outcome_2xx"] >= 6
    assert sorted(set(sink.stamps()["seq"].tolist())) == list(range(len(FAULTS)))
