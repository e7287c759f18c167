"""Reads the requests of a client's connection one after the other."""

from __future__ import annotations

import contextlib

import trio

from . import framing
from .exchange import Clock
from .listening import Connection, Limits

READ_BYTES = 64 << 10


class RequestReader:
    """Reads requests, and keeps the unread data of the connection.

    `at_ns` is when the first byte of the present request was read, in ns since the Unix epoch. `begun` is true while
    the head of a request has arrived only in part.
    """

    def __init__(self, connection: Connection, clock: Clock, limits: Limits) -> None:
        self._connection, self._clock, self._limits = connection, clock, limits
        begun = connection.begun
        self.buffer = bytearray() if begun is None else bytearray(begun.data)
        self.at_ns = self._read_ns = 0 if begun is None else begun.at_ns
        self.begun = False

    async def more(self) -> bool:
        """Read more data into the buffer, and return False if the client has ended."""
        data = await self._connection.stream.receive(READ_BYTES)
        self._read_ns = self._clock.now_ns()
        self.buffer += data
        return bool(data)

    async def head(self) -> framing.RequestHead | None:
        """Return the next head, which stays in the buffer, or None if the client has ended.

        Raises RefusedError as `request_head` does.
        """
        connection, buffer = self._connection, self.buffer
        while True:
            while buffer.startswith(b"\r\n"):
                del buffer[:2]
            if buffer:
                if not self.begun:
                    self.begun, connection.idle, self.at_ns = True, False, self._read_ns
                    connection.wait_for("head", self._limits.head_s)
                head = framing.request_head(buffer)
                if head is not None:
                    self.begun = False
                    return head
            if not await self.more():
                return None

    def waits_for_body(self) -> None:
        """Require the next piece of the body within the time limit."""
        self._connection.wait_for("body", self._limits.body_s)

    async def body(self, head: framing.RequestHead, keep: framing.Keep) -> bool:
        """Receive the body of a request whose head is still in the buffer, and return whether it is complete.

        A client that waits for 100 (Continue) receives it. Raises RefusedError if the body is malformed.
        """
        buffer = self.buffer
        del buffer[: head.end]
        body = framing.body_of(head.length, keep)
        if head.expects and not buffer and not body.done:
            await self._connection.stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        while True:
            try:
                del buffer[: body.take(buffer, 0)]
            except ValueError as error:
                raise framing.RefusedError(str(error)) from None
            if body.done:
                return True
            self.waits_for_body()
            if not await self.more():
                return False


async def answer(connection: Connection, status: int, text: str, *, with_body: bool = True) -> None:
    """Send an error response of this server. The connection must be closed afterwards."""
    with contextlib.suppress(OSError):
        await connection.stream.send(framing.refusal(status, text, with_body=with_body))
        await linger(connection)


async def linger(connection: Connection) -> None:
    """Read and discard further data of the client, for at most one second and 256 reads.

    Otherwise the system could reset the connection before the client has read the response.
    """
    with contextlib.suppress(OSError), trio.move_on_after(1.0):
        await connection.stream.end()
        for _ in range(256):
            if not await connection.stream.receive(READ_BYTES):
                return
