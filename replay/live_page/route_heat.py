"""The chart of the p99 of the busiest routes over time: a row for each route, coloured by its p99."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from replay.ledger.histogram import NS_2
from replay.ledger.percentiles import values_at
from replay.report.axes import Axis, time_axis
from replay.report.charts import Cells, Chart
from replay.report.figures import HEAT
from replay.results.deltas import Deltas
from replay.results.document import RecordedClock
from replay.units import format_latency

ROUTES_MAX, INTERVALS_MAX = 12, 90
HIGH = 0.84
"""The share of a row's height that its cells fill."""

Interval = tuple[float, float, int]
"""Start and end (in s since the start of the run), and the p99 in ns."""


class RouteHeat:
    """The p99 of each route by interval.

    Routes are read in turns, so their intervals differ. If two intervals are merged, the larger p99 counts for both.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._intervals: dict[str, list[Interval]] = {}

    def take(self, deltas: Deltas, biggest: Sequence[str]) -> None:
        """Add the intervals that ended in this second, for the busiest routes."""
        counts: dict[str, np.ndarray] = {}
        spans: dict[str, tuple[float, float]] = {}
        for delta in deltas.histograms:
            if delta.kind == self._kind and delta.route in biggest:
                of_route = counts.setdefault(delta.route, np.zeros(delta.layout.length, np.uint64))
                of_route[delta.at] += delta.counts
                spans[delta.route] = (delta.since_s, delta.since_s + delta.length_s)
        for route, of_route in counts.items():
            if count := int(of_route.sum()):
                p99_ns = int(values_at(of_route, NS_2.half, count, [99.0])[0])
                self._add(route, (*spans[route], p99_ns))

    def _add(self, route: str, interval: Interval) -> None:
        intervals = self._intervals.setdefault(route, [])
        intervals.append(interval)
        if len(intervals) > INTERVALS_MAX:
            pairs = [intervals[at : at + 2] for at in range(0, len(intervals), 2)]
            self._intervals[route] = [
                (pair[0][0], pair[-1][1], max(each[2] for each in pair)) for pair in pairs
            ]

    def chart(self, biggest: Sequence[str], length_s: float, clock: RecordedClock | None) -> Chart | None:
        """Return the chart; None while there are fewer than two intervals."""
        routes = [route for route in biggest if route in self._intervals][:ROUTES_MAX]
        values = [p99_ns for route in routes for _, _, p99_ns in self._intervals[route]]
        if len(values) < 2:
            return None
        low, high = max(min(values), 1), max(*values, 2)
        rows = Axis(0.5 - len(routes), 0.5, bare=True)
        plot = Chart(time_axis(length_s, clock), rows, height=24 * len(routes) + 6, rows=routes)

        def cells(columns: int) -> Cells:
            found: list[list[tuple[int, float, float]]] = [[] for _ in HEAT]
            for row, route in enumerate(routes):
                for since_s, until_s, p99_ns in self._intervals[route]:
                    share = math.log(max(p99_ns, 1) / low) / max(math.log(high / low), 1e-9)
                    level = min(int(share * len(HEAT)), len(HEAT) - 1)
                    first, last = (int(at_s / length_s * columns) for at_s in (since_s, until_s))
                    span = range(first, min(max(last, first + 1), columns))
                    found[level] += [(column, -row - HIGH / 2, -row + HIGH / 2) for column in span]
            return list(zip(HEAT, found, strict=True))

        plot.cells(cells, INTERVALS_MAX)
        for colour, value in ((HEAT[0], low), (HEAT[-1], high)):
            plot.key(f"p99 {format_latency(value)}", colour, "bar")
        return plot
