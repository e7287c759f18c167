"""Calendar functions, and the stamps of common logs: `dd/Mon/yyyy:HH:MM:SS +zzzz`."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

from .scan_table import CACHED_S, FIRST_ZONE_MIN, ZONE_MIN, ZONES
from .text import digits

_SPACE, _DASH, _SLASH, _COLON = 32, 45, 47, 58
STAMP_BYTES = 26
YEAR_MIN, YEAR_MAX = 1970, 2261
"""Range of years in which every instant fits int64 nanoseconds since the Unix epoch."""

_MONTHS = np.frombuffer(b"JanFebMarAprMayJunJulAugSepOctNovDec", dtype=np.uint8)
MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], dtype=np.int64)


@kernel()
def days_from_civil(year, month, day):
    """Return the days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms")."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@kernel()
def month_at(data, at):
    """Return the month (1 to 12) whose English abbreviation is at `at`, or 0."""
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
    """Parse `dd/Mon/yyyy:HH:MM:SS +zzzz` at `at` into state[CACHED_S] (UTC seconds).

    The result is False if the stamp is invalid. state[ZONES] counts the stamps whose zone is not that of the stamp
    before, including the first stamp.
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
