"""Converts text to quantities and back, for settings and for the figures that a user reads.

Durations are int nanoseconds, rates are requests per second. A parser raises UsageError, with the text and the valid
forms.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import os
import re
import zoneinfo
from collections.abc import Iterable
from typing import NamedTuple

from .errors import UsageError

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000
US_NS = 1_000

MAX_RATE = math.inf
"""The value of the rate `max`: requests are not paced, but sent in a closed loop."""

DURATION_FORMS = "30s, 10m, 1h30m, 250ms, 50us, or a number of seconds"
RATE_FORMS = "500/s, 50/1m, 500 (per second), or max"
FACTOR_FORMS = "2, 2x, 0.5 or 200%"
SHARE_FORMS = "25% or 0.25"
SIZE_FORMS = "4096, 64k or 16MiB"
MOMENT_FORMS = "18:00, 2026-01-05T18:00:00+01:00 or +10m"
ZONE_FORMS = "UTC, +02:00 or a name such as Europe/Berlin"

_DURATION_UNITS_NS = {
    "ns": 1,
    "us": US_NS,
    "µs": US_NS,
    "μs": US_NS,
    "ms": MS_NS,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
    "d": 86_400 * SECOND_NS,
}
_DURATION_NAMES = {
    "nanosecond": "ns", "microsecond": "us", "usec": "us", "millisecond": "ms", "msec": "ms", "sec": "s",
    "second": "s", "min": "m", "minute": "m", "hr": "h", "hour": "h", "day": "d",
}  # fmt: skip
_SIZE_UNITS = {
    "": 1, "b": 1, "k": 1024, "kib": 1024, "m": 1 << 20, "mib": 1 << 20, "g": 1 << 30, "gib": 1 << 30,
    "kb": 1000, "mb": 10**6, "gb": 10**9,
}  # fmt: skip

DURATION_NS_MAX = 100 * 365 * 86_400 * SECOND_NS
"""The longest duration that is accepted. A longer one is likely a typing error, and could overflow a timestamp."""

_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_TERM = re.compile(rf"({_NUMBER})\s*([a-zA-Zµμ]+)\s*")
_PLAIN = re.compile(rf"{_NUMBER}(?:e[+-]?\d+)?", re.IGNORECASE)
_SIZE = re.compile(rf"({_NUMBER})\s*([a-zA-Z]*)")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?")
_OFFSET = re.compile(r"([+-])(\d{2}):?(\d{2})")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that is most similar to `word`; empty if none is similar."""
    lowered = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    return lowered[found[0]] if found else ""


def _wrong(text: object, what: str, forms: str, more: str = "") -> UsageError:
    return UsageError(f"{str(text)!r} is not {what}{more}", hint=f"write {forms}")


def parse_duration_ns(text: str | float) -> int:
    """Parse a duration, such as `30s`, `1h30m`, `250ms` or a bare number of seconds, to ns. It is never negative."""
    stripped = str(text).strip()
    if _PLAIN.fullmatch(stripped):
        return _whole_ns(float(stripped) * SECOND_NS, text)
    total, at = 0.0, 0
    for term in _TERM.finditer(stripped):
        if term.start() != at:
            break
        number, unit = term.groups()
        if unit not in _DURATION_UNITS_NS:
            guess = _DURATION_NAMES.get(unit.lower().removesuffix("s")) or _DURATION_NAMES.get(
                nearest(unit, _DURATION_NAMES)
            )
            more = f": the unit {unit!r} is unknown" + (f" (did you mean {number}{guess}?)" if guess else "")
            raise _wrong(text, "a time", DURATION_FORMS, more)
        total += float(number) * _DURATION_UNITS_NS[unit]
        at = term.end()
    if not stripped or at != len(stripped):
        raise _wrong(text, "a time", DURATION_FORMS)
    return _whole_ns(total, text)


def is_bare(text: str) -> bool:
    """Return whether `text` is a number without a unit."""
    return bool(_PLAIN.fullmatch(text.strip()))


