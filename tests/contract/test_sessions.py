"""Values of answers in later requests, cookie jars and checked answers: the lane's contract, held by both engines."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from replay.lane.contract import Retry
from replay.protocols.http1.session_spec import SessionSpec, make_session_spec
from replay.settings.file import load
from replay_native.http1.sessions import JAR_SLOT
from replay_native.lane.retry import RETRY_ON
from tests.support.scripted_server import ScriptedServer, Turns, answer

from .driver import (
    MS_NS,
    Ask,
    RunLane,
    drive,
)

pytestmark = pytest.mark.boundscheck


RULES = """
cookies = true
limits = { answer = 2000, cookies = 20 }
[[capture]]
route = "GET /0"
name = "token"
json = "/token"
[[check]]
route = "*"
status = "recorded"
[[check]]
route = "*"
contains = "token"
"""
TOKEN, BODY = 1, b'{"a": [1, {"token": "no"}], "token": "t-42"}'
ANSWERS = {
    "whole": [answer(BODY)],
    "in parts": [answer(BODY)[at : at + 17] for at in range(0, len(answer(BODY)), 17)],
    "informational": [b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n", answer(BODY)],
    "chunked": [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + BODY[:20],
        b"\r\n18;x=y\r\n" + BODY[20:] + b"\r\n0\r\n\r\n",
    ],
    "until close": [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", BODY],
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> SessionSpec:
    path = tmp_path_factory.mktemp("rules") / "s.toml"
    path.write_text(RULES)
    requests = SimpleNamespace(routes=["GET /0", "GET /1"], actions=["", ""])
    return make_session_spec(requests, load(path), 64)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ANSWERS)
async def test_a_value_of_an_answer_is_in_the_next_request_of_the_client(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec, how: str
) -> None:
    with ScriptedServer({"/login": ANSWERS[how], "/next": [answer(b"token")]}) as server:
        asks = [
            Ask("/login", looked_at=True, client=3),
            Ask("/next", at_ms=1, looked_at=True, route=1, client=3, takes=(TOKEN,)),
        ]
        driven = await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules)
        assert driven.outcomes == {"2xx": 2}
        assert server.asked[1].endswith(b"\r\nX-1: t-42\r\n\r\n")
        assert driven["bytes_sent"] == sum(map(len, server.asked))
    assert driven.metrics.rule_counts.tolist() == [[1, 0], [2, 0], [2, 0]]
    assert driven.metrics.checked.tolist() == [[1, 0], [1, 0], [0, 0]]


async def test_a_request_that_lacks_a_value_is_unsent_and_its_client_goes_on(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec
) -> None:
    answers = {"/login": [answer(b"{}")], "/next": [answer(b"token")], "/plain": [answer(b"")]}
    with ScriptedServer(answers) as server:
        asks = [Ask("/login", looked_at=True)]
        asks += [Ask("/next", at_ms=n, route=1, takes=(TOKEN,)) for n in range(5)]
        asks += [Ask("/plain", at_ms=6), Ask("/next", at_ms=40, client=9, takes=(TOKEN,))]
        driven = await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules)
        assert [asked.split()[1] for asked in server.asked] == [b"/login", b"/plain"]
    assert driven.outcomes == {"2xx": 2, "unsent": 6}
    assert driven["unsent_capture"] == driven.accounts.unsent == 6
    assert driven.metrics.rule_counts[0].tolist() == [0, 1]
    assert driven.samples("failed", 1)["seq"].tolist() == [1, 2, 3, 4, 5]


async def test_an_answer_that_is_not_as_it_must_be_is_a_mismatch(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec
) -> None:
    answers = {"/good": [answer(b"token")], "/bad": [answer(b"tok", status=404)], "/odd": [answer(b"tok")]}
    with ScriptedServer(answers) as server:
        asks = [
            Ask("/good", looked_at=True, route=1, recorded_status=200),
            Ask("/bad", at_ms=5, looked_at=True, route=1, recorded_status=200),
            Ask("/odd", at_ms=10, looked_at=True, route=1),
            Ask("/bad", at_ms=15, route=1, recorded_status=200),
            Ask("/bad", at_ms=20, looked_at=True, route=1, recorded_status=200, warm_up=True),
        ]
        driven = await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules)
    assert driven.outcomes == {"2xx": 2, "4xx": 3}
    assert driven.metrics.checked.tolist() == [[0, 0], [3, 2], [0, 0]]
    assert driven.metrics.rule_counts[1:].tolist() == [[2, 1], [1, 2]]
    mismatched = driven.samples("mismatched", 1)
    assert mismatched["seq"].tolist() == [1, 2]
    assert mismatched["rule"].tolist() == [1, 2]
    assert mismatched["status"].tolist() == [404, 200]


async def test_an_answer_longer_than_is_looked_at_has_no_body(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec
) -> None:
    long = answer(b'{"token": "t", "more": "%s"}' % (b"." * 3_000), b"Set-Cookie: a=1\r\n")
    answers = {"/whole": [long], "/parts": [long[:1_500], long[1_500:]], "/next": [answer(b"token")]}
    with ScriptedServer(answers) as server:
        asks = [Ask("/whole", looked_at=True), Ask("/parts", at_ms=10, looked_at=True)]
        asks += [Ask("/next", at_ms=90, takes=(JAR_SLOT,))]
        driven = await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules)
        assert server.asked[2].endswith(b"\r\nCookie: a=1\r\n\r\n")
    assert driven.outcomes == {"2xx": 3}
    assert driven["answers_cut"] == 2
    assert driven.metrics.rule_counts.tolist() == [[0, 2], [2, 0], [0, 2]]


async def test_cookies_are_kept_by_client_and_a_bomb_of_them_is_cut(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec
) -> None:
    bomb = b"Set-Cookie: sid=1; Path=/\r\n" + b"".join(
        b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 18) for n in range(9)
    )
    answers = {
        "/": [answer(b"token")],
        "/set": [answer(b"token", bomb)],
        "/end": [answer(b"", b"Set-Cookie: sid=; Max-Age=0\r\n")],
    }
    jar = (JAR_SLOT,)
    with ScriptedServer(answers) as server:
        asks = [Ask("/", takes=jar), Ask("/set", at_ms=5, looked_at=True), Ask("/", at_ms=10, takes=jar)]
        asks += [Ask("/", at_ms=60, takes=jar, client=2), Ask("/end", at_ms=61, looked_at=True)]
        asks += [Ask("/", at_ms=62, takes=jar)]
        driven = await drive(
            run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules, connections=1
        )
        cookies = [asked.partition(b"Cookie: ")[2].partition(b"\r")[0] for asked in server.asked]
    assert cookies == [b"", b"", b"sid=1", b"", b"", b""]
    assert driven["cookies_cut"] == 9


def again() -> Retry:
    """A 503 is tried twice more, whatever the method."""
    on = np.zeros(RETRY_ON, np.uint8)
    on[503] = 1
    return Retry(on, 3, 2 * MS_NS, 4 * MS_NS, all_methods=True)


@pytest.mark.parametrize("body", [b"", b'{"token": "{token}"}'])
async def test_a_request_that_is_tried_again_has_its_value_once_and_always_the_same(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec, body: bytes
) -> None:
    busy, good = answer(b'{"token": "no"}', status=503), answer(BODY)
    with ScriptedServer({"/login": [good], "/next": Turns([busy], [busy], [answer(b"token")])}) as server:
        asks = [
            Ask("/login", looked_at=True),
            Ask("/next", method="POST", body=body, looked_at=True, route=1, takes=(TOKEN, JAR_SLOT, TOKEN)),
        ]
        driven = await drive(
            run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules, retry=again()
        )
        first, *more = server.asked[1:]
    assert driven.outcomes == {"2xx": 2}
    assert (driven["attempts"], driven["retries"], driven["retried"]) == (4, 2, 1)
    assert more == [first, first]
    assert first.count(b"X-1: t-42\r\n") == 2
    assert first.endswith(b"\r\n\r\n" + body)


async def test_a_value_that_a_later_try_brings_is_in_the_requests_that_waited_for_it(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec
) -> None:
    login = Turns([answer(b"{}", status=503)], [answer(BODY)])
    with ScriptedServer({"/login": login, "/next": [answer(b"token")]}) as server:
        asks = [Ask("/login", looked_at=True), Ask("/next", at_ms=1, route=1, takes=(TOKEN,))]
        driven = await drive(
            run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules, retry=again()
        )
        assert [asked.split()[1] for asked in server.asked] == [b"/login", b"/login", b"/next"]
        assert b"X-1: t-42\r\n" in server.asked[2]
    assert driven.outcomes == {"2xx": 2}
    assert driven.metrics.rule_counts[0].tolist() == [1, 1]


async def test_where_no_try_brings_the_value_what_needs_it_is_unsent_and_says_why(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec
) -> None:
    answers = {"/login": [answer(b"{}", status=503)], "/plain": [answer(b"")]}
    with ScriptedServer(answers) as server:
        asks = [
            Ask("/login", looked_at=True),
            *(Ask("/next", at_ms=n, route=1, takes=(TOKEN,)) for n in (1, 2)),
        ]
        asks += [Ask("/plain", at_ms=3)]
        driven = await drive(
            run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules, retry=again()
        )
        assert [asked.split()[1] for asked in server.asked] == [b"/login"] * 3 + [b"/plain"]
    assert driven.outcomes == {"5xx": 1, "2xx": 1, "unsent": 2}
    assert driven["unsent_capture"] == driven.accounts.unsent == 2
    assert (driven["sent"], driven["attempts"]) == (2, 4)
    assert driven.metrics.rule_counts[0].tolist() == [0, 3]


FOLDED = {
    "one fold": (b"X-Key: one\r\n two\r\n", b"one two"),
    "white space on both sides": (b"X-Key: one \t\r\n\t  two \r\n", b"one two"),
    "two folds": (b"X-Key: one\r\n two\r\n\tthree\r\n", b"one two three"),
    "bare line feeds": (b"X-Key: one\n two\n", b"one two"),
    "a value on the next line": (b"X-Key:\r\n one\r\n", b"one"),
    "an empty fold": (b"X-Key: one\r\n \r\n two\r\n", b"one two"),
    "another header's fold": (b"A: x\r\n X-Key: no\r\nX-Key: one\r\n", b"one"),
    "no fold": (b"X-Key:   one  two \r\n", b"one  two"),
}


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize("how", FOLDED)
async def test_a_folded_header_is_one_value(
    run_lane: RunLane, tmp_path: Path, how: str, in_parts: bool
) -> None:
    path = tmp_path / "s.toml"
    path.write_text(RULES.replace('json = "/token"', 'header = "X-Key"'))
    requests = SimpleNamespace(routes=["GET /0", "GET /1"], actions=["", ""])
    folded = make_session_spec(requests, load(path), 64)  # type: ignore[arg-type]
    header, value = FOLDED[how]
    whole = answer(b"token", header)
    pieces = [whole[:40], whole[40:]] if in_parts else [whole]
    with ScriptedServer({"/login": pieces, "/next": [answer(b"token")]}) as server:
        asks = [Ask("/login", looked_at=True, client=3)]
        asks.append(Ask("/next", at_ms=1, looked_at=True, route=1, client=3, takes=(TOKEN,)))
        await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=folded)
        assert server.asked[1].endswith(b"\r\nX-1: " + value + b"\r\n\r\n")


LENGTHS = {"with zeros before it": b"0" * 30 + b"5", "written twice": b"5\r\nContent-Length: 5"}


@pytest.mark.parametrize("how", LENGTHS)
async def test_an_answer_of_an_odd_length_is_looked_at_whole(
    run_lane: RunLane, tmp_path: Path, rules: SessionSpec, how: str
) -> None:
    data = b"HTTP/1.1 200 OK\r\nContent-Length: " + LENGTHS[how] + b"\r\n\r\ntoken"
    with ScriptedServer({"/": [data]}) as server:
        asks = [Ask("/", looked_at=True, route=1, recorded_status=200)]
        driven = await drive(run_lane, tmp_path, asks, server.port, ordered=True, sessions=rules)
    assert driven.metrics.checked.tolist() == [[0, 0], [1, 0], [0, 0]]
