"""Times and durations in fields of logs, in the notations and units that occur. The finest resolution is noted."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64

from .common_log import (
    FIRST_ZONE_MIN,
    MONTH_DAYS,
    YEAR_MAX,
    YEAR_MIN,
    ZONE_MIN,
    ZONES,
    days_from_civil,
    digits,
    month_at,
    word_at,
)
from .field_spec import (
    AT,
    AT_MORE,
    AT_NS,
    AT_UNIT_NS,
    DATE_CACHED,
    DATE_DAYS,
    DECIMAL,
    FINEST_NS,
    LARGEST,
    STAMP_MIN_NS,
    TOOK,
    TOOK_3,
    TOOK_NS,
    TOOK_UNIT_NS,
    UNKNOWN_TOOK,
    ZONED,
    ZONELESS,
)

_SPACE, _DASH, _SLASH, _COLON, _COMMA, _DOT, _PLUS = 32, 45, 47, 58, 44, 46, 43
_HALVES, _LOW_HALVES = np.int64(-0x0F0F0F0F0F0F0F10), np.int64(0x0F0F0F0F0F0F0F0F)
_NS = np.int64(1_000_000_000)
_OF_PAIRS, _OF_OTHER_PAIRS = np.int64(100 + (1_000_000 << 32)), np.int64(1 + (10_000 << 32))
_PAIRS = np.int64(0x000000FF000000FF)
_POWERS = np.array([10**n for n in range(19)], dtype=np.int64)
_SIXES, _THREES = np.int64(0x0606060606060606), np.int64(0x3333333333333333)
_STAMP_NS_MAX, _TOOK_NS_MAX = 9.2e18, 1e18


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
    """Days since 1970, or -1 for an invalid date."""
    if not 1 <= month <= 12 or not YEAR_MIN <= year <= YEAR_MAX or day < 1:
        return np.int64(-1)
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > MONTH_DAYS[month - 1] + leap:
        return np.int64(-1)
    return days_from_civil(year, month, day)


@kernel(inlined=True)
def _iso_days(data, at, state):
    """Days since 1970 of `yyyy-mm-dd` or `yyyy/mm/dd` at `at`, or -1. The last date is remembered."""
    address = np.int64(data.ctypes.data) + at
    word0, word1 = peek_i64(np.uint64(address)), peek_i64(np.uint64(address + 2))
    if word0 == state[DATE_CACHED] and word1 == state[DATE_CACHED + 1]:
        return state[DATE_DAYS]
    if data[at + 4] != data[at + 7] or data[at + 4] not in (_DASH, _SLASH):
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
    """Whether data[at:end] is `Z`, `UTC` or `GMT`."""
    if end - at == 1:
        return data[at] in (90, 122)
    if end - at != 3:
        return False
    if data[at] == 71:
        return data[at + 1] == 77 and data[at + 2] == 84
    return data[at] == 85 and data[at + 1] == 84 and data[at + 2] == 67


@kernel()
def _rest_of_stamp(data, at, end, days, clock_s, state, rows, row):
    """Read fraction and zone after `HH:MM:SS`. False where something else follows."""
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
    rows[ZONED, row] = at < end
    if at == end:
        state[ZONELESS] = 1
    elif _is_utc(data, at, end):
        _note_zone(state, zone_min)
    elif data[at] in (_PLUS, _DASH) and end - at in (3, 5, 6):
        colon = end - at == 6
        hour = digits(data, at + 1, 2)
        minute = np.int64(0) if end - at == 3 else digits(data, at + 3 + colon, 2)
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
    """Eight decimal digits, the first one lowest, as a number: by pairs, by fours, then all (same source)."""
    word &= _LOW_HALVES
    word = word * 10 + (word >> 8)
    return ((word & _PAIRS) * _OF_PAIRS + ((word >> 16) & _PAIRS) * _OF_OTHER_PAIRS) >> 32


@kernel(inlined=True)
def _number(data, at, end, point, out):
    """Read a decimal number, whose decimal point is `.` or `point`. Writes to out[0] the digits before the point, to
    out[1] billionths, to out[2] how many digits these had. Returns where it ends, or -1 (no number, or more than 18
    digits).
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
    if at < end and (data[at] == _DOT or data[at] == point):
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
    """Apply the exponent at `at` (`e-05`) to the number in `out`. Returns where it ends, or -1 (none, or too large)."""
    negative = at + 1 < end and data[at + 1] == _DASH
    signed = negative or (at + 1 < end and data[at + 1] == _PLUS)
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


