"""Log lines to columns for every format but the common one: cut a line into fields, then read the fields.

Three cutters: a template of literals and fields (`log_format` strings), a delimiter with quotes (CSV, W3C), and
JSON objects. Each says where the fields of a line lie, by role; one reader makes a row of them.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import types

from .bundle import bundle_type
from .dictionary import copy_bytes, hash_bytes, same_bytes
from .jit import kernel
from .json_cut import cut_json
from .libc import memchr
from .scan import (
    ABSOLUTE,
    ACCEPTED,
    AT_S,
    BAD_SIZE,
    BAD_STATUS,
    BAD_TIME,
    BEGIN,
    BLANK,
    BYTES,
    CLIENT,
    CODE,
    END,
    FIRST_ZONE_MIN,
    HEALTH_CHECK,
    LINE,
    LINE_BEGIN,
    LINE_BYTES_MAX,
    LINE_END,
    LINES,
    METHOD,
    MONTH_DAYS,
    NEEDS,
    NO_METHOD,
    OTHER_FORMAT,
    PARAMETERS,
    POSITION,
    REJECTS,
    REWRITE,
    ROWS,
    STATE_WORDS,
    STATUS,
    TOO_LONG,
    YEAR_MAX,
    YEAR_MIN,
    ZONE_MIN,
    ZONES,
    days_from_civil,
    digits,
    encode,
    hex_value,
    is_health_check,
    lowered,
    method_number,
    month_at,
    redact,
    split_absolute,
    target,
    unescape,
    word_at,
    zero_bytes,
)
from .shared import peek_i64
from .wide import find_byte

AT, AT_MORE, REQUEST, METHOD_NAME, TARGET, QUERY, HOST, CLIENT_NAME = 0, 1, 2, 3, 4, 5, 6, 7
STATUS_CODE, SIZE, TOOK, TOOK_2, TOOK_3, AGENT = 8, 9, 10, 11, 12, 13
ROLES = 14
"""What a field is. AT_MORE is the time of day where AT is the date alone; durations are added up."""

AT_NS = AT_S
TOOK_NS, HOST_BEGIN, HOST_END, QUERY_BEGIN, QUERY_END = 8, 9, 10, 11, 12
HOST_NUMBER = HOST_BEGIN
FIELD_COLUMNS = 13
"""The columns of `scan`, their time in nanoseconds, and some more. BEGIN is -1 where the target is constant."""

TEMPLATE, DELIMITED, JSON = 0, 1, 2
PLAIN, LOG, DOUBLED = 0, 1, 2
"""How a field is escaped: not at all; as logs do; quotes doubled. JSON says 3."""
JSON_ESCAPES = 3

BAD_TOOK, DIRECTIVE = 10, 11
"""More of what may become of a line; DIRECTIVE is a line that begins with the format's comment sign."""

CUTTER, DELIMITER, ESCAPES, TOOK_UNIT_NS, AT_UNIT_NS, CONSTANT_METHOD, CONSTANT_TARGET = 0, 1, 2, 3, 4, 5, 6
PORTED, COMMENT, CONSTANT_STATUS = 7, 8, 9
OPTIONS = 10

FINEST_NS, LARGEST, ZONELESS = STATE_WORDS, STATE_WORDS + 1, STATE_WORDS + 2
DATE_CACHED, DATE_DAYS = STATE_WORDS + 3, STATE_WORDS + 5
FIELD_STATE_WORDS = STATE_WORDS + 6
"""Beside the scanner's state: the finest resolution seen, the largest bare number, whether a stamp had no zone,
the date parsed last.
"""

FieldSpec = namedtuple(
    "FieldSpec",
    "options literals literal_ends roles keys key_ends child_first child_node child_role parents agents agent_ends",
)
"""What a format looks like. options int64[OPTIONS].

TEMPLATE: field i has roles[i] and stands between literals i and i + 1, literals[literal_ends[i]:literal_ends[i +
1]]. DELIMITED: column i has roles[i]. JSON: the keys of node n are child_first[n] to child_first[n + 1]; key k is
keys[key_ends[k]:key_ends[k + 1]] and leads to node child_node[k] or is a value of child_role[k] (-1: neither);
parents[n] is the node above n, -1 for the root.
"""

