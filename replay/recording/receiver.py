"""The mirror receiver: answers mirrored requests at once, and passes them on."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from replay.errors import UsageError

from . import framing
from .body_limits import BODY_BYTES_MAX
from .exchange import Accounts, Budget, Clients, Clock, Exchange, KeptBody, exchange_of
from .listening import Acceptor, Connection, Limits, Server, listen, parse_place
from .requests import RequestReader, answer

BUDGET_BYTES = 256 << 20

HALF_HEADS = "half heads"
HALF_REQUEST, BAD_BODY = "request broke off", "malformed body"
BODY_MEMORY = "no memory for the body"

OnRequest = Callable[[Exchange], None]
BodyLimit = Callable[[framing.RequestHead], int]


def fixed_limit(bytes_max: int) -> BodyLimit:
    """Return a limit that is the same for the bodies of all requests."""
    return lambda head: bytes_max


@dataclass(slots=True)
class MirrorSettings:
    """The settings of a mirror receiver. `answer` is the status of the response to each request that is not refused.

    With `holds_bodies`, the memory of a body stays reserved after its request was passed on. The recipient of the
    request must release it with `budget.give_back(len(exchange.body))`.
    """

    answer: int = 204
    limits: Limits = field(default_factory=Limits)
    body_limit: BodyLimit = field(default_factory=lambda: fixed_limit(BODY_BYTES_MAX))
    budget: Budget = field(default_factory=lambda: Budget(BUDGET_BYTES))
    holds_bodies: bool = False
    tls: ssl.SSLContext | None = None


class MirrorReceiver:
    """Receives mirrored requests on a listening socket, answers them, and counts them."""

    def __init__(
        self, listener: socket.socket, on_request: OnRequest, settings: MirrorSettings, *,
        accounts: Accounts, say: Callable[[str], None], acceptor: Acceptor | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        self._on_request, self._settings = on_request, settings
        self._clients, self.clock = Clients(), clock or Clock()
        self.accounts = accounts
        self._answers = answers(settings.answer)
        self.server = Server(
            listener, self._handle, files_each=1, limits=settings.limits, counts=accounts.counts, say=say, tls=settings.tls,
            acceptor=acceptor,
        )  # fmt: skip

    async def _handle(self, connection: Connection) -> None:
        reader = RequestReader(connection, self.clock, self._settings.limits)
        begun = connection.begun
        if begun is not None and begun.owed:
            await connection.stream.send(begun.owed)
            if begun.ends:
                return
        try:
            while await self._one(connection, reader):
                self.server.wait_idle(connection)
        except framing.RefusedError as error:
            connection.idle, reader.begun = True, False
            self.accounts.refused[error.why] += 1
            await answer(connection, error.status, error.why)
        finally:
            if reader.begun:
                self.accounts.counts[HALF_HEADS] += 1

    async def _one(self, connection: Connection, reader: RequestReader) -> bool:
        """Receive and answer one request, and return whether another one may follow."""
        head = await reader.head()
        if head is None:
            return False
        accounts, why_lost, is_held = self.accounts, HALF_REQUEST, False
        accounts.counts["requests"] += 1
        kept = KeptBody(self._settings.body_limit(head), self._settings.budget)
        try:
            if not await reader.body(head, kept.add):
                return False
            why_lost = ""
            if kept.starved:
                accounts.incomplete[BODY_MEMORY] += 1
            exchange = exchange_of(head, reader.at_ns, self._clients.of(connection.peer, head.headers), kept)
            is_held = self._settings.holds_bodies and exchange.body is not None
            self._on_request(exchange)
        except framing.RefusedError:
            why_lost = BAD_BODY
            raise
        finally:
            if not is_held:
                kept.give_up()
            if why_lost:
                accounts.lost[why_lost] += 1
        keeps = head.keeps and not self.server.draining
        with contextlib.suppress(OSError):
            await connection.stream.send(self._answers[keeps, head.minor])
            return keeps
        return False


def answers(status: int) -> dict[tuple[bool, int], bytes]:
    """Return the response for each case: whether the connection continues, and the request's minor version."""
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
    accounts: Accounts | None = None, say: Callable[[str], None] = lambda line: None,
    task_status: trio.TaskStatus[MirrorReceiver] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """Serve a mirror at `HOST:PORT` until `receiver.server.drain()` is called, or until the task is cancelled.

    Each complete request is passed to `on_request`, which must not block, and then it is answered. `accounts.lost`
    counts requests that were not passed on, by reason. `nursery.start` returns the receiver once it listens. Raises
    UsageError if the address cannot be used, or if `settings.answer` is not from 200 to 299.
    """
    host, port = parse_place(place)
    settings = settings or MirrorSettings()
    if not 200 <= settings.answer <= 299:
        raise UsageError(f"--answer {settings.answer} is not a status from 200 to 299")
    listener = listen(host, port)
    receiver = MirrorReceiver(listener, on_request, settings, accounts=accounts or Accounts(), say=say)
    task_status.started(receiver)
    await receiver.server.serve()
