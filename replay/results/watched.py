"""The watched figures of a run: their values by second, and which of them changed first before an objective was missed.

A figure has changed when it differs from its beginning: by more than SPREADS median absolute deviations from the median
of the first seconds, and by more than SHARE of that median, for LASTING samples in a row. For a counter, its growth is
judged. An event before another one is not necessarily its cause, so reports state only the order.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from .figures import WatchFigures
from .slo import Slo
from .timeline import Second

BEGINNING = 5
"""Minimum number of samples that define the beginning of a figure; in longer runs it is a fifth of the run."""

LASTING = 3
SPREADS = 6.0
SHARE = 0.2

Values = Sequence[float | None]

_HIGH_PERCENTILE = 90.0


def values_of(rows: Sequence[Second]) -> dict[str, list[float | None]]:
    """The values of each figure, one per row of the timeline; None if there is no sample."""
    names = dict.fromkeys(name for row in rows for name in row.watched)
    return {name: [row.watched.get(name) for row in rows] for name in names}


def shifted_at(values: Values) -> int | None:
    """The row from which a figure differs from its beginning; None if it never did, or too little is known. A figure
    that only grows, and that grew from the beginning, is a counter, so its growth is judged."""
    known = _levels([(at, value) for at, value in enumerate(values) if value is not None])
    begin = max(BEGINNING, len(known) // 5)
    if len(known) < begin + LASTING:
        return None
    first = [value for _, value in known[:begin]]
    middle = statistics.median(first)
    spread = statistics.median(abs(value - middle) for value in first)
    limit = max(SPREADS * spread, SHARE * abs(middle))
    differs = [abs(value - middle) > limit for _, value in known]
    return next(
        (
            known[start][0]
            for start in range(begin, len(known) - LASTING + 1)
            if all(differs[start : start + LASTING])
        ),
        None,
    )


def _levels(known: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The samples, or the growth of a counter between samples, with their rows."""
    begin = max(BEGINNING, len(known) // 5)
    growth = [(at, now - before) for (_, before), (at, now) in pairwise(known)]
    if all(each >= 0 for _, each in growth) and sum(each > 0 for _, each in growth[:begin]) > begin / 2:
        return growth
    return known


def breached_at(rows: Sequence[Second], objectives: Sequence[Slo]) -> int | None:
    """The first row whose own figures miss an objective over all routes; None if no row does."""
    return next((at for at, row in enumerate(rows) if any(misses(row, slo) for slo in objectives)), None)


def misses(row: Second, slo: Slo) -> bool:
    """Whether the figures of one row miss an objective; False for an objective on a route, because rows cover all
    routes."""
    if slo.route:
        return False
    if slo.percentile is None:
        ended = sum(row.measured.values())
        return ended > 0 and sum(row.measured.get(name, 0) for name in slo.outcomes) > slo.limit * ended
    name = figure_of(slo)
    figure = row.figure_ns(name) if name is not None else None
    return figure is not None and figure[0] > slo.limit


def figure_of(slo: Slo) -> str | None:
    """The figure of a row that judges a latency: a row has only p50, p99 and the maximum, so it is the nearest of
    these. None if rows do not have this latency."""
    if slo.percentile is None:
        return None
    near = "max" if slo.percentile == 100 else "p99" if slo.percentile >= _HIGH_PERCENTILE else "p50"
    name = f"{slo.metric.replace('.', '_')}_{near}_ns"
    return name if name in Second.__struct_fields__ else None


def with_shifts(
    figures: Sequence[WatchFigures], rows: Sequence[Second], objectives: Sequence[Slo]
) -> tuple[list[WatchFigures], str]:
    """The figures with the second in which each changed, and a sentence about the first change, or an empty one.

    An objective that is missed from the first second on shows no change, so it does not count.
    """
    met_at_first = [slo for slo in objectives if breached_at(rows[:1], [slo]) is None]
    values, breach = values_of(rows), breached_at(rows, met_at_first)
    known = {figure.name: figure for figure in figures}
    moved: list[tuple[float, str]] = []
    found = []
    for name, each in values.items():
        figure = known.get(name, WatchFigures(name=name, samples=sum(value is not None for value in each)))
        at = shifted_at(each)
        if at is not None:
            figure = msgspec.structs.replace(figure, changed_at_s=round(rows[at].t_s, 3))
            moved.append((rows[at].t_s, name))
        found.append(figure)
    found += [figure for figure in figures if figure.name not in values]
    if breach is None or not moved:
        return found, ""
    at_s, name = min(moved)
    if at_s > rows[breach].t_s:
        return found, ""
    before_s = round(rows[breach].t_s - at_s)
    when = f"{before_s} s before" if before_s else "in the second in which"
    return found, f"{name} changed first, {when} an objective was missed"
