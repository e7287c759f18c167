"""Access log lines to columns: the common and combined format.

`scan_common` reads lines `host ident user [dd/Mon/yyyy:HH:MM:SS +zzzz] "METHOD target HTTP/x" status bytes ...` in a
block of bytes; `targets` then rewrites their request targets so that they can be sent.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.libc import memchr
from replay_native.ground.shared import peek_i64, trailing_zeros
from replay_native.ground.simd import WIDTH, bytes_equal, bytes_outside, find_byte
from replay_native.trace.dictionary import hash_bytes

ACCEPTED, BLANK, OTHER_FORMAT, BAD_TIME, NO_METHOD = 0, 1, 2, 3, 4
NO_PATH, BAD_STATUS, BAD_SIZE, TOO_LONG, HEALTH_CHECK = 5, 6, 7, 8, 9
"""What became of a line: its code."""

REWRITE, PARAMETERS, ABSOLUTE, LOOK, SUSPECT = 1, 2, 4, 8, 16
"""What a target needs. REWRITE: unescaping or encoding. PARAMETERS: a check of its parameters' names. ABSOLUTE: its
scheme and host removed. LOOK: a check for values inside values, e-mail addresses and tokens, because it has a byte
that these have. SUSPECT: that check found one.
"""

POSITION, LINES, ROWS, REJECTS, ZONE_MIN, ZONES, USERS, METHODS = 0, 1, 2, 3, 4, 5, 6, 7
FIRST_ZONE_MIN, CACHED_S, CACHED = 8, 9, 10
BREAKS, ALL_THERE, GOES_ON, FORWARDED_LAST = 14, 15, 16, 17
STATE_WORDS = 18
"""Words of the scanner's state: where it is, what it counted, how many methods it knows, the last stamp it parsed.

