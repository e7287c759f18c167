"""The recording proxy: bytes pass unchanged in both directions, whatever happens, and what was seen is handed over."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from replay.errors import LimitError, UsageError
from replay.plan.safety import allowed_hosts
from replay.recording.exchange import Accounts, Exchange
from replay.recording.listening import Limits, listen
from replay.recording.proxy import (
    CLIENT_LEFT,
    DOWN,
    EARLY,
    NOT_UNDERSTOOD,
    SERVICE_ENDED,
    UPGRADES,
    Proxy,
    ProxySettings,
)
from replay.recording.receiver import HALF_REQUEST, fixed_limit
from replay.recording.upstream import Upstream
from replay.trace.responses import body_digest
from tests.support.raw_service import RawConnection, raw_service

GET = b"GET /a?b=1 HTTP/1.1\r\nhOsT: x\r\nX-Odd:   two  blanks \t\r\nConnection: Keep-Alive\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: x\r\n"
OK = b"HTTP/1.1 200 Fine\r\ncontent-LENGTH: 5\r\nX: \t y\r\n\r\nhello"


class Running:
    """A proxy under test."""

    def __init__(self, proxy: Proxy, got: list[Exchange]) -> None:
        self.proxy, self.got, self.accounts = proxy, got, proxy.accounts

    async def open(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.proxy.server.port)

    async def ask(self, *pieces: bytes, ends: bool = True) -> bytes:
        """Send pieces; what comes back until the connection ends."""
        async with await self.open() as stream:
            for piece in pieces:
                await stream.send_all(piece)
                await trio.sleep(0.01)
            if ends:
                await stream.send_eof()
            return await rest(stream)


async def rest(stream: trio.SocketStream) -> bytes:
    back = bytearray()
    with trio.fail_after(10):
        while data := await stream.receive_some(65_536):
            back += data
    return bytes(back)


@asynccontextmanager
async def proxy_to(port: int, settings: ProxySettings | None = None) -> AsyncIterator[Running]:
    got: list[Exchange] = []
    upstream = Upstream(f"http://127.0.0.1:{port}", allowed_hosts([]))
    await upstream.check()
    settings = settings or ProxySettings(response_limit=1_000)
    proxy = Proxy(
        listen("127.0.0.1", 0), upstream, got.append, settings, accounts=Accounts(), say=lambda line: None
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.server.serve)
        yield Running(proxy, got)
        proxy.server.drain()


def answers(*responses: bytes, head_end: bytes = b"\r\n\r\n"):
    """A service that gives these responses, each once another request has come."""

    async def handle(connection: RawConnection) -> None:
        for number, response in enumerate(responses, 1):
            while connection.received.count(head_end) < number:
                if not await connection.more():
                    return
            await connection.say(response)
        while await connection.more():
            pass

    return handle


async def test_bytes_pass_unchanged_in_both_directions():
    async with raw_service(answers(OK)) as service, proxy_to(service.port) as running:
        assert await running.ask(GET) == OK
        (exchange,) = running.got
    assert service.received == [GET]
    assert (exchange.method, exchange.target, exchange.host) == ("GET", b"/a?b=1", "x")
    assert exchange.status == 200
    assert 0 <= exchange.first_byte_ns <= exchange.took_ns
    response = exchange.response
    assert response is not None
    assert (response.size, response.body, response.complete) == (5, b"hello", True)
    assert response.digest == body_digest(b"hello")


async def test_chunks_pass_as_they_were_cut():
    request = POST + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0002\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n"
    response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n"
    handle = answers(response, head_end=b"X-Sum: 1\r\n\r\n")
    async with raw_service(handle) as service, proxy_to(service.port) as running:
        assert await running.ask(*(request[i : i + 7] for i in range(0, len(request), 7))) == response
        (exchange,) = running.got
    assert service.received == [request]
    assert (exchange.body, exchange.response.body) == (b"abcde", b"wiki")


async def test_pipelined_requests_get_their_responses_in_order():
    other = OK.replace(b"hello", b"again")
    async with raw_service(answers(OK, other)) as service, proxy_to(service.port) as running:
        back = await running.ask(GET + POST + b"Content-Length: 2\r\n\r\nok")
        assert back == OK + other
    assert [(each.method, each.response.body) for each in running.got] == [
        ("GET", b"hello"),
        ("POST", b"again"),
    ]


async def test_a_head_request_and_204_and_304_have_no_body():
    head = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    to_head = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    same = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"
    async with raw_service(answers(to_head, empty, same)) as service, proxy_to(service.port) as running:
        assert await running.ask(head + GET + GET) == to_head + empty + same
    assert [(each.status, each.response.size) for each in running.got] == [(200, 0), (204, 0), (304, 0)]


async def test_100_continue_passes_before_the_body():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.until(b"late")
        await connection.say(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK)

    async with (
        raw_service(handle) as service,
        proxy_to(service.port) as running,
        await running.open() as stream,
    ):
        await stream.send_all(POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert await stream.receive_some(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send_all(b"late")
        await stream.send_eof()
        assert (await rest(stream)).endswith(OK)
    assert [(each.status, each.body) for each in running.got] == [(200, b"late")]


async def test_uploads_and_downloads_stream():
    """Neither waits for its end: the service answers the first half before the second one is sent."""
    size = 3 << 20

    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        sent = 0
        head = connection.received.index(b"\r\n\r\n") + 4
        while sent < size:
            have = len(connection.received) - head
            if have > sent:
                await connection.stream.send_all(connection.received[head + sent : head + have])
                sent = have
            else:
                await connection.more()

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        async with await running.open() as stream:
            await stream.send_all(POST + b"Content-Length: %d\r\n\r\n" % size)
            half, back = bytes(range(256)) * (size // 512), bytearray()
            for _ in range(2):
                wanted = len(back) + len(half) + (0 if back else 44)
                await stream.send_all(half)
                while len(back) < wanted - 10:
                    back += await stream.receive_some(1 << 16)
        (exchange,) = running.got
    assert back[-size:] == half + half
    assert (exchange.body, exchange.body_bytes) == (None, size)
    assert (exchange.response.size, exchange.response.cut) == (size, True)
    assert exchange.response.digest == body_digest(half + half)


async def test_a_body_that_the_end_of_the_connection_ends():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(b"HTTP/1.0 200 OK\r\n\r\nun", b"til")

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        assert await running.ask(GET, ends=False) == b"HTTP/1.0 200 OK\r\n\r\nuntil"
    assert running.got[0].response.body == b"until"
    assert not running.accounts.incomplete


async def test_upgrades_pass_and_are_counted():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: chat\r\nConnection: Upgrade\r\n\r\nwelcome"
        )
        await connection.until(b"GET nonsense\n")
        await connection.say(b"bye")

    ask = b"GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n"
    async with (
        raw_service(handle) as service,
        proxy_to(service.port) as running,
        await running.open() as stream,
    ):
        await stream.send_all(ask)
        assert (await stream.receive_some(1_000)).startswith(b"HTTP/1.1 101")
        await stream.send_all(b"GET nonsense\n")
        assert (await rest(stream)).endswith(b"bye")
    assert running.accounts.counts[UPGRADES] == 1
    assert [each.status for each in running.got] == [101]
    assert service.received == [ask + b"GET nonsense\n"]


BAD = POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"


async def test_an_ambiguous_request_never_reaches_the_service():
    async with raw_service(answers(OK)) as service, proxy_to(service.port) as running:
        assert (await running.ask(BAD)).startswith(b"HTTP/1.1 400 ")
        back = await running.ask(GET + BAD)
        assert back.startswith(OK + b"HTTP/1.1 400 ")
    assert service.received == [GET]
    assert running.accounts.refused == {"both Content-Length and Transfer-Encoding": 2}
    assert len(running.got) == 1


async def test_a_bad_chunk_breaks_off_what_was_passed_on():
    ended = trio.Event()

    async def handle(connection: RawConnection) -> None:
        try:
            while await connection.more():
                pass
        finally:
            ended.set()

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        back = await running.ask(
            POST + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n", b"zz\r\nGET /evil HTTP/1.1\r\n\r\n"
        )
        with trio.fail_after(5):
            await ended.wait()
    assert back.startswith(b"HTTP/1.1 400 ")
    assert b"evil" not in service.received[0]
    assert b"zz" not in service.received[0]
    assert running.accounts.lost == {"malformed body": 1}


async def test_a_service_that_is_down_gives_our_502():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with proxy_to(unused.getsockname()[1]) as running:
            back = await running.ask(POST + b"Content-Length: 2\r\n\r\n", b"ok")
    assert back.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert running.accounts.counts[DOWN] == 1
    (exchange,) = running.got
    assert (exchange.status, exchange.response, exchange.body) == (-1, None, b"ok")


def reset(stream: trio.SocketStream) -> None:
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def test_a_service_that_resets_resets_the_client():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        reset(connection.stream)

    async with (
        raw_service(handle) as service,
        proxy_to(service.port) as running,
        await running.open() as stream,
    ):
        await stream.send_all(GET)
        with pytest.raises(trio.BrokenResourceError):
            await rest(stream)
    assert running.accounts.incomplete == {SERVICE_ENDED: 1}
    assert [each.status for each in running.got] == [-1]


async def test_a_response_that_breaks_off_is_recorded_as_such():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(OK[:-2])

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        assert await running.ask(GET, ends=False) == OK[:-2]
    (exchange,) = running.got
    assert (exchange.status, exchange.took_ns, exchange.response.complete) == (200, -1, False)
    assert running.accounts.incomplete == {SERVICE_ENDED: 1}


async def test_a_client_that_resets_is_no_trouble():
    gone = trio.Event()

    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        try:
            await connection.more()
        finally:
            gone.set()

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        stream = await running.open()
        await stream.send_all(GET)
        await trio.sleep(0.05)
        reset(stream)
        with trio.fail_after(5):
            await gone.wait()
    assert running.accounts.incomplete == {CLIENT_LEFT: 1}
    assert [each.status for each in running.got] == [-1]


async def test_a_client_that_leaves_in_the_middle_of_a_body_is_lost():
    async with raw_service(answers(OK, head_end=b"never")) as service, proxy_to(service.port) as running:
        assert await running.ask(POST + b"Content-Length: 100\r\n\r\nabc") == b""
    assert running.accounts.lost == {HALF_REQUEST: 1}
    assert not running.got


async def test_an_answer_before_the_whole_request_arrives():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        back = await running.ask(POST + b"Content-Length: 100000\r\n\r\n", b"a" * 1_000, ends=False)
    assert back.startswith(b"HTTP/1.1 413")
    assert running.accounts.incomplete == {EARLY: 1}
    assert [(each.status, each.body) for each in running.got] == [(413, None)]


async def test_what_is_no_response_passes_and_is_counted():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(b"SSH-2.0-", b"server\r\n")

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        assert await running.ask(GET + GET, ends=False) == b"SSH-2.0-server\r\n"
    assert set(running.accounts.incomplete) == {NOT_UNDERSTOOD}


async def test_an_idle_service_that_closes_closes_the_client():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(OK)

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        assert await running.ask(GET, ends=False) == OK
    assert not running.accounts.incomplete


async def test_bodies_over_the_limit_pass_whole():
    settings = ProxySettings(body_limit=fixed_limit(4))
    async with raw_service(answers(OK)) as service, proxy_to(service.port, settings) as running:
        await running.ask(POST + b"Content-Length: 5\r\n\r\nhello")
    assert service.received[0].endswith(b"hello")
    assert [(each.body, each.body_bytes, each.response.body) for each in running.got] == [(None, 5, None)]


async def test_a_slow_loris_is_ended_and_a_long_poll_is_not():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await trio.sleep(0.8)
        await connection.say(OK)

    settings = ProxySettings(limits=Limits(head_s=0.1, body_s=0.1, idle_s=0.1))
    async with raw_service(handle) as service, proxy_to(service.port, settings) as running:
        assert await running.ask(b"GET / HT", ends=False) == b""
        assert await running.ask(POST + b"Content-Length: 5\r\n\r\nh", ends=False) == b""
        assert await running.ask(GET, ends=False) == OK
    assert running.accounts.counts["timed out in a head"] == 1
    assert running.accounts.counts["timed out in a body"] == 1


async def test_a_drain_ends_when_the_last_response_is_out():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await trio.sleep(0.2)
        await connection.say(OK)
        await connection.more()

    async with (
        raw_service(handle) as service,
        proxy_to(service.port) as running,
        await running.open() as stream,
    ):
        await stream.send_all(GET)
        await trio.sleep(0.05)
        running.proxy.server.drain()
        assert await rest(stream) == OK
    assert [each.status for each in running.got] == [200]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9000", "ftp://x", "http://x/path", "http://x?y", "http://u:p@x", "http://x:99999", ""]
)
def test_a_url_that_is_no_service_is_refused(url):
    with pytest.raises(UsageError):
        Upstream(url, allowed_hosts([]))


async def test_a_service_beyond_loopback_must_be_allowed():
    with pytest.raises(LimitError):
        await Upstream("http://192.0.2.1:80", allowed_hosts([])).check()
    await Upstream("http://192.0.2.1:80", allowed_hosts(["192.0.2.1"])).check()
