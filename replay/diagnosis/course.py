"""Each objective by the seconds of a run: when it was first missed, when it was met again, and by how much."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from replay.results.baseline import like_baseline
from replay.results.slo import Slo
from replay.results.timeline import Second
from replay.results.watched import BEGINNING, figure_of, misses

from .document import ObjectiveCourse

LASTING_S = 3
"""An objective has recovered if it is met until the end of the run, for at least this many seconds."""

LOAD_SECONDS = 3
"""The load at a row is the mean rate over this many rows up to it."""

MUCH_LONGER = 3
"""A stretch of bad rows is skipped if the longest one is more than this many times as long."""

SMALL_CHANGE = 0.05
"""A load that is lower by up to this share counts as the same."""

AS_BEGUN = "like its beginning"
"""The name of the course of a run that has no objective which can be judged per second."""


def courses_of(rows: Sequence[Second], objectives: Sequence[Slo]) -> list[ObjectiveCourse]:
    """Return the course of each objective.

    If no objective can be judged per second, one more course compares the run with its beginning.
    """
    found = [_course(rows, slo) for slo in objectives]
    if not any(not each.note for each in found):
        found.append(_like_beginning(rows))
    return found


def harmed_at(rows: Sequence[Second], objectives: Sequence[Slo]) -> int | None:
    """Return the row from which users felt harm (`harm_begins`); None if there was no harm.

    Harm is a missed objective over all routes. Without such an objective, it is a difference from the beginning of
    the run.
    """
    judged = [slo for slo in objectives if not slo.route]
    if judged:
        return harm_begins([any(misses(row, slo) for slo in judged) for row in rows])
    return harm_begins(unlike_beginning(rows))


def harm_begins(bad: Sequence[bool]) -> int | None:
    """Return the start of the first stretch of bad rows that is not much shorter than the longest one.

    A single second that misses an objective may be chance. If all stretches are single seconds, the first is used.
    Return None if no row is bad.
    """
    stretches = _stretches(bad)
    longest = max((length for _, length in stretches), default=0)
    return next(
        (at for at, length in stretches if length > 1 and length * MUCH_LONGER >= longest),
        next((at for at, _ in stretches), None),
    )


def _stretches(bad: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the start and the length of each stretch of bad rows."""
    found: list[tuple[int, int]] = []
    for at, is_bad in enumerate(bad):
        if is_bad and at and bad[at - 1]:
            begin, length = found[-1]
            found[-1] = begin, length + 1
        elif is_bad:
            found.append((at, 1))
    return found


def unlike_beginning(rows: Sequence[Second]) -> list[bool]:
    """Return, by row, whether median and failures are unlike those of the beginning of the run.

    The beginning is the first fifth of the rows, and at least BEGINNING of them. Its own rows are always False. All
    rows are False if the beginning has no median.
    """
    begin = rows[: max(BEGINNING, len(rows) // 5)]
    medians = [row.response_p50_ns or row.service_p50_ns for row in begin]
    known = [value for value in medians if value is not None]
    if not known:
        return [False] * len(rows)
    base_ns, base_share = statistics.median(known), _failed_share(begin)
    return [
        at >= len(begin)
        and not like_baseline(
            row.response_p50_ns or row.service_p50_ns, _failed_share([row]), base_ns, base_share
        )
        for at, row in enumerate(rows)
    ]


def _failed_share(rows: Sequence[Second]) -> float:
    failed = sum(row.error + row.timeout + row.unsent + row.measured.get("5xx", 0) for row in rows)
    ended = sum(row.ok + row.error + row.timeout + row.unsent for row in rows)
    return failed / ended if ended else 0.0


def _like_beginning(rows: Sequence[Second]) -> ObjectiveCourse:
    bad = unlike_beginning(rows)
    failed = [float(row.error + row.timeout + row.unsent + row.measured.get("5xx", 0)) for row in rows]
    above = [failed[at] if is_bad else 0.0 for at, is_bad in enumerate(bad)]
    return _made(rows, AS_BEGUN, "p50 and failures of each second", bad, above, is_share=True)


def _course(rows: Sequence[Second], slo: Slo) -> ObjectiveCourse:
    if slo.route:
        return ObjectiveCourse(
            objective=slo.text, note="it limits a route, but seconds have figures over all routes only"
        )
    bad = [misses(row, slo) for row in rows]
    if slo.percentile is None:
        above = [_requests_above(row, slo) for row in rows]
        return _made(rows, slo.text, "share of each second", bad, above, is_share=True)
    field = figure_of(slo)
    if field is None:
        return ObjectiveCourse(objective=slo.text, note="seconds have no figure for this objective")
    above = [_seconds_above(row, field, slo.limit) for row in rows]
    words = field.removesuffix("_ns").replace("_", " ") + " of each second"
    return _made(rows, slo.text, words, bad, above, is_share=False)


def _requests_above(row: Second, slo: Slo) -> float:
    ended = sum(row.measured.values())
    return max(sum(row.measured.get(name, 0) for name in slo.outcomes) - slo.limit * ended, 0.0)


def _seconds_above(row: Second, field: str, limit_ns: float) -> float:
    figure = row.figure_ns(field)
    return 0.0 if figure is None else max(figure[0] - limit_ns, 0.0) / 1e9 * row.length_s


def _made(
    rows: Sequence[Second],
    objective: str,
    judged_by: str,
    bad: Sequence[bool],
    above: Sequence[float],
    *,
    is_share: bool,
) -> ObjectiveCourse:
    first = next((at for at, is_bad in enumerate(bad) if is_bad), None)
    course = ObjectiveCourse(
        objective=objective, judged_by=judged_by, area_unit="requests" if is_share else "s s"
    )
    if first is None:
        return course
    last = max(at for at, is_bad in enumerate(bad) if is_bad)
    back = last + 1 if sum(row.length_s for row in rows[last + 1 :]) > LASTING_S - 0.5 else None
    change = None if back is None else _lower_by(rows, first, back)
    return ObjectiveCourse(
        objective=objective,
        judged_by=judged_by,
        breached_s=rows[first].t_s,
        recovered_s=None if back is None else rows[back].t_s,
        bad_s=round(sum(row.length_s for row, is_bad in zip(rows, bad, strict=True) if is_bad), 3),
        hysteresis=change,
        area=round(sum(above), 6),
        area_unit=course.area_unit,
    )


def _lower_by(rows: Sequence[Second], breach: int, back: int) -> float | None:
    """Return by which share the load was lower at `back` than at `breach`; None if there was no load at `breach`.

    A share up to SMALL_CHANGE, or a higher load, counts as 0.
    """
    at_breach, at_back = _load(rows, breach), _load(rows, back)
    if at_breach <= 0:
        return None
    change = 1 - at_back / at_breach
    return round(change, 4) if change > SMALL_CHANGE else 0.0


def _load(rows: Sequence[Second], at: int) -> float:
    """Return the requests due per second in the LOAD_SECONDS rows up to `at`."""
    near = rows[max(0, at - LOAD_SECONDS + 1) : at + 1]
    return sum(row.planned for row in near) / max(sum(row.length_s for row in near), 1e-9)
