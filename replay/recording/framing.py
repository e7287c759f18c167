"""Finds where HTTP/1 messages begin and end: strictly for requests, leniently for responses.

If two servers disagree about where a request ends, an attacker can hide one request inside another (request
smuggling). Requests that servers could read differently are therefore refused. No byte of an ambiguous head is
forwarded, and of a malformed body only the part before the fault. The checks are made on the raw bytes: both length
headers, repeated ones, folded lines, bare line feeds, blanks before a colon, and loose chunk sizes. Nothing is
rewritten: the forwarded bytes are the received ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from replay.trace.requests import Headers

HEAD_BYTES_MAX = 64 << 10
"""Maximum length of a request's head with its request line, in bytes. A longer one is answered with 431 or 414."""

RESPONSE_HEAD_BYTES_MAX = 1 << 20

TARGET_BYTES_MAX = 32 << 10
"""Maximum length of a request target in bytes. A longer one is answered with 414."""

CHUNK_LINE_BYTES_MAX = 4 << 10
TRAILER_BYTES_MAX = 16 << 10

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_LINE = re.compile(rb"(" + _TOKEN + rb"{1,32}+) ([\x21-\x7e\x80-\xff]++) HTTP/1\.([01])\r\n")
_FIELDS = re.compile(rb"(?:" + _TOKEN + rb"++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+")
_FIELD = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*?)[ \t]*\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_HOST = re.compile(rb"[0-9A-Za-z\x80-\xff._~!$&'()*+;=%-]*(?::\d{0,5})?|\[[0-9A-Fa-f:.%a-z]+\](?::\d{0,5})?")
_AUTHORITY = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"\d{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_LOOSE_FIELD = re.compile(rb"([^:\r\n]+?)[ \t]*:[ \t]*([^\r\n]*?)[ \t]*\r?\n")

_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"host"})
_READ_AS_FRAMING = frozenset({b"content_length", b"transfer_encoding"})
"""Gateways that turn headers into variables (CGI, WSGI) confuse these headers with those that have a hyphen."""

REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    414: "URI Too Long",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


class RefusedError(Exception):
    """Raised for a request that is refused: a proxy forwards no more of it, and a receiver does not pass it on.

    `why` is the reason in the accounts, and `status` the status of the response.
    """

    def __init__(self, why: str, status: int = 400) -> None:
        super().__init__(why)
        self.why, self.status = why, status


@dataclass(slots=True)
class RequestHead:
    """The head of a request.

    `length` is the length of the body, or -1 if it is chunked. `end` is where the body begins in the buffer.
    `expects` means that the client waits for 100 (Continue), and `keeps` that the connection continues after the
    request.
    """

    method: bytes
    target: bytes
    minor: int
    headers: Headers
    host: bytes
    length: int
    end: int
    upgrades: bool = False
    expects: bool = False
    keeps: bool = True


@dataclass(slots=True)
class ResponseHead:
    """The head of a response.

    `length` is the length of the body, -1 if it is chunked, or None if it ends with the connection. `end` is where
    the body begins in the buffer.
    """

    status: int
    headers: Headers
    length: int | None
    end: int


def request_head(data: bytes | bytearray, begin: int = 0) -> RequestHead | None:
    """Return the head of the request that begins at `begin`, or None if it is not complete yet.

    Raises RefusedError if it is ambiguous, malformed or too long.
    """
    end = data.find(b"\r\n\r\n", begin, begin + HEAD_BYTES_MAX)
    if end < 0:
        _check_partial(data, begin)
        return None
    line = _LINE.match(data, begin, end + 2)
    if line is None:
        raise RefusedError(*_wrong_line(bytes(data[begin : end + 2])))
    fields = _FIELDS.match(data, line.end(), end + 2)
    if fields is None or fields.end() != end + 2:
        raise RefusedError(_wrong_field(bytes(data[line.end() : end + 2])))
    if len(line[2]) > TARGET_BYTES_MAX:
        raise RefusedError("too long target", 414)
    headers = tuple(_FIELD.findall(data, line.end(), end + 2))
    return _checked(line, headers, end + 4)


def _check_partial(data: bytes | bytearray, begin: int) -> None:
    """Refuse an incomplete head with a bare line feed or over the size limit, so that no task waits for its end."""
    if _BARE_LF.search(data, begin):
        raise RefusedError("bare line feed")
    if len(data) - begin >= HEAD_BYTES_MAX:
        if data.find(b"\r\n", begin) < 0:
            raise RefusedError("too long target", 414)
        raise RefusedError("too long headers", 431)


