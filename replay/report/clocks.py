"""Times of a run on both clocks: the recorded one and the wall clock."""

from __future__ import annotations

import datetime as dt

from replay.results.document import RunDocument
from replay.units import SECOND_NS, format_moment, to_datetime

DAY_S = 86_400


def recorded_span(document: RunDocument) -> str:
    """Return the span of recorded time that the run replayed, its speed, and the path of the trace.

    The span and the speed, or the path, are left out if they are unknown.
    """
    clock = document.recorded_clock
    path = document.trace.path if document.trace else ""
    if clock is None:
        return path
    end_ns = clock.start_ns + round(document.duration_s * SECOND_NS * clock.speed)
    start, end = _moment(clock.start_ns, clock.utc_offset_s), _clock(end_ns, clock.utc_offset_s)
    span = f"{start} – {end} at {clock.speed:g}×"
    return f"{span} · {path}" if path else span


def wall_span(document: RunDocument) -> str:
    """Return the span of the run on the wall clock."""
    start_ns = document.start.wall_ns
    return f"{_moment(start_ns)} – {_clock(start_ns + round(document.duration_s * SECOND_NS))}"


def _moment(at_ns: int, utc_offset_s: int = 0) -> str:
    return format_moment(at_ns, dt.timezone(dt.timedelta(seconds=utc_offset_s)))


def _clock(at_ns: int, utc_offset_s: int = 0, form: str = "%H:%M:%S.%f") -> str:
    text = to_datetime(at_ns, dt.timezone(dt.timedelta(seconds=utc_offset_s))).strftime(form)
    return text[:-3] if form.endswith("%f") else text


def both_clocks(
    document: RunDocument, since_start_ns: int, recorded_ns: int | None = None
) -> tuple[str, str]:
    """Return a time of the run as (recorded, wall). The recorded time is empty if it is unknown."""
    clock, offset_s = document.recorded_clock, 0
    if clock is not None:
        offset_s = clock.utc_offset_s
        recorded_ns = recorded_ns or clock.start_ns + round(since_start_ns * clock.speed)
    recorded = ""
    if recorded_ns is not None:
        days = clock is not None and document.duration_s * clock.speed > DAY_S
        recorded = _clock(recorded_ns, offset_s, "%b %d %H:%M:%S" if days else "%H:%M:%S.%f")
    return recorded, _clock(document.start.wall_ns + since_start_ns)
