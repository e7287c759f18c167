"""The seconds of the whole run while it is in progress, summed from the reports of its agents.

The coordinator's sinks receive them as in a run of one process. Agents count their seconds from the same instant,
so second k of the whole run is the sum of every agent's second k.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import numpy as np

from replay.ledger.catalog import FIGURES, PERCENTILES
from replay.ledger.histogram import NS_2, NS_3
from replay.ledger.percentiles import values_at
from replay.results.deltas import Deltas, HistogramDelta, RunEvent
from replay.results.timeline import Second
from replay_native.ledger.lane_metrics import TOTALS

from .merged_logs import sum_of_rows
from .messages import Report

LATE_S = 1.5
"""How long the row of a second waits for reports after the end of the second.

A later report is added to the next row, so that the sums over a run stay exact.
"""


class WholeSeconds:
    """Adds up the agents' reports. `wall_ns` is when the first request is due, in ns since the epoch."""

    def __init__(self, wall_ns: int) -> None:
        self._wall_ns = wall_ns
        self._pending: list[tuple[int, Report, Second]] = []
        self._totals: dict[int, dict[str, int]] = {}
        self._reported: dict[int, int] = {}
        self.next = 1
        """The number of the next second, from 1."""
        self._end_s = 0.0

    @property
    def has_more(self) -> bool:
        """Whether reports were added that are not part of a second yet."""
        return bool(self._pending)

    def add(self, agent: int, report: Report) -> None:
        """Add a report, to be part of the second that it covers."""
        second = msgspec.convert(report.second, Second)
        self._pending.append((agent, report, second))
        self._totals[agent] = report.totals
        self._reported[agent] = _number_of(second)

    def take(
        self,
        now_s: float,
        expected: Collection[int],
        watched: Mapping[str, float | None],
        events: Sequence[RunEvent] = (),
    ) -> tuple[Second, Deltas] | None:
        """Return the next second; None if it is not complete yet, or has no reports.

        `expected` are the agents that will still report, and `now_s` is the time since the start.
        """
        is_complete = all(self._reported.get(agent, 0) >= self.next for agent in expected)
        if not self._pending or not (is_complete or now_s > self.next + LATE_S):
            return None
        due = [one for one in self._pending if _number_of(one[2]) <= self.next]
        self.next += 1
        if not due:
            return None
        self._pending = [one for one in self._pending if _number_of(one[2]) >= self.next]
        return self._sum(due, watched, events)

    def _sum(
        self,
        due: Sequence[tuple[int, Report, Second]],
        watched: Mapping[str, float | None],
        events: Sequence[RunEvent],
    ) -> tuple[Second, Deltas]:
        rows: dict[int, list[Second]] = {}
        for agent, _, second in due:
            rows.setdefault(agent, []).append(second)
        reports = [report for _, report, _ in due]
        histograms = summed_histograms(reports)
        start_s = self._end_s
        end_s = max(
            statistics.median(own[-1].t_s + own[-1].length_s for own in rows.values()), start_s + 0.001
        )
        self._end_s = round(end_s, 3)
        row = sum_of_rows(
            list(rows.values()), start_s, end_s, _figures(histograms), self._wall_ns, dict(watched)
        )
        deltas = Deltas(
            counters=_sum_of(report.counters for report in reports),
            totals=_sum_of(self._totals.values()),
            routes=_routes(reports),
            histograms=histograms,
            events=tuple(events),
        )
        return row, deltas


def _number_of(second: Second) -> int:
    """Return the number of a second, from 1."""
    return max(round(second.t_s), 0) + 1


def _sum_of(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _routes(reports: Iterable[Report]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for report in reports:
        for route, counts in report.routes.items():
            found.setdefault(route, Counter()).update(counts)
    return {route: dict(counts) for route, counts in found.items()}


def summed_histograms(reports: Iterable[Report]) -> tuple[HistogramDelta, ...]:
    """Sum the histograms of all reports, one for each tag."""
    by_tag: dict[str, list[tuple[float, float, np.ndarray, np.ndarray]]] = {}
    for report in reports:
        for one in report.histograms:
            at, counts = np.frombuffer(one.at, "<i4"), np.frombuffer(one.counts, "<u8")
            by_tag.setdefault(one.tag, []).append((one.since_s, one.since_s + one.length_s, at, counts))
    return tuple(_summed(tag, own) for tag, own in by_tag.items())


def _summed(tag: str, own: Sequence[tuple[float, float, np.ndarray, np.ndarray]]) -> HistogramDelta:
    since_s, until_s = min(one[0] for one in own), max(one[1] for one in own)
    at, inverse = np.unique(np.concatenate([one[2] for one in own]), return_inverse=True)
    counts: np.ndarray = np.zeros(len(at), np.uint64)
    np.add.at(counts, inverse, np.concatenate([one[3] for one in own]))
    layout = NS_3 if tag in TOTALS else NS_2
    return HistogramDelta(tag, since_s, until_s - since_s, layout, at.astype(np.int32), counts)


def _figures(histograms: Sequence[HistogramDelta]) -> dict[str, int]:
    """Return the percentiles of a row of the timeline."""
    figures: dict[str, int] = {}
    by_tag = {one.tag: one for one in histograms if one.count}
    for name, (tag, position) in FIGURES.items():
        if tag in by_tag:
            one = by_tag[tag].histogram
            values = values_at(one.counts, one.layout.half, one.count, list(PERCENTILES.values()))
            figures[name] = values[position]
    return figures
