"""The recording proxy when something goes wrong on either side: traffic passes, and what is lost is counted."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from replay.errors import LimitError, UsageError
from replay.plan.safety import allowed_hosts
from replay.protocols.url import parse_url
from replay.recording.listening import Limits
from replay.recording.receiver import HALF_REQUEST, fixed_limit
from replay.recording.turns import CLIENT_LEFT, DOWN, EARLY, NOT_UNDERSTOOD, SERVICE_ENDED, ProxySettings
from replay.recording.upstream import Upstream
from tests.support.raw_service import GET, OK, POST, RawConnection, answers, proxy_to, raw_service, rest
from tests.support.there import there

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
    assert (exchange.status, exchange.took_ns, there(exchange.response).complete) == (200, -1, False)
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
    assert [(each.body, each.body_bytes, there(each.response).body) for each in running.got] == [
        (None, 5, None)
    ]


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


async def test_a_slow_service_is_not_the_clients_fault():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await trio.sleep(0.8)
        await connection.until(b"the end")
        await connection.say(OK)

    body = bytes(16 << 20) + b"the end"
    settings = ProxySettings(limits=Limits(head_s=0.3, body_s=0.3, idle_s=0.3))
    async with raw_service(handle) as service, proxy_to(service.port, settings) as running:
        assert await running.ask(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body, ends=False) == OK
    assert not running.accounts.lost


async def test_a_refused_request_waits_for_the_responses_before_it():
    async def handle(connection: RawConnection) -> None:
        await connection.until(b"\r\n\r\n")
        await trio.sleep(0.8)
        await connection.say(OK)
        await connection.more()

    settings = ProxySettings(limits=Limits(head_s=0.2, body_s=0.2, idle_s=0.2))
    async with raw_service(handle) as service, proxy_to(service.port, settings) as running:
        back = await running.ask(GET + BAD, ends=False)
    assert back.startswith(OK + b"HTTP/1.1 400 ")
    assert service.received == [GET]


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


@pytest.mark.parametrize("rest", ["@x", "@x:99999", "@x/path", "@x:a", "@", "@x\uff03"])
@pytest.mark.parametrize("scheme", ["http://", "ftp://", ""])
def test_a_password_in_a_url_is_never_printed(scheme, rest):
    url = f"{scheme}ann:s3cret{rest}"
    with pytest.raises(UsageError) as upstream:
        Upstream(url, allowed_hosts([]))
    with pytest.raises(UsageError) as target:
        parse_url(url, 80)
    for refused in (upstream.value, target.value):
        assert "s3cret" not in f"{refused} {refused.hint}"


async def test_a_service_beyond_loopback_must_be_allowed():
    with pytest.raises(LimitError):
        await Upstream("http://192.0.2.1:80", allowed_hosts([])).check()
    await Upstream("http://192.0.2.1:80", allowed_hosts(["192.0.2.1"])).check()