LINES are records; BREAKS are the line breaks inside them. ALL_THERE: nothing follows the data. GOES_ON: the record at
POSITION may go on after the data. FORWARDED_LAST: lines have `X-Forwarded-For` in quotes after the user agent.
"""

AT_S, METHOD, BEGIN, END, NEEDS, STATUS, BYTES, CLIENT = 0, 1, 2, 3, 4, 5, 6, 7
ROW_COLUMNS = 8
"""Rows of the int64 table that `scan_common` fills, with one column per log line."""

LINE, CODE, LINE_BEGIN, LINE_END = 0, 1, 2, 3
REJECT_COLUMNS = 4

METHODS_MAX, METHOD_BYTES_MAX = 64, 16

LINE_BYTES_MAX = 64 << 10
"""A longer line is rejected."""

STAMP_BYTES = 26
_PROTOCOL_BYTES = 9
YEAR_MIN, YEAR_MAX = 1970, 2261
"""Years that fit int64 nanoseconds since the Unix epoch as a whole."""

_SPACE, _QUOTE, _BACKSLASH, _DASH, _SLASH, _COLON, _SEMICOLON, _QUESTION = 32, 34, 92, 45, 47, 58, 59, 63
_PERCENT, _AT, _LETTER_J, _COMMA, _AMPERSAND = 37, 64, 74, 44, 38
_SPECIAL = np.zeros(256, dtype=np.uint8)
_SPECIAL[:33] = 1
_SPECIAL[127:] = 1
_SPECIAL[[_QUOTE, _BACKSLASH, _QUESTION, _SEMICOLON, _PERCENT, _AT, _COLON, _LETTER_J]] = 1

_NESTS = np.zeros((256, 256), dtype=np.uint8)
for _code in (b"22", b"25", b"26", b"27", b"3A", b"3B", b"3D", b"3F", b"40", b"5C", b"7B"):
    _NESTS[_code[0], [_code[1], _code[1] | 32]] = 1
"""Codes that, after a `%`, may stand for a mark that separates or nests values: `"`, `%`, `&`, `'`, `:`, `;`, `=`,
`?`, `@`, backslash, `{`.
"""

_MONTHS = np.frombuffer(b"JanFebMarAprMayJunJulAugSepOctNovDec", dtype=np.uint8)
MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)

_ONES, _HIGHS = np.int64(0x0101010101010101), np.int64(-0x7F7F7F7F7F7F7F80)


@bundle
class Scan(NamedTuple):
    """What a scanner of lines knows, and the tables that it fills."""

    key: Annotated[int, "int64", "key of the hashes of clients"]
    agents: Annotated[Array, "uint8[::1]", "beginnings of the user agents of health checks"]
    agent_ends: Annotated[Array, "int64[::1]", "per agent and one more: where it begins"]
    methods: Annotated[Array, "int64[:, ::1]", "the methods seen so far: their names, two words each"]
    state: Annotated[Array, "int64[::1]", "the scanner's state (STATE_WORDS)"]
    rows: Annotated[Array, "int64[:, ::1]", "one column per accepted line (ROW_COLUMNS)"]
    rejects: Annotated[Array, "int64[:, ::1]", "one column per rejected line (REJECT_COLUMNS)"]


SCAN_TYPE = numba_type(Scan)


@kernel(inlined=True)
def word_at(data, at):
    """Eight bytes as a word, the first one lowest."""
    return peek_i64(np.uint64(np.int64(data.ctypes.data) + at))


@kernel(inlined=True)
def zero_bytes(word):
    """The high bit of each byte that is 0. Bits above the lowest one may be false."""
    return (word - _ONES) & ~word & _HIGHS


@kernel(inlined=True)
def _special_bytes(data, at, end):
    """Bit i is set where data[at + i] is in _SPECIAL, for the next bytes up to `end`."""
    if at + WIDTH <= data.shape[0]:
        address = np.int64(data.ctypes.data) + at
        found = bytes_outside(address, np.uint8(33), np.uint8(126))
        found |= bytes_equal(address, np.uint8(_QUOTE)) | bytes_equal(address, np.uint8(_BACKSLASH))
        found |= bytes_equal(address, np.uint8(_QUESTION)) | bytes_equal(address, np.uint8(_SEMICOLON))
        found |= bytes_equal(address, np.uint8(_PERCENT)) | bytes_equal(address, np.uint8(_AT))
        found |= bytes_equal(address, np.uint8(_COLON)) | bytes_equal(address, np.uint8(_LETTER_J))
        return found & ((np.int64(1) << min(end - at, np.int64(WIDTH))) - 1)
    found = np.int64(0)
    for index in range(min(end - at, np.int64(WIDTH))):
        found |= np.int64(_SPECIAL[data[at + index]]) << index
    return found


@kernel(inlined=True)
def has_ampersand(data, at, end):
    """Whether an ampersand is among the next bytes up to `end`: it begins a parameter, in paths as well."""
    if at + WIDTH <= data.shape[0]:
        found = bytes_equal(np.int64(data.ctypes.data) + at, np.uint8(_AMPERSAND))
        return found & ((np.int64(1) << min(end - at, np.int64(WIDTH))) - 1) != 0
    found = False
    for index in range(at, min(end, at + WIDTH)):
        found |= data[index] == _AMPERSAND
    return found


@kernel(inlined=True)
def digits(data, at, count):
    """`count` decimal digits at `at` as a number, or -1."""
    value = np.int64(0)
    for index in range(at, at + count):
        digit = np.int64(data[index]) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


@kernel()
def days_from_civil(year, month, day):
    """Days from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms")."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@kernel()
def month_at(data, at):
    """The month (1 to 12) named at `at`, or 0."""
    for month in range(12):
        name = 3 * month
        if (
            data[at] == _MONTHS[name]
            and data[at + 1] == _MONTHS[name + 1]
            and data[at + 2] == _MONTHS[name + 2]
        ):
            return month + 1
    return 0