SPEC_TYPE = bundle_type(
    FieldSpec,
    [
        types.int64[::1], types.uint8[::1], types.int64[::1], types.int64[::1], types.uint8[::1], types.int64[::1],
        types.int64[::1], types.int64[::1], types.int64[::1], types.int64[::1], types.uint8[::1], types.int64[::1],
    ],
)  # fmt: skip

_SPACE, _QUOTE, _BACKSLASH, _DASH, _SLASH, _COLON, _COMMA, _DOT = 32, 34, 92, 45, 47, 58, 44, 46
_NS = np.int64(1_000_000_000)
_POWERS = np.array([10**n for n in range(19)], dtype=np.int64)
_HALVES, _LOW_HALVES = np.int64(-0x0F0F0F0F0F0F0F10), np.int64(0x0F0F0F0F0F0F0F0F)
_SIXES, _THREES = np.int64(0x0606060606060606), np.int64(0x3333333333333333)
_ONES = np.int64(0x0101010101010101)
_COLONS, _COMMAS = _ONES * _COLON, _ONES * _COMMA
_PAIRS = np.int64(0x000000FF000000FF)
_OF_PAIRS, _OF_OTHER_PAIRS = np.int64(100 + (1_000_000 << 32)), np.int64(1 + (10_000 << 32))
_STAMP_NS_MAX, _TOOK_NS_MAX = 9.2e18, 1e18
_UTF8_2, _UTF8_3, _UTF8_4, _UTF8_MORE = 0xC0, 0xE0, 0xF0, 0x80


@kernel(inlined=True)
def _is_at(data, at, end, literals, first, last):
    """Whether a literal is at `at`."""
    if end - at < last - first:
        return False
    same = True
    for index in range(last - first):
        same = same and data[at + index] == literals[first + index]
    return same


@kernel()
def _field_end(data, at, end, literals, first, last, quoted):
    """Where the literal behind a field begins; `end` where there is none left to match, -1 if it is missing.

    A quote that a backslash escapes ends no quoted field.
    """
    if first == last:
        return end
    while True:
        at = find_byte(data, at, end, literals[first])
        if at >= end:
            return np.int64(-1)
        if _is_at(data, at, end, literals, first, last):
            slashes = np.int64(0)
            while quoted and data[at - 1 - slashes] == _BACKSLASH:
                slashes += 1
            if slashes & 1 == 0:
                return at
        at += 1


@kernel(inlined=True)
def _stamp_goes_on(data, begin, last, end):
    """Whether a stamp that a space seems to end goes on with a zone, or a date with its time of day."""
    if end - last < 6 or data[last] != _SPACE:
        return False
    zoned = data[last + 1] in (43, _DASH) and digits(data, last + 2, 4) >= 0
    return zoned or (last - begin == 10 and data[begin + 4] == _DASH and data[last + 3] == _COLON)


@kernel(inlined=True)
def _cut_template(data, begin, end, spec, spans):
    """Cut a line by a template; a code."""
    ends, literals = spec.literal_ends, spec.literals
    if not _is_at(data, begin, end, literals, ends[0], ends[1]):
        return OTHER_FORMAT
    at = begin + ends[1] - ends[0]
    for field in range(spec.roles.shape[0]):
        quoted = ends[field + 1] > ends[field] and literals[ends[field + 1] - 1] == _QUOTE
        last = _field_end(data, at, end, literals, ends[field + 1], ends[field + 2], quoted)
        if last < 0:
            return OTHER_FORMAT
        role = spec.roles[field]
        if role == AT and _stamp_goes_on(data, at, last, end):
            last = _field_end(data, last + 1, end, literals, ends[field + 1], ends[field + 2], quoted)
            if last < 0:
                return OTHER_FORMAT
        if role >= 0:
            spans[role, 0], spans[role, 1] = at, last
        at = last + ends[field + 2] - ends[field + 1]
    return ACCEPTED


