"""Converts timestamps without a zone to instants, across the changes to and from daylight saving time."""

from __future__ import annotations

import datetime as dt

import numpy as np

from replay.trace.dictionary import Int64s
from replay.units import SECOND_NS

_QUARTER_NS = 900 * SECOND_NS
_QUARTER = dt.timedelta(minutes=15)
_EPOCH = dt.datetime(1970, 1, 1)
_BACK_NS = 1800 * SECOND_NS
"""If local time goes back by more than this in a repeated hour, the second of the two hours has begun."""

_STRAGGLES_NS = 60 * SECOND_NS
"""In the second hour, timestamps this close to the end of the first hour belong to the first hour.

They are slightly out of order because a line is written when its request ends.
"""


def _offset_ns(zone: dt.tzinfo, quarter: int, fold: int) -> int:
    moment = (_EPOCH + quarter * _QUARTER).replace(fold=fold)
    return round((zone.utcoffset(moment) or dt.timedelta()).total_seconds()) * SECOND_NS


class Clock:
    """Converts the timestamps of one import, file after file, each in its own order."""

    def __init__(self, zone: dt.tzinfo) -> None:
        self._zone = zone
        self._is_utc = zone == dt.UTC or getattr(zone, "key", "") == "UTC"
        self._latest_ns = 0
        self._second = False
        self._begins = True

    def begin_file(self) -> None:
        """Begin another file.

        If it begins in a repeated hour, it continues the previous file.
        """
        self._begins = True

    def first(self, stamp_ns: int) -> int:
        """Convert a single timestamp to its instant; in a repeated hour, to the first of the two."""
        return stamp_ns - _offset_ns(self._zone, stamp_ns // _QUARTER_NS, 0)

    def instants(self, stamps: Int64s) -> tuple[Int64s, int, int]:
        """Convert local timestamps to instants, and count those in a repeated hour and those in a skipped hour.

        A time in a skipped hour is converted with the offset from before the change.
        """
        if self._is_utc:
            return stamps, 0, 0
        quarters, places = np.unique(stamps // _QUARTER_NS, return_inverse=True)
        first, second = (
            np.array([_offset_ns(self._zone, quarter, fold) for quarter in quarters.tolist()], np.int64)
            for fold in (0, 1)
        )
        found = stamps - first[places]
        if self._begins and first[places[0]] <= second[places[0]]:
            self._latest_ns, self._second = 0, False
        self._begins = False
        repeated = np.flatnonzero((first > second)[places])
        skipped = int(np.count_nonzero((first < second)[places]))
        if len(repeated):
            self._order(found, repeated, (first - second)[places])
        self._latest_ns = max(self._latest_ns, int(found.max()))
        return found, len(repeated), skipped

    def _order(self, found: Int64s, repeated: Int64s, shift: Int64s) -> None:
        """Move the timestamps of a second hour after those of the first."""
        latest_ns = int(found[: repeated[0]].max()) if repeated[0] else self._latest_ns
        second = self._second and repeated[0] == 0
        for place in repeated.tolist():
            at_ns = int(found[place])
            if second:
                moved = at_ns < latest_ns - _STRAGGLES_NS
            else:
                moved = second = 0 < at_ns < latest_ns - _BACK_NS
            if moved:
                found[place] = at_ns = at_ns + int(shift[place])
            latest_ns = max(latest_ns, at_ns)
        self._second, self._latest_ns = second, latest_ns
