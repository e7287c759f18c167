"""A lookup of one value in a JSON text by its JSON Pointer (RFC 6901), in one pass and without building a tree.

The scan stops after the value, so that errors after it are not noticed. Of two members with the same name the first
is used. `replay/portable/json_pointer.py` does the same in plain Python.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint8

from replay_native.ground.jit import kernel

ABSENT, STRING, LITERAL, COMPOUND = 0, 1, 2, 3
"""Kinds of results.

ABSENT: no such value, null, or a value that begins like none of the others. STRING: the text between the quotes.
LITERAL: a number, true or false; only its first character is checked. COMPOUND: an object or array.
"""

_QUOTE, _BACKSLASH, _COMMA, _COLON = 34, 92, 44, 58
_BRACE, _BRACE_END, _BRACKET, _BRACKET_END = 123, 125, 91, 93
_BAD = -1


@kernel(inlined=True)
def _space_ends(data, at, end):
    while at < end and data[at] in (32, 9, 10, 13):
        at += 1
    return at


@kernel()
def _string_ends(data, at, end):
    """Return where the closing quote is; `at` is after the opening one. `end` if there is no closing quote."""
    while at < end and data[at] != _QUOTE:
        at += 2 if data[at] == _BACKSLASH else 1
    return min(at, end)


@kernel(inlined=True)
def _word_ends(data, at, end):
    while at < end and data[at] not in (_COMMA, _BRACE_END, _BRACKET_END, 32, 9, 10, 13):
        at += 1
    return at


@kernel()
def _value_ends(data, at, end):
    """Return where the value that begins at `at` ends. Brackets are counted, but their kinds are not matched."""
    depth = np.int64(0)
    while at < end:
        byte = data[at]
        if byte == _QUOTE:
            at = min(_string_ends(data, at + 1, end) + 1, end)
        elif byte in (_BRACE, _BRACKET):
            depth += 1
            at += 1
        elif byte in (_BRACE_END, _BRACKET_END):
            depth -= 1
            at += 1
        elif depth == 0:
            return _word_ends(data, at, end)
        else:
            at += 1
        if depth <= 0:
            return at
    return end


@kernel(inlined=True)
def _hex_of(byte):
    if 48 <= byte <= 57:
        return np.int64(byte) - 48
    if 65 <= byte <= 70 or 97 <= byte <= 102:
        return (np.int64(byte) & 31) + 9
    return np.int64(_BAD)


@kernel()
def _unit_at(data, at, end):
    """Return the UTF-16 code unit of the `\\uXXXX` at `at`, or -1."""
    if at + 6 > end or data[at] != _BACKSLASH or data[at + 1] != 117:
        return np.int64(_BAD)
    unit = np.int64(0)
    for place in range(at + 2, at + 6):
        digit = _hex_of(data[place])
        if digit < 0:
            return np.int64(_BAD)
        unit = unit * 16 + digit
    return unit


@kernel(inlined=True)
def _short_escape(byte):
    """Return the byte that the letter after a backslash represents, or -1."""
    if byte in (_QUOTE, _BACKSLASH, 47):
        return np.int64(byte)
    if byte == 98:
        return np.int64(8)
    if byte == 102:
        return np.int64(12)
    if byte == 110:
        return np.int64(10)
    if byte == 114:
        return np.int64(13)
    return np.int64(9) if byte == 116 else np.int64(_BAD)


@kernel()
def _decode(data, at, end):
    """Decode one character of a string: (where the next begins, its UTF-8 bytes as a little-endian word, how many).

    Bytes that are not escaped are returned one by one. A count of 0 means that the escape is invalid.
    """
    if data[at] != _BACKSLASH:
        return at + 1, np.int64(data[at]), np.int64(1)
    if at + 1 < end and data[at + 1] != 117:
        byte = _short_escape(data[at + 1])
        return at + 2, byte, np.int64(byte >= 0)
    code = _unit_at(data, at, end)
    at += 6
    if 0xD800 <= code < 0xDC00:
        low = _unit_at(data, at, end)
        code = (
            0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) if 0xDC00 <= low < 0xE000 else np.int64(_BAD)
        )
        at += 6
    if code < 0 or 0xD800 <= code < 0xE000:
        return at, np.int64(0), np.int64(0)
    if code < 0x80:
        return at, code, np.int64(1)
    last = 0x80 | (code & 63)
    if code < 0x800:
        return at, 0xC0 | code >> 6 | last << 8, np.int64(2)
    middle = 0x80 | (code >> 6 & 63)
    if code < 0x10000:
        return at, 0xE0 | code >> 12 | middle << 8 | last << 16, np.int64(3)
    return at, 0xF0 | code >> 18 | (0x80 | (code >> 12 & 63)) << 8 | middle << 16 | last << 24, np.int64(4)


@kernel()
def put_string(data, begin, end, out, limit):
    """Decode the text of a string to `out`, and return its length; -1 if it is invalid or longer than `limit`."""
    length = np.int64(0)
    at = begin
    while at < end:
        at, word, count = _decode(data, at, end)
        if count == 0 or length + count > limit:
            return np.int64(-1)
        for place in range(count):
            out[length + place] = np.uint8(word >> (8 * place) & 255)
        length += count
    return length


@kernel()
def _is_key(data, begin, end, token, token_end, tokens):
    """Return whether the text of a string, decoded, equals tokens[token:token_end]."""
    at = begin
    while at < end:
        at, word, count = _decode(data, at, end)
        if count == 0 or token + count > token_end:
            return False
        for place in range(count):
            if tokens[token + place] != np.uint8(word >> (8 * place) & 255):
                return False
        token += count
    return token == token_end


@kernel()
def _member(data, at, end, token, token_end, tokens):
    """Return where the value of a member begins in the object at `at`; -1 if there is no such member."""
    at = _space_ends(data, at + 1, end)
    while at < end and data[at] == _QUOTE:
        key_end = _string_ends(data, at + 1, end)
        found = _is_key(data, at + 1, key_end, token, token_end, tokens)
        at = _space_ends(data, key_end + 1, end)
        if at >= end or data[at] != _COLON:
            return np.int64(-1)
        at = _space_ends(data, at + 1, end)
        if found:
            return at
        at = _space_ends(data, _value_ends(data, at, end), end)
        if at >= end or data[at] != _COMMA:
            return np.int64(-1)
        at = _space_ends(data, at + 1, end)
    return np.int64(-1)


@kernel()
def _item(data, at, end, token, token_end, tokens):
    """Return where an item begins in the array at `at`; -1 if the token is not an index, or is too large."""
    if token == token_end or token_end - token > 9 or (tokens[token] == 48 and token_end - token > 1):
        return np.int64(-1)
    index = np.int64(0)
    for place in range(token, token_end):
        if not 48 <= tokens[place] <= 57:
            return np.int64(-1)
        index = index * 10 + np.int64(tokens[place]) - 48
    at = _space_ends(data, at + 1, end)
    for _ in range(index):
        at = _space_ends(data, _value_ends(data, at, end), end)
        if at >= end or data[at] != _COMMA:
            return np.int64(-1)
        at = _space_ends(data, at + 1, end)
    return at if at < end and data[at] != _BRACKET_END else np.int64(-1)


@kernel()
def find_pointer(data, begin, end, tokens, token, tokens_end):
    """Find the value at a pointer in data[begin:end], and return (kind, begin, end).

    The range of a STRING is the text between the quotes. The pointer is given by its reference tokens in
    `tokens[token:tokens_end]`, unescaped, with a zero byte after each.
    """
    nothing = (np.int64(ABSENT), np.int64(0), np.int64(0))
    at = _space_ends(data, begin, end)
    while token < tokens_end:
        token_end = token
        while tokens[token_end] != 0:
            token_end += 1
        if at >= end:
            return nothing
        if data[at] == _BRACE:
            at = _member(data, at, end, token, token_end, tokens)
        elif data[at] == _BRACKET:
            at = _item(data, at, end, token, token_end, tokens)
        else:
            return nothing
        if at < 0:
            return nothing
        token = token_end + 1
    if at >= end:
        return nothing
    if data[at] == _QUOTE:
        closing = _string_ends(data, at + 1, end)
        return (np.int64(STRING), at + 1, closing) if closing < end else nothing
    if data[at] in (_BRACE, _BRACKET):
        return np.int64(COMPOUND), at, _value_ends(data, at, end)
    closing = _word_ends(data, at, end)
    is_literal = data[at] in (45, 116, 102) or 48 <= data[at] <= 57
    return (np.int64(LITERAL), at, closing) if is_literal else nothing


@kernel(int64(uint8[::1], uint8[::1], int64[::1], uint8[::1]))
def pointed(data, tokens, found, out):
    """Write the kind, begin and end of a value to `found` int64[3] (for tests).

    If the value is a string, its text is decoded to `out`, and its length is returned; otherwise -1.
    """
    kind, begin, end = find_pointer(data, 0, data.size, tokens, 0, tokens.size)
    found[0], found[1], found[2] = kind, begin, end
    return put_string(data, begin, end, out, out.size) if kind == STRING else np.int64(-1)
