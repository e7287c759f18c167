"""HTTP/1.1 between services: a server for one connection, and connections of a client.

Messages are framed by the same code as in the recorder's proxy.
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import NamedTuple

import trio

from replay.recording.framing import RefusedError, RequestHead, request_head, response_head

RECEIVE_BYTES = 65_536
BODY_BYTES_MAX = 16 << 20
HOPS = b"x-twin-hops"
RETRY = b"x-twin-retry"
TOKEN = b"x-twin-token"

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_PADDING = b"." * (1 << 20)


class Request(NamedTuple):
    """A request as a service sees it. `hops` is how many services it has passed, `retry` how many retries led to it."""

    method: str
    path: str
    hops: int = 0
    retry: int = 0
    body: bytes = b""
    token: str = ""


class Response(NamedTuple):
    """A response: its status, its body (or the number of bytes to send instead), and the reason if it is an error."""

    status: int
    size: int = 0
    why: str = ""
    body: bytes | None = None


Handler = Callable[[Request], Awaitable[Response]]


class ClosedError(Exception):
    """The peer closed the connection, or did not speak HTTP."""


def response_bytes(response: Response, method: str, keeps: bool) -> bytes:
    """Return a response as it is sent."""
    body = response.body if response.body is not None else _PADDING[: response.size]
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Twin')}"]
    if response.status not in (204, 304):
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if response.why:
        lines.append(f"X-Twin-Why: {response.why}")
    if not keeps:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")
    return head if method == "HEAD" or response.status in (204, 304) else head + body


async def serve_connection(
    stream: trio.SocketStream, handle: Handler, abandoned: Callable[[Request], None]
) -> None:
    """Serve one connection until it closes. `abandoned` is called if the caller disconnects before its answer."""
    received = bytearray()
    try:
        while True:
            try:
                found = await _next_request(stream, received)
            except RefusedError as error:
                refusal = Response(error.status, 0, error.why.replace(" ", "_"), b"{}")
                await stream.send_all(response_bytes(refusal, "GET", keeps=False))
                return
            if found is None:
                return
            head, request = found
            response = await handle(request)
            is_gone = _has_hung_up(stream)
            try:
                await stream.send_all(response_bytes(response, request.method, head.keeps))
            except trio.BrokenResourceError:
                is_gone = True
            if is_gone:
                abandoned(request)
                return
            if not head.keeps:
                return
    except (trio.BrokenResourceError, ClosedError):
        return
    finally:
        await trio.aclose_forcefully(stream)


def _has_hung_up(stream: trio.SocketStream) -> bool:
    """Return whether the peer has closed the connection.

    Sending does not show that, because the first data that is sent to a closed connection causes no error.
    """
    look = select.poll()
    look.register(stream.socket.fileno(), select.POLLRDHUP)
    return bool(look.poll(0))


async def _next_request(stream: trio.SocketStream, received: bytearray) -> tuple[RequestHead, Request] | None:
    while (head := request_head(received)) is None:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            return None
        received += data
    if head.expects:
        await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
    del received[: head.end]
    body = await _body(stream, received, head.length)
    fields = {name.lower(): value or b"" for name, value in head.headers}
    target = head.target.decode("latin-1")
    if not target.startswith("/"):
        target = "/" + target.partition("://")[2].partition("/")[2]
    return head, Request(
        head.method.decode("ascii"),
        target,
        _number(fields.get(HOPS, b"")),
        _number(fields.get(RETRY, b"")),
        body,
        fields.get(TOKEN, b"").decode("latin-1"),
    )


def _number(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) < 9 else 0


async def _body(stream: trio.SocketStream, received: bytearray, length: int) -> bytes:
    """Read a body of `length` bytes, or a chunked one (-1); data after the body stays in `received`.

    Raises RefusedError if the body is too long or a chunk is malformed, ClosedError if the connection ends before.
    """
    if length >= 0:
        if length > BODY_BYTES_MAX:
            raise RefusedError("too long body", 413)
        await _fill(stream, received, length)
        body = bytes(received[:length])
        del received[:length]
        return body
    parts: list[bytes] = []
    while True:
        while (end := received.find(b"\r\n")) < 0:
            await _fill(stream, received, len(received) + 1)
        size_text = bytes(received[:end]).partition(b";")[0].strip()
        try:
            size = int(size_text, 16)
        except ValueError:
            raise RefusedError("malformed chunk") from None
        if size + sum(map(len, parts)) > BODY_BYTES_MAX:
            raise RefusedError("too long body", 413)
        del received[: end + 2]
        await _fill(stream, received, size + 2)
        parts.append(bytes(received[:size]))
        del received[: size + 2]
        if not size:
            return b"".join(parts)


async def _fill(stream: trio.SocketStream, received: bytearray, size: int) -> None:
    while len(received) < size:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise ClosedError("closed within a message")
        received += data


class Client:
    """Connections to one address. A connection serves one request at a time."""

    def __init__(self) -> None:
        self._idle: list[trio.SocketStream] = []

    async def exchange(self, host: str, port: int, request: Request, keeps: bool) -> int:
        """Send a request, and return the status. Raises ClosedError or OSError if there is no answer."""
        stream = self._idle.pop() if keeps and self._idle else await trio.open_tcp_stream(host, port)
        is_kept = False
        try:
            await stream.send_all(_request_bytes(request, f"{host}:{port}", keeps))
            status, is_whole = await _read_response(stream, request.method.encode())
            is_kept = keeps and is_whole
        except trio.BrokenResourceError:
            raise ClosedError("reset") from None
        finally:
            if is_kept:
                self._idle.append(stream)
            else:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)
        return status

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            with contextlib.suppress(OSError):
                self._idle.pop().socket.close()

    @property
    def is_fresh(self) -> bool:
        """Whether the next request needs a new connection."""
        return not self._idle


def _request_bytes(request: Request, host: str, keeps: bool) -> bytes:
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: {host}\r\nX-Twin-Hops: {request.hops}\r\n"
    if request.retry:
        head += f"X-Twin-Retry: {request.retry}\r\n"
    if request.body or request.method in ("POST", "PUT", "PATCH"):
        head += f"Content-Length: {len(request.body)}\r\n"
    return (head + ("\r\n" if keeps else "Connection: close\r\n\r\n")).encode("latin-1") + request.body


async def _read_response(stream: trio.SocketStream, method: bytes) -> tuple[int, bool]:
    """Return the status of a response, and whether the connection can be used again.

    The body is read and dropped.
    """
    received = bytearray()
    try:
        while (head := response_head(received, method)) is None:
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                raise ClosedError("closed without an answer")
            received += data
    except ValueError as error:
        raise ClosedError(str(error)) from None
    if head.length is None or head.length < 0:
        return head.status, False
    left = head.length - (len(received) - head.end)
    while left > 0:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            raise ClosedError("closed within an answer")
        left -= len(data)
    closes = any(n.lower() == b"connection" and (v or b"").lower() == b"close" for n, v in head.headers)
    return head.status, left == 0 and not closes