def _whole_ns(value_ns: float, text: object) -> int:
    if not value_ns <= DURATION_NS_MAX:
        raise _wrong(text, "a time", DURATION_FORMS, " of at most 100 years")
    return round(value_ns)


def parse_rate_per_s(text: str | float) -> float:
    """Parse a rate above 0, such as `500/s`, `50/1m`, `500` or `max` (MAX_RATE), to requests per second."""
    stripped = str(text).strip()
    if stripped == "max":
        return MAX_RATE
    count, slash, per = (part.strip() for part in stripped.partition("/"))
    if not _PLAIN.fullmatch(count) or (slash and not per):
        raise _wrong(text, "a rate", RATE_FORMS)
    try:
        per_ns = parse_duration_ns(per if per[:1].isdigit() else f"1{per}") if slash else SECOND_NS
    except UsageError as error:
        raise _wrong(text, "a rate", RATE_FORMS, ": " + str(error)) from None
    rate = float(count)
    if per_ns != SECOND_NS:  # Multiplying and dividing by the same number can change the last digit.
        rate = rate * SECOND_NS / per_ns if per_ns else 0.0
    if not 0 < rate < 1e9:
        raise _wrong(text, "a rate", RATE_FORMS, ": it must be above 0 and below 1,000,000,000/s")
    return rate


def parse_factor(text: str | float) -> float:
    """Parse a factor above 0, such as `2`, `2x` or `200%`."""
    stripped = str(text).strip().replace("×", "x")
    number, divisor = stripped, 1.0
    if stripped.endswith("%"):
        number, divisor = stripped[:-1].strip(), 100.0
    elif stripped.endswith(("x", "X")):
        number = stripped[:-1].strip()
    if not _PLAIN.fullmatch(number):
        raise _wrong(text, "a factor", FACTOR_FORMS)
    factor = float(number) / divisor
    if not 1e-6 <= factor <= 1e9:
        raise _wrong(text, "a factor", FACTOR_FORMS, ": it must be between 0.000001 and 1,000,000,000")
    return factor


def parse_share(text: str | float) -> float:
    """Parse a share from 0 to 1, such as `25%` or `0.25`."""
    stripped = str(text).strip()
    percent = stripped.endswith("%")
    number = stripped[:-1].strip() if percent else stripped
    if not _PLAIN.fullmatch(number):
        raise _wrong(text, "a share", SHARE_FORMS)
    share = float(number) / (100 if percent else 1)
    if not 0 <= share <= 1:
        raise _wrong(text, "a share", SHARE_FORMS, ": it must be between 0% and 100%")
    return share


def parse_size_bytes(text: str | float) -> int:
    """Parse a size, such as `4096`, `64k`, `16MiB` (powers of 1024) or `1MB` (of 1000), to bytes."""
    match = _SIZE.fullmatch(str(text).strip())
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in _SIZE_UNITS:
        raise _wrong(text, "a size", SIZE_FORMS)
    return round(float(match.group(1)) * _SIZE_UNITS[unit])


def parse_zone(text: str) -> dt.tzinfo:
    """Parse a time zone: `UTC`, `Z`, `+02:00`, `+0200` or an IANA name."""
    stripped = text.strip()
    if stripped.upper() in ("UTC", "Z"):
        return dt.UTC
    if offset := _OFFSET.fullmatch(stripped):
        sign, hours, minutes = offset.groups()
        if int(hours) < 24 and int(minutes) < 60:
            delta = dt.timedelta(hours=int(hours), minutes=int(minutes))
            return dt.timezone(delta if sign == "+" else -delta)
    try:
        return zoneinfo.ZoneInfo(stripped)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        guess = nearest(stripped, zoneinfo.available_timezones())
        raise _wrong(text, "a time zone", ZONE_FORMS, f" (did you mean {guess}?)" if guess else "") from None


