"""A protocol: a line of text to a TCP service that echoes it, one request at a time on each connection.

replay run TRACE --target echo://127.0.0.1:7000
"""

from __future__ import annotations

import time

import trio

from replay.protocols.trio_host import (
    OK,
    Address,
    Outcome,
    Request,
    Row,
    TrioConnection,
    TrioProtocol,
)
from replay_native.ledger.lane_metrics import MALFORMED, TRUNCATED


class EchoConnection(TrioConnection):
    """One TCP connection to the service."""

    async def connect(self, address: Address) -> None:
        """Connect to one of the target's addresses."""
        self._stream = await trio.open_tcp_stream(address.host, address.port)

    async def send(self, request: Request) -> Outcome:
        """Send a line, and await the same line."""
        await self._stream.send_all(request.data)
        request.bytes_sent = len(request.data)
        received = b""
        while not received.endswith(b"\n"):
            data = await self._stream.receive_some()
            if not data:
                return Outcome(failure=TRUNCATED, stale=not received)
            if not received:
                request.first_byte_ns = time.monotonic_ns()
            received += data
        request.bytes_received = len(received)
        return OK if received == request.data else Outcome(failure=MALFORMED)

    def close(self, *, abort: bool = False) -> None:
        """Close the socket."""
        self._stream.socket.close()


def render(row: Row) -> bytes:
    """What is sent for a recorded request: its method and target in one line."""
    return row.method.encode() + b" " + row.target + b"\n"


PROTOCOL = TrioProtocol("echo", EchoConnection, render=render, default_port=7)
