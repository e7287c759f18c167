"""The recording proxy: bytes pass unchanged in both directions, and what was seen is handed over."""

from __future__ import annotations

from replay.recording.turns import UPGRADES
from replay.trace.responses import body_digest
from tests.support.raw_service import GET, OK, POST, RawConnection, answers, proxy_to, raw_service, rest
from tests.support.there import there


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
    assert (exchange.body, there(exchange.response).body) == (b"abcde", b"wiki")


async def test_pipelined_requests_get_their_responses_in_order():
    other = OK.replace(b"hello", b"again")
    async with raw_service(answers(OK, other)) as service, proxy_to(service.port) as running:
        back = await running.ask(GET + POST + b"Content-Length: 2\r\n\r\nok")
        assert back == OK + other
    assert [(each.method, there(each.response).body) for each in running.got] == [
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
    assert [(each.status, there(each.response).size) for each in running.got] == [
        (200, 0),
        (204, 0),
        (304, 0),
    ]


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
    assert (there(exchange.response).size, there(exchange.response).cut) == (size, True)
    assert there(exchange.response).digest == body_digest(half + half)


async def test_a_body_that_the_end_of_the_connection_ends():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await connection.say(b"HTTP/1.0 200 OK\r\n\r\nun", b"til")

    async with raw_service(handle) as service, proxy_to(service.port) as running:
        assert await running.ask(GET, ends=False) == b"HTTP/1.0 200 OK\r\n\r\nuntil"
    assert there(running.got[0].response).body == b"until"
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
