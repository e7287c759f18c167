"""Accepts connections, as many as there are descriptors, and ends those that exceed their time limits.

When the server drains, it accepts no more. Requests in flight have a grace period to complete.
"""

from __future__ import annotations

import contextlib
import errno
import math
import resource
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from replay.errors import UsageError, reason_of
from replay.settings import listening

from .streams import PlainStream, Stream, TlsStream

BACKLOG = 4_096
RESERVED_FILES = 64
"""The number of descriptors that are reserved for the rest of the program."""

CUT_OFF_CONNECTIONS = "connections cut off at the end"

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_AGAIN_S = 0.05
_EXPIRE_EVERY_S = 0.25
_LAST_REQUEST_S = 0.1
"""How long, in seconds, an idle connection may still begin a request after the server starts to drain."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits for a peer, in seconds.

    `head_s` is for the head of a request, `body_s` between two pieces of a body, `idle_s` between two requests, and
    `send_s` for accepting sent data. `grace_s` is for requests in flight during a drain.
    """

    head_s: float = 30.0
    body_s: float = 60.0
    idle_s: float = 600.0
    send_s: float = 60.0
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Begun:
    """What was received and sent on a connection before a task handled it.

    `data` is unread, and its first byte arrived at `at_ns`. `owed` is the unsent rest of a response. With `ends`,
    the connection ends after that response.
    """

    data: bytes
    at_ns: int
    owed: bytes = b""
    ends: bool = False


class Connection:
    """A client's connection.

    `deadline_s` and `send_deadline_s` are on Trio's clock. `idle` is whether the connection is between two
    requests.
    """

    __slots__ = (
        "begun", "deadline_s", "expired", "idle", "peer", "scope", "send_deadline_s", "stream", "waits_for",
    )  # fmt: skip

    def __init__(self, stream: Stream, peer: str, begun: Begun | None = None) -> None:
        self.stream, self.peer, self.begun = stream, peer, begun
        self.scope = trio.CancelScope()
        self.deadline_s = self.send_deadline_s = math.inf
        self.idle, self.expired, self.waits_for = True, False, ""

    def wait_for(self, what: str, seconds: float) -> None:
        """Require data from the peer within this time.

        `what` is the `head` or `body` of a request, or `idle` for the first byte of the next one.
        """
        self.waits_for, self.deadline_s = what, trio.current_time() + seconds


Handle = Callable[[Connection], Awaitable[None]]
Begin = Callable[[socket.socket, str, Begun | None], None]


class Acceptor(Protocol):
    """Accepts connections in place of the server, and passes on those that the server must handle."""

    async def run(self, begin: Begin) -> None:
        """Accept connections until cancelled, and call `begin` for each that the server must handle."""
        ...

    def end(self, begin: Begin) -> None:
        """Stop accepting, and pass on all remaining connections, including those in the system's queue."""
        ...

    def took(self, connections: int) -> None:
        """Note how many connections the server itself handles."""
        ...


def parse_place(text: str) -> tuple[str, int]:
    """Parse HOST:PORT, with brackets around an IPv6 address; `:PORT` is on loopback.

    Raises UsageError if it is invalid.
    """
    place = text.strip()
    try:
        return listening.parse_place(f"127.0.0.1{place}" if place.startswith(":") else place)
    except UsageError:
        raise UsageError(
            f"--listen {text!r} is not HOST:PORT", hint="for example 127.0.0.1:8080, or [::1]:8080"
        ) from None


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises UsageError if the address cannot be used."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(kind, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"--listen {host}:{port}: {reason_of(error)}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        is_taken = error.errno == errno.EADDRINUSE
        raise UsageError(
            f"--listen {host}:{port}: {reason_of(error)}",
            hint="choose another port"
            + (", or end the program that listens there" if is_taken else " or address"),
        ) from None
    return listener