@kernel()
def parse_stamp(data, at, state):
    """Parse `dd/Mon/yyyy:HH:MM:SS +zzzz` at `at` into state[CACHED_S] (UTC seconds), and note its zone. False if it is
    bad.
    """
    day, month, year = digits(data, at, 2), month_at(data, at + 3), digits(data, at + 7, 4)
    hour, minute, second = digits(data, at + 12, 2), digits(data, at + 15, 2), digits(data, at + 18, 2)
    zone_hour, zone_minute = digits(data, at + 22, 2), digits(data, at + 24, 2)
    if data[at + 2] != _SLASH or data[at + 6] != _SLASH or data[at + 20] != _SPACE:
        return False
    if data[at + 11] != _COLON or data[at + 14] != _COLON or data[at + 17] != _COLON:
        return False
    if month == 0 or not YEAR_MIN <= year <= YEAR_MAX or not day >= 1:
        return False
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > MONTH_DAYS[month - 1] + leap:
        return False
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 60:
        return False
    if (
        not 0 <= zone_hour <= 23
        or not 0 <= zone_minute <= 59
        or (data[at + 21] != 43 and data[at + 21] != _DASH)
    ):
        return False
    zone = zone_hour * 60 + zone_minute
    if data[at + 21] == _DASH:
        zone = -zone
    if state[ZONES] == 0 or zone != state[ZONE_MIN]:
        if state[ZONES] == 0:
            state[FIRST_ZONE_MIN] = zone
        state[ZONES] += 1
        state[ZONE_MIN] = zone
    state[CACHED_S] = (
        days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - zone * 60
    )
    return True


@kernel("boolean(uint8[::1], int64[::1])")
def parse_one(stamp, state):
    """`parse_stamp` of a stamp alone, for Python."""
    return stamp.shape[0] == STAMP_BYTES and parse_stamp(stamp, 0, state)


@kernel(inlined=True)
def _stamp(data, at, state):
    """`parse_stamp` that remembers the last stamp: in a log most lines repeat it."""
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


@kernel()
def method_number(data, begin, end, methods, state, add):
    """The number of the method named in data[begin:end]; -1 where it is none. A new one is added if `add`, else -2."""
    word0 = word1 = np.int64(0)
    if end == begin or end - begin > METHOD_BYTES_MAX:
        return -1
    if end - begin < 8 and begin + 8 <= data.shape[0] and data[end - 1] != 0:
        word0 = word_at(data, begin) & ((np.int64(1) << np.int64(8 * (end - begin))) - 1)
        for number in range(state[METHODS]):
            if methods[number, 0] == word0 and methods[number, 1] == 0:
                return number
        word0 = np.int64(0)
    for index in range(begin, end):
        byte = np.int64(data[index])
        if not (65 <= byte <= 90 or 97 <= byte <= 122 or byte in (_DASH, 95)):
            return -1
        if index - begin < 8:
            word0 |= byte << np.int64(8 * (index - begin))
        else:
            word1 |= byte << np.int64(8 * (index - begin - 8))
    if data[begin] == _DASH:
        return -1
    for number in range(state[METHODS]):
        if methods[number, 0] == word0 and methods[number, 1] == word1:
            return number
    if not add:
        return -2
    number = state[METHODS]
    if number == METHODS_MAX:
        return -1
    methods[number, 0] = word0
    methods[number, 1] = word1
    state[METHODS] = number + 1
    return number


@kernel(inlined=True)
def lowered(byte):
    """A byte, as a lower-case letter if it is an ASCII letter."""
    return byte | 32 if 65 <= byte <= 90 else byte


@kernel()
def scheme_end(data, begin, end):
    """Where the authority of an absolute `http://` or `https://` target begins, or -1."""
    if end - begin < 8 or lowered(data[begin]) != 104 or lowered(data[begin + 1]) != 116:
        return -1
    if lowered(data[begin + 2]) != 116 or lowered(data[begin + 3]) != 112:
        return -1
    at = begin + 4 + (lowered(data[begin + 4]) == 115)
    if data[at] == _COLON and data[at + 1] == _SLASH and data[at + 2] == _SLASH:
        return at + 3
    return -1


@kernel(inlined=True)
def _nobody(data, at):
    """Whether `- - ` is at `at`: the line has neither ident nor user."""
    dashes = data[at] == _DASH and data[at + 2] == _DASH
    return dashes and data[at + 1] == _SPACE and data[at + 3] == _SPACE


