"""Rates over time: constant, ramps, steps, recorded counts, and typical shapes of days and weeks."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError, UsageError, reason_of
from replay.files import read_whole
from replay.units import SECOND_NS

HOUR_NS = 3_600 * SECOND_NS

RELATIVE_NS = 100_000_000 * SECOND_NS
"""A file whose first time is before this (March 1973) counts from 0, not from the epoch."""

_MOMENT_NS_MAX = 9.2e18

SEGMENTS_MAX = 1 << 22
"""Maximum number of rows in the file of a curve: one per minute for eight years."""

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class RateCurve:
    """A rate over time, made of straight segments.

    `edges_ns` int64[n + 1] are the borders of the segments, from 0 on. `rates` float64[n, 2] are the rates per
    second at the start and end of each segment.
    """

    edges_ns: Int64s
    rates: Floats

    @property
    def length_ns(self) -> int:
        """The length of the curve, which is its last border."""
        return int(self.edges_ns[-1])

    @property
    def requests(self) -> float:
        """The expected number of requests, which is the area under the curve."""
        return float((np.diff(self.edges_ns) / SECOND_NS * self.rates.mean(axis=1)).sum())

    @property
    def mean_per_s(self) -> float:
        """The mean rate: the expected number of requests divided by the length."""
        return self.requests * SECOND_NS / self.length_ns

    def times(self, factor: float) -> RateCurve:
        """Return the same shape, scaled up or down."""
        return RateCurve(self.edges_ns, self.rates * factor)

    def squeezed(self, length_ns: int) -> RateCurve:
        """Return the same rates, stretched or compressed to another length."""
        edges = np.rint(self.edges_ns * (length_ns / self.length_ns)).astype(np.int64)
        return RateCurve(edges, self.rates)

    def repeated(self, length_ns: int) -> RateCurve:
        """Return the curve repeated until `length_ns`."""
        times = -(-length_ns // self.length_ns)
        starts = np.arange(times, dtype=np.int64)[:, None] * self.length_ns
        edges = np.append((starts + self.edges_ns[:-1]).ravel(), times * self.length_ns)
        return RateCurve(edges, np.tile(self.rates, (times, 1))).part(0, length_ns)

    def part(self, from_ns: int, until_ns: int) -> RateCurve:
        """Return the part between two times, shifted to start at 0. UsageError if it is empty."""
        from_ns, until_ns = max(from_ns, 0), min(until_ns, self.length_ns)
        if from_ns >= until_ns:
            raise UsageError(
                "no part of the curve is in the window",
                hint=f"the curve is {units.format_duration(self.length_ns)} long",
            )
        first = int(np.searchsorted(self.edges_ns, from_ns, side="right")) - 1
        last = int(np.searchsorted(self.edges_ns, until_ns, side="left"))
        old, rates = self.edges_ns[first : last + 1], self.rates[first:last].copy()
        new = np.clip(old, from_ns, until_ns)
        slopes = (rates[:, 1] - rates[:, 0]) / np.maximum(np.diff(old), 1)
        rates[-1, 1] -= slopes[-1] * (old[-1] - new[-1])
        rates[0, 0] += slopes[0] * (new[0] - old[0])
        return RateCurve(new - from_ns, np.maximum(rates, 0.0))


def constant(rate_per_s: float, length_ns: int) -> RateCurve:
    """Return a curve with a constant rate."""
    return ramp(rate_per_s, rate_per_s, length_ns)


def ramp(begin_per_s: float, end_per_s: float, length_ns: int) -> RateCurve:
    """Return a curve that changes linearly from one rate to another."""
    return RateCurve(np.array([0, length_ns], np.int64), np.array([[begin_per_s, end_per_s]]))


def steps(rates_per_s: Sequence[float], length_ns: int) -> RateCurve:
    """Return a curve of several rates in turn, each for the same time."""
    edges = np.linspace(0, length_ns, len(rates_per_s) + 1).astype(np.int64)
    return RateCurve(edges, np.repeat(np.array(rates_per_s, np.float64)[:, None], 2, axis=1))


def points(times_ns: Sequence[int], rates_per_s: Sequence[float], where: str) -> RateCurve:
    """Return a curve of straight lines between points.

    UsageError if the numbers of times and rates differ or are below two, if times are out of order, or if a rate is
    negative, too large or not a number.
    """
    if len(times_ns) != len(rates_per_s) or len(times_ns) < 2:
        raise UsageError(f"{where}: a curve needs as many times as rates, and at least two of each")
    for number, (before, after) in enumerate(pairwise(times_ns), 2):
        if after <= before:
            raise UsageError(
                f"{where}: time {number} is not after the one before it", hint="write times in order"
            )
    for number, rate in enumerate(rates_per_s, 1):
        if not 0 <= rate < 1e9:
            raise UsageError(
                f"{where}: rate {number} is {rate:g}",
                hint="a rate must be at least 0, and below 1e9 per second",
            )
    edges, rates = np.array(times_ns, np.int64), np.array(rates_per_s, np.float64)
    return RateCurve(edges - edges[0], np.column_stack([rates[:-1], rates[1:]]))


@dataclass(frozen=True, slots=True)
class RecordedCurve:
    """A curve read from a file, and the time at which it begins.

    `start_ns` is in nanoseconds since the epoch, or from 0 on if the file counts from 0.
    """

    curve: RateCurve
    start_ns: int


def _moment_ns(text: str) -> int:
    """Parse seconds or an ISO 8601 time, and return nanoseconds.

    ValueError for other texts, and for values that exceed int64 (such as milliseconds since the epoch).
    """
    try:
        moment_ns = float(text) * SECOND_NS
    except ValueError:
        moment = dt.datetime.fromisoformat(text)
        moment_ns = units.datetime_to_ns(
            moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)
        )
    if not abs(moment_ns) < _MOMENT_NS_MAX:
        raise ValueError(text)
    return round(moment_ns)


def _rows(path: Path) -> tuple[bool, list[int], list[float]]:
    """Read the rows of a file. Return whether its values are counts, then the times in ns, then the values."""
    counts, times, values = False, list[int](), list[float]()
    with io.StringIO(read_whole(path).decode(), newline="") as file:
        for row in (reader := csv.reader(file)):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 2:
                raise InputError(f"{path}, line {reader.line_num}: expected a time and a rate")
            try:
                at_ns, value = _moment_ns(row[0].strip()), float(row[1])
            except ValueError:
                if times or row[1].strip()[:1].isdigit():
                    raise InputError(
                        f"{path}, line {reader.line_num}: {','.join(row)[:60]!r} is not a time and a number",
                        hint="write 2026-01-05T18:00:00,250, or seconds: 3600,250",
                    ) from None
                counts = row[1].strip().lower() in ("count", "counts", "requests", "hits", "n")
                continue
            if not 0 <= value < 1e15:
                raise InputError(f"{path}, line {reader.line_num}: {row[1]} is not a rate or a count")
            if times and at_ns <= times[-1]:
                raise InputError(f"{path}, line {reader.line_num}: its time is not after the one before it")
            if len(times) >= SEGMENTS_MAX:
                raise InputError(f"{path} has more than {SEGMENTS_MAX:,} rows")
            times.append(at_ns)
            values.append(value)
    return counts, times, values


def read_curve(path: Path) -> RecordedCurve:
    """Read a rate curve from a CSV file.

    Each row has a time (ISO 8601, UTC without a zone, or seconds) and a rate per second. If the second column
    is called `count`, `counts`, `requests`, `hits` or `n`, it is the number of requests from this time on. A row lasts
    until the next row, and the last one as long as most rows do. A row of counts never lasts longer than most rows do;
    after it the rate is 0. InputError if the file cannot be read, if a row is invalid or out of order (with the line),
    or if there are fewer than two rows.
    """
    try:
        counts, times, values = _rows(path)
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: it is not text") from None
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None
    if len(times) < 2:
        raise InputError(f"{path} has no curve: a curve needs at least two rows")
    at_ns = np.array(times, np.int64)
    lengths, often = np.unique(np.diff(at_ns), return_counts=True)
    usual_ns = int(lengths[often.argmax()])
    ends = np.minimum(
        np.append(at_ns[1:], at_ns[-1] + usual_ns), at_ns + usual_ns if counts else at_ns[-1] + usual_ns
    )
    rates = np.array(values) * (SECOND_NS / (ends - at_ns)) if counts else np.array(values)
    edges = np.unique(np.concatenate([at_ns, ends]))
    filled = np.zeros(len(edges) - 1)
    filled[np.searchsorted(edges, at_ns)] = rates
    return RecordedCurve(RateCurve(edges - edges[0], np.column_stack([filled, filled])), int(at_ns[0]))


_DAY = (
    0.32, 0.22, 0.16, 0.13, 0.14, 0.25, 0.52, 0.85, 1.0, 1.03, 1.05, 1.08, 1.12, 1.08, 1.04, 1.07, 1.22, 1.62, 2.05,
    1.98, 1.70, 1.32, 0.90, 0.55,
)  # fmt: skip
"""Hourly levels of a consumer service: low at night, steady in the daytime, and highest from 18:00 to 20:00."""

_WEEKDAYS = (1.18, 1.10, 1.05, 1.00, 0.86, 0.84, 0.97)
"""Daily levels of a fitness service, Monday to Sunday."""

DAY_NS = 24 * HOUR_NS

_RUSH_LEVEL, _RUSH_HEIGHT, _RUSH_MINUTES = 0.35, 1.5, 60
_SIX_PM_NS = 18 * HOUR_NS


def _rush() -> tuple[list[int], list[float]]:
    """Return the times and levels of the hour from 17:30 to 18:30, by minute."""
    middle, minutes = _RUSH_MINUTES / 2, range(_RUSH_MINUTES + 1)
    levels = [
        _RUSH_LEVEL + _RUSH_HEIGHT * float(np.exp(-((((minute - middle) / 7) ** 2) / 2)))
        for minute in minutes
    ]
    return [minute * 60 * SECOND_NS for minute in minutes], levels


def _rush_days(length_ns: int) -> RateCurve:
    """Return a curve with one peak per day, at 18:00. A length below a day is the part of the day around the peak."""
    times, levels = _rush()
    first_ns = _SIX_PM_NS - times[-1] // 2
    times = [0, *(first_ns + time for time in times), DAY_NS]
    day = points(times, [_RUSH_LEVEL, *levels, _RUSH_LEVEL], "shape")
    if length_ns >= DAY_NS:
        return day.repeated(length_ns)
    from_ns = min(_SIX_PM_NS - length_ns // 2, DAY_NS - length_ns)
    return day.part(from_ns, from_ns + length_ns)


def _hours(levels: Sequence[float]) -> RateCurve:
    """Return a periodic curve through hourly levels."""
    hours = [number * HOUR_NS for number in range(len(levels) + 1)]
    return points(hours, [*levels, levels[0]], "shape")


def _days(factors: Sequence[float], day: Sequence[float] = _DAY) -> RateCurve:
    return _hours([factor * level for factor in factors for level in day])


def _monday() -> list[float]:
    """Return the hourly levels of a day whose evening is the highest of the week."""
    return [level * (1.45 if 17 <= hour <= 20 else 1.0) for hour, level in enumerate(_DAY)]


def _monday_weeks(length_ns: int) -> RateCurve:
    """Return weeks that begin with the day of `_monday`, followed by ordinary days."""
    others = [factor / _WEEKDAYS[0] * level for factor in _WEEKDAYS[1:] for level in _DAY]
    return _hours([*_monday(), *others]).repeated(length_ns)


def _lockdown(day: int = 0) -> list[float]:
    """Return the hourly levels of a day of a lockdown, which is announced at 10:00 of the first day.

    The load is 1.1 times that of a Monday before the announcement, 2.3 times after it, and four times from 17:00 to
    22:00.
    """
    return [
        level * (1.1 if hour < 10 and day == 0 else 4.0 if 17 <= hour <= 21 else 2.3)
        for hour, level in enumerate(_monday())
    ]


def _lockdown_days(length_ns: int) -> RateCurve:
    """Return the days of a lockdown; the announcement happens only on the first one."""
    days = length_ns // DAY_NS + 1
    return _hours([level for day in range(days) for level in _lockdown(day)]).part(0, length_ns)


def _january_days(days: int) -> RateCurve:
    """Return days with the effect of New Year's resolutions, which fades from day to day."""
    return _days([1.0 + 1.4 * 0.9**day for day in range(days)])


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of the catalog: its natural curve, and how it continues if the trace is longer."""

    curve: Callable[[], RateCurve]
    longer: Callable[[int], RateCurve] | None = None

    def of_length(self, length_ns: int | None) -> RateCurve:
        """Return the curve for a length, or the natural curve for None.

        The natural curve is compressed if the length is shorter, and continued if it is longer.
        """
        curve = self.curve()
        if length_ns is None:
            return curve
        if length_ns <= curve.length_ns:
            return curve.squeezed(length_ns)
        return curve.repeated(length_ns) if self.longer is None else self.longer(length_ns)


SHAPES = {
    "day": Shape(lambda: _hours(_DAY)),
    "week": Shape(lambda: _days(_WEEKDAYS)),
    "6pm": Shape(lambda: points(*_rush(), "shape"), _rush_days),
    "monday": Shape(lambda: _hours(_monday()), _monday_weeks),
    "january": Shape(
        lambda: _january_days(31), lambda length_ns: _january_days(length_ns // DAY_NS + 1).part(0, length_ns)
    ),
    "lockdown": Shape(lambda: _hours(_lockdown()), _lockdown_days),
}
"""Shapes by name.

Each has a natural length: an hour from 17:30 (6pm), a day, a week, or a month. In a longer trace, an event that
happens daily, weekly or once keeps that frequency, so only a day and a week are repeated unchanged.
"""


def shape(name: str, mean_per_s: float, length_ns: int | None) -> RateCurve:
    """Return the shape of this name with a mean rate. UsageError if there is no such shape.

    A shape of a day or longer begins at midnight. The shape continues if `length_ns` is longer than its natural
    length, and is compressed if it is shorter.
    """
    if name not in SHAPES:
        guess = units.nearest(name, SHAPES)
        raise UsageError(
            f"there is no shape {name!r}" + (f" (did you mean {guess}?)" if guess else ""),
            hint=f"shapes: {', '.join(SHAPES)}",
        )
    curve = SHAPES[name].of_length(length_ns)
    return curve.times(mean_per_s / curve.mean_per_s)
