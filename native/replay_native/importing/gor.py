"""Kernels for GoReplay files, which cut a block into records, read plain ones, and pair requests with responses.

A record that is unusual (an unknown head, chunks, escapes, a whole URL, bytes after a body) is only cut. The Python
reader handles it.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.simd import find_byte
from replay_native.trace.dictionary import copy_bytes, hash_bytes

from .request_line import is_protocol, method_number, target
from .scan_table import (
    ABSOLUTE,
    ACCEPTED,
    AT_S,
    BYTES,
    CLIENT,
    LINES,
    METHOD,
    POSITION,
    REWRITE,
    ROWS,
    STATUS,
)
from .text import lowered

AT_NS = AT_S
TOOK_NS, BODY_BEGIN, BODY_END, PART_BEGIN, PART_END, KIND, NUMBER, PAIRED = 8, 9, 10, 11, 12, 13, 14, 15
COLUMNS = 16
"""The columns of `scan_table`, with the time in nanoseconds, and further columns.

CLIENT is the hash of the record's id. PAIRED is the part that holds the response, in the rows that `pair` makes.
"""

ODD, REQUEST, RESPONSE, ODD_NAMED = 0, 1, 2, 3
"""Kinds of parts.

The Python reader handles ODD and ODD_NAMED parts. The id of an ODD_NAMED part is known, and the part must keep its
place among the others with this id.
"""

SEPARATOR_BYTES = 14
_SEPARATOR = np.frombuffer("\n🐵🙈🙉\n".encode(), dtype=np.uint8)
_CR, _LF, _SPACE, _TAB = 13, 10, 32, 9
_HOST, _LENGTH, _ENCODING = (
    np.frombuffer(name, dtype=np.uint8) for name in (b"host:", b"content-length:", b"transfer-encoding:")
)
_DIGITS_MAX = 19


@bundle
class Cutting(NamedTuple):
    """Inputs and outputs of the cutter. `heads` and `hosts` have space for the whole block."""

    key: Annotated[int, "int64", "key of the hashes of ids"]
    methods: Annotated[Array, "int64[:, ::1]", "the methods seen so far: their names, two words each"]
    state: Annotated[Array, "int64[::1]", "the scanner's state; see `scan_table`"]
    parts: Annotated[Array, "int64[:, ::1]", "one column per part (COLUMNS)"]
    heads: Annotated[Array, "uint8[::1]", "the header lines of messages, without Content-Length"]
    head_ends: Annotated[Array, "int64[::1]", "per part and one more: where its lines begin"]
    hosts: Annotated[Array, "uint8[::1]", "the hosts of requests, in lower case"]
    host_ends: Annotated[Array, "int64[::1]", "per part and one more: where its host begins"]


CUTTING_TYPE = numba_type(Cutting)


@kernel(inlined=True)
def _is_digit(byte):
    return 48 <= byte <= 57


@kernel()
def _separator(data, at, end):
    """Return where the first separator in data[at:end] begins, or -1.

    The search looks for the separator's second byte, which is rare.
    """
    at += 1
    while True:
        at = find_byte(data, at, end, np.uint8(0xF0))
        if at + SEPARATOR_BYTES - 1 > end:
            return np.int64(-1)
        same = True
        for index in range(SEPARATOR_BYTES):
            same = same and data[at - 1 + index] == _SEPARATOR[index]
        if same:
            return at - 1
        at += 1


@kernel()
def _number(data, at, end):
    """Read a decimal number of at most 19 digits that fits int64, and return it and where it ends, or (-1, at)."""
    value, first = np.int64(0), at
    while at < end and _is_digit(data[at]) and at - first < _DIGITS_MAX:
        value = value * 10 + np.int64(data[at]) - 48
        at += 1
    if at == first or value < 0 or (at - first == _DIGITS_MAX and data[first] >= 57):
        return np.int64(-1), first
    return value, at


@kernel()
def _names(data, at, end, name):
    """Return whether a header line begins with `name`, which is in lower case and includes the colon."""
    same = end - at >= name.shape[0]
    if same:
        for index in range(name.shape[0]):
            same = same and lowered(data[at + index]) == name[index]
    return same


@kernel()
def _value(data, at, end):
    """Return the span of a header's value, without the spaces and tabs around it."""
    while at < end and data[at] in (_SPACE, _TAB):
        at += 1
    while end > at and data[end - 1] in (_SPACE, _TAB):
        end -= 1
    return at, end


