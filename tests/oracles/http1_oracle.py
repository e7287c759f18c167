"""The lane's parser and h11 side by side on one answer, cut anywhere."""

from __future__ import annotations

import random
from dataclasses import dataclass

import h11
import numpy as np

from replay_native.http1 import parser as http1

from . import http1_differences as differences

HEADER_LIMIT = 65_536

ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 01:00:00 GMT\r\nContent-Type: text/html\r\n"
    b"Content-Length: 12\r\nConnection: keep-alive\r\nETag: \"6564-c\"\r\n\r\nhello world\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;name=value\r\n world\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\na\r\n0123456789\r\n0\r\nX: y\r\nZ: \r\n\r\n",
    b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 500\r\nContent-Length: 3, 3\r\nConnection: Keep-Alive, Upgrade\r\n\r\nbad",
    b"HTTP/1.1 503 Service Unavailable\nContent-Length: 4\nX-Folded: one\n  two\n\nbusy",
    b"HTTP/1.1 200 OK\r\nContent-Length:\t 7 \r\ncontent-length: 7\r\nconnection: close ,foo\r\n\r\n1234567",
]  # fmt: skip

_SPICE = [
    b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b",", b"0", b"9", b"\x00", b"\xff", b"\x0b", b"HTTP/1.1 ",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"\r\n\r\n", b"ffffffffffffffff",
    b"99999999999999999999", b"close", b"keep-alive", b";", b"HTTP/1.1 100 x\r\n\r\n", b"-", b"+5", b"chunked, chunked",
]  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a parser made of an answer: `whole`, `more` (not yet) or `malformed`; the rest only when whole."""

    state: str
    status: int = 0
    body_bytes: int = 0
    headers: int = 0
    keeps_alive: bool = False


def _parsed(data: bytes, cuts: list[int], to_head: bool) -> np.void:
    """The record that the lane's parser leaves."""
    parsers = np.zeros(1, http1.PARSER)
    bytes_ = np.frombuffer(data + b"\0", np.uint8)[: len(data)].copy()
    http1.parse_pieces(parsers, bytes_, np.array([*cuts, len(data)], np.int64), int(to_head), HEADER_LIMIT)
    record: np.void = parsers[0]
    return record


def reason(data: bytes, cuts: list[int], to_head: bool) -> int:
    """Why the lane's parser calls an answer malformed."""
    return int(_parsed(data, cuts, to_head)["reason"])


def ours(data: bytes, cuts: list[int], to_head: bool, eof: bool) -> Verdict:
    """The lane's parser."""
    p = _parsed(data, cuts, to_head)
    state, flags = int(p["parse_state"]), int(p["header_flags"])
    if state == http1.BAD:
        return Verdict("malformed")
    at_end = eof and state == http1.UNTIL_CLOSE
    if state != http1.DONE and not at_end:
        return Verdict("more")
    alive = (
        not at_end
        and not flags & http1.SAID_CLOSE
        and (p["minor"] >= 1 or flags & http1.SAID_KEEP_ALIVE != 0)
    )
    return Verdict("whole", int(p["status"]), int(p["body_bytes"]), int(p["headers"]), bool(alive))


def theirs(data: bytes, to_head: bool, eof: bool) -> Verdict:
    """h11 as a client that has sent its request."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEADER_LIMIT)
    method = b"HEAD" if to_head else b"GET"
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"x")]))
    connection.send(h11.EndOfMessage())
    if data:
        connection.receive_data(data)
    if eof:
        connection.receive_data(b"")
    status, body, headers = 0, 0, 0
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return Verdict("more")
            if isinstance(event, h11.Response):
                status, headers = event.status_code, len(event.headers)
            elif isinstance(event, h11.Data):
                body += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                alive = connection.their_state is h11.DONE and not (eof and _until_close(data, to_head))
                return Verdict("whole", status, body, headers + len(event.headers), alive)
            elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                return Verdict("more")
    except h11.RemoteProtocolError:
        # Data that was valid until the peer closed the connection is truncated, not malformed.
        return theirs(data, to_head, False) if eof else Verdict("malformed")


def _until_close(data: bytes, to_head: bool) -> bool:
    return theirs(data, to_head, False).state == "more"


def mutate(random_: random.Random) -> bytes:
    """A real answer, with some bytes changed, dropped, doubled or spiced."""
    data = bytearray(random_.choice(ANSWERS))
    for _ in range(random_.choice((0, 1, 1, 1, 2, 3))):
        at = random_.randrange(len(data) + 1)
        kind = random_.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = random_.randrange(256)
        elif kind == 1:
            del data[at : at + random_.randrange(1, 4)]
        elif kind == 2:
            data[at:at] = random_.choice(_SPICE)
        elif kind == 3:
            data[at:at] = data[at : at + random_.randrange(1, 30)]
        else:
            del data[at:]
    return bytes(data)


_OF_STATE = ("switching_protocols", "version", "long_length", "long_chunk", "chunk_space", "repeated_coding")
"""Differences by which one side calls an answer malformed, and the other does not."""


def compare(data: bytes, cuts: list[int], to_head: bool, eof: bool) -> str:
    """Empty where both agree or a listed difference explains it; else what each made of it."""
    a, b = ours(data, cuts, to_head, eof), theirs(data, to_head, eof)
    if a == b or (a.state == "malformed" and b.state == "more" and _breaks_later(data, to_head)):
        return ""
    if a.state != b.state and any(differences.applies(name, data) for name in _OF_STATE):
        return ""
    alike = a.state == b.state and (a.status, a.body_bytes) == (b.status, b.body_bytes)
    if alike and a.headers == b.headers and a.keeps_alive and differences.applies("http10_keep_alive", data):
        return ""
    if alike and a.headers > b.headers and differences.applies("repeated_length", data):
        return ""
    return f"{data!r} cut at {cuts}, head {to_head}, eof {eof}: ours {a}, h11 {b}"


def _breaks_later(data: bytes, to_head: bool) -> bool:
    """The difference `early`: whatever follows, h11 refuses it as well once the head or the line is whole."""
    endings = (
        b"\r\n\r\n",
        b"\n\n",
        b"0\r\n\r\n",
        b" 200 OK\r\n\r\n",
        b":x\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"x\r\n\r\n",
        b"0 200 OK\r\n\r\n",
    )
    return all(theirs(data + ending, to_head, False).state != "whole" for ending in endings)


def one_case(seed: int) -> str:
    """A mutated answer, cut at every byte or at random; a complaint, or nothing."""
    random_ = random.Random(seed)
    data = mutate(random_)
    every = random_.random() < 0.5
    cuts = (
        list(range(1, len(data)))
        if every
        else sorted(random_.sample(range(len(data) + 1), min(3, len(data))))
    )
    return compare(data, cuts, random_.random() < 0.1, random_.random() < 0.5)