@kernel(inlined=True)
def _cut_delimited(data, begin, end, spec, spans):
    """Cut a line at its delimiters; a quoted field may hold them, and quotes doubled. A code."""
    delimiter = spec.options[DELIMITER]
    quotes = spec.options[ESCAPES] == DOUBLED
    at = begin
    for column in range(spec.roles.shape[0]):
        if at > end:
            return OTHER_FORMAT
        first = at
        if quotes and at < end and data[at] == _QUOTE:
            first = at + 1
            last = find_byte(data, first, end, np.uint8(_QUOTE))
            while last + 1 < end and data[last + 1] == _QUOTE:
                last = find_byte(data, last + 2, end, np.uint8(_QUOTE))
            at = last + 1
            if last >= end or (at < end and data[at] != delimiter):
                return OTHER_FORMAT
        else:
            at = last = find_byte(data, at, end, np.uint8(delimiter))
        role = spec.roles[column]
        if role >= 0:
            spans[role, 0], spans[role, 1] = first, last
        at += 1
    return ACCEPTED


@kernel(inlined=True)
def _note_zone(state, zone_min):
    if state[ZONES] == 0 or zone_min != state[ZONE_MIN]:
        if state[ZONES] == 0:
            state[FIRST_ZONE_MIN] = zone_min
        state[ZONES] += 1
        state[ZONE_MIN] = zone_min


@kernel(inlined=True)
def _note_resolution(state, resolution_ns):
    if state[FINEST_NS] == 0 or resolution_ns < state[FINEST_NS]:
        state[FINEST_NS] = resolution_ns


@kernel()
def _civil_days(year, month, day):
    """Days since 1970, or -1 for a date that is none."""
    if not 1 <= month <= 12 or not YEAR_MIN <= year <= YEAR_MAX or day < 1:
        return np.int64(-1)
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > MONTH_DAYS[month - 1] + leap:
        return np.int64(-1)
    return days_from_civil(year, month, day)


@kernel(inlined=True)
def _iso_days(data, at, state):
    """Days since 1970 of `yyyy-mm-dd` at `at`, or -1; remembers the last one."""
    address = np.int64(data.ctypes.data) + at
    word0, word1 = peek_i64(np.uint64(address)), peek_i64(np.uint64(address + 2))
    if word0 == state[DATE_CACHED] and word1 == state[DATE_CACHED + 1]:
        return state[DATE_DAYS]
    if data[at + 4] != _DASH or data[at + 7] != _DASH:
        return np.int64(-1)
    days = _civil_days(digits(data, at, 4), digits(data, at + 5, 2), digits(data, at + 8, 2))
    if days >= 0:
        state[DATE_CACHED], state[DATE_CACHED + 1], state[DATE_DAYS] = word0, word1, days
    return days


@kernel(inlined=True)
def _clock_s(data, at, end):
    """Seconds of `HH:MM:SS` at `at`, or -1."""
    if end - at < 8 or data[at + 2] != _COLON or data[at + 5] != _COLON:
        return np.int64(-1)
    hour, minute, second = digits(data, at, 2), digits(data, at + 3, 2), digits(data, at + 6, 2)
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 60:
        return np.int64(-1)
    return hour * 3600 + minute * 60 + second


@kernel(inlined=True)
def _is_utc(data, at, end):
    """Whether data[at:end] is `Z` or `UTC`."""
    if end - at == 1:
        return data[at] in (90, 122)
    return end - at == 3 and data[at] == 85 and data[at + 1] == 84 and data[at + 2] == 67


