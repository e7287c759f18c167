"""Kernels that read the times in log fields, in the notations and units that logs use.

They record the finest resolution seen.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64

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
    ZONED,
    ZONELESS,
)
from .numbers import POWERS, number_at, scientific
from .scan_table import FIRST_ZONE_MIN, ZONE_MIN, ZONES
from .stamps import MONTH_DAYS, YEAR_MAX, YEAR_MIN, days_from_civil, month_at
from .text import digits

_SPACE, _DASH, _SLASH, _COLON, _COMMA, _PLUS, _DOT = 32, 45, 47, 58, 44, 43, 46
_NS = np.int64(1_000_000_000)
_STAMP_NS_MAX = 9.2e18


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
    """Return the days since 1970-01-01, or -1 if the date is invalid."""
    if not 1 <= month <= 12 or not YEAR_MIN <= year <= YEAR_MAX or day < 1:
        return np.int64(-1)
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > MONTH_DAYS[month - 1] + leap:
        return np.int64(-1)
    return days_from_civil(year, month, day)


@kernel(inlined=True)
def _iso_days(data, at, state):
    """Return the days since 1970-01-01 of `yyyy-mm-dd` or `yyyy/mm/dd` at `at`, or -1. The last date is cached."""
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
    """Return the seconds of `HH:MM:SS` at `at`, or -1."""
    if end - at < 8 or data[at + 2] != _COLON or data[at + 5] != _COLON:
        return np.int64(-1)
    hour, minute, second = digits(data, at, 2), digits(data, at + 3, 2), digits(data, at + 6, 2)
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 60:
        return np.int64(-1)
    return hour * 3600 + minute * 60 + second


@kernel(inlined=True)
def _is_utc(data, at, end):
    """Return whether data[at:end] is `Z`, `z`, `UTC` or `GMT`."""
    if end - at == 1:
        return data[at] in (90, 122)
    if end - at != 3:
        return False
    if data[at] == 71:
        return data[at + 1] == 77 and data[at + 2] == 84
    return data[at] == 85 and data[at + 1] == 84 and data[at + 2] == 67


@kernel()
def _rest_of_stamp(data, at, end, days, clock_s, state, rows, row):
    """Read the fraction and the zone after `HH:MM:SS`, and write the time to rows[AT_NS, row].

    The result is False if something else follows.
    """
    fraction, length = np.int64(0), np.int64(0)
    if at < end and (data[at] in (_DOT, _COMMA)):
        at += 1
        while at < end and 48 <= data[at] <= 57:
            if length < 9:
                fraction = fraction * 10 + np.int64(data[at]) - 48
                length += 1
            at += 1
    _note_resolution(state, POWERS[9 - length])
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
    rows[AT_NS, row] = (days * 86400 + clock_s - zone_min * 60) * _NS + fraction * POWERS[9 - length]
    return True


@kernel("int64(int64)")
def unit_of(number):
    """Return the unit, in ns, of a number since the epoch: s, ms, µs or ns, chosen by the number's size.

    The choice is right for times near today.
    """
    if number < 100_000_000_000:
        return _NS
    if number < 100_000_000_000_000:
        return np.int64(1_000_000)
    if number < 100_000_000_000_000_000:
        return np.int64(1_000)
    return np.int64(1)


@kernel(inlined=True)
def _epoch(data, begin, end, options, state, rows, row, number):
    """Read a number since the epoch, and return False if the field is not a number or out of range."""
    unit_ns, point, least_ns = options[AT_UNIT_NS], options[DECIMAL], options[STAMP_MIN_NS]
    if number_at(data, begin, end, point, number) != end and not scientific(data, begin, end, number):
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
    if state[FINEST_NS] == 0 or unit_ns < state[FINEST_NS] * POWERS[number[2]]:
        _note_resolution(state, max(np.int64(1), unit_ns // POWERS[number[2]]))
    return True


@kernel(inlined=True)
def _is_century(data, at):
    """Return whether `19` or `20` is at `at`."""
    return (data[at] == 49 and data[at + 1] == 57) or (data[at] == 50 and data[at + 1] == 48)


@kernel()
def _compact(data, begin, end, state, rows, row):
    """Read `yyyymmddHHMMSS`, or `yyyymmddTHHMMSS` with a fraction and a zone; return False for any other text."""
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
    """Read the stamp of a line into rows[AT_NS, row], and return False if it is invalid.

    The notations are ISO 8601, `yyyy/mm/dd HH:MM:SS`, `dd/Mon/yyyy:HH:MM:SS`, and a number since the epoch.
    Fourteen digits that begin with 19 or 20 are a date and a time of day: as milliseconds since the epoch they
    would be a time after the year 2500.
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