@kernel("int64(int64, int64)")
def took_of(began_ns, latency_ns):
    """Return how long a request took in ns, from the start of its response and the recorded latency, or -1 if unknown.

    `began_ns` counts from the request. Older versions of GoReplay record the whole latency. Since 1.2 it covers
    only the response, from its first to its last packet (see its input_raw.go). A latency shorter than `began_ns`
    therefore covers only the response, and is added to it.
    """
    if latency_ns > 0:
        return latency_ns if latency_ns >= began_ns else max(began_ns + latency_ns, np.int64(-1))
    if began_ns == 0:
        return max(latency_ns, np.int64(-1))
    return max(began_ns, np.int64(-1))


@kernel()
def _read_head(data, begin, end, parts, part, key):
    """Read the line `type id stamp [latency]`, and return where the next line begins, or -1 if the line is unusual."""
    if end - begin < 6 or data[begin] not in (49, 50) or data[begin + 1] != _SPACE:
        return np.int64(-1)
    at = begin + 2
    while at < end and (_is_digit(data[at]) or 97 <= lowered(data[at]) <= 122):
        at += 1
    if at == begin + 2 or at >= end or data[at] != _SPACE:
        return np.int64(-1)
    parts[CLIENT, part] = hash_bytes(data, begin + 2, at, key)
    stamp, at = _number(data, at + 1, end)
    took = np.int64(0)
    if stamp >= 0 and at + 1 < end and data[at] == _SPACE:
        negative = data[at + 1] == 45
        took, at = _number(data, at + 1 + negative, end)
        if took < 0:
            return np.int64(-1)
        if negative:
            took = -took
    if stamp < 0 or at >= end or data[at] != _LF:
        return np.int64(-1)
    parts[AT_NS, part], parts[TOOK_NS, part] = stamp, took
    return at + 1


@kernel()
def _read_headers(data, at, end, heads, head_at, hosts, host_at):
    """Read the header lines from `at`, and return where the body begins, its length, and the ends of heads and hosts.

    The first result is -1 if a header is unusual, the second is -1 without Content-Length. All lines but
    Content-Length are copied to `heads`, and the host, in lower case, to `hosts`.
    """
    length, named = np.int64(-1), False
    odd = np.int64(-1)
    while True:
        last = find_byte(data, at, end, np.uint8(_LF))
        if last >= end or last == at or data[last - 1] != _CR:
            return odd, length, head_at, host_at
        if last == at + 1:
            return last + 1, length, head_at, host_at
        if _names(data, at, last, _ENCODING):
            return odd, length, head_at, host_at
        if _names(data, at, last, _LENGTH):
            first, until = _value(data, at + _LENGTH.shape[0], last - 1)
            value, stop = _number(data, first, until)
            if length >= 0 or value < 0 or stop != until or until - first > 15:
                return odd, length, head_at, host_at
            length = value
        else:
            if not named and _names(data, at, last, _HOST):
                first, until = _value(data, at + _HOST.shape[0], last - 1)
                for index in range(first, until):
                    if data[index] <= _SPACE:
                        return odd, length, head_at, host_at
                    hosts[host_at] = lowered(data[index])
                    host_at += 1
                named = until > first
            head_at = copy_bytes(data, at, last + 1, heads, head_at)
        at = last + 1


@kernel()
def _read_request_line(data, at, end, methods, state, parts, part):
    """Read the line `METHOD target HTTP/1.1`, and return where the next line begins, or -1 if the line is unusual."""
    last = find_byte(data, at, end, np.uint8(_LF))
    if last >= end or last - at < 12 or data[last - 1] != _CR or not is_protocol(data, last - 9, last - 1):
        return np.int64(-1)
    if not (_is_digit(data[last - 4]) and data[last - 3] == 46 and _is_digit(data[last - 2])):
        return np.int64(-1)
    space = find_byte(data, at, last, np.uint8(_SPACE))
    if target(data, min(space + 1, last - 1), last - 1, parts, part) != ACCEPTED:
        return np.int64(-1)
    method = method_number(data, at, space, methods, state, True)
    parts[METHOD, part] = method
    if method < 0 or parts[4, part] & (REWRITE | ABSOLUTE):
        return np.int64(-1)
    return last + 1


@kernel()
def _read_status(data, at, end, parts, part):
    """Read the line `HTTP/1.1 200 OK`, and return where the next line begins, or -1 if the line is unusual."""
    last = find_byte(data, at, end, np.uint8(_LF))
    space = find_byte(data, at, last, np.uint8(_SPACE))
    if last >= end or not is_protocol(data, at, last) or last - space < 4:
        return np.int64(-1)
    for index in range(at + 5, space):
        if not _is_digit(data[index]) and data[index] != 46:
            return np.int64(-1)
    status = np.int64(0)
    for index in range(space + 1, space + 4):
        if not _is_digit(data[index]):
            return np.int64(-1)
        status = status * 10 + np.int64(data[index]) - 48
    parts[STATUS, part] = status if status >= 100 else np.int64(-1)
    return last + 1


