"""The proxy's two parsers on mutated messages: what it passes on, h11 reads in the same way; nothing makes it fail."""

from __future__ import annotations

import random

import h11

from replay.recording import framing

_REQUESTS = (
    b"GET /a?b=1 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x:80\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhelloGET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1\r\n \r\n0\r\nX: y\r\n\r\nGET",
    b"PUT http://x/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    b"GET / HTTP/1.0\r\nUser-Agent: ab\r\n\r\n",
)
_RESPONSES = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\nServer: old\n\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x81\x00",
)
_PIECES = (
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\0", b":", b"chunked", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: y\r\n", b";", b"0", b"ffffffffffffffff", b"\xff", b"-1", b"+", b"_", b"HTTP/1.1", b"\r\n\r\n", b"\x0b",
)  # fmt: skip


def _mutated(draw: random.Random, seeds: tuple[bytes, ...]) -> bytes:
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randrange(4)):
        at, kind = draw.randrange(len(data) + 1), draw.randrange(4)
        if kind == 0:
            data[at:at] = draw.choice(_PIECES)
        elif kind == 1:
            del data[at : at + draw.randrange(1, 8)]
        elif kind == 2:
            data[at : at + 1] = bytes([draw.randrange(256)])
        else:
            data[at:at] = data[draw.randrange(len(data) + 1) :][: draw.randrange(40)]
    return bytes(data)


def _fed(draw: random.Random, raw: bytes, length: int | None) -> tuple[bytes, bool, int]:
    """The content of a body that comes in random pieces, whether it is complete, and what it took. ValueError as `take`."""
    found, buffer, taken, at = bytearray(), bytearray(), 0, 0
    body = framing.body_of(length, found.extend)
    while not body.done and at < len(raw):
        step = draw.randrange(1, 12)
        buffer += raw[at : at + step]
        at += step
        count = body.take(buffer, 0)
        taken += count
        del buffer[:count]
    return bytes(found), body.done, taken


def request_case(seed: int) -> str:
    """A complaint about one mutated request, or nothing."""
    draw = random.Random(seed)
    raw = _mutated(draw, _REQUESTS)
    try:
        head = framing.request_head(raw)
        if head is None:
            return ""
        content, done, taken = _fed(draw, raw[head.end :], head.length)
    except (framing.RefusedError, ValueError):
        return ""
    try:
        return _judged(raw, head, content, done, taken)
    except h11.RemoteProtocolError:
        # A server that refuses a forwarded request cannot misread it.
        return ""


def _judged(raw: bytes, head: framing.RequestHead, content: bytes, done: bool, taken: int) -> str:
    """What h11 reads otherwise. RemoteProtocolError where it refuses to."""
    judge = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    judge.receive_data(raw)
    theirs, event = bytearray(), judge.next_event()
    if not isinstance(event, h11.Request):
        return f"{raw!r} is passed on, and h11 waits for more of it"
    if (event.method, event.target) != (head.method, head.target):
        return f"{raw!r}: {head.method!r} {head.target!r}, and h11 reads {event.method!r} {event.target!r}"
    while isinstance(event := judge.next_event(), h11.Data):
        theirs += event.data
    if theirs != content or isinstance(event, h11.EndOfMessage) != done:
        return f"{raw!r}: the body is {content!r} ({done}), and h11 reads {bytes(theirs)!r}"
    if done and judge.trailing_data[0] != raw[head.end + taken :]:
        return f"{raw!r}: what follows is not the same to h11"
    return ""


def response_case(seed: int) -> str:
    """A complaint about one mutated response, or nothing: only that it fails in an unexpected way."""
    draw = random.Random(seed)
    raw = _mutated(draw, _RESPONSES)
    try:
        head = framing.response_head(raw, draw.choice((b"GET", b"HEAD", b"POST")))
        if head is not None:
            _, _, taken = _fed(draw, raw[head.end :], head.length)
            if taken > len(raw) - head.end:
                return f"{raw!r}: more was taken than there is"
    except ValueError:
        pass
    return ""
