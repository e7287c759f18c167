"""The mirror receiver: answers at once, hands over every complete request, and counts what did not become one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from replay.recording.exchange import Budget, Exchange
from replay.recording.listening import Limits
from replay.recording.receiver import (
    BAD_BODY,
    HALF_HEADS,
    HALF_REQUEST,
    MirrorReceiver,
    MirrorSettings,
    fixed_limit,
    serve_mirror,
)


@asynccontextmanager
async def mirror(
    settings: MirrorSettings | None = None,
) -> AsyncIterator[tuple[MirrorReceiver, list[Exchange]]]:
    """A receiver, and what it hands over."""
    got: list[Exchange] = []
    async with trio.open_nursery() as nursery:
        receiver = await nursery.start(serve_mirror, "127.0.0.1:0", got.append, settings)
        yield receiver, got
        receiver.server.drain()


async def ask(receiver: MirrorReceiver, *pieces: bytes, ends: bool = True) -> bytes:
    """Send pieces, one segment each; what comes back until the connection ends."""
    stream = await trio.open_tcp_stream("127.0.0.1", receiver.server.port)
    async with stream:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(0.01)
        if ends:
            await stream.send_eof()
        back = bytearray()
        with trio.fail_after(10):
            while data := await stream.receive_some(65_536):
                back += data
        return bytes(back)


POST = b"POST /a?b=1 HTTP/1.1\r\nHost: Shop.example:80\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n"


async def test_a_request_is_answered_and_handed_over_whole():
    async with mirror() as (receiver, got):
        back = await ask(receiver, POST + b"Content-Length: 5\r\n\r\nhe", b"llo")
    assert back == b"HTTP/1.1 204 No Content\r\n\r\n"
    (request,) = got
    assert (request.method, request.target, request.body) == ("POST", b"/a?b=1", b"hello")
    assert (request.host, request.client) == ("shop.example:80", "203.0.113.9")
    assert request.headers[-1] == (b"Content-Length", b"5")


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"X-Real-IP: 203.0.113.7\r\n", "203.0.113.7"),
        (b'Forwarded: proto=https;for="[2001:db8::1]:4711", for=10.0.0.1\r\n', "2001:db8::1"),
        (b"X-Forwarded-For: 203.0.113.9:55\r\n", "203.0.113.9"),
        (b"", "127.0.0.1"),
    ],
)
async def test_a_proxy_names_the_client(header, client):
    async with mirror() as (receiver, got):
        await ask(receiver, b"GET / HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
    assert got[0].client == client


async def test_pipelined_and_chunked_requests_are_told_apart():
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    async with mirror() as (receiver, got):
        back = await ask(receiver, chunked + b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n" + chunked)
    assert back.count(b"204 No Content") == 3
    assert [(request.method, request.body) for request in got] == [
        ("POST", b"abc"), ("GET", b""), ("POST", b"abc"),
    ]  # fmt: skip
    assert got[0].at_ns <= got[1].at_ns <= got[2].at_ns


async def test_nginx_speaks_http_1_0_and_closes():
    async with mirror() as (receiver, got):
        back = await ask(receiver, b"GET / HTTP/1.0\r\nHost: x\r\nConnection: close\r\n\r\n", ends=False)
    assert back == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    assert len(got) == 1


async def test_a_client_that_waits_for_100_gets_it():
    async with mirror() as (receiver, got):
        head = POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        back = await ask(receiver, head, b"ok")
    assert back.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204")
    assert got[0].body == b"ok"


async def test_a_mirror_that_stops_in_the_middle_is_counted_and_others_go_on():
    async with mirror() as (receiver, got):
        await ask(receiver, POST + b"Content-Length: 5\r\n\r\nhe")
        await ask(receiver, POST[:20])
        await ask(receiver, POST + b"\r\n")
        accounts = receiver.accounts
    assert accounts.lost == {HALF_REQUEST: 1}
    assert accounts.counts[HALF_HEADS] == 1
    assert len(got) == 1


async def test_an_ambiguous_request_is_refused_and_not_handed_over():
    bad = POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    async with mirror() as (receiver, got):
        back = await ask(receiver, bad + POST + b"\r\n")
    assert back.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert receiver.accounts.refused == {"both Content-Length and Transfer-Encoding": 1}
    assert not got


async def test_a_bad_chunk_is_refused_in_the_middle_of_a_body():
    async with mirror() as (receiver, got):
        back = await ask(receiver, POST + b"Transfer-Encoding: chunked\r\n\r\n", b"3\r\nabc\r\nx\r\n")
    assert back.startswith(b"HTTP/1.1 400")
    assert not got


async def test_a_body_over_the_limit_is_handed_over_without_it():
    settings = MirrorSettings(body_limit=fixed_limit(4))
    async with mirror(settings) as (receiver, got):
        await ask(receiver, POST + b"Content-Length: 5\r\n\r\nhello")
        await ask(receiver, POST + b"Content-Length: 4\r\n\r\nhell")
    assert [(request.body, request.body_bytes) for request in got] == [(None, 5), (b"hell", 4)]


async def test_memory_for_bodies_is_bounded_and_given_back():
    budget = Budget(6)
    async with mirror(MirrorSettings(budget=budget)) as (receiver, got):
        for _ in range(3):
            await ask(receiver, POST + b"Content-Length: 5\r\n\r\nhello")
        await ask(receiver, POST + b"Content-Length: 7\r\n\r\nhello..")
    assert [request.body for request in got] == [b"hello", b"hello", b"hello", None]
    assert receiver.accounts.incomplete == {"no memory for the body": 1}
    assert budget.used == 0


async def test_a_slow_client_is_ended_and_an_idle_one_is_not_counted():
    limits = Limits(head_s=0.05, idle_s=0.05)
    async with mirror(MirrorSettings(limits=limits)) as (receiver, _got):
        assert await ask(receiver, b"GET / HT", ends=False) == b""
        assert await ask(receiver, ends=False) == b""
        assert receiver.accounts.counts[HALF_HEADS] == 1
        assert receiver.accounts.counts["timed out in a head"] == 1


async def test_a_drain_ends_idle_connections_and_finishes_requests():
    async with mirror() as (receiver, got):
        busy = await trio.open_tcp_stream("127.0.0.1", receiver.server.port)
        idle = await trio.open_tcp_stream("127.0.0.1", receiver.server.port)
        await busy.send_all(POST + b"Content-Length: 5\r\n\r\nhe")
        await trio.sleep(0.05)
        receiver.server.drain()
        with trio.fail_after(5):
            assert await idle.receive_some(10) == b""
        await busy.send_all(b"llo")
        assert (await busy.receive_some(1_000)).startswith(b"HTTP/1.1 204")
    assert got[0].body == b"hello"


async def test_without_descriptors_new_connections_wait(monkeypatch):
    monkeypatch.setattr("replay.recording.listening.raise_file_limit", lambda files: 1)
    async with mirror() as (receiver, got):
        first = await trio.open_tcp_stream("127.0.0.1", receiver.server.port)
        await trio.sleep(0.02)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, receiver, POST + b"\r\n")
            await trio.sleep(0.05)
            assert not got
            await first.aclose()
    assert len(got) == 1
    assert receiver.accounts.counts["waits for descriptors"] >= 1


async def test_a_malformed_body_is_not_taken_for_a_request_that_broke_off():
    async with mirror() as (receiver, got):
        back = await ask(receiver, POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX")
    assert back.startswith(b"HTTP/1.1 400") and not got
    assert receiver.accounts.lost == {BAD_BODY: 1} and sum(receiver.accounts.refused.values()) == 1


@pytest.mark.parametrize("holds", [True, False])
async def test_the_memory_of_a_body_is_reserved_until_its_owner_gives_it_back(holds):
    budget = Budget(1_000)
    async with mirror(MirrorSettings(budget=budget, holds_bodies=holds)) as (receiver, got):
        await ask(receiver, POST + b"Content-Length: 5\r\n\r\nhello")
        await ask(receiver, POST + b"Content-Length: 5\r\n\r\nhe")
        await ask(receiver, POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX")
    assert len(got) == 1 and budget.used == (5 if holds else 0)