@kernel()
def _read_part(data, begin, end, part, cutting):
    """Read the part in data[begin:end] into its columns, unless it is unusual, and return its kind."""
    parts, head_ends, host_ends = cutting.parts, cutting.head_ends, cutting.host_ends
    head_ends[part + 1], host_ends[part + 1] = head_ends[part], host_ends[part]
    at = _read_head(data, begin, end, parts, part, cutting.key)
    if at < 0:
        return ODD
    is_request = data[begin] == 49
    if is_request:
        at = _read_request_line(data, at, end, cutting.methods, cutting.state, parts, part)
    else:
        at = _read_status(data, at, end, parts, part)
    if at < 0:
        return ODD_NAMED
    body, length, head_end, host_end = _read_headers(
        data, at, end, cutting.heads, head_ends[part], cutting.hosts, host_ends[part]
    )
    if body < 0:
        return ODD_NAMED
    if (length >= 0 and end > body + length) or (is_request and length < 0 and end > body):
        return ODD_NAMED
    parts[BODY_BEGIN, part] = body
    parts[BODY_END, part] = end
    head_ends[part + 1] = head_end
    if not is_request:
        parts[BYTES, part] = length if length >= 0 else (end - body if end > body else np.int64(-1))
        return RESPONSE
    host_ends[part + 1] = host_end
    return REQUEST


@kernel(types.void(types.uint8[::1], types.int64, CUTTING_TYPE))
def cut(data, end, cutting):
    """Cut data[state[POSITION]:end] at its separators into columns of `parts`, until the table is full.

    Each call starts the table anew and writes its length to state[ROWS]. state[LINES] counts the parts of all
    calls. state[POSITION] is where the next call continues.
    """
    state, parts, head_ends, host_ends = cutting.state, cutting.parts, cutting.head_ends, cutting.host_ends
    part = np.int64(0)
    head_ends[0] = host_ends[0] = 0
    while part < parts.shape[1]:
        begin = state[POSITION]
        last = _separator(data, begin, end)
        if last < 0:
            break
        state[POSITION] = last + SEPARATOR_BYTES
        if last == begin:
            continue
        state[LINES] += 1
        parts[PART_BEGIN, part], parts[PART_END, part], parts[NUMBER, part] = begin, last, state[LINES]
        parts[KIND, part] = _read_part(data, begin, last, part, cutting)
        part += 1
    state[ROWS] = part


@kernel("int64(int64[:,::1], int64, int64[::1], int64[:,::1], int64[::1], int64[::1])")
def pair(parts, count, slots, rows, chosen, left):
    """Write each request with its response as a column of `rows`, and return the number of pairs.

    Pairs are in the order of their second part. chosen[:returned] are the parts of the requests. left[:count - 2 *
    returned] are the parts without a counterpart, in order. Scratch: `slots`, zeros, whose length is a power of two
    above 2 * count.
    """
    mask = np.int64(slots.shape[0] - 1)
    paired = np.int64(0)
    left[:count] = 1
    for part in range(count):
        kind = parts[KIND, part]
        if kind == ODD:
            continue
        slot = (parts[CLIENT, part] >> np.int64(32)) & mask
        while slots[slot] != 0 and parts[CLIENT, slots[slot] - 1] != parts[CLIENT, part]:
            slot = (slot + 1) & mask
        other = slots[slot] - 1
        waits = other >= 0 and left[other] == 1
        if not waits or kind == ODD_NAMED or parts[KIND, other] in (kind, ODD_NAMED):
            if waits:
                parts[KIND, part] = ODD_NAMED
            slots[slot] = part + 1
            continue
        request, response = (other, part) if kind == RESPONSE else (np.int64(part), other)
        for column in range(rows.shape[0]):
            rows[column, paired] = parts[column, request]
        began = parts[AT_NS, response] - parts[AT_NS, request]
        rows[TOOK_NS, paired] = took_of(began, parts[TOOK_NS, response])
        rows[STATUS, paired], rows[BYTES, paired] = parts[STATUS, response], parts[BYTES, response]
        rows[CLIENT, paired], rows[PAIRED, paired] = 0, response
        chosen[paired] = request
        left[request] = left[response] = 0
        paired += 1
    at = np.int64(0)
    for part in range(count):
        if left[part] == 1:
            left[at] = part
            at += 1
    return paired
