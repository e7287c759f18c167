"""The instant of `start_at`."""

from __future__ import annotations

import datetime as dt
import time

from replay.errors import UsageError
from replay.units import SECOND_NS, Moment, datetime_to_ns, format_duration, parse_moment, to_datetime

from .scenario import Scenario

_DAY_NS = 24 * 3600 * SECOND_NS


def instant_of(scenario: Scenario, now_ns: int | None = None) -> int | None:
    """Return the instant of `start_at` in ns since the epoch; None without one. UsageError if it is not in the future.

    A time of day means today, by this machine's clock and zone. A date without a zone is in this machine's zone,
    too.
    """
    if scenario.start_at is None:
        return None
    text = str(scenario.start_at)
    now_ns = time.time_ns() if now_ns is None else now_ns
    at_ns = _resolved(parse_moment(text), now_ns)
    if at_ns <= now_ns:
        was = f"was {format_duration(now_ns - at_ns)} ago" if at_ns < now_ns else "is now"
        later = to_datetime(at_ns).astimezone() + dt.timedelta(days=(now_ns - at_ns) // _DAY_NS + 1)
        hint = f"give a later one, such as {later.strftime('%Y-%m-%dT%H:%M')}, or +10m"
        raise UsageError(f"--start-at: {text} {was} ({moment_text(at_ns)})", hint=hint)
    return at_ns


def _resolved(moment: Moment, now_ns: int) -> int:
    if moment.absolute_ns is not None:
        return moment.absolute_ns
    if moment.offset_ns is not None:
        return now_ns + moment.offset_ns
    if moment.naive is not None:
        return datetime_to_ns(moment.naive.astimezone())
    seconds, rest_ns = divmod(moment.clock_ns or 0, SECOND_NS)
    today = to_datetime(now_ns).astimezone().replace(tzinfo=None)
    wall = today.replace(hour=seconds // 3600, minute=seconds // 60 % 60, second=seconds % 60, microsecond=0)
    return datetime_to_ns(wall.astimezone()) + rest_ns


def moment_text(at_ns: int) -> str:
    """Format an instant as `2026-01-05 18:00:00 +01:00`, in this machine's time zone."""
    moment = to_datetime(at_ns).astimezone()
    offset = moment.strftime("%z")
    return f"{moment.strftime('%Y-%m-%d %H:%M:%S')} {offset[:3]}:{offset[3:5]}"
