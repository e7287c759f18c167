"""Access log lines in the common and combined formats, read into columns.

`scan_common` reads the lines of a block of bytes. Each line has this form:

    host ident user [dd/Mon/yyyy:HH:MM:SS +zzzz] "METHOD target HTTP/x" status bytes ...

Then `targets` rewrites the request targets so that they can be sent.
"""

from __future__ import annotations

import numpy as np
from numba import types

from replay_native.ground.jit import kernel
from replay_native.ground.libc import memchr
from replay_native.ground.shared import peek_i64
from replay_native.ground.simd import find_byte
from replay_native.trace.dictionary import hash_bytes

from .clients import client_end, first_address, is_health_check
from .request_line import method_number, target, without_version
from .scan_table import (
    ACCEPTED,
    AT_S,
    BAD_SIZE,
    BAD_STATUS,
    BAD_TIME,
    BLANK,
    BYTES,
    CACHED,
    CACHED_S,
    CLIENT,
    FORWARDED_LAST,
    HEALTH_CHECK,
    LINE_BYTES_MAX,
    LINES,
    METHOD,
    NO_METHOD,
    OTHER_FORMAT,
    POSITION,
    REJECTS,
    ROWS,
    SCAN_TYPE,
    STATUS,
    TOO_LONG,
    USERS,
    reject_line,
)
from .stamps import STAMP_BYTES, parse_stamp
from .text import behind_zeros, digits

_SPACE, _QUOTE, _BACKSLASH, _DASH, _SLASH = 32, 34, 92, 45, 47


@kernel("boolean(uint8[::1], int64[::1])")
def parse_one(stamp, state):
    """Run `parse_stamp` for a caller in Python, whose `stamp` must contain nothing else."""
    return stamp.shape[0] == STAMP_BYTES and parse_stamp(stamp, 0, state)


@kernel(inlined=True)
def _stamp(data, at, state):
    """Parse the stamp at `at` as `parse_stamp` does, unless it equals the previous one.

    Most lines of a log repeat the stamp of the line before.
    """
    address = np.int64(data.ctypes.data) + at
    word0, word1 = peek_i64(np.uint64(address)), peek_i64(np.uint64(address + 8))
    word2, word3 = peek_i64(np.uint64(address + 16)), peek_i64(np.uint64(address + 18))
    if (
        word0 == state[CACHED]
        and word1 == state[CACHED + 1]
        and word2 == state[CACHED + 2]
        and word3 == state[CACHED + 3]
    ):
        return True
    if not parse_stamp(data, at, state):
        state[CACHED] = 0
        return False
    state[CACHED] = word0
    state[CACHED + 1] = word1
    state[CACHED + 2] = word2
    state[CACHED + 3] = word3
    return True


@kernel(inlined=True)
def _nobody(data, at):
    """Return whether `- - ` is at `at`, which means that the line has neither ident nor user."""
    dashes = data[at] == _DASH and data[at + 2] == _DASH
    return dashes and data[at + 1] == _SPACE and data[at + 3] == _SPACE


@kernel(inlined=True)
def _stamp_place(data, begin, end, state):
    """Return the offset of the `[` before the stamp, and count a user that precedes it.

    -1 means that the line has no `[`, -2 that no stamp follows any `[`.
    """
    if end - begin > 33 and data[begin + 4] == 91 and _nobody(data, begin):
        return begin + 4
    opened = False
    for at in range(begin, end):
        if data[at] == 91:
            opened = True
            if at + 30 < end and data[at + 3] == _SLASH and data[at + 7] == _SLASH and data[at + 27] == 93:
                state[USERS] += 1
                return at
    return -2 if opened else -1


@kernel(inlined=True)
def _status_and_size(data, at, end, rows, row):
    """Parse `status bytes` at `at` into column `row`, and return ACCEPTED, BAD_STATUS or BAD_SIZE."""
    if at < end and data[at] == _DASH:
        status = np.int64(-1)
        at += 1
    elif at + 3 <= end:
        status = digits(data, at, 3)
        if status < 0 or (0 < status < 100):
            return BAD_STATUS
        status = status if status > 0 else np.int64(-1)
        at += 3
    else:
        return BAD_STATUS
    if at == end:
        rows[STATUS, row] = status
        rows[BYTES, row] = -1
        return ACCEPTED
    if data[at] != _SPACE:
        return BAD_STATUS
    at += 1
    first = at
    size = np.int64(0)
    while at < end and 48 <= data[at] <= 57:
        size = size * 10 + np.int64(data[at]) - 48
        at += 1
    if at == first and at < end and data[at] == _DASH:
        size = np.int64(-1)
        at += 1
    elif at == first or at - first > 18:
        return BAD_SIZE
    if at < end and data[at] != _SPACE:
        return BAD_SIZE
    rows[STATUS, row] = status
    rows[BYTES, row] = size
    return ACCEPTED


