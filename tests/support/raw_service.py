"""A service of a test's own on a real socket: it sees the raw bytes that a proxy passes on, and answers with raw bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio


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
