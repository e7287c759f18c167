"""A service of a test's own, which sees the raw bytes that a proxy passes on, and answers with raw bytes; and the proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from replay.plan.safety import allowed_hosts
from replay.recording.exchange import Accounts, Exchange
from replay.recording.listening import listen
from replay.recording.proxy import Proxy
from replay.recording.turns import ProxySettings
from replay.recording.upstream import Upstream


class RawConnection:
    """One connection to the service. `received` is everything that came."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream, self.received = stream, bytearray()

    async def until(self, end: bytes) -> None:
        """Read until `end` has come."""
        while end not in self.received and await self.more():
            pass

    async def more(self) -> bool:
        """Read more; False at the end."""
        data = await self.stream.receive_some(65_536)
        self.received += data
        return bool(data)

    async def say(self, *pieces: bytes) -> None:
        """Send pieces, a moment apart."""
        for piece in pieces:
            await self.stream.send_all(piece)
            await trio.sleep(0.005)


Handle = Callable[[RawConnection], Awaitable[None]]


class RawService:
    """What came to the service so far."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections: list[RawConnection] = []

    @property
    def received(self) -> list[bytes]:
        """What came, by connection."""
        return [bytes(connection.received) for connection in self.connections]


@asynccontextmanager
async def raw_service(handle: Handle) -> AsyncIterator[RawService]:
    """A service whose connections `handle` serves; what it leaves open is closed."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    service = RawService(listener.socket.getsockname()[1])

    async def serve(stream: trio.SocketStream) -> None:
        connection = RawConnection(stream)
        service.connections.append(connection)
        try:
            await handle(connection)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield service
        nursery.cancel_scope.cancel()


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
