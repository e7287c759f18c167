"""Parts of a complete response: its header section, a header, a cookie, its body without chunk framing.

These kernels require bytes that `parser.parse` has found to be a complete response. The portable engine has its own
functions in plain Python (`replay/portable/responses.py`).
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint8

from replay_native.ground.jit import kernel
from replay_native.ground.libc import memchr

from .parser import (
    CR,
    LF,
    SEMICOLON,
    SPACE,
    TAB,
)

_EQUALS = 61
_CHUNKED = np.frombuffer(b"chunked", np.uint8)
_TRANSFER_ENCODING = np.frombuffer(b"transfer-encoding", np.uint8)
_HTTP_CODE = 9


@kernel(inlined=True)
def lower(byte):
    """Return a byte, in lower case if it is an ASCII letter."""
    return byte + np.uint8(32) if 65 <= byte <= 90 else byte


@kernel()
def same_word(data, begin, end, word, word_begin, word_end):
    """Return whether data[begin:end] equals the lower-case word[word_begin:word_end], ignoring case."""
    if end - begin != word_end - word_begin:
        return False
    same = True
    for i in range(end - begin):
        same = same and lower(data[begin + i]) == word[word_begin + i]
    return same


@kernel()
def find_bytes(data, begin, end, needle, needle_begin, needle_end):
    """Return where needle[needle_begin:needle_end] first begins in data[begin:end], or -1."""
    length = needle_end - needle_begin
    if length == 0:
        return begin
    first = needle[needle_begin]
    at = begin
    while at + length <= end:
        if data[at] == first:
            matching = np.int64(1)
            while matching < length and data[at + matching] == needle[needle_begin + matching]:
                matching += 1
            if matching == length:
                return at
        at += 1
    return np.int64(-1)


@kernel(inlined=True)
def trimmed(data, begin, end):
    """Return (begin, end) of data[begin:end] without the spaces and tabs around it."""
    while begin < end and data[begin] in (SPACE, TAB):
        begin += 1
    while end > begin and data[end - 1] in (SPACE, TAB):
        end -= 1
    return begin, end


@kernel()
def line_ends(data, at, end):
    """Return where the text of the line at `at` ends, and where the next line begins."""
    found = (
        memchr(data.ctypes.data + np.uint64(at), np.int32(LF), np.uint64(end - at))
        if at < end
        else np.uint64(0)
    )
    at = np.int64(found - data.ctypes.data) if found else max(at, end)
    text_end = at - 1 if at > 0 and at <= end and data[at - 1] == CR else at
    return text_end, min(at + 1, end)


@kernel()
def _section_ends(data, begin, end):
    """Return where the header section that begins at `begin` ends. Its empty line is part of it."""
    at = begin
    while at < end:
        line = at
        text_end, at = line_ends(data, line, end)
        if text_end <= line:
            return at
    return end


@kernel()
def find_head(data, begin, end):
    """Return (begin, end) of the header section of the final response, skipping informational responses."""
    head_end = _section_ends(data, begin, end)
    while head_end < end and begin + _HTTP_CODE < end and data[begin + _HTTP_CODE] == 49:
        begin = head_end
        head_end = _section_ends(data, begin, end)
    return begin, head_end


@kernel()
def unfold(data, begin, end):
    """Join header lines that continue on the next line (RFC 9112, 5.2), in place.

    Each fold becomes one space. The bytes that this frees become spaces after the value, which are not part of it.
    """
    text_end, at = line_ends(data, begin, end)
    while at < end:
        line = at
        following, at = line_ends(data, line, end)
        if following > line and data[line] in (SPACE, TAB):
            _, joined = trimmed(data, begin, text_end)
            part, part_end = trimmed(data, line, following)
            data[joined] = SPACE
            for i in range(part_end - part):
                data[joined + 1 + i] = data[part + i]
            for i in range(joined + 1 + part_end - part, following):
                data[i] = SPACE
        text_end = following


@kernel()
def find_header(data, begin, end, name, name_begin, name_end):
    """Return the value of the first header with this (lower-case) name in a section, skipping the line at `begin`.

    The result is (begin, end, where to continue the search). If there is no such header, `begin` is -1.
    """
    _, at = line_ends(data, begin, end)
    while at < end:
        line = at
        text_end, at = line_ends(data, line, end)
        name_stop = line + name_end - name_begin
        if (
            name_stop < text_end
            and data[name_stop] == 58
            and same_word(data, line, name_stop, name, name_begin, name_end)
        ):
            value, value_end = trimmed(data, name_stop + 1, text_end)
            return value, value_end, line
    return np.int64(-1), np.int64(-1), end


@kernel(inlined=True)
def _hex_digit(byte):
    return np.int64(byte) - 48 if byte < 58 else (np.int64(byte) & 31) + 9


@kernel()
def _unchunk(data, at, end):
    """Join the chunks that begin at `at`, in place, and return where their data ends."""
    out = at
    while at < end:
        size = np.int64(0)
        line_end, following = line_ends(data, at, end)
        while at < line_end and (48 <= data[at] <= 57 or 65 <= lower(data[at]) - 32 <= 70):
            size = size * 16 + _hex_digit(data[at])
            at += 1
        at = following
        size = min(size, end - at)
        if size == 0:
            return out
        for i in range(size):
            data[out + i] = data[at + i]
        out += size
        _, at = line_ends(data, at + size, end)
    return out


@kernel()
def find_body(data, head, head_end, end):
    """Return where the body that begins at `head_end` ends. Chunks are joined in place."""
    value, value_end, _ = find_header(data, head, head_end, _TRANSFER_ENCODING, 0, _TRANSFER_ENCODING.size)
    if value >= 0 and same_word(data, value, value_end, _CHUNKED, 0, _CHUNKED.size):
        return _unchunk(data, head_end, end)
    return end


@kernel()
def cookie_parts(data, begin, end):
    """Split a Set-Cookie value (RFC 6265, 5.2): (name begin, name end, value begin, value end, attributes begin).

    The name end is -1 if the value is not a valid cookie: it has no `=` or no name, or it contains a control
    character.
    """
    stop = begin
    while stop < end and data[stop] != SEMICOLON:
        stop += 1
    equals = begin
    while equals < stop and data[equals] != _EQUALS:
        equals += 1
    name, name_end = trimmed(data, begin, equals)
    value, value_end = trimmed(data, min(equals + 1, stop), stop)
    sound = equals < stop and name < name_end
    for at in range(name, value_end):
        sound = sound and data[at] >= 32 and data[at] != 127
    return name, name_end if sound else np.int64(-1), value, value_end, stop


@kernel(int64(uint8[::1], uint8[::1], int64[::1]))
def looked_up(data, name, found):
    """Write the ranges of the head, the body and the value of a header to `found` int64[6] (for tests)."""
    head, head_end = find_head(data, 0, data.size)
    unfold(data, head, head_end)
    found[0], found[1] = head, head_end
    found[2], found[3] = head_end, find_body(data, head, head_end, data.size)
    found[4], found[5], _ = find_header(data, head, head_end, name, 0, name.size)
    return found[4]
