"""The latencies and failures of each route over time, from the intervals of latency.hlog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replay.ledger.catalog import FAILED
from replay.ledger.histogram import Histogram
from replay.results import hlog
from replay.results.run import Run
from replay.results.timeline import Second

ROUTES_MAX = 24
"""Maximum number of routes that are evaluated, the busiest first."""

FAST_FAILURES = frozenset(FAILED) - {"timeout"}
"""Failures whose latency does not show how long the target works on a request."""


@dataclass(frozen=True, slots=True)
class RouteSeries:
    """One route by window.

    `p50_ns` is the median of the response time (service time in a closed loop) over responses and timeouts (nan: there
    were none). `ended` and `failed` count requests.
    """

    route: str
    p50_ns: np.ndarray
    ended: np.ndarray
    failed: np.ndarray

    @property
    def failed_share(self) -> np.ndarray:
        """The share of failures by window."""
        share: np.ndarray = self.failed / np.maximum(self.ended, 1.0)
        return share


def series_of(run: Run, rows: Sequence[Second]) -> tuple[np.ndarray, list[RouteSeries]]:
    """Return the start of each window (s since the start of the run), and the busiest routes by window.

    Both are empty if the run has fewer than two rows or no routes. Windows are as long as the intervals of the log.
    With few routes these are about a second in the first minute of a run, and later a sixtieth of the time since the
    start.
    """
    names = [row.route for row in sorted(run.document.routes, key=lambda row: -row.count)[:ROUTES_MAX]]
    kind = "service" if run.document.closed_loop else "response"
    if len(rows) < 2 or not names:
        return np.zeros(0), []

    def is_wanted(tag: str) -> bool:
        found, _, route = hlog.parts_of(tag)
        return found == kind and route in wanted

    wanted, log = frozenset(names), hlog.Log(run.folder.latency)
    parts: dict[str, list[tuple[float, float, str, Histogram]]] = {name: [] for name in names}
    for interval in hlog.scan(log, is_wanted):
        _, outcome, route = hlog.parts_of(interval.tag)
        parts[route].append(
            (interval.start_s - (log.base_s or 0.0), interval.length_s, outcome, interval.histogram)
        )
    edges = _edges(rows, [part for of in parts.values() for part in of])
    return edges, [_series(name, parts[name], edges) for name in names]


def _edges(rows: Sequence[Second], parts: Sequence[tuple[float, float, str, Histogram]]) -> np.ndarray:
    """Return the starts of windows, spaced so that each window contains about one interval."""
    begins = np.array([row.t_s for row in rows])
    if not parts:
        return begins
    longest, last = np.zeros(begins.size), begins.size - 1
    for start_s, length_s, _, _ in parts:
        at = min(max(int(np.searchsorted(begins, start_s + 1e-3, "right")) - 1, 0), last)
        longest[at] = max(longest[at], length_s)
    kept, at = [0], 0
    while at < last:
        step_s = max(longest[at], 0.0)
        at = max(int(np.searchsorted(begins, begins[at] + step_s - 0.25)), at + 1)
        if at <= last:
            kept.append(at)
    return begins[kept]


def _series(
    route: str, parts: Sequence[tuple[float, float, str, Histogram]], edges: np.ndarray
) -> RouteSeries:
    merged: dict[int, Histogram] = {}
    ended, failed = np.zeros(edges.size), np.zeros(edges.size)
    for start_s, length_s, outcome, histogram in parts:
        at = max(int(np.searchsorted(edges, start_s + length_s / 2, "right")) - 1, 0)
        ended[at] += histogram.count
        failed[at] += histogram.count if outcome in FAILED else 0
        if outcome not in FAST_FAILURES:
            merged[at] = merged[at].merged(histogram) if at in merged else histogram
    p50_ns = np.full(edges.size, np.nan)
    for at, histogram in merged.items():
        p50_ns[at] = histogram.percentiles((50.0,))[0] if histogram.count else np.nan
    return RouteSeries(route, p50_ns, ended, failed)
