"""The recording proxy: passes each client's bytes on to one service and back, unchanged, and hands over what it saw.

A client's connection has one connection to the service of its own, made at its first request. So nothing needs to be
added to a request or taken from it, and a client can only ever confuse its own requests. Both directions run at once: one
task reads requests and sends them on, the other one reads responses and sends them back. Requests are checked before they
are passed on (`framing`); a response is passed on whatever it is.
"""

from __future__ import annotations

import contextlib
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from replay.errors import reason_of
from replay.trace.responses import BodyDigest, body_digest

from . import framing
from .exchange import Accounts, Budget, Clients, Clock, KeptBody, Response, exchange_of
from .listening import Connection, Limits, Server
from .receiver import (
    BAD_BODY,
    BODY_BYTES_MAX,
    BODY_MEMORY,
    BUDGET_BYTES,
    HALF_HEADS,
    HALF_REQUEST,
    BodyLimit,
    OnRequest,
    fixed_limit,
)
from .requests import READ_BYTES, RequestReader, linger
from .streams import Stream
from .upstream import Upstream

PIPELINED_MAX = 64
"""Requests of one connection that may wait for their responses. The next one is not read before."""

DOWN, UPGRADES = "502 of ours", "upgrades"

NOT_UNDERSTOOD, SERVICE_ENDED = "response not understood", "service ended before its response"
CLIENT_LEFT, CUT_OFF = "client left before its response", "no response until the end"
EARLY = "answered before the whole request"
"""Why an exchange is recorded without a part of it."""


class _ServiceIsDeafError(Exception):
    """The service takes no more; what it has sent is still to be read."""


@dataclass(slots=True)
class ProxySettings:
    """How a proxy behaves. `response_limit` is how much of a response's body is kept; 0 keeps none."""

    limits: Limits = field(default_factory=Limits)
    body_limit: BodyLimit = field(default_factory=lambda: fixed_limit(BODY_BYTES_MAX))
    response_limit: int = 0
    budget: Budget = field(default_factory=lambda: Budget(BUDGET_BYTES))
    tls: ssl.SSLContext | None = None