@kernel()
def _rest_of_stamp(data, at, end, days, clock_s, state, rows, row):
    """Fraction and zone behind `HH:MM:SS`; False where something else follows."""
    fraction, length = np.int64(0), np.int64(0)
    if at < end and (data[at] in (_DOT, _COMMA)):
        at += 1
        while at < end and 48 <= data[at] <= 57:
            if length < 9:
                fraction = fraction * 10 + np.int64(data[at]) - 48
                length += 1
            at += 1
    _note_resolution(state, _POWERS[9 - length])
    while at < end and data[at] == _SPACE:
        at += 1
    zone_min = np.int64(0)
    if at == end:
        state[ZONELESS] = 1
    elif _is_utc(data, at, end):
        _note_zone(state, zone_min)
    elif data[at] in (43, _DASH) and end - at in (5, 6):
        colon = end - at == 6
        hour, minute = digits(data, at + 1, 2), digits(data, at + 3 + colon, 2)
        if (colon and data[at + 3] != _COLON) or not 0 <= hour <= 23 or not 0 <= minute <= 59:
            return False
        zone_min = hour * 60 + minute
        if data[at] == _DASH:
            zone_min = -zone_min
        _note_zone(state, zone_min)
    else:
        return False
    rows[AT_NS, row] = (days * 86400 + clock_s - zone_min * 60) * _NS + fraction * _POWERS[9 - length]
    return True


@kernel(inlined=True)
def _are_digits(word):
    """Whether eight bytes are decimal digits (Daniel Lemire, "Quickly parsing eight digits")."""
    return ((word & _HALVES) | (((word + _SIXES) & _HALVES) >> 4)) == _THREES


@kernel(inlined=True)
def _eight_digits(word):
    """Eight decimal digits, the first one lowest, as a number: pairs, then fours, then all (same source)."""
    word &= _LOW_HALVES
    word = word * 10 + (word >> 8)
    return ((word & _PAIRS) * _OF_PAIRS + ((word >> 16) & _PAIRS) * _OF_OTHER_PAIRS) >> 32


@kernel(inlined=True)
def _number(data, at, end, out):
    """A decimal number: out[0] its digits before the point, out[1] billionths behind it, out[2] how many digits
    those had; where it ends, or -1 (none, or more than 18 digits).
    """
    whole, fraction, length = np.int64(0), np.int64(0), np.int64(0)
    first = at
    if end - at >= 8 and _are_digits(word_at(data, at)):
        whole = _eight_digits(word_at(data, at))
        at += 8
    while at < end and 48 <= data[at] <= 57:
        whole = whole * 10 + np.int64(data[at]) - 48
        at += 1
        if at - first > 19 or whole < 0:
            return np.int64(-1)
    if at == first:
        return np.int64(-1)
    if at < end and data[at] == _DOT:
        at += 1
        if end - at >= 8 and _are_digits(word_at(data, at)):
            fraction, length = _eight_digits(word_at(data, at)), np.int64(8)
            at += 8
        while at < end and 48 <= data[at] <= 57:
            if length < 9:
                fraction = fraction * 10 + np.int64(data[at]) - 48
                length += 1
            at += 1
    out[0], out[1], out[2] = whole, fraction * _POWERS[9 - length], length
    return at


@kernel()
def _scaled(data, at, end, out):
    """Apply the exponent at `at` (`e-05`) to a number in `out`; where it ends, or -1 where it is none or too large."""
    negative = at + 1 < end and data[at + 1] == _DASH
    signed = negative or (at + 1 < end and data[at + 1] == 43)
    first = at + 1 + signed
    at = first
    exponent = np.int64(0)
    while at < end and at - first < 3 and 48 <= data[at] <= 57:
        exponent = exponent * 10 + np.int64(data[at]) - 48
        at += 1
    if at == first or out[0] >= _NS:
        return np.int64(-1)
    value = out[0] * _NS + out[1]
    if negative:
        value = value // _POWERS[exponent] if exponent < 19 else np.int64(0)
    elif exponent > 18 or value > np.int64(9_000_000_000_000_000_000) // _POWERS[exponent]:
        return np.int64(-1)
    else:
        value *= _POWERS[exponent]
    out[0], out[1] = value // _NS, value % _NS
    return at


