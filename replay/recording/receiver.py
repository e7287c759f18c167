"""The mirror receiver: answers what a proxy mirrors to it at once, and hands the requests over."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from replay.errors import UsageError

from . import framing
from .exchange import Budget, Clients, Clock, Exchange, KeptBody, exchange_of
from .listening import Connection, Limits, Server, listen, parse_place

READ_BYTES = 64 << 10
BODY_BYTES_MAX = 1 << 20
BUDGET_BYTES = 256 << 20

HALF_REQUEST, REFUSED = "request broke off", "refused"
BODY_MEMORY = "no memory for the body"

OnRequest = Callable[[Exchange], None]
BodyLimit = Callable[[framing.RequestHead], int]


def fixed_limit(bytes_max: int) -> BodyLimit:
    """The same limit for the bodies of all requests."""
    return lambda head: bytes_max


@dataclass(slots=True)
class MirrorSettings:
    """How a mirror receiver behaves. `answer` is the status of every response."""

    answer: int = 204
    limits: Limits = field(default_factory=Limits)
    body_limit: BodyLimit = field(default_factory=lambda: fixed_limit(BODY_BYTES_MAX))
    budget: Budget = field(default_factory=lambda: Budget(BUDGET_BYTES))
    tls: ssl.SSLContext | None = None


class RequestReader:
    """Reads the requests of one connection, one after the other."""

    def __init__(self, connection: Connection, clock: Clock, limits: Limits) -> None:
        self._connection, self._clock, self._limits = connection, clock, limits
        self.buffer = bytearray()
        self.at_ns = 0
        self._read_ns = 0

    async def more(self) -> bool:
        """Read more into the buffer; False at the end."""
        data = await self._connection.stream.receive(READ_BYTES)
        self._read_ns = self._clock.now_ns()
        self.buffer += data
        return bool(data)

    async def head(self) -> framing.RequestHead | None:
        """The next head, which stays in the buffer; None where the client has ended. RefusedError as `request_head` says.

        `at_ns` is then the time of the request's first byte.
        """
        connection, buffer = self._connection, self.buffer
        while True:
            while buffer.startswith(b"\r\n"):
                del buffer[:2]
            if buffer:
                if connection.idle:
                    connection.idle, self.at_ns = False, self._read_ns
                    connection.wait_for("head", self._limits.head_s)
                head = framing.request_head(buffer)
                if head is not None:
                    return head
            if not await self.more():
                return None

    def waits_for_body(self) -> None:
        """The next piece of the body must come within the limit."""
        self._connection.wait_for("body", self._limits.body_s)


class MirrorReceiver:
    """Serves a mirror on a listening socket. `counts` says what came and what did not become a request."""

    def __init__(
        self, listener: socket.socket, on_request: OnRequest, settings: MirrorSettings, *,
        counts: Counter[str], lost: Counter[str], say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._on_request, self._settings = on_request, settings
        self._clients, self.clock = Clients(), Clock()
        self.counts, self.lost = counts, lost
        self._answers = _answers(settings.answer)
        self.server = Server(
            listener, self._handle, files_each=1, limits=settings.limits, counts=counts, say=say, tls=settings.tls
        )  # fmt: skip

    async def _handle(self, connection: Connection) -> None:
        reader = RequestReader(connection, self.clock, self._settings.limits)
        try:
            while await self._one(connection, reader):
                self.server.wait_idle(connection)
        except framing.RefusedError as error:
            await self._refuse(connection, error)
        finally:
            if not connection.idle:
                self.lost[HALF_REQUEST] += 1

    async def _one(self, connection: Connection, reader: RequestReader) -> bool:
        """Receive and answer one request; whether another one may follow."""
        head = await reader.head()
        if head is None:
            return False
        kept = KeptBody(self._settings.body_limit(head), self._settings.budget)
        try:
            if not await self._body(connection, reader, head, kept):
                return False
            self.counts["requests"] += 1
            if kept.starved:
                self.lost[BODY_MEMORY] += 1
            connection.idle = True
            self._on_request(
                exchange_of(head, reader.at_ns, self._clients.of(connection.peer, head.headers), kept)
            )
        finally:
            kept.give_up()
        keeps = head.keeps and not self.server.draining
        with contextlib.suppress(OSError):
            await connection.stream.send(self._answers[keeps, head.minor])
            return keeps
        return False

    async def _body(
        self, connection: Connection, reader: RequestReader, head: framing.RequestHead, kept: KeptBody
    ) -> bool:
        """Receive a body; whether it is complete."""
        buffer = reader.buffer
        del buffer[: head.end]
        body = framing.body_of(head.length, kept.add)
        if head.expects and not buffer and not body.done:
            await connection.stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            try:
                del buffer[: body.take(buffer, 0)]
            except ValueError as error:
                raise framing.RefusedError(str(error)) from None
            if body.done:
                return True
            reader.waits_for_body()
            if not await reader.more():
                return False

    async def _refuse(self, connection: Connection, error: framing.RefusedError) -> None:
        connection.idle = True
        self.lost[f"{REFUSED}: {error.why}"] += 1
        with contextlib.suppress(OSError):
            await connection.stream.send(framing.refusal(error.status, error.why))
            await linger(connection)


async def linger(connection: Connection) -> None:
    """Read and drop what a refused client still sends, so that our answer is not lost to a reset."""
    await connection.stream.end()
    with trio.move_on_after(1.0):
        for _ in range(256):
            if not await connection.stream.receive(READ_BYTES):
                return


def _answers(status: int) -> dict[tuple[bool, int], bytes]:
    """The response by whether the connection goes on, and the minor version of the request."""
    reason = {200: "OK", 202: "Accepted", 204: "No Content"}.get(status, "Mirrored")
    length = "" if status == 204 else "Content-Length: 0\r\n"
    return {
        (keeps, minor): f"HTTP/1.1 {status} {reason}\r\n{length}{connection}\r\n".encode()
        for keeps, minor, connection in (
            (True, 1, ""),
            (True, 0, "Connection: keep-alive\r\n"),
            (False, 1, "Connection: close\r\n"),
            (False, 0, "Connection: close\r\n"),
        )
    }


async def serve_mirror(
    place: str, on_request: OnRequest, settings: MirrorSettings | None = None, *,
    counts: Counter[str] | None = None, lost: Counter[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
    task_status: trio.TaskStatus[MirrorReceiver] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """Serve a mirror at `HOST:PORT` until `receiver.server.drain()` is called, or the task is cancelled.

    Each complete request is handed to `on_request`, which must not wait; it is answered right after. `lost` counts requests
    that were not handed over, by reason. `nursery.start` returns the receiver once it listens. UsageError where the address
    cannot be had.
    """
    host, port = parse_place(place)
    settings = settings or MirrorSettings()
    if not 200 <= settings.answer <= 299:
        raise UsageError(f"--answer {settings.answer} is not a status from 200 to 299")
    listener = listen(host, port)
    receiver = MirrorReceiver(
        listener, on_request, settings, counts=Counter() if counts is None else counts,
        lost=Counter() if lost is None else lost, say=say,
    )  # fmt: skip
    task_status.started(receiver)
    await receiver.server.serve()