class Proxy:
    """A reverse proxy on a listening socket, with accounts of what came."""

    def __init__(
        self, listener: socket.socket, upstream: Upstream, on_exchange: OnRequest, settings: ProxySettings, *,
        accounts: Accounts, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.upstream, self.settings, self.on_exchange = upstream, settings, on_exchange
        self.clients, self.clock = Clients(), Clock()
        self.accounts = accounts
        BodyDigest()
        self.nothing_digest = body_digest(b"")
        self.server = Server(
            listener, self._handle, files_each=2, limits=settings.limits, counts=accounts.counts, say=say, tls=settings.tls
        )  # fmt: skip

    async def _handle(self, connection: Connection) -> None:
        await _Conversation(self, connection).run()


class _Turn:
    """A request and its response, while either of them is under way."""

    __slots__ = (
        "at_ns",
        "digest",
        "first_ns",
        "head",
        "kept",
        "response",
        "response_kept",
        "settled",
        "whole",
    )

    def __init__(self, head: framing.RequestHead, at_ns: int, settings: ProxySettings) -> None:
        self.head, self.at_ns, self.first_ns = head, at_ns, -1
        self.kept = KeptBody(settings.body_limit(head), settings.budget)
        self.response_kept = KeptBody(settings.response_limit, settings.budget)
        self.digest: BodyDigest | None = None
        self.response: framing.ResponseHead | None = None
        self.whole = False
        self.settled: trio.Event | None = trio.Event() if head.upgrades else None

    def keep_response(self, piece: memoryview) -> None:
        """Take a piece of the response's body."""
        if self.digest is None:
            self.digest = BodyDigest()
        self.digest.update(piece)
        self.response_kept.add(piece)

    def give_up(self) -> None:
        """Free the bodies."""
        self.kept.give_up()
        self.response_kept.give_up()


class _Conversation:
    """One client's connection with its connection to the service."""

    def __init__(self, proxy: Proxy, connection: Connection) -> None:
        self._proxy, self._connection = proxy, connection
        self._settings, self._accounts = proxy.settings, proxy.accounts
        self._reader = RequestReader(connection, proxy.clock, proxy.settings.limits)
        self._pending: deque[_Turn] = deque()
        self._answered = trio.Event()
        self._service: Stream | None = None
        self._is_tunnel = self._is_opaque = self._client_ended = False
        self._sending: _Turn | None = None
        self._resets_client = self._resets_service = False
        self._why_cut = CUT_OFF

    async def run(self) -> None:
        """Pass everything on until either side has ended."""
        try:
            head = await self._next_head()
            if head is None:
                return
            try:
                self._service = await self._proxy.upstream.connect()
            except OSError as error:
                await self._down(head, error)
                return
            await self._both_ways(head)
        except framing.RefusedError as error:
            await self._refuse(error)
        finally:
            self._end()

    async def _next_head(self) -> framing.RequestHead | None:
        head = await self._reader.head()
        if head is None and self._reader.begun:
            self._accounts.counts[HALF_HEADS] += 1
            self._reader.begun = False
        return head

    async def _both_ways(self, head: framing.RequestHead) -> None:
        refused: list[framing.RefusedError] = []

        async def forth() -> None:
            try:
                await self._requests(head)
                if self._pending or (self._is_tunnel and not self._proxy.upstream.is_tls):
                    return
            except framing.RefusedError as error:
                refused.append(error)
                await self._until_answered()
            except _ServiceIsDeafError:
                await self._drop_requests()
                return
            except OSError:
                self._why_cut, self._resets_service = CLIENT_LEFT, True
            nursery.cancel_scope.cancel()

        async def back() -> None:
            try:
                await self._responses()
            except OSError:
                self._resets_client = self._resets_service = True
            if self._why_cut == CUT_OFF:
                self._why_cut = SERVICE_ENDED
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forth)
            nursery.start_soon(back)
        if refused:
            raise refused[0]

    # From the client to the service.

    async def _requests(self, head: framing.RequestHead | None) -> None:
        """Pass requests on until the client ends its direction."""
        connection, server = self._connection, self._proxy.server
        while head is not None:
            turn = _Turn(head, self._reader.at_ns, self._settings)
            self._accounts.counts["requests"] += 1
            self._pending.append(turn)
            self._sending = turn
            await self._pass_on(turn)
            self._sending = None
            if turn.settled is not None:
                await turn.settled.wait()
                if self._is_tunnel:
                    await self._tunnel()
                    return
            if self._pending:
                connection.deadline_s = math.inf
            elif not server.draining:
                server.wait_idle(connection)
            while len(self._pending) >= PIPELINED_MAX or self._is_opaque:
                self._answered = trio.Event()
                await self._answered.wait()
            head = await self._next_head()
        self._client_ended, connection.deadline_s = True, math.inf
        if self._pending and self._service is not None:
            await self._service.end()

    async def _pass_on(self, turn: _Turn) -> None:
        """Pass one request on: its head with what is there of its body, then the rest as it comes."""
        reader = self._reader
        buffer, begin = reader.buffer, turn.head.end
        body = framing.body_of(turn.head.length, turn.kept.add)
        while True:
            try:
                end = body.take(buffer, begin)
            except ValueError as error:
                raise framing.RefusedError(str(error)) from None
            if end:
                data = bytes(memoryview(buffer)[:end])
                del buffer[:end]
                if body.done:
                    turn.whole = True
                await self._to_service(data)
            begin = 0
            if body.done:
                turn.whole = True
                return
            reader.waits_for_body()
            if not await reader.more():
                raise ConnectionAbortedError("the client ended in the middle of a body")

    async def _to_service(self, data: bytes) -> None:
        assert self._service is not None
        try:
            await self._service.send(data)
        except OSError:
            raise _ServiceIsDeafError from None

    async def _drop_requests(self) -> None:
        """Read what the client sends, so that it finds the response which the service has sent."""
        self._connection.deadline_s = math.inf
        with contextlib.suppress(OSError):
            while await self._reader.more():
                self._reader.buffer.clear()

    async def _tunnel(self) -> None:
        """After an upgrade: pass on whatever the client sends."""
        reader, service, self._connection.deadline_s = self._reader, self._service, math.inf
        assert service is not None
        while True:
            if reader.buffer:
                data = bytes(reader.buffer)
                reader.buffer.clear()
                await self._to_service(data)
            if not await reader.more():
                await service.end()
                return

    async def _until_answered(self) -> None:
        """Wait until the responses to all complete requests are there."""
        while any(turn.whole for turn in self._pending):
            self._answered = trio.Event()
            await self._answered.wait()

    # From the service to the client.

    async def _responses(self) -> None:
        """Pass responses on until the service ends, or nothing more can come."""
        buffer, service = bytearray(), self._service
        assert service is not None
        while True:
            if not buffer:
                data = await service.receive(READ_BYTES)
                if not data:
                    return
                buffer += data
            if not self._pending:
                # A response without a request, such as 408: the service says why it closes.
                await self._pass_back_the_rest(buffer)
                return
            turn = self._pending[0]
            if turn.first_ns < 0:
                turn.first_ns = self._proxy.clock.now_ns()
            if not await self._response(turn, buffer):
                return
            if self._client_ended and not self._pending:
                return
            if self._proxy.server.draining and not self._pending and not self._reader.begun:
                return

    async def _response(self, turn: _Turn, buffer: bytearray) -> bool:
        """Pass on one response, or one informational one; whether another one may follow."""
        while (head := self._response_head(turn, buffer)) is None:
            if self._is_opaque or not await self._more(buffer):
                await self._pass_back_the_rest(buffer)
                return False
        if head.status == 101:
            turn.response = head
            await self._send_back(buffer, head.end)
            self._accounts.counts[UPGRADES] += 1
            self._is_tunnel = True
            self._finish(turn)
            await self._pass_back_the_rest(buffer)
            return False
        if head.status < 200:
            turn.first_ns = -1
            await self._send_back(buffer, head.end)
            return True
        turn.response = head
        if turn.settled is not None:
            turn.settled.set()
        body = framing.body_of(head.length, turn.keep_response)
        begin = head.end
        while True:
            try:
                end = body.take(buffer, begin)
            except ValueError:
                self._not_understood()
                await self._pass_back_the_rest(buffer)
                return False
            if body.done:
                # Recorded before it is sent: a client that has its response finds it in the recording.
                self._finish(turn)
            await self._send_back(buffer, end)
            if body.done:
                return True
            begin = 0
            if not await self._more(buffer):
                if head.length is None:
                    self._finish(turn)
                return False

    def _response_head(self, turn: _Turn, buffer: bytearray) -> framing.ResponseHead | None:
        try:
            return framing.response_head(buffer, turn.head.method)
        except ValueError:
            self._not_understood()
            return None

    def _not_understood(self) -> None:
        """What follows cannot be told apart: it is passed on up to its end, and no further request is."""
        self._is_opaque, self._why_cut = True, NOT_UNDERSTOOD

    async def _more(self, buffer: bytearray) -> bool:
        assert self._service is not None
        data = await self._service.receive(READ_BYTES)
        buffer += data
        return bool(data)

    async def _send_back(self, buffer: bytearray, end: int) -> None:
        """Send the beginning of the buffer to the client, and take it out."""
        if not end:
            return
        data = bytes(memoryview(buffer)[:end])
        del buffer[:end]
        connection = self._connection
        connection.send_deadline_s = trio.current_time() + self._settings.limits.send_s
        try:
            await connection.stream.send(data)
        except OSError:
            self._why_cut = CLIENT_LEFT
            raise
        connection.send_deadline_s = math.inf

    async def _pass_back_the_rest(self, buffer: bytearray) -> None:
        """Pass on whatever the service sends, up to its end."""
        while True:
            await self._send_back(buffer, len(buffer))
            if not await self._more(buffer):
                return

    # What is recorded.

    def _finish(self, turn: _Turn) -> None:
        """The response is complete: hand the exchange over, and let the next one be."""
        self._pending.popleft()
        if not turn.whole:
            self._accounts.incomplete[EARLY] += 1
        self._record(turn, complete=True)
        self._answered.set()
        if turn.settled is not None:
            turn.settled.set()
        if not self._pending and not self._reader.begun and turn.whole and not self._is_tunnel:
            self._proxy.server.wait_idle(self._connection)

    def _record(self, turn: _Turn, *, complete: bool) -> None:
        proxy, head, response = self._proxy, turn.head, turn.response
        client = proxy.clients.of(self._connection.peer, head.headers)
        exchange = exchange_of(head, turn.at_ns, client, turn.kept)
        if not turn.whole:
            # The service answered before it had the whole request, or one side left.
            exchange.body = None
        if response is not None:
            kept = turn.response_kept
            exchange.status = response.status
            exchange.first_byte_ns = max(0, turn.first_ns - turn.at_ns)
            exchange.took_ns = max(0, proxy.clock.now_ns() - turn.at_ns) if complete else -1
            wanted = self._settings.response_limit > 0
            exchange.response = Response(
                headers=response.headers,
                size=kept.size,
                digest=proxy.nothing_digest if turn.digest is None else turn.digest.value,
                body=bytes(kept.data) if wanted else None,
                cut=wanted and not kept.whole,
                complete=complete,
            )
        if turn.kept.starved or turn.response_kept.starved:
            self._accounts.incomplete[BODY_MEMORY] += 1
        turn.give_up()
        proxy.on_exchange(exchange)

    # Ends.

    async def _down(self, head: framing.RequestHead, error: OSError) -> None:
        """The service cannot be reached: the request is recorded, and answered with 502."""
        upstream = self._proxy.upstream
        self._proxy.server.say_once(
            f"the service at {upstream.host}:{upstream.port} cannot be reached ({reason_of(error)}): clients get 502"
        )
        self._accounts.counts["requests"] += 1
        self._accounts.counts[DOWN] += 1
        turn = _Turn(head, self._reader.at_ns, self._settings)
        self._pending.append(turn)
        self._why_cut = DOWN
        if not head.expects:
            await self._take_body(turn)
        self._end_pending()
        self._connection.idle = True
        await self._answer(502, "the service cannot be reached", with_body=head.method != b"HEAD")

    async def _take_body(self, turn: _Turn) -> None:
        """Receive a request's body without passing it on."""
        reader = self._reader
        del reader.buffer[: turn.head.end]
        body = framing.body_of(turn.head.length, turn.kept.add)
        while True:
            try:
                del reader.buffer[: body.take(reader.buffer, 0)]
            except ValueError as error:
                raise framing.RefusedError(str(error)) from None
            if body.done:
                turn.whole = True
                return
            reader.waits_for_body()
            if not await reader.more():
                return

    async def _refuse(self, error: framing.RefusedError) -> None:
        """Answer a request that is not passed on, unless a response has begun that this would become a part of."""
        self._accounts.refused[error.why] += 1
        self._resets_service = True
        sending = self._sending
        if sending is not None:
            # A part of it was passed on. The service sees the connection break off.
            has_begun = sending.response is not None
            if sending in self._pending:
                self._pending.remove(sending)
                sending.give_up()
                self._accounts.lost[BAD_BODY] += 1
            if has_begun:
                return
        if self._service is not None:
            self._service.close(reset=True)
        await self._answer(error.status, error.why)

    async def _answer(self, status: int, text: str, *, with_body: bool = True) -> None:
        with contextlib.suppress(OSError):
            await self._connection.stream.send(framing.refusal(status, text, with_body=with_body))
            await linger(self._connection)

    def _end(self) -> None:
        """Account for what did not come to its end, and close both connections."""
        if self._reader.begun:
            self._accounts.counts[HALF_HEADS] += 1
        self._end_pending()
        if self._service is not None:
            self._service.close(reset=self._resets_service)
        self._connection.stream.close(reset=self._resets_client)

    def _end_pending(self) -> None:
        """Record the requests whose response is not complete; one that is not complete itself is lost."""
        for turn in self._pending:
            if not turn.whole and turn.response is None:
                self._accounts.lost[HALF_REQUEST] += 1
                turn.give_up()
                continue
            self._accounts.incomplete[CLIENT_LEFT if self._connection.expired else self._why_cut] += 1
            self._record(turn, complete=False)
        self._pending.clear()
