"""The watched figures of a run: their values by second, and which of them changed first before a missed objective.

A figure has changed when it differs, for LASTING samples in a row, from the median of its first samples by more than
SPREADS median absolute deviations and by more than SHARE of that median. A trial of a search for the peak is compared
with a trial at a lower load, because a short trial at a constant load has no such beginning. A counter is judged by
its growth.

That one thing happened before another does not prove that it was the cause. Reports therefore state only the order.
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
"""Minimum number of samples that define the beginning of a figure. In longer runs it is a fifth of the samples."""

LASTING = 3
SPREADS = 6.0
SHARE = 0.2

NAMES_SHOWN = 3
"""Maximum number of figures that a sentence lists if several changed in the same second."""

Values = Sequence[float | None]
_Sample = tuple[int, float]
"""The number of a row, and the value that was sampled in it."""

_HIGH_PERCENTILE = 90.0


def values_of(rows: Sequence[Second]) -> dict[str, list[float | None]]:
    """Return the values of each figure, one per row of the timeline; None for a row without a sample."""
    names = dict.fromkeys(name for row in rows for name in row.watched)
    return {name: [row.watched.get(name) for row in rows] for name in names}


def shifted_at(values: Values) -> int | None:
    """Return the row from which a figure differs from its beginning.

    Return None if it never did, or if it has too few samples. A figure that never falls, and that grew in most of its
    first samples, is a counter: it is judged by its growth.
    """
    known = _known(values)
    known = _growth(known) if _is_counter(known) else known
    begin = max(BEGINNING, len(known) // 5)
    if len(known) < begin + LASTING:
        return None
    return _left_at(known[begin:], [value for _, value in known[:begin]])


def left_at(values: Values, before: Values, load: float) -> int | None:
    """Return the row from which a figure differs from its values `before`, in a trial at a lower load.

    Return None if it never did, or if there are too few samples. `load` is the ratio of the loads: a figure that grew
    with the load, up to this ratio, has not changed.
    """
    now, then = _known(values), _known(before)
    if _is_counter(then):
        now, then = _growth(now), _growth(then)
    if len(then) < BEGINNING:
        return None
    return _left_at(now, [value for _, value in then], load)


def _left_at(samples: list[_Sample], beginning: Sequence[float], load: float = 1.0) -> int | None:
    """Return the row at which a figure leaves its course.

    This is the first of LASTING samples in a row that neither the beginning of the figure nor the load explains.
    Return None if there are none.
    """
    middle = statistics.median(beginning)
    spread = statistics.median(abs(value - middle) for value in beginning)
    low, high = sorted((middle, middle * load))
    room = max(SPREADS * spread, SHARE * abs(middle))
    differs = [not low - room <= value <= high + room for _, value in samples]
    return next(
        (
            samples[start][0]
            for start in range(len(samples) - LASTING + 1)
            if all(differs[start : start + LASTING])
        ),
        None,
    )


def _known(values: Values) -> list[_Sample]:
    return [(at, value) for at, value in enumerate(values) if value is not None]


def _growth(known: list[_Sample]) -> list[_Sample]:
    """Return the growth from sample to sample, each with the row of the later sample."""
    return [(at, now - before) for (_, before), (at, now) in pairwise(known)]


def _is_counter(known: list[_Sample]) -> bool:
    """Return whether a figure never falls, and grew in most of its first samples."""
    begin = max(BEGINNING, len(known) // 5)
    growth = [each for _, each in _growth(known)]
    return all(each >= 0 for each in growth) and sum(each > 0 for each in growth[:begin]) > begin / 2


def breached_at(rows: Sequence[Second], objectives: Sequence[Slo]) -> int | None:
    """Return the first row whose own figures miss an objective over all routes; None if no row does."""
    return next((at for at, row in enumerate(rows) if any(misses(row, slo) for slo in objectives)), None)


def misses(row: Second, slo: Slo) -> bool:
    """Return whether the figures of one row miss an objective.

    The answer is False for objectives that rows cannot show: on a route, on statuses, on mismatches, or on a latency
    that is not in the rows.
    """
    if slo.route:
        return False
    if slo.percentile is None:
        ended = sum(row.measured.values())
        return ended > 0 and sum(row.measured.get(name, 0) for name in slo.outcomes) > slo.limit * ended
    name = figure_of(slo)
    figure = row.figure_ns(name) if name is not None else None
    return figure is not None and figure[0] > slo.limit


def figure_of(slo: Slo) -> str | None:
    """Return the field of a row that is nearest to the figure of a latency objective: p50, p99 or the maximum.

    Rows have no other percentiles. Return None for an objective on a share, or on a latency that rows do not have.
    """
    if slo.percentile is None:
        return None
    near = "max" if slo.percentile == 100 else "p99" if slo.percentile >= _HIGH_PERCENTILE else "p50"
    name = f"{slo.metric.replace('.', '_')}_{near}_ns"
    return name if name in Second.__struct_fields__ else None


def with_shifts(
    figures: Sequence[WatchFigures], rows: Sequence[Second], objectives: Sequence[Slo]
) -> tuple[list[WatchFigures], str]:
    """Return the figures with the second in which each changed, and a sentence about the first change.

    The sentence is empty if no objective was missed, or if no figure had changed by that second. An objective that is
    missed in the first second shows no change, so it does not count.
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
    return found, "" if breach is None else _first_words(moved, rows[breach].t_s)


def first_against(rows: Sequence[Second], breach: int, before: Sequence[Second], load: float) -> str:
    """Return a sentence about the figure that changed first in a trial that misses an objective from row `breach` on.

    The figures are compared with the rows `before` of a trial at a lower load; `load` is the ratio of the loads. The
    text is empty if no figure changed up to the breach.
    """
    then = values_of(before)
    moved = [
        (rows[at].t_s, name)
        for name, values in values_of(rows).items()
        if (at := left_at(values, then.get(name, ()), load)) is not None
    ]
    return _first_words(moved, rows[breach].t_s)


def _first_words(moved: Sequence[tuple[float, str]], breach_s: float) -> str:
    """Return a sentence with the figures that changed first; empty if none changed by `breach_s`."""
    at_s = min((at_s for at_s, _ in moved), default=breach_s + 1)
    if at_s > breach_s:
        return ""
    names = sorted(name for moved_s, name in moved if moved_s == at_s)
    more = [f"{len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    named = [*names[:NAMES_SHOWN], *more]
    words = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    before_s = round(breach_s - at_s)
    when = f"{before_s} s before" if before_s else "in the second in which"
    return f"{words} changed first, {when} an objective was missed"