def _wrong_line(head: bytes) -> tuple[str, int]:
    """Return the reason and the status with which a request line is refused."""
    line = head.partition(b"\r\n")[0]
    if _BARE_LF.search(head):
        return "bare line feed", 400
    if line.startswith(b"PRI * HTTP/2"):
        return "HTTP/2", 505
    if line.startswith(b"\x16\x03"):
        return "TLS on a plain port", 400
    if re.search(rb" HTTP/(?!1\.[01]$)\d(?:\.\d)?$", line):
        return "HTTP version", 505
    return "malformed request line", 400


def _wrong_field(block: bytes) -> str:
    """Return the reason why the header lines of a request are refused."""
    if _BARE_LF.search(block):
        return "bare line feed"
    for line in block.split(b"\r\n")[:-1]:
        if line[:1] in (b" ", b"\t"):
            return "folded header"
        name, colon, value = line.partition(b":")
        if colon and name != name.rstrip(b" \t"):
            return "blank before a colon"
        if b"\r" in line:
            return "bare carriage return"
        if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value):
            return "control character in a header"
    return "malformed header"


def _checked(line: re.Match[bytes], headers: Headers, end: int) -> RequestHead:
    """Return the head of a request whose lines are well-formed.

    Raises RefusedError if it is ambiguous where the request ends, if host or target is invalid, or for CONNECT.
    """
    method, target, minor = line[1], line[2], line[3] == b"1"
    lengths, codings, hosts = list[bytes](), list[bytes](), list[bytes]()
    connection, upgrade, expect = b"", False, False
    for name, value in headers:
        lowered, value = name.lower(), value or b""
        if lowered == b"content-length":
            lengths.append(value)
        elif lowered == b"transfer-encoding":
            codings.append(value)
        elif lowered == b"host":
            hosts.append(value)
        elif lowered == b"connection":
            connection += b"," + value.lower()
        elif lowered == b"upgrade":
            upgrade = True
        elif lowered == b"expect":
            expect = value.lower() == b"100-continue"
        elif lowered in _READ_AS_FRAMING:
            raise RefusedError("header that some servers read as a length")
    length = _length(lengths, codings, minor)
    options = {option.strip() for option in connection.split(b",")} if connection else set[bytes]()
    if options & _FRAMING:
        raise RefusedError("Connection names a header of the framing")
    if method == b"CONNECT":
        raise RefusedError("CONNECT", 405)
    keeps = b"close" not in options and (minor or b"keep-alive" in options)
    return RequestHead(
        method, target, int(minor), headers, _host(hosts, target, minor), length, end,
        upgrades=upgrade and b"upgrade" in options, expects=expect and minor, keeps=keeps,
    )  # fmt: skip