@kernel()
def _scientific(data, begin, end, out):
    """Read a number with an exponent (`1.774749599123e+12`) to `out`, as `_number` does. False if it is none, or too
    large.
    """
    mantissa, length, point, at = np.int64(0), np.int64(0), np.int64(-1), begin
    while at < end and (48 <= data[at] <= 57 or data[at] == _DOT):
        if data[at] == _DOT:
            if point >= 0:
                return False
            point = length
        else:
            mantissa = mantissa * 10 + np.int64(data[at]) - 48
            length += 1
            if length > 18:
                return False
        at += 1
    if length == 0 or at + 1 >= end or (data[at] | 32) != 101:
        return False
    negative = data[at + 1] == _DASH
    at += 1 + (negative or data[at + 1] == _PLUS)
    if not 0 < end - at <= 3:
        return False
    exponent = digits(data, at, end - at)
    if exponent < 0:
        return False
    places = (np.int64(0) if point < 0 else length - point) - (-exponent if negative else exponent)
    if places <= 0:
        if places < -18 or mantissa > np.int64(9_000_000_000_000_000_000) // _POWERS[-places]:
            return False
        out[0], out[1], out[2] = mantissa * _POWERS[-places], 0, 0
        return True
    if places > 18:
        return False
    rest = mantissa % _POWERS[places]
    out[0], out[2] = mantissa // _POWERS[places], min(places, np.int64(9))
    out[1] = rest * _POWERS[9 - places] if places <= 9 else rest // _POWERS[places - 9]
    return True


@kernel("int64(int64)")
def unit_of(number):
    """The unit, in ns, of a number since the epoch for a time near today: s, ms, µs or ns, by its size."""
    if number < 100_000_000_000:
        return _NS
    if number < 100_000_000_000_000:
        return np.int64(1_000_000)
    if number < 100_000_000_000_000_000:
        return np.int64(1_000)
    return np.int64(1)


