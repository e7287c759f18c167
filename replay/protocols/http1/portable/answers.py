"""Splits a complete response for the portable engine: the plain-Python twin of `replay_native.http1.answers`."""

from __future__ import annotations

import re

_SECTION_END = re.compile(rb"\n\r?\n")
_FOLDS = re.compile(rb"(?:[ \t]*\r?\n[ \t]+)+")
_LINE_END = re.compile(rb"\r?\n")
_CODE_AT = len(b"HTTP/1.1 ")
_BLANKS = b" \t"

Headers = list[tuple[bytes, bytes]]


def parts_of(answer: bytes | bytearray) -> tuple[Headers, bytes]:
    """Split a response into its headers and its body without chunk framing.

    Header names are in lower case, and folded values are joined by a space. `answer` is a complete response
    according to the parser, or the beginning of one.
    """
    data, begin = bytes(answer), 0
    end = _section_ends(data, begin)
    while end < len(data) and data[begin + _CODE_AT : begin + _CODE_AT + 1] == b"1":
        begin, end = end, _section_ends(data, end)
    headers = _headers(data[begin:end])
    coding = next((value for name, value in headers if name == b"transfer-encoding"), b"")
    return headers, _unchunked(data, end) if coding.lower() == b"chunked" else data[end:]


def _section_ends(data: bytes, begin: int) -> int:
    found = _SECTION_END.search(data, begin)
    return found.end() if found else len(data)


def _headers(section: bytes) -> Headers:
    lines = _LINE_END.split(_FOLDS.sub(b" ", section))[1:]
    pairs = (line.partition(b":") for line in lines)
    return [(name.lower(), value.strip(_BLANKS)) for name, colon, value in pairs if colon]


def _unchunked(data: bytes, at: int) -> bytes:
    body = b""
    while at < len(data):
        line, _, _ = data[at:].partition(b"\n")
        digits = re.match(rb"[0-9a-fA-F]*", line)
        size = int(digits[0] or b"0", 16) if digits else 0
        at += len(line) + 1
        if size == 0:
            break
        body += data[at : at + size]
        at = data.find(b"\n", at + size) + 1 or len(data)
    return body
