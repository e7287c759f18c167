"""Kernels that rewrite the targets of cut fields so that they can be sent: they undo escapes and append queries."""

from __future__ import annotations

import numpy as np
from numba import types

from replay_native.ground.jit import kernel
from replay_native.ground.simd import find_byte
from replay_native.trace.dictionary import copy_bytes, same_bytes

from .field_spec import (
    DOUBLED,
    HASHED,
    HOST_BEGIN,
    HOST_END,
    HOST_NUMBER,
    JSON_ESCAPES,
    LOG,
    PLAIN,
    QUERY_BEGIN,
    QUERY_END,
    QUOTED,
)
from .scan_table import ABSOLUTE, BEGIN, END, LOOK, NEEDS, NUMBERS, PARAMETERS, REWRITE, SUSPECT
from .suspects import SECRETS_TYPE, must_be_cleaned
from .targets import OUT_TYPE, encode, put_unescaped, unescape
from .text import hex_value, lowered

_QUOTE, _HASH, _QUESTION, _BACKSLASH = 34, 35, 63, 92
_UTF8_2, _UTF8_3, _UTF8_4, _UTF8_MORE = 0xC0, 0xE0, 0xF0, 0x80


@kernel(inlined=True)
def _put_utf8(code, out, at):
    """Write a code point as UTF-8, percent-encoded unless it is printable ASCII, and return the offset after it."""
    if code < 0x80:
        return encode(code, out, at)
    if code < 0x800:
        at = encode(_UTF8_2 | (code >> 6), out, at)
    elif code < 0x10000:
        at = encode(_UTF8_3 | (code >> 12), out, at)
        at = encode(_UTF8_MORE | ((code >> 6) & 63), out, at)
    else:
        at = encode(_UTF8_4 | (code >> 18), out, at)
        at = encode(_UTF8_MORE | ((code >> 12) & 63), out, at)
        at = encode(_UTF8_MORE | ((code >> 6) & 63), out, at)
    return encode(_UTF8_MORE | (code & 63), out, at)


@kernel(inlined=True)
def _hex_4(data, at, end):
    """Return the number that four hexadecimal digits at `at` form, or -1."""
    value = np.int64(0)
    if end - at < 4:
        return np.int64(-1)
    for index in range(at, at + 4):
        digit = hex_value(data[index])
        if digit < 0:
            return np.int64(-1)
        value = value * 16 + digit
    return value


@kernel()
def _unescape_json(data, begin, end, out):
    r"""Write the text of a JSON string to `out`, percent-encoded where necessary, and return the number of bytes.

    The escapes are those of RFC 8259, section 7, and nginx's `\xHH`.
    """
    at = np.int64(0)
    while begin < end:
        byte = np.int64(data[begin])
        begin += 1
        if byte != _BACKSLASH or begin == end:
            at = encode(byte, out, at)
            continue
        escape = np.int64(data[begin])
        begin += 1
        if escape == 120 and end - begin >= 2:
            high, low = hex_value(data[begin]), hex_value(data[begin + 1])
            if high >= 0 and low >= 0:
                begin += 2
                at = encode(high * 16 + low, out, at)
                continue
        if escape == 117:
            code = _hex_4(data, begin, end)
            if code >= 0:
                begin += 4
                if 0xD800 <= code < 0xDC00 and end - begin >= 6 and data[begin] == _BACKSLASH:
                    low = _hex_4(data, begin + 2, end)
                    if data[begin + 1] == 117 and 0xDC00 <= low < 0xE000:
                        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                        begin += 6
                at = _put_utf8(code, out, at)
                continue
        if escape == 110:
            escape = np.int64(10)
        elif escape == 116:
            escape = np.int64(9)
        elif escape == 114:
            escape = np.int64(13)
        elif escape == 98:
            escape = np.int64(8)
        elif escape == 102:
            escape = np.int64(12)
        at = encode(escape, out, at)
    return at


