"""Finds a value in a JSON text by its JSON Pointer: the plain-Python twin of `replay_native.http1.json_pointer`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from replay_native.http1.json_pointer import (
    ABSENT,
    COMPOUND,
    LITERAL,
    STRING,
)

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING_END = re.compile(rb'(?:[^"\\]|\\.)*', re.DOTALL)
_WORD = re.compile(rb"[^,}\] \t\n\r]*")
_INDEX = re.compile(rb"0|[1-9][0-9]{0,8}")
_PIECE = re.compile(rb"[^\\]|\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_LOW_SURROGATE = re.compile(rb"\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_SHORT = {
    b'"': b'"',
    b"\\": b"\\",
    b"/": b"/",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
}

Found = tuple[int, bytes]
"""The type of the value (see the kernel), and its bytes; for a STRING the bytes between its quotes, not decoded."""

NOTHING: Found = (ABSENT, b"")


def decoded(raw: bytes) -> bytes | None:
    """Decode the escapes of a string; None if one is invalid."""
    out = bytearray()
    at = 0
    while at < len(raw):
        piece = _PIECE.match(raw, at)
        if piece is None:
            return None
        at = piece.end()
        if piece[1] is not None:
            code = int(piece[1], 16)
            if 0xD800 <= code < 0xDC00 and (low := _LOW_SURROGATE.match(raw, at)):
                code = 0x10000 + ((code - 0xD800) << 10) + int(low[1], 16) - 0xDC00
                at = low.end()
            if 0xD800 <= code < 0xE000:
                return None
            out += chr(code).encode()
        elif piece[2] is not None:
            if piece[2] not in _SHORT:
                return None
            out += _SHORT[piece[2]]
        else:
            out += piece[0]
    return bytes(out)


class _Scan:
    """A position in a JSON text."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def skip(self, pattern: re.Pattern[bytes]) -> bytes:
        found = pattern.match(self.data, self.at)
        assert found is not None
        self.at = found.end()
        return found[0]

    def peek(self) -> bytes:
        self.skip(_SPACE)
        return self.data[self.at : self.at + 1]

    def string(self) -> bytes:
        """Return the undecoded content of the string that begins here, and move past its closing quote."""
        self.at += 1
        inside = self.skip(_STRING_END)
        if self.at < len(self.data) and self.data[self.at] == 0x5C:
            # A backslash at the very end escapes nothing, so the string is unterminated.
            inside, self.at = self.data[self.at - len(inside) :], len(self.data)
        self.at += 1
        return inside

    def pass_value(self) -> None:
        depth = 0
        while self.at < len(self.data):
            byte = self.data[self.at : self.at + 1]
            if byte == b'"':
                self.string()
            elif byte in (b"{", b"[", b"}", b"]"):
                depth += 1 if byte in b"{[" else -1
                self.at += 1
            elif depth == 0:
                self.skip(_WORD)
                return
            else:
                self.at += 1
            if depth <= 0:
                return

    def goes_on(self) -> bool:
        """Move past a comma, and return whether there was one."""
        if self.peek() != b",":
            return False
        self.at += 1
        self.skip(_SPACE)
        return True

    def member(self, name: bytes) -> bool:
        self.at += 1
        while self.peek() == b'"':
            key = decoded(self.string())
            if self.peek() != b":":
                return False
            self.at += 1
            self.skip(_SPACE)
            if key == name:
                return True
            self.pass_value()
            if not self.goes_on():
                return False
        return False

    def item(self, index: bytes) -> bool:
        if not _INDEX.fullmatch(index):
            return False
        self.at += 1
        self.skip(_SPACE)
        for _ in range(int(index)):
            self.pass_value()
            if not self.goes_on():
                return False
        return self.peek() not in (b"]", b"")

    def value(self) -> Found:
        first = self.peek()
        begin = self.at
        if first == b'"':
            inside = self.string()
            return (STRING, inside) if self.at <= len(self.data) else NOTHING
        if first in (b"{", b"["):
            self.pass_value()
            return COMPOUND, self.data[begin : self.at]
        word = self.skip(_WORD)
        return (LITERAL, word) if re.match(rb"[-tf0-9]", word) else NOTHING


def find(data: bytes, tokens: Sequence[bytes]) -> Found:
    """Return the value at a pointer, given as its unescaped reference tokens; NOTHING if there is none, or for null."""
    scan = _Scan(data)
    for token in tokens:
        opening = scan.peek()
        if opening == b"{":
            there = scan.member(token)
        else:
            there = opening == b"[" and scan.item(token)
        if not there:
            return NOTHING
    return scan.value()


def value_of(data: bytes, tokens: Sequence[bytes]) -> bytes | None:
    """Return the decoded string, or the text of a number or boolean; None for anything else, or an invalid escape."""
    kind, raw = find(data, tokens)
    if kind == STRING:
        return decoded(raw)
    return raw if kind == LITERAL else None