@kernel(inlined=True)
def _epoch(data, begin, end, options, state, rows, row, number):
    """Read a number since the epoch; False if it is none, or out of range."""
    unit_ns, point, least_ns = options[AT_UNIT_NS], options[DECIMAL], options[STAMP_MIN_NS]
    if _number(data, begin, end, point, number) != end and not _scientific(data, begin, end, number):
        return False
    state[LARGEST] = max(state[LARGEST], number[0])
    if unit_ns == 0:
        unit_ns = unit_of(number[0])
    if np.float64(number[0]) * np.float64(unit_ns) > _STAMP_NS_MAX:
        return False
    rows[AT_NS, row] = number[0] * unit_ns + number[1] * unit_ns // _NS
    rows[ZONED, row] = 1
    if rows[AT_NS, row] < least_ns:
        return False
    if state[FINEST_NS] == 0 or unit_ns < state[FINEST_NS] * _POWERS[number[2]]:
        _note_resolution(state, max(np.int64(1), unit_ns // _POWERS[number[2]]))
    return True


@kernel(inlined=True)
def _is_century(data, at):
    """Whether `19` or `20` is at `at`."""
    return (data[at] == 49 and data[at + 1] == 57) or (data[at] == 50 and data[at + 1] == 48)


@kernel()
def _compact(data, begin, end, state, rows, row):
    """Read `yyyymmddHHMMSS`, or `yyyymmddTHHMMSS` with a fraction and a zone; False where it is neither."""
    if digits(data, begin, 8) < 0:
        return False
    at = begin + 8
    at += data[at] in (84, _SPACE)
    if end - at < 6 or (at == begin + 8 and end - at > 6):
        return False
    days = _civil_days(digits(data, begin, 4), digits(data, begin + 4, 2), digits(data, begin + 6, 2))
    hour, minute, second = digits(data, at, 2), digits(data, at + 2, 2), digits(data, at + 4, 2)
    if days < 0 or not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 60:
        return False
    return _rest_of_stamp(data, at + 6, end, days, hour * 3600 + minute * 60 + second, state, rows, row)


@kernel(inlined=True)
def read_time(data, spans, options, state, rows, row, number):
    """Read the stamp of a line: ISO 8601, `yyyy/mm/dd HH:MM:SS`, `dd/Mon/yyyy:HH:MM:SS`, or a number since the epoch.
    False if it is bad.

    Fourteen digits are a date and a time of day: as a number since the epoch they would be later than 2200.
    """
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
    if length >= 19 and data[begin + 4] in (_DASH, _SLASH):
        days, clock_s = _iso_days(data, begin, state), _clock_s(data, begin + 11, end)
        if days < 0 or clock_s < 0 or data[begin + 10] not in (84, _SPACE, 116):
            return False
        return _rest_of_stamp(data, begin + 19, end, days, clock_s, state, rows, row)
    if length >= 20 and data[begin + 2] == _SLASH:
        if data[begin + 6] != _SLASH or data[begin + 11] not in (_COLON, _SPACE):
            return False
        day, year = digits(data, begin, 2), digits(data, begin + 7, 4)
        days, clock_s = _civil_days(year, month_at(data, begin + 3), day), _clock_s(data, begin + 12, end)
        if days < 0 or clock_s < 0:
            return False
        return _rest_of_stamp(data, begin + 20, end, days, clock_s, state, rows, row)
    if length >= 14 and _is_century(data, begin) and _compact(data, begin, end, state, rows, row):
        return True
    return _epoch(data, begin, end, options, state, rows, row, number)


@kernel(inlined=True)
def is_none(data, begin, end):
    """Whether a field is absent, empty, or `-`."""
    return begin < 0 or begin == end or (end - begin == 1 and data[begin] == _DASH)


@kernel()
def _is_null(data, begin, end):
    """Whether data[begin:end] is `null`, `nil`, `None`, `NaN` or `N/A` in any case, or `\\N`."""
    first = data[begin] | 32
    if end - begin == 2:
        return data[begin] == 92 and data[begin + 1] == 78
    if first != 110:
        return False
    second, third = data[begin + 1] | 32, data[begin + 2] | 32
    if end - begin == 3:
        return (
            (second == 97 and third == 110)
            or (second == 105 and third == 108)
            or (data[begin + 1] == _SLASH and third == 97)
        )
    fourth = data[begin + 3] | 32
    return (second == 117 and third == 108 and fourth == 108) or (
        second == 111 and third == 110 and fourth == 101
    )


@kernel(inlined=True)
def is_nothing(data, begin, end):
    """Whether a field is absent, empty, `-`, or a word for it: `null`, `None`, `NaN`, `N/A`."""
    if is_none(data, begin, end):
        return True
    return 2 <= end - begin <= 4 and data[begin] in (78, 92, 110) and _is_null(data, begin, end)


@kernel()
def _unit(data, at, end, unit_ns):
    """Read a unit (`s`, `ms`, `us`, `µs`, `ns`, `m`, `h`): its ns, and where it ends. `unit_ns` where there is none, 0
    where it is another.
    """
    if at == end:
        return unit_ns, at
    first = data[at]
    following = data[at + 1] if at + 1 < end else np.uint8(0)
    if first == 115:
        return _NS, at + 1
    if first == 109:
        return (np.int64(1_000_000), at + 2) if following == 115 else (60 * _NS, at + 1)
    if first == 104:
        return 3600 * _NS, at + 1
    if first == 117 and following == 115:
        return np.int64(1_000), at + 2
    if first == 110 and following == 115:
        return np.int64(1), at + 2
    if first in (0xC2, 0xCE) and at + 2 < end and data[at + 2] == 115:
        return np.int64(1_000), at + 3
    return np.int64(0), at


@kernel()
def _took_in_full(data, begin, end, unit_ns, point, number):
    """Read a duration in ns (`1.5`, `12ms`, `1m30s`); -1 where there is none, -2 where it is no duration."""
    if is_none(data, begin, end):
        return np.int64(-1)
    if data[begin] == _PLUS:
        begin += 1
    negative = begin < end and data[begin] == _DASH
    at, total = begin + negative, np.int64(0)
    while True:
        first = at
        at = _number(data, at, end, point, number)
        if 0 <= at < end and (data[at] | 32) == 101:
            at = _scaled(data, at, end, number)
        if at < 0:
            return np.int64(-2)
        if negative:
            return np.int64(-1) if at == end and number[0] == 1 and number[1] == 0 else np.int64(-2)
        while at < end and data[at] == _SPACE:
            at += 1
        part_ns, at = _unit(data, at, end, unit_ns if first <= begin else np.int64(0))
        if part_ns == 0 or np.float64(number[0]) * np.float64(part_ns) > _TOOK_NS_MAX:
            return np.int64(-2)
        total += number[0] * part_ns + number[1] * part_ns // _NS
        if total > np.int64(_TOOK_NS_MAX):
            return np.int64(-2)
        if at == end:
            return total


@kernel(inlined=True)
def _took(data, begin, end, unit_ns, point, number):
    """As `_took_in_full`, but faster for a plain number, as most durations are."""
    plain = end > begin and _number(data, begin, end, point, number) == end
    if plain and unit_ns > 0 and np.float64(number[0]) * np.float64(unit_ns) <= _TOOK_NS_MAX:
        return number[0] * unit_ns + number[1] * unit_ns // _NS
    return _took_in_full(data, begin, end, unit_ns, point, number)


@kernel(inlined=True)
def read_took(data, spec, spans, state, rows, row, number):
    """Read the sum of the durations; unknown where one of them is. Values that are no durations are counted in
    `state`.
    """
    total = np.int64(-1)
    for role in range(TOOK, TOOK_3 + 1):
        if spans[role, 0] < 0:
            continue
        part = _took(
            data, spans[role, 0], spans[role, 1], spec.options[TOOK_UNIT_NS], spec.options[DECIMAL], number
        )
        if part < 0:
            total = np.int64(-1)
            state[UNKNOWN_TOOK] += part == -2
            break
        total = max(total, np.int64(0)) + part
    rows[TOOK_NS, row] = total