@kernel()
def _unescape_as(escapes, data, begin, end, out):
    """Write data[begin:end] without its escapes, percent-encoded where necessary, and return the number of bytes."""
    if escapes == LOG:
        return unescape(data, begin, end, out)
    if escapes == JSON_ESCAPES:
        return _unescape_json(data, begin, end, out)
    at = np.int64(0)
    while begin < end:
        if (
            escapes in (DOUBLED, QUOTED)
            and data[begin] == _QUOTE
            and begin + 1 < end
            and data[begin + 1] == _QUOTE
        ):
            begin += 1
        if escapes == HASHED and data[begin] == _HASH and begin + 2 < end:
            high, low = hex_value(data[begin + 1]), hex_value(data[begin + 2])
            if high >= 0 and low >= 0:
                at = encode(high * 16 + low, out, at)
                begin += 3
                continue
        at = encode(np.int64(data[begin]), out, at)
        begin += 1
    return at


@kernel(inlined=True)
def _append_query(escapes, data, begin, end, scratch, length):
    """Append `?` and a query to a target in `scratch`, unless the target has a query, and return the new length.

    A query that is absent (`begin` is -1) or empty is not appended.
    """
    if begin < 0 or begin == end:
        return length
    mark = find_byte(scratch, 0, length, np.uint8(_QUESTION))
    if mark < length - 1:
        return length
    length = mark
    if data[begin] != _QUESTION:
        scratch[length] = 63
        length += 1
    return length + _unescape_as(escapes, data, begin, end, scratch[length:])


@kernel(
    types.int64(
        types.uint8[::1],
        types.int64[:, ::1],
        types.int64,
        types.int64,
        types.uint8[::1],
        SECRETS_TYPE,
        OUT_TYPE,
    )
)
def write_field_targets(data, rows, count, escapes, constant, secrets, out):
    """Write targets as `targets.write_targets` does, for rows of `scan_fields`, and return the number of hosts.

    `constant` is the target of rows that have none. A fragment is removed, because no request has one (RFC
    9110, 7.1). With LOG or HASHED escapes it stays, because such logs hold the request line as the server received it.

    rows[HOST_NUMBER, i] is the number of row i's host, or -1. The host of an absolute target takes precedence over the
    host field. A host field that several rows in succession share is written once.
    """
    at, named = np.int64(0), np.int64(0)
    last_begin, last_end, last = np.int64(0), np.int64(-1), np.int64(-1)
    targets, scratch = out.targets, out.scratch
    target_ends, hosts, host_ends = out.target_ends, out.hosts, out.host_ends
    target_ends[0] = host_ends[0] = 0
    for row in range(count):
        begin, end, needs = rows[BEGIN, row], rows[END, row], rows[NEEDS, row]
        query = rows[QUERY_BEGIN, row]
        host_end = host_ends[named]
        first = at
        if escapes in (PLAIN, DOUBLED, JSON_ESCAPES, QUOTED) and begin >= 0:
            end = find_byte(data, begin, end, np.uint8(_HASH))
        if begin < 0:
            at = copy_bytes(constant, 0, constant.shape[0], targets, at)
        elif needs & (REWRITE | ABSOLUTE) == 0 and query < 0:
            at = copy_bytes(data, begin, end, targets, at)
        else:
            length = _unescape_as(escapes, data, begin, end, scratch)
            if escapes == JSON_ESCAPES:
                length = find_byte(scratch, 0, length, np.uint8(_HASH))
            length = _append_query(escapes, data, query, rows[QUERY_END, row], scratch, length)
            at, host_end = put_unescaped(scratch, length, needs, out, at, host_end)
        looked_for = needs | (LOOK | PARAMETERS | NUMBERS) * (query >= 0 or begin < 0)
        if must_be_cleaned(targets, first, at, looked_for, secrets):
            rows[NEEDS, row] = needs | SUSPECT
        target_ends[row + 1] = at
        begin, end = rows[HOST_BEGIN, row], rows[HOST_END, row]
        rows[HOST_NUMBER, row] = -1
        if host_end == host_ends[named] and begin >= 0:
            if end - begin == last_end - last_begin and same_bytes(
                data, begin, data, last_begin, end - begin
            ):
                rows[HOST_NUMBER, row] = last
                continue
            last_begin, last_end, last = begin, end, named
            for place in range(begin, end):
                hosts[host_end] = lowered(data[place])
                host_end += 1
        if host_end > host_ends[named]:
            host_ends[named + 1] = host_end
            rows[HOST_NUMBER, row] = named
            named += 1
    return named
