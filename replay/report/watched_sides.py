"""Watched figures of a comparison: a table for the page and one for the terminal, and their charts over time."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

from replay.comparison.over_time import Course, clock_of, courses_of, length_s
from replay.comparison.sides import Side
from replay.comparison.verdict import Comparison
from replay.comparison.watched import WatchedSides, watched_sides
from replay.results.timeline import Second
from replay.units import counted

from .axes import Axis, count_axis, latency_axis, time_axis
from .charts import BLUE, ORANGE, Chart, Series
from .figures import SECONDS_MAX, latency_of
from .html import Figure, Section, html_table, named
from .page import Page

ROWS_SHOWN, CHARTS_SHOWN, LINES_SHOWN = 60, 24, 8
"""How many figures a page lists, how many it draws, and how many a terminal lists: those that differ most."""

READING = (
    "Figures from the target's side, each the median over the runs of a build. Those that differ most come first. The"
    " verdict does not depend on them."
)


OVER_TIME = (
    "p99 of each second (long runs: the worst of several). A line is the median over the runs of a build, its band their"
    " range. Watched figures are below, on the same clock."
)

TOO_SHORT = "The figure has no sample, or the runs were too short for a chart."


def watched_sections(found: Comparison) -> list[Section]:
    """Return the sections of a page: a table, then latency and each figure over time. Empty if nothing was watched."""
    figures = watched_sides(found.base, found.new)
    if not figures:
        return []
    labels = (found.base.label, found.new.label)
    heads = ("", *(f"mean, {label}" for label in labels), *(f"highest, {label}" for label in labels))
    rows = [_row(each) for each in figures[:ROWS_SHOWN]]
    made: list[Section] = [html_table(heads, rows, "Watched figures", reading=READING)]
    if (more := len(figures) - ROWS_SHOWN) > 0:
        made.append(f'<p class="soft">and {counted(more, "more figure")}, which --json lists</p>')
    return made + _over_time(found, [each.name for each in figures[:CHARTS_SHOWN]], len(figures))


def _over_time(found: Comparison, names: Sequence[str], of: int) -> list[Section]:
    """Return charts of p99, and of the figures below it on the same clock."""
    both = (found.base, found.new)
    length, kind = length_s(*both), "service" if _is_closed_loop(found.base) else "response"
    step_s = max(math.ceil(length / SECONDS_MAX), 1.0)
    values: dict[str | None, Callable[[Second], float | None]] = {None: latency_of(f"{kind}_p99_ns")}
    values |= {name: functools.partial(_sample, name) for name in names}
    courses = [courses_of(side, values, step_s) for side in both]
    last_s = max((course[-1][0] for made in courses for course in made.values() if course), default=0.0)
    across = time_axis(max(length, last_s), clock_of(*both))

    def chart(name: str | None) -> Chart | None:
        return _chart(
            list(zip(both, (made[name] for made in courses), strict=True)),
            across,
            kind if name is None else "",
        )

    drawn: list[Section] = [Figure(f"{kind.capitalize()} over time", OVER_TIME, chart(None))]
    for name in names:
        drawn.append(Figure(f"Watched: {named(name)}", "", chart(name), nothing=TOO_SHORT))
    if (more := of - len(names)) > 0:
        drawn.append(f'<p class="soft">{counted(more, "more figure is", "more figures are")} not drawn.</p>')
    return drawn


def _sample(name: str, row: Second) -> float | None:
    return row.watched.get(name)


def _is_closed_loop(side: Side) -> bool:
    return any(run.document is not None and run.document.closed_loop for run in side.runs)


def _chart(sides: Sequence[tuple[Side, Course]], across: Axis, latency: str) -> Chart | None:
    """Draw a figure of both sides over time. If `latency` is not empty, the figure is p99 of that latency."""
    known = [spread for _, course in sides for _, spread in course if spread is not None]
    if not known or max(len(course) for _, course in sides) < 2:
        return None
    low, high = min(spread.low for spread in known), max(spread.high for spread in known)
    plot = Chart(across, latency_axis(low, high, f"{latency} p99") if latency else count_axis(high, "", low))
    for (side, course), colour in zip(sides, (BLUE, ORANGE), strict=True):
        _draw(plot, course, side, colour, "latency" if latency else "number")
    return plot


def _draw(plot: Chart, course: Course, side: Side, colour: str, unit: str) -> None:
    """Add a line, and a band if a side has several runs. Both have gaps where nothing was measured."""
    line = [(at_s, None if spread is None else spread.middle) for at_s, spread in course]
    if all(value is None for _, value in line):
        return
    for _, stretch in itertools.groupby(course, key=lambda step: step[1] is None):
        edges = [(at_s, spread.low, spread.high) for at_s, spread in stretch if spread is not None]
        if edges and len(side.runs) > 1:
            plot.band(edges, colour)
    label = side.label + (f": {len(side.runs)} runs" if len(side.runs) > 1 else "")
    plot.line(line, colour, label)
    plot.hover.append(
        Series(side.label, [at_s for at_s, _ in line], [value for _, value in line], unit, colour)
    )


def print_watched(page: Page, found: Comparison) -> None:
    """Print a table of at most LINES_SHOWN figures, unless nothing was watched."""
    figures = watched_sides(found.base, found.new)
    if not figures:
        return
    page.title("Watched figures")
    labels = (found.base.label, found.new.label)
    heads = [
        ("", "name"),
        *((f"{what} {label}", "right") for what in ("mean", "highest") for label in labels),
    ]
    page.table(heads, [[each.name, *_row(each)[1:]] for each in figures[:LINES_SHOWN]])
    if (more := len(figures) - LINES_SHOWN) > 0:
        page.say(f"and {counted(more, 'more figure')}, which --json lists", "dim")


def _row(each: WatchedSides) -> list[str]:
    values: Sequence[float | None] = (each.base_mean, each.new_mean, each.base_highest, each.new_highest)
    return [named(each.name), *("" if value is None else f"{value:.4g}" for value in values)]
