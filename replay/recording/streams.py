"""Sockets for the recorders: plain ones, which bypass the scheduler when data is ready, and TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from typing import Protocol

import trio

TURNS_MAX = 16
"""How many reads in a row may find data waiting before other tasks get a turn."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Stream(Protocol):
    """A connection to a client or to the service. Errors of the connection are raised as OSError."""

    async def receive(self, bytes_max: int) -> bytes:
        """Return the next bytes, or b"" if the peer has ended its direction."""
        ...

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of the data."""
        ...

    async def end(self) -> None:
        """Signal that nothing more will be sent, if the protocol can."""
        ...

    def close(self, *, reset: bool = False) -> None:
        """Close the connection at once; with `reset`, the peer sees an error instead of an orderly end."""
        ...


class PlainStream:
    """A plain TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._turns = sock, 0

    async def receive(self, bytes_max: int) -> bytes:
        """Return the next bytes, or b"" if the peer has ended its direction."""
        while True:
            try:
                data = self._socket.recv(bytes_max)
            except (BlockingIOError, InterruptedError):
                self._turns = 0
                await trio.lowlevel.wait_readable(self._socket)
                continue
            self._turns += 1
            if self._turns >= TURNS_MAX:
                self._turns = 0
                await trio.lowlevel.checkpoint()
            return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of the data."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                try:
                    at += self._socket.send(view[at:])
                except (BlockingIOError, InterruptedError):
                    await trio.lowlevel.wait_writable(self._socket)

    def send_now(self, data: bytes) -> None:
        """Send as much as the socket accepts at once, and ignore errors."""
        with contextlib.suppress(OSError):
            self._socket.send(data)

    async def end(self) -> None:
        """Close the sending direction."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """Close both directions; with `reset`, the peer sees an error."""
        with contextlib.suppress(OSError, ValueError):
            trio.lowlevel.notify_closing(self._socket)
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()


class TlsStream:
    """A TLS connection on a TCP socket. `secure` must be called before the other methods."""

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool, name: str | None = None
    ) -> None:
        self._socket = sock
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inner = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._tls = trio.SSLStream(
            inner, context, server_hostname=name, server_side=server_side, https_compatible=True
        )

    async def secure(self) -> None:
        """Perform the handshake. Raises OSError, or its subclass ssl.SSLError, if it fails."""
        with _os_errors():
            await self._tls.do_handshake()

    async def receive(self, bytes_max: int) -> bytes:
        """Return the next bytes, or b"" if the peer has ended the connection."""
        with _os_errors():
            return bytes(await self._tls.receive_some(bytes_max))

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of the data."""
        with _os_errors():
            await self._tls.send_all(bytes(data))

    async def end(self) -> None:
        """Do nothing, because a TLS connection ends both directions at once."""

    def close(self, *, reset: bool = False) -> None:
        """Close the connection without close_notify; with `reset`, the peer sees an error."""
        with contextlib.suppress(OSError, ValueError):
            trio.lowlevel.notify_closing(self._socket)
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Convert Trio's stream errors to OSError."""
    try:
        yield
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        cause = error.__cause__
        raise (cause if isinstance(cause, OSError) else ConnectionResetError("broken")) from None