def _length(lengths: list[bytes], codings: list[bytes], minor: bool) -> int:
    """Return the length of a request's body, or -1 if it is chunked. Raises RefusedError if it is ambiguous."""
    if codings:
        if lengths:
            raise RefusedError("both Content-Length and Transfer-Encoding")
        if not minor:
            raise RefusedError("Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise RefusedError("unknown Transfer-Encoding")
        return -1
    if not lengths:
        return 0
    if len(lengths) > 1 or b"," in lengths[0]:
        raise RefusedError("more than one Content-Length")
    if not _LENGTH.fullmatch(lengths[0]):
        raise RefusedError("malformed Content-Length")
    return int(lengths[0])


def _host(hosts: list[bytes], target: bytes, minor: bool) -> bytes:
    """Return the host of a request, which may be empty.

    Raises RefusedError if host or target is invalid. If the target is a whole URL, its host must be the same as in the
    Host header.
    """
    if len(hosts) > 1:
        raise RefusedError("more than one Host")
    if minor and not hosts:
        raise RefusedError("no Host")
    host = hosts[0] if hosts else b""
    if not _HOST.fullmatch(host):
        raise RefusedError("malformed Host")
    url = _AUTHORITY.match(target)
    if url is not None and hosts and url[1].lower() != host.lower():
        raise RefusedError("target and Host differ")
    if url is None and not target.startswith(b"/") and target != b"*":
        raise RefusedError("malformed target")
    return url[1] if url is not None else host


def response_head(data: bytes | bytearray, method: bytes) -> ResponseHead | None:
    """Return the head of a response to a request of `method`, or None if it is not complete yet.

    Raises ValueError if it is not HTTP/1, if it is too long, or if its length is malformed or contradictory.
    """
    found = _HEAD_END.search(data, 0, RESPONSE_HEAD_BYTES_MAX)
    if found is None:
        if len(data) >= RESPONSE_HEAD_BYTES_MAX or not b"HTTP/1."[: len(data)].startswith(bytes(data[:7])):
            raise ValueError("not a response of HTTP/1")
        return None
    line = _STATUS_LINE.match(data)
    if line is None:
        raise ValueError("not a response of HTTP/1")
    status = int(line[2])
    block = bytes(data[line.end() : found.start()]) + b"\r\n" if line.end() <= found.start() else b""
    headers = tuple(_LOOSE_FIELD.findall(block))
    return ResponseHead(status, headers, _response_length(status, headers, method), found.end())


def _response_length(status: int, headers: Headers, method: bytes) -> int | None:
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return 0
    lengths, chunked = set[bytes](), False
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"transfer-encoding":
            chunked = (value or b"").lower().rpartition(b",")[2].strip() == b"chunked"
            if not chunked:
                return None
        elif lowered == b"content-length":
            lengths.add(value or b"")
    if chunked:
        return -1
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(only := lengths.pop()):
        raise ValueError("contradictory lengths")
    return int(only)


Keep = Callable[[memoryview], object]
"""A function that receives a piece of a body's content. The piece is only valid during the call."""


class Body(Protocol):
    """A body that is being received. `done` is true when it is complete."""

    done: bool

    def take(self, data: bytes | bytearray, begin: int) -> int:
        """Consume the available part of the body, which begins at `begin`, and return where that part ends.

        Raises ValueError if the body is malformed.
        """
        ...


class SizedBody:
    """A body of known length, or, with a `length` of None, a body that ends with the connection."""

    def __init__(self, length: int | None, keep: Keep) -> None:
        self._left, self._keep = length, keep
        self.done = length == 0

    def take(self, data: bytes | bytearray, begin: int) -> int:
        """Consume the available part of the body, and return where that part ends."""
        end = len(data) if self._left is None else min(len(data), begin + self._left)
        if end > begin:
            with memoryview(data) as view, view[begin:end] as piece:
                self._keep(piece)
        if self._left is not None:
            self._left -= end - begin
            self.done = self._left == 0
        return end


class ChunkedBody:
    """A chunked body. Chunk sizes and trailers are consumed only when their line is complete and valid."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._left, self._ends_chunk, self._in_trailers, self._trailer_bytes = 0, False, False, 0
        self.done = False

    def take(self, data: bytes | bytearray, begin: int) -> int:
        """Consume the available part of the body, except for an incomplete line, and return where that part ends."""
        at = begin
        while not self.done and at < len(data):
            if self._left:
                end = min(len(data), at + self._left)
                with memoryview(data) as view, view[at:end] as piece:
                    self._keep(piece)
                self._left -= end - at
                at = end
            elif self._ends_chunk:
                if data[at : at + 2] != b"\r\n":
                    if data[at : at + 1] == b"\r" and len(data) == at + 1:
                        return at
                    raise ValueError("a chunk longer than its size")
                self._ends_chunk = False
                at += 2
            else:
                after = self._trailer(data, at) if self._in_trailers else self._size(data, at)
                if after < 0:
                    return at
                at = after
        return at

    def _size(self, data: bytes | bytearray, at: int) -> int:
        """Read a chunk-size line, and return the offset after it, or -1 if the line is not complete."""
        line = _CHUNK_LINE.match(data, at, at + CHUNK_LINE_BYTES_MAX)
        if line is None:
            if data.find(b"\n", at) >= 0 or len(data) - at >= CHUNK_LINE_BYTES_MAX:
                raise ValueError("malformed chunk size")
            return -1
        self._left = int(line[1], 16)
        self._ends_chunk = self._left > 0
        self._in_trailers = self._left == 0
        return line.end()

    def _trailer(self, data: bytes | bytearray, at: int) -> int:
        """Read a trailer or the final blank line, and return the offset after it, or -1 if it is not complete."""
        feed = data.find(b"\n", at)
        size = (feed + 1 if feed >= 0 else len(data)) - at
        if self._trailer_bytes + size > TRAILER_BYTES_MAX:
            raise ValueError("too long trailers")
        if feed < 0:
            return -1
        self._trailer_bytes += size
        if data[at : feed + 1] == b"\r\n":
            self.done = True
            return feed + 1
        field = _FIELDS.match(data, at, feed + 1)
        if field is None or field.end() != feed + 1:
            raise ValueError("malformed trailer")
        name = bytes(data[at : data.find(b":", at)]).lower()
        if name in _FRAMING or name in _READ_AS_FRAMING:
            raise ValueError("a trailer that is a header of the framing")
        return feed + 1


def body_of(length: int | None, keep: Keep) -> Body:
    """Return the reader of a message's body.

    `length` is its length; -1 means chunked, and None that it ends with the connection.
    """
    return ChunkedBody(keep) if length == -1 else SizedBody(length, keep)


def refusal(status: int, text: str, *, with_body: bool = True) -> bytes:
    """Return an error response of this server, after which the connection must be closed."""
    body = f"replay: {text}\n".encode() if with_body else b""
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
        "X-Replay-Refused: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