@kernel("int64(int64)")
def unit_of(number):
    """ns of the unit in which a number of today's time is since the epoch: s, ms, µs or ns, by its size."""
    if number < 100_000_000_000:
        return _NS
    if number < 100_000_000_000_000:
        return np.int64(1_000_000)
    if number < 100_000_000_000_000_000:
        return np.int64(1_000)
    return np.int64(1)


@kernel(inlined=True)
def _epoch(data, begin, end, unit_ns, state, rows, row, number):
    """A number since the epoch; False if it is none, or out of range."""
    if _number(data, begin, end, number) != end:
        return False
    state[LARGEST] = max(state[LARGEST], number[0])
    if unit_ns == 0:
        unit_ns = unit_of(number[0])
    if np.float64(number[0]) * np.float64(unit_ns) > _STAMP_NS_MAX:
        return False
    rows[AT_NS, row] = number[0] * unit_ns + number[1] * unit_ns // _NS
    if state[FINEST_NS] == 0 or unit_ns < state[FINEST_NS] * _POWERS[number[2]]:
        _note_resolution(state, max(np.int64(1), unit_ns // _POWERS[number[2]]))
    return True


@kernel(inlined=True)
def read_time(data, spans, unit_ns, state, rows, row, number):
    """Read the stamp of a line (ISO 8601, `dd/Mon/yyyy:HH:MM:SS`, or a number since the epoch); False if bad."""
    begin, end = spans[AT, 0], spans[AT, 1]
    if begin < 0:
        return False
    length = end - begin
    if spans[AT_MORE, 0] >= 0:
        if length != 10:
            return False
        days, at = _iso_days(data, begin, state), spans[AT_MORE, 0]
        clock_s = _clock_s(data, at, spans[AT_MORE, 1])
        if days < 0 or clock_s < 0:
            return False
        return _rest_of_stamp(data, at + 8, spans[AT_MORE, 1], days, clock_s, state, rows, row)
    if length >= 19 and data[begin + 4] == _DASH:
        days, clock_s = _iso_days(data, begin, state), _clock_s(data, begin + 11, end)
        if days < 0 or clock_s < 0 or data[begin + 10] not in (84, _SPACE, 116):
            return False
        return _rest_of_stamp(data, begin + 19, end, days, clock_s, state, rows, row)
    if length >= 20 and data[begin + 2] == _SLASH:
        if data[begin + 6] != _SLASH or data[begin + 11] != _COLON:
            return False
        day, year = digits(data, begin, 2), digits(data, begin + 7, 4)
        days, clock_s = _civil_days(year, month_at(data, begin + 3), day), _clock_s(data, begin + 12, end)
        if days < 0 or clock_s < 0:
            return False
        return _rest_of_stamp(data, begin + 20, end, days, clock_s, state, rows, row)
    return _epoch(data, begin, end, unit_ns, state, rows, row, number)


@kernel(inlined=True)
def _is_none(data, begin, end):
    """Whether a field says that there is nothing: absent, empty, or `-`."""
    return begin < 0 or begin == end or (end - begin == 1 and data[begin] == _DASH)


@kernel()
def _suffix_ns(data, at, end, unit_ns):
    """ns of the unit written behind a duration (`s`, `ms`, `us`, `µs`, `ns`), `unit_ns` for none, 0 for another."""
    if at == end:
        return unit_ns
    if end - at == 1 and data[at] == 115:
        return _NS
    if data[end - 1] != 115:
        return np.int64(0)
    if end - at == 2:
        if data[at] == 109:
            return np.int64(1_000_000)
        if data[at] == 117:
            return np.int64(1_000)
        return np.int64(1) if data[at] == 110 else np.int64(0)
    return np.int64(1_000) if end - at == 3 and data[at] in (0xC2, 0xCE) else np.int64(0)


@kernel(inlined=True)
def _took(data, begin, end, unit_ns, number):
    """A duration in ns; -1 where none is known, -2 where it is no duration."""
    if _is_none(data, begin, end):
        return np.int64(-1)
    if data[begin] == 43:
        begin += 1
    negative = data[begin] == _DASH
    at = _number(data, begin + negative, end, number)
    if 0 <= at < end and (data[at] | 32) == 101:
        at = _scaled(data, at, end, number)
    if at < 0:
        return np.int64(-2)
    if negative:
        return np.int64(-1) if number[0] == 1 and number[1] == 0 else np.int64(-2)
    unit_ns = _suffix_ns(data, at, end, unit_ns)
    if unit_ns == 0 or np.float64(number[0]) * np.float64(unit_ns) > _TOOK_NS_MAX:
        return np.int64(-2)
    return number[0] * unit_ns + number[1] * unit_ns // _NS


@kernel(inlined=True)
def _read_took(data, spec, spans, rows, row, number):
    """The sum of the durations that are known; a code."""
    total = np.int64(-1)
    for role in range(TOOK, TOOK_3 + 1):
        if spans[role, 0] < 0:
            continue
        part = _took(data, spans[role, 0], spans[role, 1], spec.options[TOOK_UNIT_NS], number)
        if part == -2:
            return BAD_TOOK
        if part >= 0:
            total = max(total, np.int64(0)) + part
    rows[TOOK_NS, row] = total
    return ACCEPTED


@kernel(inlined=True)
def _read_answer(data, spec, spans, rows, row):
    """Status and size; a code."""
    begin, end = spans[STATUS_CODE, 0], spans[STATUS_CODE, 1]
    status = spec.options[CONSTANT_STATUS] if begin < 0 else np.int64(-1)
    if not _is_none(data, begin, end) and data[begin] != _DASH:
        if end - begin > 3:
            return BAD_STATUS
        status = digits(data, begin, end - begin)
        if status < 0 or 0 < status < 100:
            return BAD_STATUS
        if status == 0:
            status = np.int64(-1)
    begin, end = spans[SIZE, 0], spans[SIZE, 1]
    size = np.int64(-1)
    if not _is_none(data, begin, end) and data[begin] != _DASH:
        if end - begin > 18:
            return BAD_SIZE
        size = digits(data, begin, end - begin)
        if size < 0:
            return BAD_SIZE
    rows[STATUS, row] = status
    rows[BYTES, row] = size
    return ACCEPTED


@kernel(inlined=True)
def _client_end(data, begin, end, ported):
    """Where the address of a client ends: before another one, and before its port."""
    first_colon = last_colon = np.int64(-1)
    plain = begin
    while plain + 8 <= end:
        word = word_at(data, plain)
        if zero_bytes(word ^ _COLONS) | zero_bytes(word ^ _COMMAS) != 0:
            break
        plain += 8
    for at in range(plain, end):
        if data[at] == _COMMA:
            end = at
            break
        if data[at] == _COLON:
            if first_colon < 0:
                first_colon = at
            last_colon = at
    if last_colon > begin and (ported or first_colon == last_colon or data[last_colon - 1] == 93):
        return last_colon
    return end


@kernel(inlined=True)
def _read_request(data, spec, spans, methods, state, rows, row):
    """Method and target; a code."""
    begin, end = spans[REQUEST, 0], spans[REQUEST, 1]
    if begin >= 0:
        at = find_byte(data, begin, end, np.uint8(_SPACE))
        code = target(data, min(at + 1, end), end, rows, row)
        method = method_number(data, begin, at, methods, state, code == ACCEPTED)
    else:
        code = ACCEPTED
        if spans[TARGET, 0] >= 0:
            first, last = spans[TARGET, 0], spans[TARGET, 1]
            if spec.options[ESCAPES] == JSON_ESCAPES and last - first > 1 and data[first] == _BACKSLASH:
                first += data[first + 1] == _SLASH
            code = target(data, first, last, rows, row)
        elif spec.options[CONSTANT_TARGET] == 0:
            return OTHER_FORMAT
        else:
            rows[BEGIN, row] = rows[END, row] = -1
            rows[NEEDS, row] = 0
        if spans[METHOD_NAME, 0] >= 0:
            first, last = spans[METHOD_NAME, 0], spans[METHOD_NAME, 1]
            method = method_number(data, first, last, methods, state, code == ACCEPTED)
        else:
            method = spec.options[CONSTANT_METHOD]
    rows[METHOD, row] = method
    return NO_METHOD if method == -1 else code


@kernel(inlined=True)
def _keep_span(data, begin, end, rows, begin_column, row):
    """Note where a field lies, -1 where it says nothing."""
    nothing = _is_none(data, begin, end)
    rows[begin_column, row] = np.int64(-1) if nothing else begin
    rows[begin_column + 1, row] = np.int64(-1) if nothing else end


@kernel(inlined=True)
def _read_fields(data, spec, key, methods, state, rows, row, spans, number):
    """Make a row of the fields of a line; a code."""
    if not read_time(data, spans, spec.options[AT_UNIT_NS], state, rows, row, number):
        return BAD_TIME
    agent = spans[AGENT, 0]
    if agent >= 0 and is_health_check(data, agent, spans[AGENT, 1], spec.agents, spec.agent_ends):
        return HEALTH_CHECK
    code = _read_answer(data, spec, spans, rows, row)
    if code != ACCEPTED:
        return code
    code = _read_took(data, spec, spans, rows, row, number)
    if code != ACCEPTED:
        return code
    code = _read_request(data, spec, spans, methods, state, rows, row)
    if code != ACCEPTED:
        return code
    begin, end = spans[CLIENT_NAME, 0], spans[CLIENT_NAME, 1]
    rows[CLIENT, row] = 0
    if not _is_none(data, begin, end):
        rows[CLIENT, row] = hash_bytes(data, begin, _client_end(data, begin, end, spec.options[PORTED]), key)
    _keep_span(data, spans[HOST, 0], spans[HOST, 1], rows, HOST_BEGIN, row)
    _keep_span(data, spans[QUERY, 0], spans[QUERY, 1], rows, QUERY_BEGIN, row)
    return ACCEPTED


@kernel(inlined=True)
def _scan_line(data, begin, end, spec, key, methods, state, rows, row, spans, gaps, gap_text, number):
    """Read one line into column `row` of `rows`; a code."""
    if begin == end:
        return BLANK
    if end - begin > LINE_BYTES_MAX:
        return TOO_LONG
    if data[begin] == spec.options[COMMENT]:
        return DIRECTIVE
    spans[:] = -1
    cutter = spec.options[CUTTER]
    if cutter == TEMPLATE:
        code = _cut_template(data, begin, end, spec, spans)
    elif cutter == DELIMITED:
        code = _cut_delimited(data, begin, end, spec, spans)
    else:
        code = cut_json(data, begin, end, spec, spans, gaps, gap_text)
    if code != ACCEPTED:
        return code
    return _read_fields(data, spec, key, methods, state, rows, row, spans, number)


@kernel(
    types.void(
        types.uint8[::1], types.int64, SPEC_TYPE, types.int64, types.int64[:, ::1], types.int64[::1],
        types.int64[:, ::1], types.int64[:, ::1], types.int64[:, ::1], types.int64[:, ::1], types.uint8[::1],
        types.int64[::1],
    )
)  # fmt: skip
def scan_fields(data, end, spec, key, methods, state, rows, rejects, spans, gaps, gap_text, number):
    """As `scan.scan_common`, by a FieldSpec; also stops behind a directive, which is then the last reject.

    Room: spans int64[ROLES, 2], number int64[3]; gaps and gap_text as `cut_json` says, zeros whenever the spec is another.
    """
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
        code = _scan_line(
            data, begin, last, spec, key, methods, state, rows, row, spans, gaps, gap_text, number
        )
        if code == ACCEPTED:
            row += 1
        else:
            rejects[LINE, reject] = state[LINES]
            rejects[CODE, reject] = code
            rejects[LINE_BEGIN, reject] = begin
            rejects[LINE_END, reject] = last
            reject += 1
            if code == DIRECTIVE:
                break
    state[ROWS] = row
    state[REJECTS] = reject


@kernel(inlined=True)
def _put_utf8(code, out, at):
    """Write a code point, percent-encoded unless it is printable ASCII; the offset after it."""
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
    """Four hexadecimal digits as a number, or -1."""
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
    """Write a JSON string's text (RFC 8259, 7) to `out`, percent-encoded where it must be; the bytes written."""
    at = np.int64(0)
    while begin < end:
        byte = np.int64(data[begin])
        begin += 1
        if byte != _BACKSLASH or begin == end:
            at = encode(byte, out, at)
            continue
        escape = np.int64(data[begin])
        begin += 1
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
    """Write data[begin:end] without its escapes, percent-encoded where it must be; the bytes written."""
    if escapes == LOG:
        return unescape(data, begin, end, out)
    if escapes == JSON_ESCAPES:
        return _unescape_json(data, begin, end, out)
    at = np.int64(0)
    while begin < end:
        if escapes == DOUBLED and data[begin] == _QUOTE and begin + 1 < end and data[begin + 1] == _QUOTE:
            begin += 1
        at = encode(np.int64(data[begin]), out, at)
        begin += 1
    return at


@kernel(inlined=True)
def _append_query(escapes, data, begin, end, scratch, length):
    """Append `?` and a query to a target in `scratch`; its length then."""
    if begin < 0 or begin == end:
        return length
    if data[begin] != 63:
        scratch[length] = 63
        length += 1
    return length + _unescape_as(escapes, data, begin, end, scratch[length:])


@kernel(
    types.int64(
        types.uint8[::1], types.int64[:, ::1], types.int64, types.int64, types.uint8[::1], types.uint8[::1],
        types.int64[::1], types.int64, types.uint8[::1], types.uint8[::1], types.uint8[::1], types.int64[::1],
        types.uint8[::1], types.int64[::1], types.int64[::1],
    )
)  # fmt: skip
def write_field_targets(
    data, rows, count, escapes, constant, keys, key_ends, suffixes, name, scratch, out, out_ends, hosts,
    host_ends, counts,
):  # fmt: skip
    """As `scan.write_targets`, for rows of `scan_fields`; `constant` is the target of rows that have none.

    A host that is named again and again is written once: rows[HOST_NUMBER, i] says which is row i's, or -1.
    """
    at, named = np.int64(0), np.int64(0)
    last_begin, last_end, last = np.int64(0), np.int64(-1), np.int64(-1)
    out_ends[0] = host_ends[0] = 0
    for row in range(count):
        begin, end, needs = rows[BEGIN, row], rows[END, row], rows[NEEDS, row]
        query = rows[QUERY_BEGIN, row]
        host_end = host_ends[named]
        if begin < 0:
            at = copy_bytes(constant, 0, constant.shape[0], out, at)
        elif needs & (REWRITE | ABSOLUTE) == 0 and (needs == 0 or suffixes < 0) and query < 0:
            at = copy_bytes(data, begin, end, out, at)
        elif needs == PARAMETERS and query < 0:
            at = redact(data, begin, end, out, at, keys, key_ends, suffixes, name, counts)
        else:
            length = _unescape_as(escapes, data, begin, end, scratch)
            length = _append_query(escapes, data, query, rows[QUERY_END, row], scratch, length)
            begin = np.int64(0)
            if needs & ABSOLUTE:
                begin, host_end = split_absolute(scratch, length, hosts, host_end)
                if begin == length or scratch[begin] != _SLASH:
                    out[at] = _SLASH
                    at += 1
            if suffixes < 0:
                at = copy_bytes(scratch, begin, length, out, at)
            else:
                at = redact(scratch, begin, length, out, at, keys, key_ends, suffixes, name, counts)
        out_ends[row + 1] = at
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
