"""Axes of charts: the positions of values, and the labeled ticks.

An axis offers several sets of ticks, from many ticks to few. A chart uses the first set whose labels do not
overlap.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from replay.results.document import RecordedClock
from replay.units import MS_NS, SECOND_NS, US_NS, to_datetime

TICKS_MAX = 13
"""The most steps between ticks that a time axis offers."""

Label = Callable[[float, float], tuple[str, ...]]
"""Formats the lines of a tick's label.

The arguments are the tick's value, and a step that decides the number of digits: usually the distance between ticks.
"""


@dataclass(frozen=True, slots=True)
class Tick:
    """A labeled tick. Its label has two lines if it shows two clocks or units."""

    value: float
    words: tuple[str, ...]


def plain_label(value: float, step: float) -> tuple[str, ...]:
    """Format a number with as many decimals as the step needs: `1,250`, `0.25`."""
    return (f"{value:,.{decimals_of(step)}f}",)


def decimals_of(step: float) -> int:
    """Return how many decimals, at most 12, show a step to two digits: 0 for 20, 1 for 2.5, 2 for 0.25."""
    if step <= 0:
        return 0
    least = max(0, -math.floor(math.log10(step) + 1e-9))
    return min(least if math.isclose(round(step, least), step, rel_tol=1e-6) else least + 1, 12)


def latency_label(value_ns: float, step_ns: float) -> tuple[str, ...]:
    """Format a latency with the unit that fits its value: `20 ms`, `1.5 s`."""
    units = ((SECOND_NS, "s"), (MS_NS, "ms"), (US_NS, "µs"))
    unit_ns, unit = next((each for each in units if value_ns >= 0.9995 * each[0]), (1, "ns"))
    if unit == "s" and value_ns >= 120 * SECOND_NS and step_ns >= 60 * SECOND_NS:
        unit_ns, unit = 60 * SECOND_NS, "min"
    return (f"{plain_label(value_ns / unit_ns, step_ns / unit_ns)[0]} {unit}",)


def times_label(value: float, step: float) -> tuple[str, ...]:
    """Format a factor: `0.25×`."""
    return (f"{plain_label(value, step)[0]}×",)


def change_label(ratio: float, step: float) -> tuple[str, ...]:
    """Format a ratio as a change: `-20%`, `+5%`, or `same` for none.

    Ratios from 2 up and from 0.5 down are shown as factors: `2×`, `0.5×`.
    """
    if ratio >= 2 or ratio <= 0.5:
        return times_label(ratio, step)
    percent = 100 * (ratio - 1)
    digits = decimals_of(100 * step)
    return (f"{percent:+.{digits}f}%" if round(percent, digits) else "same",)


def percentile_label(inverse: float, _: float) -> tuple[str, ...]:
    """Format a percentile p given as 1/(1-p): `p99.9` for 1,000."""
    return (f"p{100 * (1 - 1 / inverse):.10g}",)


@dataclass(frozen=True, slots=True)
class Axis:
    """The range of an axis from `low` to `high`, linear or logarithmic, with a `title`."""

    low: float
    high: float
    title: str = ""
    is_log: bool = False
    label: Label = plain_label
    kind: str = "number"
    """The kind of values: `time`, `percentile`, or any other for numbers.

    The page's script formats values by it. An axis of kind `time` has ticks at round times.
    """
    fixed: tuple[float, ...] = ()
    """Ticks to use instead of computed ones; empty if they are computed."""
    clock: RecordedClock | None = None
    bare: bool = False
    """Whether the axis has no ticks."""

    def share(self, value: float) -> float:
        """Return the position of a value on the axis, from 0 to 1. Values beyond the range are at an end."""
        if self.is_log:
            low, high = math.log(self.low), math.log(self.high)
            at = math.log(value) if value > 0 else low
        else:
            low, high, at = self.low, self.high, value
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def ticks(self) -> Iterator[list[Tick]]:
        """Yield sets of ticks, from the one with the most ticks to the one with the fewest."""
        if self.bare:
            yield []
        elif self.fixed:
            yield self._named([value for value in self.fixed if self.low <= value <= self.high])
        elif self.kind == "time":
            yield from _moments(self)
        elif self.is_log:
            yield from self._log_ticks()
        else:
            yield from self._linear_ticks()

    def _named(self, values: list[float], step: float | None = None) -> list[Tick]:
        return [Tick(value, self.label(value, value if step is None else step)) for value in values]

    def _log_ticks(self) -> Iterator[list[Tick]]:
        least, most = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for mantissas, every in (
            ((1, 2, 5), 1),
            ((1, 3), 1),
            ((1,), 1),
            ((1,), 2),
            ((1,), 3),
            ((1,), 6),
            ((1,), 12),
        ):
            values = [
                float(f"{mantissa}e{power}")
                for power in range(least, most + 1)
                if power % every == 0
                for mantissa in mantissas
            ]
            values = [value for value in values if self.low <= value <= self.high]
            if len(values) > 2 or (len(values) == 2 and math.log10(self.high / self.low) > 0.5):
                yield [
                    Tick(value, self.label(value, 10.0 ** math.floor(math.log10(value)))) for value in values
                ]
        yield from self._linear_ticks()

    def _linear_ticks(self) -> Iterator[list[Tick]]:
        found = []
        for most in (10, 8, 6, 5, 4, 3, 2):
            step = nice_step((self.high - self.low) / most)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            found = [number * step for number in range(first, last + 1)]
            if len(found) >= 2:
                yield self._named(found, step)
        step = 10.0 ** (math.floor(math.log10(self.high - self.low)) - 1)
        yield self._named([self.low, self.high], step)


def nice_step(least: float) -> float:
    """Return the smallest number of at least `least` that is 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((step * power for step in (1, 2, 2.5, 5) if step * power >= least * (1 - 1e-9)), 10 * power)


