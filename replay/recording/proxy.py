"""The recording proxy: forwards each client's bytes to one service and back, unchanged, and records them.

Each client connection has its own connection to the service, which is opened at its first request. Therefore no
request has to be changed, and a client's bytes can affect only its own requests. Both directions run concurrently:
one task forwards requests, the other forwards responses. Requests are checked before they are forwarded (see
`framing`); responses are always forwarded.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections import deque
from collections.abc import Callable

import trio

from replay.errors import reason_of
from replay.trace.responses import BodyDigest

from . import framing, turns
from .exchange import Accounts, Clients, Clock
from .listening import Connection, Server
from .receiver import BAD_BODY, BODY_MEMORY, HALF_HEADS, HALF_REQUEST, OnRequest
from .requests import READ_BYTES, RequestReader, answer, linger
from .streams import Stream
from .turns import ProxySettings, Turn
from .upstream import Upstream

PIPELINED_MAX = 64
"""How many requests of one connection may wait for responses. While that many wait, no further one is read."""


class _ServiceIsDeafError(Exception):
    """Raised when the service accepts no more data. The data that it has sent must still be read."""


class Proxy:
    """A reverse proxy on a listening socket, which records the exchanges and counts the requests."""

    def __init__(
        self, listener: socket.socket, upstream: Upstream, on_exchange: OnRequest, settings: ProxySettings, *,
        accounts: Accounts, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.upstream, self.settings, self.on_exchange = upstream, settings, on_exchange
        self.clients, self.clock = Clients(), Clock()
        self.accounts = accounts
        # This loads the kernels of the digest, so that the first response does not wait for them.
        BodyDigest()
        self.server = Server(
            listener, self._handle, files_each=2, limits=settings.limits, counts=accounts.counts, say=say, tls=settings.tls
        )  # fmt: skip

    async def _handle(self, connection: Connection) -> None:
        await _Conversation(self, connection).run()


class _Conversation:
    """One client's connection with its connection to the service."""

    def __init__(self, proxy: Proxy, connection: Connection) -> None:
        self._proxy, self._connection = proxy, connection
        self._settings, self._accounts = proxy.settings, proxy.accounts
        self._reader = RequestReader(connection, proxy.clock, proxy.settings.limits)
        self._pending: deque[Turn] = deque()
        self._answered = trio.Event()
        self._service: Stream | None = None
        self._is_tunnel = self._is_opaque = self._client_ended = False
        self._sending: Turn | None = None
        self._resets_client = self._resets_service = False
        self._why_cut = turns.CUT_OFF

    async def run(self) -> None:
        """Forward requests and responses until no more can arrive, then close both connections."""
        try:
            head = await self._reader.head()
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

    async def _both_ways(self, head: framing.RequestHead) -> None:
        refused: list[framing.RefusedError] = []

        async def forth() -> None:
            try:
                await self._requests(head)
                if self._pending or (self._is_tunnel and not self._proxy.upstream.is_tls):
                    return
            except framing.RefusedError as error:
                refused.append(error)
                self._connection.deadline_s = math.inf
                await self._until_answered()
            except _ServiceIsDeafError:
                await self._drop_requests()
                return
            except OSError:
                self._why_cut, self._resets_service = turns.CLIENT_LEFT, True
            nursery.cancel_scope.cancel()

        async def back() -> None:
            try:
                await self._responses()
            except OSError:
                self._resets_service, self._resets_client = True, bool(self._pending)
            if self._why_cut == turns.CUT_OFF:
                self._why_cut = turns.SERVICE_ENDED
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(forth)
            nursery.start_soon(back)
        if refused:
            raise refused[0]
        if self._sending is not None and not self._resets_client:
            # The service did not read the rest of the request. Closing now could reset the client's connection
            # before the client has read the response.
            await linger(self._connection)

    async def _requests(self, head: framing.RequestHead | None) -> None:
        """Forward requests, or the data after an upgrade, until the client ends its direction."""
        connection, server = self._connection, self._proxy.server
        while head is not None:
            turn = Turn(head, self._reader.at_ns, self._settings)
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
                await self._next_answer()
            head = await self._reader.head()
        self._client_ended, connection.deadline_s = True, math.inf
        if self._pending and self._service is not None:
            await self._service.end()

    async def _pass_on(self, turn: Turn) -> None:
        """Forward one request: its head with the available part of its body, then the rest as it arrives.

        Raises RefusedError if the body is malformed, ConnectionAbortedError if it breaks off, and
        _ServiceIsDeafError if the service accepts no more data.
        """
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
        # A slow service must not count against the client's time limit.
        self._connection.deadline_s = math.inf
        try:
            await self._service.send(data)
        except OSError:
            raise _ServiceIsDeafError from None

    async def _drop_requests(self) -> None:
        """Read and discard the client's data, so that the client receives the response that the service has sent."""
        self._connection.deadline_s = math.inf
        with contextlib.suppress(OSError):
            while await self._reader.more():
                self._reader.buffer.clear()

    async def _tunnel(self) -> None:
        """Forward everything that the client sends after an upgrade."""
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
        """Wait until all requests that have arrived completely are answered."""
        while any(turn.whole for turn in self._pending):
            await self._next_answer()

    async def _next_answer(self) -> None:
        self._answered = trio.Event()
        await self._answered.wait()

    async def _responses(self) -> None:
        """Forward responses until the service ends, or until no further response is expected."""
        buffer = bytearray()
        while buffer or await self._more(buffer):
            if not self._pending:
                # This is a response without a request, such as 408, with which the service explains why it closes.
                await self._pass_back_the_rest(buffer)
                return
            turn = self._pending[0]
            if turn.first_ns < 0:
                turn.first_ns = self._proxy.clock.now_ns()
            if not await self._response(turn, buffer):
                return
            is_over = self._client_ended or (self._proxy.server.draining and not self._reader.begun)
            if is_over and not self._pending:
                return

    async def _response(self, turn: Turn, buffer: bytearray) -> bool:
        """Forward one final or interim response, and return whether another one may follow."""
        while (head := self._response_head(turn, buffer)) is None:
            if self._is_opaque or not await self._more(buffer):
                await self._pass_back_the_rest(buffer)
                return False
        if head.status == 101:
            turn.response = head
            await self._send_back(buffer, head.end)
            self._accounts.counts[turns.UPGRADES] += 1
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
                # The exchange is passed on before the end of the response is sent, so that a recording that is stopped
                # right after the response contains it.
                self._finish(turn)
            await self._send_back(buffer, end)
            if body.done:
                return True
            begin = 0
            if not await self._more(buffer):
                if head.length is None:
                    self._finish(turn)
                return False

    def _response_head(self, turn: Turn, buffer: bytearray) -> framing.ResponseHead | None:
        with contextlib.suppress(ValueError):
            return framing.response_head(buffer, turn.head.method)
        self._not_understood()
        return None

    def _not_understood(self) -> None:
        """Stop interpreting responses, because message boundaries are unknown.

        All further data of the service is forwarded unchanged, but no further requests are.
        """
        self._is_opaque, self._why_cut = True, turns.NOT_UNDERSTOOD

    async def _more(self, buffer: bytearray) -> bool:
        assert self._service is not None
        data = await self._service.receive(READ_BYTES)
        buffer += data
        return bool(data)

    async def _send_back(self, buffer: bytearray, end: int) -> None:
        """Send the beginning of the buffer to the client, and remove it from the buffer."""
        if not end:
            return
        data = bytes(memoryview(buffer)[:end])
        del buffer[:end]
        connection = self._connection
        connection.send_deadline_s = trio.current_time() + self._settings.limits.send_s
        try:
            await connection.stream.send(data)
        except OSError:
            self._why_cut = turns.CLIENT_LEFT
            raise
        connection.send_deadline_s = math.inf

    async def _pass_back_the_rest(self, buffer: bytearray) -> None:
        """Forward everything that the service sends, until it ends its direction."""
        while True:
            await self._send_back(buffer, len(buffer))
            if not await self._more(buffer):
                return

    def _finish(self, turn: Turn) -> None:
        """Record the exchange whose response is complete, and let waiting requests continue."""
        self._pending.popleft()
        if not turn.whole:
            self._accounts.incomplete[turns.EARLY] += 1
        self._record(turn, complete=True)
        self._answered.set()
        if turn.settled is not None:
            turn.settled.set()
        if not self._pending and not self._reader.begun and turn.whole and not self._is_tunnel:
            self._proxy.server.wait_idle(self._connection)

    def _record(self, turn: Turn, *, complete: bool) -> None:
        proxy = self._proxy
        client = proxy.clients.of(self._connection.peer, turn.head.headers)
        exchange = turn.exchange(client, proxy.clock.now_ns() if complete else -1)
        if turn.kept.starved or turn.response_kept.starved:
            self._accounts.incomplete[BODY_MEMORY] += 1
        turn.give_up()
        proxy.on_exchange(exchange)

    async def _down(self, head: framing.RequestHead, error: OSError) -> None:
        """Answer a request with 502, because the service cannot be reached, and record it if it arrives completely."""
        upstream = self._proxy.upstream
        self._proxy.server.say_once(
            f"the service at {upstream.host}:{upstream.port} cannot be reached ({reason_of(error)}): clients get 502"
        )
        self._accounts.counts["requests"] += 1
        self._accounts.counts[turns.DOWN] += 1
        turn = Turn(head, self._reader.at_ns, self._settings)
        self._pending.append(turn)
        self._why_cut = turns.DOWN
        if not head.expects:
            turn.whole = await self._reader.body(head, turn.kept.add)
        self._end_pending()
        self._connection.idle = True
        await answer(self._connection, 502, "the service cannot be reached", with_body=head.method != b"HEAD")

    async def _refuse(self, error: framing.RefusedError) -> None:
        """Send an error response to a refused request.

        If the response to it has already begun, no error is sent, because it would become part of that response.
        """
        self._accounts.refused[error.why] += 1
        self._resets_service = True
        sending = self._sending
        if sending is not None:
            # Part of the request may have been forwarded. The connection to the service is reset, so that the service
            # does not process that part.
            has_begun = sending.response is not None
            if sending in self._pending:
                self._pending.remove(sending)
                sending.give_up()
                self._accounts.lost[BAD_BODY] += 1
            if has_begun:
                return
        if self._service is not None:
            self._service.close(reset=True)
        await answer(self._connection, error.status, error.why)

    def _end(self) -> None:
        """Account for unfinished requests, and close both connections."""
        if self._reader.begun:
            self._accounts.counts[HALF_HEADS] += 1
        self._end_pending()
        if self._service is not None:
            self._service.close(reset=self._resets_service)
        self._connection.stream.close(reset=self._resets_client)

    def _end_pending(self) -> None:
        """Record requests whose response is missing or incomplete; an incomplete request without a response is lost."""
        for turn in self._pending:
            if not turn.whole and turn.response is None:
                self._accounts.lost[HALF_REQUEST] += 1
                turn.give_up()
                continue
            self._accounts.incomplete[turns.CLIENT_LEFT if self._connection.expired else self._why_cut] += 1
            self._record(turn, complete=False)
        self._pending.clear()
