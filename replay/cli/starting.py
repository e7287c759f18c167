"""`--start-at`: the instant at which the first request is due, and the wait for it."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable

from replay.errors import UsageError
from replay.settings.scenario import Scenario
from replay.units import SECOND_NS, Moment, datetime_to_ns, format_duration, parse_moment, to_datetime

LEAD_NS = 10 * SECOND_NS
"""A run begins this long before its instant: connections are opened, lanes start and sleep."""

MINUTE_NS = 60 * SECOND_NS


def instant_of(scenario: Scenario, now_ns: int | None = None) -> int | None:
    """The instant of `start_at` in ns since the epoch; None without one. UsageError where it is over.

    A time of day is today's, by this machine's clock and zone; so is a date without a zone.
    """
    if scenario.start_at is None:
        return None
    text = str(scenario.start_at)
    now_ns = time.time_ns() if now_ns is None else now_ns
    at_ns = _resolved(parse_moment(text), now_ns)
    if at_ns <= now_ns:
        day = to_datetime(at_ns).astimezone() + dt.timedelta(days=1)
        ago = format_duration(now_ns - at_ns) if at_ns < now_ns else "now"
        hint = f"give a later one, such as {day.strftime('%Y-%m-%dT%H:%M')} for tomorrow, or +10m"
        raise UsageError(f"--start-at: {text} was {ago} ago ({moment_text(at_ns)})", hint=hint)
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
    """`2026-01-05 18:00:00 +01:00`, by this machine's zone."""
    moment = to_datetime(at_ns).astimezone()
    offset = moment.strftime("%z")
    return f"{moment.strftime('%Y-%m-%d %H:%M:%S')} {offset[:3]}:{offset[3:5]}"


def wait_for(at_ns: int, say: Callable[[str], None], *, plain: bool, lead_ns: int = LEAD_NS) -> None:
    """Wait until `lead_ns` before an instant, counting down by the wall clock, which may be set meanwhile.

    On a terminal one line is rewritten each second; else a line is printed each minute.
    """
    say(f"the first request is due at {moment_text(at_ns)}")
    rewrites = sys.stderr.isatty() and not plain
    reported_ns = 0
    while (left_ns := at_ns - lead_ns - time.time_ns()) > 0:
        words = (
            f"starts in {format_duration((left_ns + lead_ns) // SECOND_NS * SECOND_NS)}; Ctrl-C ends the wait"
        )
        if rewrites:
            print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
        elif not reported_ns or reported_ns - left_ns >= MINUTE_NS:
            reported_ns = left_ns
            say(words)
        time.sleep(min(left_ns, SECOND_NS) / SECOND_NS)
    if rewrites:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