def padded(low: float, high: float, *, is_log: bool, by: float = 0.05) -> tuple[float, float]:
    """Return the range with a margin on both sides. The result is never empty."""
    if is_log:
        low, high = max(low, 1e-12), max(high, 1e-12)
        factor = max((high / low) ** by, 1.02 if high / low > 1.001 else 1.5)
        return low / factor, high * factor
    margin = (high - low) * by or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def latency_axis(low_ns: float, high_ns: float, title: str = "") -> Axis:
    """Return a logarithmic axis of latencies, in ns."""
    low, high = padded(max(low_ns, 1.0), max(high_ns, 1.0), is_log=True, by=0.03)
    return Axis(low, high, title, is_log=True, label=latency_label, kind="latency")


def count_axis(high: float, title: str, low: float = 0.0) -> Axis:
    """Return an axis from 0 to a little above the highest value.

    If `low` is negative, the axis begins a little below it.
    """
    if low < 0:
        return Axis(low * 1.04, max(high, 0.0) * 1.04, title)
    return Axis(0.0, high * 1.04 if high > 0 else 1.0, title)


STEPS_NS = (
    *(mantissa * 10**power for power in range(9) for mantissa in (1, 2, 5)),
    *(
        seconds * SECOND_NS
        for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
    ),
    *(days * 86_400 * SECOND_NS for days in (1, 2, 7, 14, 28, 91, 364, 3_640)),
)
"""The distances that ticks of a time axis may have."""

CLOCK_LEAST_NS = 1_000
"""The shortest recorded time for which an axis shows the recorded clock."""


def time_axis(length_s: float, clock: RecordedClock | None) -> Axis:
    """Return an axis of seconds since the start of a run.

    If the recorded clock is known, and the run covers at least CLOCK_LEAST_NS of it, the labels show that clock, and
    below it the time since the start. Otherwise they show only the time since the start.
    """
    if clock is None or not CLOCK_LEAST_NS <= length_s * clock.speed * SECOND_NS < math.inf:
        return Axis(0.0, max(length_s, 1e-3), "time since the start", kind="time")
    start = to_datetime(clock.start_ns, _zone(clock))
    offset = start.strftime("%z")
    zone = "UTC" if offset == "+0000" else f"UTC{offset[:3]}:{offset[3:]}"
    title = (
        f"recorded clock, from {start:%Y-%m-%d} ({zone}), at {clock.speed:g}×; below: time since the start"
    )
    return Axis(0.0, max(length_s, 1e-3), title, kind="time", clock=clock)


def _zone(clock: RecordedClock) -> dt.tzinfo:
    return dt.timezone(dt.timedelta(seconds=clock.utc_offset_s))


def _moments(axis: Axis) -> Iterator[list[Tick]]:
    """Yield sets of ticks at round times of the recorded clock, or of the time since the start without one."""
    clock = axis.clock
    speed = clock.speed if clock else 1.0
    span_ns = round((axis.high - axis.low) * speed * SECOND_NS)
    origin_ns = clock.start_ns + clock.utc_offset_s * SECOND_NS if clock else 0
    for step in STEPS_NS:
        if span_ns / step > TICKS_MAX:
            continue
        values = range(-(-origin_ns // step) * step, origin_ns + span_ns + 1, step)
        if len(values) < 2:
            return
        yield [_moment(clock, value, (value - origin_ns) / SECOND_NS / speed, step) for value in values]


def _moment(clock: RecordedClock | None, at_ns: int, since_s: float, step_ns: int) -> Tick:
    since = since_text(since_s, step_ns / SECOND_NS / (clock.speed if clock else 1.0))
    if clock is None:
        return Tick(since_s, (since,))
    moment = to_datetime(at_ns)
    day = 86_400 * SECOND_NS
    form = "%H:%M:%S" if step_ns < 60 * SECOND_NS else "%H:%M" if step_ns < day else "%b %d"
    if at_ns % day == 0:
        form = "%b %d"
    words = moment.strftime("%Y-%m-%d" if step_ns >= 28 * day else form)
    if step_ns < SECOND_NS and at_ns % day:
        words += f"{at_ns % SECOND_NS / SECOND_NS:.{decimals_of(step_ns / SECOND_NS)}f}"[1:]
    return Tick(since_s, (words, since))


def since_text(since_s: float, step_s: float) -> str:
    """Format a time since the start: `20 s`, `3.3 s`, `1:30 min`, `2:05 h`.

    Below 100 s the text has one decimal more if that is needed for a twentieth of the distance between ticks. Longer
    times, and those of steps of a minute or more, are rounded to seconds, from 100 min on to minutes. From 100 h on they
    are in days.
    """
    if abs(since_s) < 100 and step_s < 60:
        least = decimals_of(step_s)
        near = (
            digits
            for digits in range(least, least + 2)
            if abs(round(since_s, digits) - since_s) < step_s / 20
        )
        return f"{since_s:.{next(near, least + 1)}f} s"
    minutes, seconds = divmod(round(since_s), 60)
    if minutes < 100:
        return f"{minutes}:{seconds:02d} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours < 100 else f"{hours / 24:.4g} d"