class Moment(NamedTuple):
    """A time as the user wrote it; exactly one field is set. `clock_ns` counts from midnight."""

    offset_ns: int | None = None
    clock_ns: int | None = None
    naive: dt.datetime | None = None
    absolute_ns: int | None = None

    def resolve_ns(self, origin_ns: int, end_ns: int, zone: dt.tzinfo) -> int:
        """Return the moment in ns since 1970.

        An offset counts from `origin_ns`. A time of day is its first occurrence in [origin_ns, end_ns], or the
        one on the origin's day if there is none. Times of day, and dates without a zone, are in `zone`.
        """
        if self.absolute_ns is not None:
            return self.absolute_ns
        if self.offset_ns is not None:
            return origin_ns + self.offset_ns
        if self.naive is not None:
            return datetime_to_ns(self.naive.replace(tzinfo=zone))
        day = to_datetime(origin_ns, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        first = self._on_day(day)
        return next(
            (ns for ns in (first, self._on_day(day + dt.timedelta(days=1))) if origin_ns <= ns <= end_ns),
            first,
        )

    def _on_day(self, day: dt.datetime) -> int:
        seconds, rest_ns = divmod(self.clock_ns or 0, SECOND_NS)
        wall = day.replace(hour=seconds // 3600, minute=seconds // 60 % 60, second=seconds % 60)
        return datetime_to_ns(wall) + rest_ns


def parse_moment(text: str) -> Moment:
    """Parse a moment: `18:00`, ISO 8601 with or without a zone, or `+10m`."""
    stripped = text.strip()
    if stripped.startswith("+"):
        try:
            return Moment(offset_ns=parse_duration_ns(stripped[1:]))
        except UsageError:
            raise _wrong(text, "a moment", MOMENT_FORMS) from None
    if clock := _CLOCK.fullmatch(stripped):
        hours, minutes, seconds = (int(part or 0) for part in clock.groups()[:3])
        if hours < 24 and minutes < 60 and seconds < 60:
            rest_ns = round(float(clock.group(4) or 0) * SECOND_NS)
            return Moment(clock_ns=(hours * 3600 + minutes * 60 + seconds) * SECOND_NS + rest_ns)
        raise _wrong(text, "a moment", MOMENT_FORMS, ": there is no such time of day")
    try:
        moment = dt.datetime.fromisoformat(stripped)
    except ValueError:
        raise _wrong(text, "a moment", MOMENT_FORMS) from None
    return Moment(naive=moment) if moment.tzinfo is None else Moment(absolute_ns=datetime_to_ns(moment))


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def datetime_to_ns(moment: dt.datetime) -> int:
    """Convert an aware datetime to ns since 1970, exactly."""
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * SECOND_NS + delta.microseconds * US_NS


def to_datetime(at_ns: int, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    """Convert ns since 1970 to a datetime in `zone`, cut to the microsecond."""
    return (_EPOCH + dt.timedelta(microseconds=at_ns // US_NS)).astimezone(zone)


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with decimals up to `digits` significant digits, and with separated thousands.

    Examples are 1.24, 0.0340 and 30,969. 0 is `0`; infinity and NaN are `inf` and `nan`.
    """
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, decimals)
    if rounded and math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        decimals = max(0, decimals - 1)
    return f"{rounded:,.{decimals}f}"


def format_count(count: float) -> str:
    """Format a count, rounded to a whole number, such as 30,969."""
    return f"{round(count):,}"


def counted(count: int, one: str, many: str = "") -> str:
    """Format a count with its noun: `1 query`, `30,969 queries`. `many` is `one` with an s unless it is given."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def name_text(name: str) -> str:
    r"""Return a file's name as text that is valid UTF-8: a byte that is not UTF-8 is written as `\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def format_latency(value_ns: float) -> str:
    """Format a latency: 3 significant digits from 1 µs to 100 s, as in 41.2 µs, 1.24 ms, 3.07 s; 850 ns; 2 min 5 s."""
    for unit_ns, unit in ((1, "ns"), (US_NS, "µs"), (MS_NS, "ms")):
        if abs(value_ns) < 999.5 * unit_ns:
            return f"{value_ns:.0f} ns" if unit_ns == 1 else f"{format_number(value_ns / unit_ns)} {unit}"
    return (
        f"{format_number(value_ns / SECOND_NS)} s"
        if abs(value_ns) < 99.95 * SECOND_NS
        else format_duration(round(value_ns))
    )


def format_duration(value_ns: int) -> str:
    """Format a length of time with at most two units: 1.5 s, 10 min, 1 h 30 min, 2 d 4 h."""
    if value_ns < 60 * SECOND_NS:
        number, unit = format_latency(value_ns).split()
        return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"
    seconds = round(value_ns / SECOND_NS)
    steps = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    place = next(index for index, (step, _) in enumerate(steps) if seconds >= step)
    (big, big_name), (small, small_name) = steps[place], steps[min(place + 1, 3)]
    first, rest = divmod(seconds, big)
    second = rest // small
    return f"{first} {big_name}" + (f" {second} {small_name}" if second and small != big else "")


def duration_text(value_ns: int) -> str:
    """Format a duration exactly, as a scenario contains it: 30s, 1500ms, 250ns. `parse_duration_ns` reads it back."""
    for unit, unit_ns in (
        ("h", 3600 * SECOND_NS),
        ("m", 60 * SECOND_NS),
        ("s", SECOND_NS),
        ("ms", MS_NS),
        ("us", US_NS),
    ):
        if value_ns and value_ns % unit_ns == 0:
            return f"{value_ns // unit_ns}{unit}"
    return f"{value_ns}ns" if value_ns else "0s"


def exact_text(number: float) -> str:
    """Return the shortest text that Python reads as the same number: 4, 0.1, 1e-07."""
    return repr(float(number)).removesuffix(".0")


def share_text(share: float) -> str:
    """Format a share as a scenario contains it, without rounding: 25%, or 0.3333333333333333."""
    percent = f"{share * 100:.12g}%"
    return percent if parse_share(percent) == share else exact_text(share)


def rate_text(rate_per_s: float) -> str:
    """Format a rate as a scenario contains it, without rounding: 500/s, 0.5/s or max."""
    return "max" if rate_per_s == MAX_RATE else f"{exact_text(rate_per_s)}/s"


def format_rate(rate_per_s: float) -> str:
    """Format a rate: 20,000/s, 8.33/s, 0/s or max; a rate between 0 and 1 per second is per minute: 50/min."""
    if rate_per_s == MAX_RATE:
        return "max"
    if 0 < rate_per_s < 1:
        return f"{format_number(rate_per_s * 60)}/min"
    return f"{format_count(rate_per_s) if rate_per_s >= 1000 else format_number(rate_per_s)}/s"


def format_share(share: float) -> str:
    """Format a share in percent: 100%, 99.98%, 12.5%, 0.003%.

    Only 1 is shown as 100%, and only 0 as 0%: a share close to 1 is `>99.99%`.
    """
    percent = share * 100
    if percent in (0, 100):
        return f"{percent:.0f}%"
    if percent > 99.995:
        return ">99.99%"
    text = f"{percent:.2f}" if percent > 99 or percent < 10 else f"{percent:.1f}"
    if float(text) == 0:
        text = format_number(percent, 1)
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "%"


def format_bytes(size: float) -> str:
    """Format a size with powers of 1024: 512 B, 64.0 KiB, 1.20 MiB."""
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if abs(size) >= step:
            return f"{format_number(size / step)} {unit}"
    return f"{size:.0f} B"


def format_moment(at_ns: int, zone: dt.tzinfo = dt.UTC) -> str:
    """Format a moment of the wall clock: 2026-01-05 18:00:00 +01:00."""
    moment = to_datetime(at_ns, zone)
    offset = moment.strftime("%z")
    return moment.strftime("%Y-%m-%d %H:%M:%S ") + (
        "UTC" if offset in ("+0000", "") else f"{offset[:3]}:{offset[3:]}"
    )
