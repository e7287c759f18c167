"""Who asked, and when: clients behind proxies, a clock that is set, header lists and limits by route."""

from __future__ import annotations

import time

import pytest

from replay.cli.record_http import parse_limits
from replay.errors import UsageError
from replay.recording.exchange import Budget, Clients, Clock, KeptBody
from replay.recording.framing import request_head
from replay.recording.headers import HeaderList


def test_a_clock_that_is_set_moves_no_request(monkeypatch):
    clock = Clock()
    before_ns = clock.now_ns()
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 3_600_000_000_000)
    assert 0 <= clock.now_ns() - before_ns < 60_000_000_000
    assert round(clock.set_by_ns() / 1e9) == 3_600


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("127.0.0.1", "203.0.113.9"),
        ("10.1.2.3", "203.0.113.9"),
        ("::ffff:10.1.2.3", "203.0.113.9"),
        ("fd00::1", "203.0.113.9"),
        ("8.8.8.8", "8.8.8.8"),
        ("2001:4860::1", "2001:4860::1"),
    ],
)
def test_only_a_near_peer_may_name_another_client(peer, client):
    assert Clients().of(peer, ((b"X-Forwarded-For", b"203.0.113.9, 10.0.0.1"),)) == client


@pytest.mark.parametrize(
    ("text", "has", "lacks"),
    [
        ("all", [b"Accept", b"X-A"], []),
        ("none", [], [b"Accept"]),
        ("accept, X-*", [b"ACCEPT", b"x-a"], [b"Content-Type"]),
        ("!x-trace", [b"Accept", b"x-a"], [b"X-Trace"]),
        ("x-*,!x-trace*", [b"x-a"], [b"X-Trace-Id", b"Accept"]),
    ],
)
def test_lists_of_headers(text, has, lacks):
    wanted = HeaderList.parse(text)
    assert all(map(wanted.has, has))
    assert not any(map(wanted.has, lacks))


@pytest.mark.parametrize("text", ["", "a b", "all,accept:", "=x"])
def test_what_is_no_list_of_headers_is_refused(text):
    with pytest.raises(UsageError):
        HeaderList.parse(text)


@pytest.mark.parametrize(
    ("request_line", "limit"),
    [
        (b"POST /upload?x=1", 0),
        (b"GET /upload", 2_048),
        (b"PUT /files/a/b", 10),
        (b"POST /else", 2_048),
    ],
)
def test_limits_by_route(request_line, limit):
    limits = parse_limits(["2KiB", "POST /upload=0", "/files/*=10"])
    head = request_head(request_line + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head is not None
    assert limits.of(head) == limit


def test_a_limit_that_no_journal_can_hold_is_refused():
    assert parse_limits(["256MiB"]).bytes_max == 256 << 20
    with pytest.raises(UsageError, match=r"--body-limit '257MiB': the highest limit is 256 MiB"):
        parse_limits(["257MiB"])
    with pytest.raises(UsageError, match=r"--body-limit 'POST /a=1GiB': the highest limit"):
        parse_limits(["POST /a=1GiB"])


def test_a_kept_body_stops_at_its_limit_and_gives_its_memory_back():
    budget = Budget(10)
    first, second = KeptBody(6, budget), KeptBody(6, budget)
    for piece in (b"abcd", b"efgh"):
        first.add(memoryview(piece))
    second.add(memoryview(b"12345"))
    assert (bytes(first.data), first.whole, first.starved, first.size) == (b"abcdef", False, False, 8)
    assert (bytes(second.data), second.whole, second.starved) == (b"", False, True)
    first.give_up()
    second.give_up()
    assert budget.used == 0
