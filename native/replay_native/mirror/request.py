"""Heads of usual requests, checked as strictly as `replay.recording.framing` checks all heads.

Framing accepts every usual head, and reads it in the same way. Any head that is rare, ambiguous or wrong is left to
framing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from replay_native.ground import libc
from replay_native.ground.jit import kernel

_memchr = libc.memchr

INCOMPLETE, UNUSUAL = -1, -2
METHOD_BYTES_MAX, TARGET_BYTES_MAX, LENGTH_DIGITS_MAX = 32, 32 << 10, 15
CR, LF, TAB, SPACE, COLON, SLASH = 13, 10, 9, 32, 58, 47


class HeadWords(NamedTuple):
    """What a head contains.

    `line_end` and `head_end` are the lengths of the request line and of the head. `minor` is the minor version.
    `keeps` is 1 if the connection stays open. `length` is Content-Length (-1 without one). `hosts` and `options`
    count the Host and Connection lines.
    """

    line_end: int = 0
    head_end: int = 1
    minor: int = 2
    keeps: int = 3
    length: int = 4
    hosts: int = 5
    options: int = 6


H = HeadWords()
TOKEN, VALUE, TARGET, HOST = 1, 2, 4, 8
_CLASSES = np.zeros(256, np.uint8)
_CLASSES[np.frombuffer(b"!#$%&'*+.^_`|~-", np.uint8)] |= TOKEN
_CLASSES[np.frombuffer(b"._~!$&'()*+;=%-", np.uint8)] |= HOST
for _first, _last in (b"09", b"AZ", b"az"):
    _CLASSES[_first : _last + 1] |= TOKEN | HOST
_CLASSES[0x20:0x7F] |= VALUE
_CLASSES[0x21:0x7F] |= TARGET
_CLASSES[0x80:] |= VALUE | TARGET | HOST
_CLASSES[TAB] |= VALUE


def _text(literal: bytes) -> np.ndarray:
    return np.frombuffer(literal, np.uint8).copy()


_VERSION, _CONNECT = _text(b" http/1."), _text(b"connect ")
_LENGTH, _HOST_NAME, _CONNECTION = _text(b"content-length"), _text(b"host"), _text(b"connection")
_KEEP_ALIVE, _CLOSE = _text(b"keep-alive"), _text(b"close")
_ENCODING, _UPGRADE, _EXPECT = _text(b"transfer-encoding"), _text(b"upgrade"), _text(b"expect")
_CGI_LENGTH, _CGI_ENCODING = _text(b"content_length"), _text(b"transfer_encoding")


@kernel(inlined=True)
def is_text(data, begin, end, text):
    """Return whether data[begin:end] equals `text`, which is in lower case, if case is ignored."""
    if end - begin != text.size:
        return False
    for i in range(text.size):
        byte = data[begin + i]
        if 65 <= byte <= 90:
            byte += 32
        if byte != text[i]:
            return False
    return True


@kernel(inlined=True)
def _passes(data, at, end, kind):
    """Return the first place from `at` on whose byte is not of this kind, or `end`."""
    while at < end and _CLASSES[data[at]] & kind:
        at += 1
    return at


@kernel()
def _is_usual_line(data, begin, end, head):
    """Return whether a request line (without its CR LF) has a method, a path and HTTP/1.0 or 1.1.

    CONNECT is not usual, nor is a method or path that is too long.
    """
    at = _passes(data, begin, end, TOKEN)
    if at == begin or at - begin > METHOD_BYTES_MAX or at + 1 >= end or data[at] != SPACE:
        return False
    if is_text(data, begin, at + 1, _CONNECT) or data[at + 1] != SLASH:
        return False
    last = end - _VERSION.size - 1
    if last <= at + 1 or last - at - 1 > TARGET_BYTES_MAX or _passes(data, at + 1, last, TARGET) != last:
        return False
    version = data[end - 1]
    head[H.minor] = np.int64(version) - 48
    return (
        is_text(data, last, end - 1, _VERSION)
        and data[last + 1] == 72 and data[last + 2] == 84 and data[last + 3] == 84 and data[last + 4] == 80
        and 48 <= version <= 49
    )  # fmt: skip


@kernel()
def _length_of(data, begin, end):
    """Return the value of Content-Length, or UNUSUAL unless it consists of 1 to 15 digits."""
    if begin == end or end - begin > LENGTH_DIGITS_MAX:
        return np.int64(UNUSUAL)
    number = np.int64(0)
    for at in range(begin, end):
        if not 48 <= data[at] <= 57:
            return np.int64(UNUSUAL)
        number = number * 10 + np.int64(data[at]) - 48
    return number


@kernel()
def _is_usual_host(data, begin, end):
    """Return whether a value is a host name or an IPv4 address, with or without a port, or is empty."""
    at = _passes(data, begin, end, HOST)
    if at == end:
        return True
    if data[at] != COLON or end - at > 6:
        return False
    at += 1
    while at < end and 48 <= data[at] <= 57:
        at += 1
    return at == end


@kernel(inlined=True)
def _is_left_to_framing(data, begin, end):
    """Return whether a header changes how the request is read, in a way that only framing supports."""
    initial = data[begin] | 32
    if initial == 116:
        return is_text(data, begin, end, _ENCODING) or is_text(data, begin, end, _CGI_ENCODING)
    if initial == 99:
        return is_text(data, begin, end, _CGI_LENGTH)
    return is_text(data, begin, end, _UPGRADE) or is_text(data, begin, end, _EXPECT)


@kernel()
def _take_header(data, begin, end, head):
    """Check the header line data[begin:end] (without its CR LF), and return whether it is usual."""
    colon = _passes(data, begin, end, TOKEN)
    if colon in (begin, end) or data[colon] != COLON or _passes(data, colon + 1, end, VALUE) != end:
        return False
    first = colon + 1
    while first < end and (data[first] == SPACE or data[first] == TAB):
        first += 1
    while end > first and (data[end - 1] == SPACE or data[end - 1] == TAB):
        end -= 1
    if is_text(data, begin, colon, _LENGTH):
        is_first = head[H.length] < 0
        head[H.length] = _length_of(data, first, end)
        return is_first and head[H.length] >= 0
    if is_text(data, begin, colon, _HOST_NAME):
        head[H.hosts] += 1
        return head[H.hosts] == 1 and _is_usual_host(data, first, end)
    if is_text(data, begin, colon, _CONNECTION):
        head[H.options] += 1
        head[H.keeps] = is_text(data, first, end, _KEEP_ALIVE)
        return head[H.options] == 1 and (head[H.keeps] != 0 or is_text(data, first, end, _CLOSE))
    return not _is_left_to_framing(data, begin, colon)


@kernel()
def read_head(data, begin, end, head):
    """Check the head that begins at `begin`, and return the length of the body, INCOMPLETE, or UNUSUAL.

    `head` is set if the head is complete and usual.
    """
    base = data.ctypes.data
    head[H.length], head[H.hosts], head[H.options] = -1, 0, 0
    at = begin
    while at < end:
        found = _memchr(base + np.uint64(at), LF, np.uint64(end - at))
        if found == 0:
            break
        feed = np.int64(found - base)
        last = feed - 1
        if last < at or data[last] != CR:
            return np.int64(UNUSUAL)
        if at == begin:
            if not _is_usual_line(data, at, last, head):
                return np.int64(UNUSUAL)
            head[H.line_end] = feed + 1 - begin
            head[H.keeps] = head[H.minor]
        elif last == at:
            head[H.head_end] = feed + 1 - begin
            has_host = head[H.hosts] > 0 or head[H.minor] == 0
            return max(head[H.length], np.int64(0)) if has_host else np.int64(UNUSUAL)
        elif not _take_header(data, at, last, head):
            return np.int64(UNUSUAL)
        at = feed + 1
    return np.int64(INCOMPLETE)


@kernel("int64(uint8[::1], int64[::1])")
def read_one_head(data, head):
    """Run `read_head` on a whole array, for a caller in Python."""
    return read_head(data, np.int64(0), np.int64(data.shape[0]), head)
