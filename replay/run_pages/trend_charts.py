"""The charts of a trend: latency and failures over runs, or peaks over searches.

Runs are drawn in the order of time at equal distances, because days without runs contain no information.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from replay.history.rows import Figures, Row
from replay.history.trends import Trend
from replay.report.axes import Axis, count_axis, latency_axis, plain_label
from replay.report.charts import BLUE, CYCLE, GREEN, GREY, ORANGE, RED, Chart, Series
from replay.report.fit import shortened
from replay.report.html import Figure, drawn, named

RUNS_MAX = 200
"""Maximum number of runs of a trend that are drawn, the newest ones."""

ROUTES_MAX = len(CYCLE)
BUILD_CHARS = 12

Line = tuple[str, list[float | None], str]
"""A line of a chart: its name, a value for each run, and its colour."""


def charts_of(trend: Trend) -> str:
    """Return the figures of the newest RUNS_MAX runs of a trend as HTML; empty with fewer than two runs."""
    rows = trend.rows[-RUNS_MAX:]
    if len(rows) < 2:
        return ""
    return "".join(drawn(figure) for figure in (_peaks if trend.kind == "peak" else _runs)(trend, rows))


def _peaks(trend: Trend, rows: Sequence[Row]) -> list[Figure]:
    lines = [("rate at the peak", [row.peak_per_s for row in rows], BLUE)]
    return [Figure("", "", _chart(trend, rows, lines, "requests per second", "rate"))]


def _runs(trend: Trend, rows: Sequence[Row]) -> list[Figure]:
    every = [
        ("p50", _values(rows, "", _p50), BLUE),
        ("p99", _values(rows, "", _p99), ORANGE),
    ]
    figures = [Figure("", "", _chart(trend, rows, every, "latency of all requests", "latency"))]
    failed = _values(rows, "", _failed)
    if any(failed):
        figures.append(
            Figure(
                "", "", _chart(trend, rows, [("failed", failed, RED)], "share of failed requests", "share")
            )
        )
    routes = _largest(rows)
    for name, value in (("p50", _p50), ("p99", _p99)) if len(routes) > 1 else ():
        lines = [
            (named(route), _values(rows, route, value), CYCLE[number]) for number, route in enumerate(routes)
        ]
        figures.append(Figure("", "", _chart(trend, rows, lines, f"{name} by route", "latency")))
    return [figure for figure in figures if figure.plot is not None]


def _p50(figures: Figures) -> float | None:
    return figures.p50_ns


def _p99(figures: Figures) -> float | None:
    return figures.p99_ns


def _failed(figures: Figures) -> float | None:
    return figures.failed


def _values(rows: Sequence[Row], route: str, value: Callable[[Figures], float | None]) -> list[float | None]:
    """Return a figure of a route in each run; None for a run that did not measure it."""
    found = (next((each for each in row.figures if each.route == route), None) for row in rows)
    return [None if figures is None else value(figures) for figures in found]


def _largest(rows: Sequence[Row]) -> list[str]:
    """Return the ROUTES_MAX routes with the most requests, the largest first."""
    requests: Counter[str] = Counter()
    for row in rows:
        for figures in row.figures:
            if figures.route:
                requests[figures.route] += figures.requests
    return sorted(requests, key=lambda route: (-requests[route], route))[:ROUTES_MAX]


def _chart(trend: Trend, rows: Sequence[Row], lines: Sequence[Line], title: str, unit: str) -> Chart | None:
    """Return a chart with lines over runs and a rule at each change; None if no run measured a value."""
    values = [value for _, each, _ in lines for value in each if value is not None]
    if not values:
        return None
    at = [float(number) for number in range(1, len(rows) + 1)]
    plot = Chart(_builds_axis(rows, at), _up(values, title, unit), label=f"{title}, by run")
    for name, each, colour in lines:
        points = list(zip(at, each, strict=True))
        plot.line(points, colour, name)
        plot.dots([(x, y, "") for x, y in points if y is not None], colour, size=5)
        plot.hover.append(Series(name, at, each, unit, colour))
    places = {row.name: x for x, row in zip(at, rows, strict=True)}
    for change in trend.changes:
        if change.run in places:
            words = "cannot tell" if change.doubt else "worse" if change.is_slower else "better"
            colour = GREY if change.doubt else RED if change.is_slower else GREEN
            plot.rule_x(places[change.run], colour, words)
    return plot


def _up(values: Sequence[float], title: str, unit: str) -> Axis:
    if unit == "latency":
        return latency_axis(min(values), max(values), title)
    if unit == "share":
        high = count_axis(100 * max(values), "").high / 100
        return Axis(
            0.0, high, title, label=lambda value, step: (f"{plain_label(100 * value, 100 * step)[0]}%",)
        )
    return count_axis(max(values), title)


def _builds_axis(rows: Sequence[Row], at: Sequence[float]) -> Axis:
    """Return the axis of the runs in order. The label of a run is its build, or its number if it has none."""

    def label(value: float, _: float) -> tuple[str, ...]:
        build = rows[round(value) - 1].build
        return (shortened(build, BUILD_CHARS) if build else f"run {value:.0f}",)

    return Axis(
        0.5, len(rows) + 0.5, "build of each run, the newest at the right", label=label, fixed=tuple(at)
    )
