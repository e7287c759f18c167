"""HTTP/1.1 for the portable engine: trio streams and h11, by TLS where it is set."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable

import h11
import trio

from replay_native.addresses import A
from replay_native.bank import MALFORMED, RESET, TLS, TRUNCATED, Bank

from .addresses import AddressTable
from .contract import Address
from .protocol import Outcome, Request
from .tls import Tls, python_context

RECEIVE_BYTES = 65_536
SENT_AT_ONCE_BYTES = 16_384
"""A new socket takes this much without waiting."""

_ENDED = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ANY_REQUEST = {
    to_head: h11.Request(method=b"HEAD" if to_head else b"GET", target=b"/", headers=[(b"Host", b"any")])
    for to_head in (False, True)
}
"""What h11 is told of a request whose bytes were rendered elsewhere: the method frames the answer."""

_END = h11.EndOfMessage()


class HandshakeError(OSError):
    """A connection was there, but could not be secured."""


class Http:
    """Connects to the addresses of a lane's table in turn; by TLS with `tls`.

    `on_handshake(resumed, took_ns)` is called after each handshake; a failed one has -1 for its time.
    """

    def __init__(
        self,
        bank: Bank,
        header_limit_bytes: int,
        *,
        tls: Tls | None = None,
        on_handshake: Callable[[bool, int], None] = lambda resumed, took_ns: None,
        first: int = 0,
        ask: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._ask = ask
        self._table, self._counts = AddressTable(bank), bank.address_counts
        self._version, self._next = -1, first
        self._chosen: list[tuple[int, Address]] = []
        self._header_limit_bytes = header_limit_bytes
        self._tls = tls
        self._context = python_context(tls) if tls is not None else None
        self._on_handshake = on_handshake
        self._sessions: dict[int, ssl.SSLSession] = {}

    async def connect(self, client: int) -> HttpConnection:
        """Connect to the next address; a client resumes sessions of its own.

        OSError where that fails, HandshakeError where it cannot be secured.
        """
        row, address = await self._asked_address(self._ask) if self._ask is not None else self._next_address()
        sock = socket.socket(socket.AF_INET6 if address.ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            waiting = trio.socket.from_stdlib_socket(sock)
            self._counts[row, A.connects] += 1
            await waiting.connect((address.host, address.port))
            stream = trio.SocketStream(waiting)
            if self._context is None:
                return HttpConnection(stream, sock, stream, self._header_limit_bytes, row)
            keep = functools.partial(self._keep_session, client)
            secured = await self._secure(stream, self._context, client)
        except BaseException:
            self._counts[row, A.connects_failed] += 1
            sock.close()
            raise
        return HttpConnection(stream, sock, secured, self._header_limit_bytes, row, keep)

    async def _asked_address(self, ask: Callable[[], Awaitable[int]]) -> tuple[int, Address]:
        """The address that a lookup for this connection alone found."""
        row = await ask()
        return row, dict(self._table.chosen())[row]

    def _next_address(self) -> tuple[int, Address]:
        """The next row in use and its address; the last known ones where the table has none."""
        if self._version != self._table.version:
            self._version = self._table.version
            self._chosen = self._table.chosen() or self._chosen
        self._next += 1
        return self._chosen[(self._next - 1) % len(self._chosen)]

    async def _secure(
        self, plain: trio.SocketStream, context: ssl.SSLContext, client: int
    ) -> trio.SSLStream[trio.SocketStream]:
        assert self._tls is not None
        secured = trio.SSLStream(
            plain, context, server_hostname=self._tls.server_name or None, https_compatible=True
        )
        if client in self._sessions:
            secured.session = self._sessions[client]
        begun_ns = time.monotonic_ns()
        took_ns = -1
        try:
            await secured.do_handshake()
            took_ns = time.monotonic_ns() - begun_ns
        except trio.BrokenResourceError as error:
            raise HandshakeError(str(error.__cause__ or error)) from None
        finally:
            self._on_handshake(took_ns >= 0 and secured.session_reused, took_ns)
        return secured

    def _keep_session(self, client: int, secured: trio.SSLStream[trio.SocketStream]) -> None:
        """Of TLS 1.3 a session can be resumed once its ticket has come: with the first answer, at the latest."""
        session: ssl.SSLSession | None = secured.session
        if self._tls is not None and self._tls.resume and session and (session.has_ticket or session.id):
            self._sessions[client] = session


class HttpConnection:
    """One connection, one request at a time."""

    def __init__(
        self,
        plain: trio.SocketStream,
        sock: socket.socket,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
        header_limit_bytes: int,
        address: int,
        keep_session: Callable[[trio.SSLStream[trio.SocketStream]], None] | None = None,
    ) -> None:
        self.address = address
        self._plain, self._socket = plain, sock
        self._stream = stream
        self._header_limit_bytes = header_limit_bytes
        self._keep_session = keep_session

    async def send(self, request: Request) -> Outcome:
        """Send one request and read its answer."""
        outcome = await Exchange(self._stream, request, self._header_limit_bytes).run()
        if (
            self._keep_session is not None
            and not outcome.failure
            and isinstance(self._stream, trio.SSLStream)
        ):
            self._keep_session(self._stream)
            self._keep_session = None
        return outcome

    def is_open(self) -> bool:
        """Nothing to read (an end, or bytes that nobody asked for), as far as the socket knows.

        By TLS there may be: tickets, or a goodbye, before which the end itself is looked for.
        """
        if self._stream is not self._plain:
            poller = select.poll()
            poller.register(self._socket, _ENDED)
            return not poller.poll(0)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self, *, abort: bool = False) -> None:
        """Close the socket; with `abort` by RST, so that its port is free at once."""
        if abort:
            with contextlib.suppress(OSError):
                self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._plain.socket.close()


class Exchange:
    """One request and its answer on a stream."""

    def __init__(self, stream: trio.abc.Stream, request: Request, header_limit_bytes: int) -> None:
        self._stream = stream
        self._request = request
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=header_limit_bytes)
        self._parser.send(_ANY_REQUEST[request.is_head])
        self._parser.send(_END)
        self._status = 0
        self._all_sent = False

    async def run(self) -> Outcome:
        """Send and receive; how it ended. What may not go out at once is sent while the answer is awaited."""
        if len(self._request.data) <= SENT_AT_ONCE_BYTES:
            await self._send()
            return await self._receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            outcome = await self._receive()
            nursery.cancel_scope.cancel()
        return outcome

    async def _send(self) -> None:
        # What a broken connection means, the reader says: the answer may be there already.
        with contextlib.suppress(trio.BrokenResourceError):
            await self._stream.send_all(self._request.data)
            self._request.bytes_sent += len(self._request.data)
            self._all_sent = True

    async def _receive(self) -> Outcome:
        request = self._request
        while True:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except trio.BrokenResourceError as error:
                if isinstance(error.__cause__, ssl.SSLError):
                    return Outcome(failure=TLS)
                return Outcome(failure=RESET, stale=request.first_byte_ns < 0)
            if data:
                if request.first_byte_ns < 0:
                    request.first_byte_ns = time.monotonic_ns()
                request.bytes_received += len(data)
            elif request.first_byte_ns < 0:
                return Outcome(failure=TRUNCATED, stale=True)
            try:
                self._parser.receive_data(bytes(data))
                whole = self._parse()
            except h11.RemoteProtocolError:
                return Outcome(failure=MALFORMED if data else TRUNCATED)
            if whole:
                return self._answered()
            if not data:
                return Outcome(failure=TRUNCATED)

    def _parse(self) -> bool:
        """Take in what has come; whether the answer is whole."""
        while True:
            event = self._parser.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return False
            if isinstance(event, h11.InformationalResponse):
                self._request.informational += 1
            elif isinstance(event, h11.Response):
                self._status = event.status_code
                self._request.answer_headers = list(event.headers)
            elif isinstance(event, h11.Data):
                self._keep(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return True

    def _keep(self, data: bytes | bytearray) -> None:
        """Keep as much of the body as is looked at."""
        request = self._request
        if request.is_looked_at:
            request.answer_body += data[: max(0, request.answer_limit - len(request.answer_body))]
            request.answer_size += len(data)

    def _answered(self) -> Outcome:
        quiet = not self._parser.trailing_data[0]
        reusable = self._all_sent and quiet and self._parser.their_state is h11.DONE
        return Outcome(status=self._status, reusable=reusable)
