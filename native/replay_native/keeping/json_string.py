"""Strings in a JSON text that is being digested, hashed eight bytes at a time, with their escapes decoded."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64, trailing_zeros

from .json_state import (
    BACKSLASH,
    DIGIT_0,
    DIGIT_9,
    ESCAPE,
    FAILED,
    QUOTE,
    STRING,
    STRING_ENDS,
    TEXT,
    UNICODE,
    mix,
)

_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES = np.uint64(0x2222222222222222), np.uint64(0x5C5C5C5C5C5C5C5C)
_SPACES = np.uint64(0x2020202020202020)


@kernel(inlined=True)
def begin_string(j, is_key):
    """Start a string."""
    j.is_key = is_key
    j.hash = TEXT
    j.word = np.uint64(0)
    j.size = 0
    j.surrogate = 0


@kernel(inlined=True)
def _appended(hashed, held, size, word, count):
    """Return the hash and the incomplete last word of a string of `size` bytes after 1 to 8 more bytes.

    The new bytes are the low bytes of `word`, whose other bytes are 0.
    """
    place = size & 7
    merged = held | (word << np.uint64(8 * place))
    if place + count < 8:
        return hashed, merged
    return mix(hashed, merged), word >> np.uint64(64 - 8 * place) if place else np.uint64(0)


@kernel()
def _append(j, word, count):
    """Append 1 to 8 bytes to the string."""
    j.hash, j.word = _appended(j.hash, j.word, j.size, word, np.int64(count))
    j.size += count


@kernel()
def _append_code(j, code):
    """Append a character as UTF-8."""
    if code < 0x80:
        _append(j, np.uint64(code), 1)
    elif code < 0x800:
        _append(j, np.uint64(0xC0 | code >> 6 | (0x80 | code & 63) << 8), 2)
    elif code < 0x10000:
        _append(j, np.uint64(0xE0 | code >> 12 | (0x80 | code >> 6 & 63) << 8 | (0x80 | code & 63) << 16), 3)
    else:
        low = (0x80 | code >> 6 & 63) << 16 | (0x80 | code & 63) << 24
        _append(j, np.uint64(0xF0 | code >> 18 | (0x80 | code >> 12 & 63) << 8 | low), 4)


@kernel(inlined=True)
def _append_surrogate(j):
    """Append the half of a surrogate pair whose other half is missing, if there is one."""
    if j.surrogate:
        _append_code(j, j.surrogate)
        j.surrogate = 0


@kernel(inlined=True)
def _zeros(word):
    """Return a mask with the high bit of each byte that is 0. Bits after the first may be wrong."""
    return (word - _ONES) & ~word & _HIGHS


@kernel(inlined=True)
def _plain_bytes(word):
    """Return how many bytes of a word precede the first byte that a string may not contain unescaped."""
    special = _zeros(word ^ _QUOTES) | _zeros(word ^ _BACKSLASHES) | ((word - _SPACES) & ~word & _HIGHS)
    return trailing_zeros(np.int64(special)) >> 3


@kernel(inlined=True)
def take_whole_string(data, at, end):
    """Read a string without escapes that ends before `end`, and return where to continue, its hash, and True.

    Most strings are like this: they need no state, and begin on a whole word. For other strings, the results are
    `at`, 0 and False.
    """
    base, begin, limit = data.ctypes.data, at, min(end, data.shape[0] - 7)
    hashed = TEXT
    while at < limit:
        word = np.uint64(peek_i64(base + np.uint64(at)))
        count = _plain_bytes(word)
        if count == 8:
            hashed = mix(hashed, word)
            at += 8
            continue
        if at + count >= end or data[at + count] != QUOTE:
            break
        word &= (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)
        at += count
        return at + 1, mix(hashed, word) ^ np.uint64(at - begin), True
    return begin, np.uint64(0), False


@kernel(inlined=True)
def take_string(j, data, at, end):
    """Process plain characters of a string, eight at a time, and the byte that ends them.

    The results are where to continue, and the state. When the string ends, its `hash` is complete.
    """
    base, limit = data.ctypes.data, data.shape[0] - 8
    if j.surrogate and data[at] != BACKSLASH:
        _append_surrogate(j)
    hashed, held, size = j.hash, j.word, j.size
    state = np.int64(STRING)
    while at < end:
        if at <= limit:
            word = np.uint64(peek_i64(base + np.uint64(at)))
            count = min(_plain_bytes(word), end - at)
            if count < 8:
                word &= (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)
        else:
            word = np.uint64(data[at])
            count = np.int64(1 if word >= 32 and word not in (QUOTE, BACKSLASH) else 0)
        if count:
            hashed, held = _appended(hashed, held, size, word, count)
            size += count
            at += count
            if count == 8 or at >= end:
                continue
        byte = data[at]
        if byte == QUOTE:
            hashed = mix(hashed, held) ^ np.uint64(size)
            state = np.int64(STRING_ENDS)
        elif byte == BACKSLASH:
            state = np.int64(ESCAPE)
        elif byte < 32:
            state = np.int64(FAILED)
        else:
            continue
        at += 1
        break
    j.hash, j.word, j.size = hashed, held, size
    return at, state


@kernel()
def take_escape(j, byte):
    """Process the byte after a backslash, and return the state."""
    if byte == 117:
        j.unit = 0
        j.unit_digits = 0
        return UNICODE
    _append_surrogate(j)
    if byte in (QUOTE, BACKSLASH, 47):
        _append(j, np.uint64(byte), 1)
    elif byte == 98:
        _append(j, np.uint64(8), 1)
    elif byte == 102:
        _append(j, np.uint64(12), 1)
    elif byte == 110:
        _append(j, np.uint64(10), 1)
    elif byte == 114:
        _append(j, np.uint64(13), 1)
    elif byte == 116:
        _append(j, np.uint64(9), 1)
    else:
        return FAILED
    return STRING


@kernel()
def take_unicode(j, byte):
    r"""Process a digit of `\uXXXX`, and return the state."""
    if DIGIT_0 <= byte <= DIGIT_9:
        digit = np.int64(byte) - 48
    elif 97 <= byte | 32 <= 102:
        digit = np.int64(byte | 32) - 87
    else:
        return FAILED
    j.unit = j.unit * 16 + digit
    j.unit_digits += 1
    if j.unit_digits < 4:
        return UNICODE
    if 0xDC00 <= j.unit < 0xE000 and j.surrogate:
        _append_code(j, 0x10000 + ((j.surrogate - 0xD800) << 10) + j.unit - 0xDC00)
        j.surrogate = 0
        return STRING
    _append_surrogate(j)
    if 0xD800 <= j.unit < 0xDC00:
        j.surrogate = j.unit
    else:
        _append_code(j, j.unit)
    return STRING