@kernel(inlined=True)
def _stamp_place(data, begin, end, state):
    """Where the `[` of the stamp is, after ident and user (a user is counted); -1: there is none; -2: no stamp follows
    one.
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
    """Parse `status bytes` at `at`; a code."""
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
def is_protocol(data, at, end):
    """Whether `HTTP/` is at `at`."""
    if end - at < 5 or data[at] != 72 or data[at + 1] != 84:
        return False
    return data[at + 2] == 84 and data[at + 3] == 80 and data[at + 4] == _SLASH


@kernel(inlined=True)
def _ends_in_protocol(data, begin, end):
    """Whether data[begin:end] ends in a space and a protocol of the usual length, such as `HTTP/1.1`."""
    at = end - _PROTOCOL_BYTES
    if at < begin or data[at] != _SPACE or not is_protocol(data, at + 1, end):
        return False
    return data[end - 1] != _SPACE and data[end - 2] != _SPACE and data[end - 3] != _SPACE


@kernel()
def target(data, begin, end, rows, row):
    """Note the target in data[begin:end], without spaces and protocol, and what it needs; a code."""
    needs = spaces = 0
    whole = _ends_in_protocol(data, begin, end)
    if whole:
        end -= _PROTOCOL_BYTES
    last_space = begin - 1
    at = begin
    while at < end:
        special = _special_bytes(data, at, end)
        if has_ampersand(data, at, end):
            needs |= PARAMETERS
        while special != 0:
            place = at + trailing_zeros(special)
            special &= special - 1
            byte = data[place]
            if byte == _SPACE:
                last_space = place
                spaces += 1
            elif byte in (_QUESTION, _SEMICOLON):
                needs |= PARAMETERS
            elif byte == _PERCENT:
                if place + 2 < end and _NESTS[data[place + 1], data[place + 2]]:
                    needs |= LOOK
            elif byte == _COLON:
                if place > begin and 97 <= lowered(data[place - 1]) <= 122:
                    needs |= LOOK
            elif byte == _AT:
                needs |= LOOK
            elif byte == _LETTER_J:
                # A JSON Web Token begins with `eyJ`.
                if place > begin + 1 and data[place - 1] == 121 and data[place - 2] == 101:
                    needs |= LOOK
            else:
                needs |= REWRITE | LOOK
        at += WIDTH
    if not whole and last_space >= begin and is_protocol(data, last_space + 1, end):
        end = last_space
    while begin < end and data[begin] == _SPACE:
        begin += 1
    while begin < end and data[end - 1] == _SPACE:
        end -= 1
    if begin == end:
        return NO_PATH
    if spaces:
        for at in range(begin, end):
            if data[at] == _SPACE:
                needs |= REWRITE
    if data[begin] != _SLASH and not (data[begin] == 42 and end == begin + 1):
        if scheme_end(data, begin, end) < 0:
            return NO_PATH
        needs |= ABSOLUTE
    rows[BEGIN, row] = begin
    rows[END, row] = end
    rows[NEEDS, row] = needs
    return ACCEPTED


@kernel(inlined=True)
def _closing_quote(data, at, end):
    """The first unescaped quote from `at` on that a space and a status (or `-`) follow; -1: there is none."""
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


@kernel()
def is_health_check(data, begin, end, agents, agent_ends):
    """Whether a user agent begins with one of `agents`."""
    for agent in range(agent_ends.shape[0] - 1):
        first, size = agent_ends[agent], agent_ends[agent + 1] - agent_ends[agent]
        if end - begin >= size and data[begin] == agents[first]:
            same = True
            for index in range(1, size):
                same = same and data[begin + index] == agents[first + index]
            if same:
                return True
    return False


@kernel(inlined=True)
def _agent_place(data, at, end):
    """Where the user agent of a combined line begins, after the referer; `end` where there is none."""
    at = find_byte(data, at, end, np.uint8(_QUOTE))
    at = find_byte(data, at + 1, end, np.uint8(_QUOTE))
    if at + 3 < end and data[at + 1] == _SPACE and data[at + 2] == _QUOTE:
        return at + 3
    return end


@kernel()
def address_end(data, begin, end):
    """Where the address at `begin` ends, before its port; `begin` where data[begin:end] is no address."""
    colons, dots, last_colon = 0, 0, begin
    for at in range(begin, end):
        byte = data[at]
        if byte == _COLON:
            colons += 1
            last_colon = at
        elif byte == 46:
            dots += 1
        elif not (48 <= byte <= 57 or 97 <= lowered(byte) <= 102):
            return begin
    if colons == 0:
        return end if dots == 3 else begin
    if colons == 1:
        return last_colon if dots == 3 else begin
    return end


@kernel()
def first_address(data, begin, end):
    """The first address of a list such as `X-Forwarded-For`: where it begins and ends, without brackets and port. The
    span is empty where there is none. HAProxy puts captured headers into braces, separated by bars.
    """
    at = begin
    while at < end:
        last = find_byte(data, at, end, np.uint8(_COMMA))
        while at < last and data[at] in (_SPACE, 43, _QUOTE):
            at += 1
        until = last
        while until > at and data[until - 1] in (_SPACE, 43, _QUOTE):
            until -= 1
        if at < until and data[at] == 91:
            at += 1
            until = find_byte(data, at, until, np.uint8(93))
        else:
            until = min(find_byte(data, at, until, np.uint8(124)), find_byte(data, at, until, np.uint8(125)))
        stop = address_end(data, at, until)
        if stop > at:
            return at, stop
        at = until + 1 if until < last and data[until] == 124 else last + 1
    return end, end


@kernel()
def _forwarded(data, at, end):
    """The first address of the quoted field after the user agent, which begins at `at`."""
    while at < end and data[at] != _QUOTE:
        at += 1 + (data[at] == _BACKSLASH)
    if at + 3 < end and data[at + 1] == _SPACE and data[at + 2] == _QUOTE:
        return first_address(data, at + 3, find_byte(data, at + 3, end, np.uint8(_QUOTE)))
    return end, end


@kernel(inlined=True)
def _scan_line(data, begin, end, scan, row):
    """Read one line into column `row`; a code."""
    state, rows, key, agents, agent_ends = scan.state, scan.rows, scan.key, scan.agents, scan.agent_ends
    if begin == end:
        return BLANK
    if end - begin > LINE_BYTES_MAX:
        return TOO_LONG
    at = find_byte(data, begin, end, np.uint8(_SPACE))
    if at in (begin, end):
        return OTHER_FORMAT
    rows[CLIENT, row] = hash_bytes(data, begin, at, key)
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
    """Read the stamp, the request between its quotes, status and size; a code."""
    state, rows = scan.state, scan.rows
    if not _stamp(data, stamp, state):
        return BAD_TIME
    rows[AT_S, row] = state[CACHED_S]
    at = find_byte(data, begin, close, np.uint8(_SPACE))
    code = _status_and_size(data, close + 2, end, rows, row)
    if code != ACCEPTED:
        return code
    code = target(data, min(at + 1, close), close, rows, row)
    method = method_number(data, begin, at, scan.methods, state, code == ACCEPTED)
    rows[METHOD, row] = method
    return NO_METHOD if method == -1 else code


@kernel(inlined=True)
def reject_line(rejects, reject, line, code, begin, end):
    """Note a line that is not accepted."""
    rejects[LINE, reject] = line
    rejects[CODE, reject] = code
    rejects[LINE_BEGIN, reject] = begin
    rejects[LINE_END, reject] = end


@kernel(types.void(types.uint8[::1], types.int64, SCAN_TYPE))
def scan_common(data, end, scan):
    """Read whole lines of data[state[POSITION]:end] into `rows` and `rejects`, until one of them may be full.

    Each call starts both anew: state[ROWS] and state[REJECTS] say how many there are. state[LINES] counts on, and
    state[POSITION] is where the first unread line begins.
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
        code = _scan_line(data, begin, last, scan, row)
        if code == ACCEPTED:
            row += 1
        else:
            reject_line(rejects, reject, state[LINES], code, begin, last)
            reject += 1
    state[ROWS] = row
    state[REJECTS] = reject