@kernel(inlined=True)
def _closing_quote(data, at, end):
    """Return the offset of the quote that closes the request, or -1.

    It is the first unescaped quote that is followed by a space and by a status or `-`.
    """
    quote = find_byte(data, at, end, np.uint8(_QUOTE))
    plain = quote == at or (quote < end and data[quote - 1] != _BACKSLASH)
    if plain and quote + 2 < end and data[quote + 1] == _SPACE and 48 <= data[quote + 2] <= 57:
        return quote
    while at + 2 < end:
        byte = data[at]
        if byte == _BACKSLASH:
            at += 2
        elif (
            byte == _QUOTE and data[at + 1] == _SPACE and (48 <= data[at + 2] <= 57 or data[at + 2] == _DASH)
        ):
            return at
        else:
            at += 1
    return -1


@kernel(inlined=True)
def _agent_place(data, at, end):
    """Return where the user agent of a combined line begins, or `end` if the line has none.

    The user agent follows the referer.
    """
    at = find_byte(data, at, end, np.uint8(_QUOTE))
    at = find_byte(data, at + 1, end, np.uint8(_QUOTE))
    if at + 3 < end and data[at + 1] == _SPACE and data[at + 2] == _QUOTE:
        return at + 3
    return end


@kernel()
def _forwarded(data, at, end):
    """Return the span of the first address in the quoted field after the user agent.

    `at` is the start of the user agent. The span is empty when there is no such field, or no address in it.
    """
    while at < end and data[at] != _QUOTE:
        at += 1 + (data[at] == _BACKSLASH)
    if at + 3 < end and data[at + 1] == _SPACE and data[at + 2] == _QUOTE:
        return first_address(data, at + 3, find_byte(data, at + 3, end, np.uint8(_QUOTE)))
    return end, end


@kernel(inlined=True)
def _scan_line(data, begin, end, scan, row):
    """Read one line into column `row`, and return the line's code."""
    state, rows, key, agents, agent_ends = scan.state, scan.rows, scan.key, scan.agents, scan.agent_ends
    if begin == end:
        return BLANK
    if end - begin > LINE_BYTES_MAX:
        return TOO_LONG
    at = find_byte(data, begin, end, np.uint8(_SPACE))
    if at in (begin, end):
        return OTHER_FORMAT
    rows[CLIENT, row] = hash_bytes(data, begin, client_end(data, begin, at, False), key)
    users = state[USERS]
    place = _stamp_place(data, at + 1, end, state)
    if place < 0:
        return OTHER_FORMAT if place == -1 else BAD_TIME
    if data[place + 27] != 93 or data[place + 28] != _SPACE or data[place + 29] != _QUOTE:
        state[USERS] = users
        return BAD_TIME if data[place + 27] != 93 else OTHER_FORMAT
    at = place + 30
    close = _closing_quote(data, at, end)
    code = OTHER_FORMAT
    if close >= 0:
        code = _scan_request(data, place + 1, at, close, end, scan, row)
    if code == ACCEPTED and agent_ends.shape[0] > 1:
        agent = _agent_place(data, close + 2, end)
        if agent < end and is_health_check(data, agent, end, agents, agent_ends):
            code = HEALTH_CHECK
    if state[FORWARDED_LAST] != 0 and code == ACCEPTED:
        first, last = _forwarded(data, _agent_place(data, close + 2, end), end)
        if last > first:
            rows[CLIENT, row] = hash_bytes(data, first, last, key)
    if code != ACCEPTED:
        state[USERS] = users
    return code


@kernel(inlined=True)
def _scan_request(data, stamp, begin, close, end, scan, row):
    """Read a line's stamp, request, status and size into column `row`, and return the line's code.

    The request is data[begin:close], between the quotes.
    """
    state, rows = scan.state, scan.rows
    if not _stamp(data, stamp, state):
        return BAD_TIME
    rows[AT_S, row] = state[CACHED_S]
    at = find_byte(data, begin, close, np.uint8(_SPACE))
    code = _status_and_size(data, close + 2, end, rows, row)
    if code != ACCEPTED:
        return code
    first = min(at + 1, close)
    code = target(data, first, without_version(data, first, close), rows, row)
    method = method_number(data, begin, at, scan.methods, state, code == ACCEPTED)
    rows[METHOD, row] = method
    return NO_METHOD if method == -1 else code


@kernel(types.void(types.uint8[::1], types.int64, SCAN_TYPE))
def scan_common(data, end, scan):
    """Read whole lines of data[state[POSITION]:end] into `rows` and `rejects`, until one of these tables is full.

    Each call starts both tables anew and writes their lengths to state[ROWS] and state[REJECTS]. state[LINES]
    counts the lines of all calls. state[POSITION] is the start of the first unread line.
    """
    state, rows, rejects = scan.state, scan.rows, scan.rejects
    base = np.int64(data.ctypes.data)
    row = reject = np.int64(0)
    while row < rows.shape[1] and reject < rejects.shape[1]:
        begin = state[POSITION]
        if begin >= end:
            break
        found = memchr(np.uint64(base + begin), np.int32(10), np.uint64(end - begin))
        if found == 0:
            break
        last = np.int64(found) - base
        state[POSITION] = last + 1
        state[LINES] += 1
        if last > begin and data[last - 1] == 13:
            last -= 1
        code = _scan_line(data, behind_zeros(data, begin, last), last, scan, row)
        if code == ACCEPTED:
            row += 1
        else:
            reject_line(rejects, reject, state[LINES], code, begin, last)
            reject += 1
    state[ROWS] = row
    state[REJECTS] = reject
