"""HTTP/1.1 for the portable engine: Trio streams with the parser of the native lane.

Because they share the parser, both engines read responses in the same way.
"""

from __future__ import annotations

import contextlib
import functools
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import trio

from replay.lane.tls import Tls, python_context
from replay.portable.protocol import (
    Connection,
    HandshakeError,
    Outcome,
    Request,
    Transport,
)
from replay.portable.turns import Turns
from replay_native.feed.addresses import A
from replay_native.http1 import parser as http1
from replay_native.ledger.lane_metrics import (
    BEGINNING_BYTES,
    MALFORMED,
    RESET,
    TLS,
    TRUNCATED,
    LaneMetrics,
)

from .keeping import ResponseKeeping

RECEIVE_BYTES = 65_536
SENT_AT_ONCE_BYTES = 16_384
"""A socket with an empty send buffer accepts this much without blocking."""

_ENDED = select.POLLERR | select.POLLHUP | getattr(select, "POLLRDHUP", 0)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_UNTIL_SECRETS = re.compile(rb"[^\r\n:=]*")
"""The beginning of a response's first line, up to a character after which a secret may follow."""

OK_STATUS, END_OF_STATUSES = 200, 600


class Http(Transport):
    """Connects to the addresses of a lane's table in turn; over TLS with `tls`.

    `on_handshake(resumed, took_ns)` is called after each handshake. If the handshake failed, `took_ns` is -1.
    """

    def __init__(
        self,
        metrics: LaneMetrics,
        header_limit_bytes: int,
        *,
        tls: Tls | None = None,
        on_handshake: Callable[[bool, int], None] = lambda resumed, took_ns: None,
        first: int = 0,
        ask: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._turns, self._counts = Turns(metrics, first, ask), metrics.address_counts
        self._header_limit_bytes = header_limit_bytes
        self._tls = tls
        self._context = python_context(tls) if tls is not None else None
        self._on_handshake = on_handshake
        self._sessions: dict[int, ssl.SSLSession] = {}
        self.keeping: ResponseKeeping | None = None
        """Keeps responses; None if none are kept."""

    async def connect(self, client: int) -> HttpConnection:
        """Connect to the next address, and resume the client's last TLS session if one is kept.

        Shared connections (client -1) have one session together. OSError if connecting fails, HandshakeError if the TLS
        handshake fails.
        """
        row, address = await self._turns.next()
        sock = socket.socket(socket.AF_INET6 if address.ipv6 else socket.AF_INET, socket.SOCK_STREAM)
        try:
            waiting = trio.socket.from_stdlib_socket(sock)
            self._counts[row, A.connects] += 1
            await waiting.connect((address.host, address.port))
            stream = trio.SocketStream(waiting)
            if self._context is None:
                plain = HttpConnection(stream, sock, stream, self._header_limit_bytes, row)
                plain.keeping = self.keeping
                return plain
            keep = functools.partial(self._keep_session, client)
            secured = await self._secure(stream, self._context, client)
        except BaseException:
            self._counts[row, A.connects_failed] += 1
            sock.close()
            raise
        connection = HttpConnection(stream, sock, secured, self._header_limit_bytes, row, keep)
        connection.keeping = self.keeping
        return connection

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
        """Keep the TLS session of a client for its next connection, if sessions are to be resumed.

        In TLS 1.3 a session can be resumed only once its ticket has arrived, which is with the first response
        at the latest.
        """
        session: ssl.SSLSession | None = secured.session
        if self._tls is not None and self._tls.resume and session and (session.has_ticket or session.id):
            self._sessions[client] = session


class HttpConnection(Connection):
    """One connection, which sends one request at a time."""

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
        self._is_fresh = True
        self.keeping: ResponseKeeping | None = None

    async def send(self, request: Request) -> Outcome:
        """Send one request and read its response."""
        exchange = Exchange(self._stream, request, self._header_limit_bytes, is_fresh=self._is_fresh)
        exchange.keeping = self.keeping
        outcome = await exchange.run()
        self._is_fresh = False
        if (
            self._keep_session is not None
            and not outcome.failure
            and isinstance(self._stream, trio.SSLStream)
        ):
            self._keep_session(self._stream)
            self._keep_session = None
        return outcome

    def is_open(self) -> bool:
        """Return whether nothing has arrived on an idle connection, neither its end nor unexpected bytes.

        Over TLS, tickets or a close_notify may arrive at any time, so only the end of the TCP connection is
        checked.
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
        """Close the socket. With `abort`, send RST so that its port is free at once."""
        if abort:
            with contextlib.suppress(OSError):
                self._plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._plain.socket.close()


class Exchange:
    """One request and its response on a stream."""

    def __init__(
        self, stream: trio.abc.Stream, request: Request, header_limit_bytes: int, *, is_fresh: bool
    ) -> None:
        self._stream = stream
        self._request = request
        self._header_limit_bytes = header_limit_bytes
        self._is_fresh = is_fresh
        self._parsers = np.zeros(1, http1.PARSER)
        self._parsers["to_head"] = request.is_head
        self._beginning = b""
        self._all_sent = False
        self.keeping: ResponseKeeping | None = None

    async def run(self) -> Outcome:
        """Send the request, read its response, and return the outcome.

        If the request is larger than SENT_AT_ONCE_BYTES, it is sent while the response is awaited.
        """
        if len(self._request.data) <= SENT_AT_ONCE_BYTES:
            await self._send()
            return await self._receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            outcome = await self._receive()
            nursery.cancel_scope.cancel()
        return outcome

    async def _send(self) -> None:
        # The reader decides what a broken connection means, because the response may already have arrived.
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
            if not data:
                return self._ended()
            outcome = self._parse(bytearray(data))
            if outcome is not None:
                return outcome

    def _ended(self) -> Outcome:
        """Handle the end of the connection: only a response that ends with the connection is complete."""
        if self._request.first_byte_ns >= 0 and http1.parsed_to_end(self._parsers):
            return self._answered(reusable=False)
        return Outcome(failure=TRUNCATED, stale=self._request.first_byte_ns < 0)

    def _parse(self, data: bytearray) -> Outcome | None:
        """Parse the received data, and return the outcome; None while the response is incomplete."""
        request, parser = self._request, self._parsers[0]
        if request.first_byte_ns < 0:
            request.first_byte_ns = time.monotonic_ns()
            self._beginning = _beginning(data)
            if self.keeping is not None:
                self.keeping.begin(request)
        request.bytes_received += len(data)
        taken = self._take(np.frombuffer(data, np.uint8))
        request.informational = int(parser["informational"])
        if not self._is_fresh and http1.shows_idle_close(self._parsers):
            return Outcome(failure=TRUNCATED, stale=True, unread=True)
        if parser["parse_state"] == http1.BAD:
            return self._malformed(int(parser["reason"]))
        if request.is_evaluated:
            request.answer += data[: max(0, min(taken, request.answer_limit - len(request.answer)))]
            request.answer_bytes += taken
        if parser["parse_state"] != http1.DONE:
            return None
        return self._answered(reusable=self._all_sent and taken == len(data))

    def _take(self, data: npt.NDArray[np.uint8]) -> int:
        """Parse `data`, and return how many bytes of it belong to the response."""
        if self.keeping is not None:
            return self.keeping.parse(self._parsers, self._request, data, self._header_limit_bytes)
        return int(http1.parse_on(self._parsers, data, self._header_limit_bytes))

    def _malformed(self, reason: int) -> Outcome:
        return Outcome(failure=MALFORMED, reason=reason, beginning=self._beginning)

    def _answered(self, *, reusable: bool) -> Outcome:
        """Return the outcome of a complete response. It is malformed if its status is not from 200 to 599."""
        parser = self._parsers[0]
        status = int(parser["status"])
        if not OK_STATUS <= status < END_OF_STATUSES:
            return replace(self._malformed(http1.STATUS_RANGE), status=status)
        self._request.answer_size = int(parser["body_bytes"])
        return Outcome(status=status, reusable=reusable and bool(http1.allows_another(self._parsers)))


def _beginning(data: bytes | bytearray) -> bytes:
    """Return the beginning of a response that a sample of malformed responses may show, without secrets."""
    return _UNTIL_SECRETS.match(data[:BEGINNING_BYTES])[0]  # type: ignore[index]
