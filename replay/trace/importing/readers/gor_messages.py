"""Parses the messages of a `.gor` file in plain Python: their ends, lengths, chunks and responses."""

from __future__ import annotations

import re
from typing import NamedTuple

RECORD_BYTES_MAX = 64 << 20
"""A record longer than this is rejected."""

HEAD = re.compile(rb"([123]) ([0-9A-Za-z]+) (\d{1,19})(?: (-?\d{1,19}))?\s*\n")
REQUEST = re.compile(rb"([^ \r\n]{1,32}) ([^\r\n]*?)(?: HTTP/[\d.]+)?\r?\n")
_STATUS = re.compile(rb"HTTP/[\d.]+ (\d{3})")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*\r?\n")
LENGTH = re.compile(rb"\nContent-Length:[ \t]*(\d{1,15})[ \t]*\r?\n", re.IGNORECASE)
CHUNKED = re.compile(rb"\nTransfer-Encoding:[ \t]*chunked", re.IGNORECASE)
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_GLUED = re.compile(rb"\s*(?:[123] [0-9A-Za-z]+ \d{10,19}\b|[A-Z]{3,16} \S+ HTTP/|HTTP/[\d.]+ \d{3})")
"""How a message begins if no separator precedes it."""

HOST = re.compile(rb"\nHost:[ \t]*([^\s]+)", re.IGNORECASE)


def dechunked(raw: bytes) -> bytes:
    """Return a body without its chunk sizes (RFC 9112, 7.1).

    Data after a broken chunk is dropped.
    """
    return b"".join(raw[begin:end] for begin, end in _chunks(raw))


def _chunks(raw: bytes) -> list[tuple[int, int]]:
    """Return where the data of each chunk begins and ends."""
    found, at = list[tuple[int, int]](), 0
    while (end := raw.find(b"\r\n", at)) >= 0:
        size = re.match(rb"[0-9A-Fa-f]{1,8}", raw[at:end])
        if size is None or int(size[0], 16) == 0:
            break
        length = int(size[0], 16)
        found.append((end + 2, end + 2 + length))
        at = end + 2 + length + 2
    return found


_LAST_CHUNK = re.compile(rb"(?:\r\n)?0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n")


def _chunked_end(raw: bytes) -> int:
    """Return where a chunked body ends, after its last chunk and trailers; the end of `raw` if it is incomplete."""
    chunks = _chunks(raw)
    last = _LAST_CHUNK.match(raw, chunks[-1][1] if chunks else 0)
    return last.end() if last else len(raw)


def parted(part: bytes, begin: int) -> tuple[int, int]:
    """Return where the headers of a message end (after their last line break), and where its body begins.

    Without an empty line, both are the end of `part`. Lines may end in a bare LF, which some tools write.
    """
    found = _HEAD_END.search(part, begin)
    if found is None:
        return len(part), len(part)
    return part.index(b"\n", found.start()) + 1, found.end()


def message_end(part: bytes, begin: int) -> int:
    """Return where the message at `begin` ends, according to its length or its chunks.

    Without either, it ends at the end of `part`, or after its headers if another message follows them directly.
    """
    headers_end, body_begin = parted(part, begin)
    head = part[max(begin - 1, 0) : headers_end]
    length = LENGTH.search(head)
    if length is not None:
        return min(len(part), body_begin + int(length[1]))
    if CHUNKED.search(head):
        return body_begin + _chunked_end(part[body_begin:])
    return body_begin if _GLUED.match(part, body_begin) else len(part)


class Answer(NamedTuple):
    """The response to a request, with its header lines and its body without chunk sizes."""

    at_ns: int
    latency_ns: int
    status: int
    size: int
    number: int
    head: bytes
    body: bytes
    shown: bytes


def answer_of(number: int, head: re.Match[bytes], part: bytes) -> Answer:
    """Parse the response in `part`, after its `head`."""
    status = _STATUS.match(part, head.end())
    headers_end, body_begin = parted(part, head.end())
    lines = part[head.end() : headers_end]
    length, is_chunked = LENGTH.search(lines), CHUNKED.search(lines) is not None
    body = dechunked(part[body_begin:]) if is_chunked else part[body_begin:]
    whole = len(body) if body or is_chunked else -1
    return Answer(
        at_ns=int(head[3]),
        latency_ns=int(head[4] or 0),
        status=int(status[1]) if status and int(status[1]) >= 100 else -1,
        size=int(length[1]) if length else whole,
        number=number,
        head=lines[lines.find(b"\n") :],
        body=body,
        shown=part[:200],
    )


def has_no_body(method: str, status: int) -> bool:
    """Return whether a response has no body, whatever its length header states (RFC 9110, 8.6)."""
    return method == "HEAD" or status in (204, 304) or 100 <= status < 200