def raise_file_limit(files_each: int) -> int:
    """Raise the limit on descriptors as far as this process may.

    Returns how many connections that need `files_each` descriptors are then possible.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    files = 1 << 20 if soft == resource.RLIM_INFINITY else soft
    return max(1, (files - RESERVED_FILES) // files_each)


class Server:
    """Accepts connections on one socket and handles each in a task of its own.

    When there are no descriptors left, new connections wait in the system's queue; none is refused. `counts` gets
    `connections`, `timed out in a head`, and others. `say` receives each message for the user once.
    """

    def __init__(
        self, listener: socket.socket, handle: Handle, *, files_each: int, limits: Limits, counts: Counter[str],
        say: Say, tls: ssl.SSLContext | None = None, acceptor: Acceptor | None = None,
    ) -> None:  # fmt: skip
        self._acceptor = acceptor
        self._listener, self._handle, self._limits, self._tls = listener, handle, limits, tls
        self.counts, self._say = counts, say
        self._open: set[Connection] = set()
        self._accepted = 0
        self.connections_max, self._freed = raise_file_limit(files_each), trio.Event()
        self._reported: set[str] = set()
        self._serving: trio.CancelScope | None = None
        self._accepting = trio.CancelScope()
        self.draining = False

    @property
    def port(self) -> int:
        """Return the port on which the server listens."""
        return int(self._listener.getsockname()[1])

    async def serve(self) -> None:
        """Serve until `drain` is called, and then until all connections have ended or are cut off."""
        async with trio.open_nursery() as background:
            background.start_soon(self._expire)
            async with trio.open_nursery() as nursery:
                begin = partial(self._begin, nursery)
                with self._accepting:
                    await (self._accept(begin) if self._acceptor is None else self._acceptor.run(begin))
                self._serving = nursery.cancel_scope
                self._accept_the_last(begin)
                background.start_soon(self._end_after_grace)
            background.cancel_scope.cancel()

    def drain(self) -> None:
        """Stop accepting, close connections that stay idle, and let the others finish their request."""
        if self.draining:
            return
        self.draining = True
        self._accepting.cancel()
        for connection in self._open:
            if connection.idle:
                self.wait_idle(connection)

    def abort(self) -> None:
        """Cut off all connections that are still open. It has an effect only during a drain."""
        if self._serving is not None:
            self.counts[CUT_OFF_CONNECTIONS] += len(self._open)
            self._serving.cancel()

    def wait_idle(self, connection: Connection) -> None:
        """Mark a connection as idle; its next request must begin within the time limit."""
        connection.idle = True
        connection.wait_for("idle", _LAST_REQUEST_S if self.draining else self._limits.idle_s)

    def _accept_the_last(self, begin: Begin) -> None:
        """Accept the connections that are already waiting, up to the limit, then stop listening."""
        if self._acceptor is not None:
            self._acceptor.end(begin)
        with contextlib.suppress(OSError):
            while self._acceptor is None and self._accepted < self.connections_max:
                sock, address = self._listener.accept()
                begin(sock, str(address[0]), None)
        self._listener.close()

    async def _end_after_grace(self) -> None:
        await trio.sleep(self._limits.grace_s)
        self.abort()

    def say_once(self, line: str) -> None:
        """Report a message to the user, but only the first time."""
        if line not in self._reported:
            self._reported.add(line)
            self._say(line)

    def say_waits(self) -> None:
        """Count that new connections have to wait, and report it once."""
        self.counts["waits for descriptors"] += 1
        self.say_once(
            f"{self.connections_max:,} connections are open, and no descriptors are left: new connections wait"
            " (to allow more, raise the hard limit, as root with ulimit -n)"
        )

    async def _accept(self, begin: Begin) -> None:
        while True:
            while self._accepted >= self.connections_max:
                self.say_waits()
                self._freed = trio.Event()
                await self._freed.wait()
            sock, peer = await self._next()
            begin(sock, peer, None)
            await trio.lowlevel.checkpoint()

    def _begin(self, nursery: trio.Nursery, sock: socket.socket, peer: str, begun: Begun | None) -> None:
        self._changes(1)
        nursery.start_soon(self._connection, sock, peer, begun)

    def _changes(self, by: int) -> None:
        """Add `by` to the number of open connections, and report that number to the acceptor."""
        self._accepted += by
        if self._acceptor is not None:
            self._acceptor.took(self._accepted)

    async def _next(self) -> tuple[socket.socket, str]:
        """Wait for the next connection, and return it with the peer's address."""
        while True:
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                await trio.lowlevel.wait_readable(self._listener)
                continue
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self.counts["accept failed"] += 1
                self.say_once(f"new connections have to wait: {reason_of(error)}")
                await trio.sleep(_AGAIN_S)
                continue
            return sock, str(address[0])

    async def _connection(self, sock: socket.socket, peer: str, begun: Begun | None) -> None:
        if begun is None:
            self.counts["connections"] += 1
        connection = Connection(PlainStream(sock), peer, begun)
        self._open.add(connection)
        try:
            with connection.scope, contextlib.suppress(OSError):
                if self._tls is not None:
                    await self._secure(connection, sock)
                self.wait_idle(connection)
                await self._handle(connection)
        finally:
            self._open.discard(connection)
            self._changes(-1)
            connection.stream.close()
            self._freed.set()

    async def _secure(self, connection: Connection, sock: socket.socket) -> None:
        assert self._tls is not None
        stream = TlsStream(sock, self._tls, server_side=True)
        connection.stream = stream
        connection.wait_for("head", self._limits.head_s)
        try:
            await stream.secure()
        except OSError:
            self.counts["failed TLS handshakes"] += 1
            raise

    async def _expire(self) -> None:
        """End the connections whose time limit has passed, until cancelled."""
        while True:
            await trio.sleep(_EXPIRE_EVERY_S)
            now_s = trio.current_time()
            for connection in self._open:
                if min(connection.deadline_s, connection.send_deadline_s) > now_s or connection.expired:
                    continue
                connection.expired = True
                what = connection.waits_for if connection.deadline_s <= now_s else "response"
                if what != "idle":
                    self.counts[f"timed out in a {what}"] += 1
                connection.scope.cancel()
