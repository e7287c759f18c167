"""The totals of a run until now, under the names that exporters use.

Theory of operation. Exporters send totals, not differences, so that the next export makes up for a lost one.
Counters arrive as totals. Histograms arrive as differences and are added up here. The thread of the sink adds;
the threads that serve or send take snapshots, which do not change afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from replay.ledger.histogram import Histogram, Layout
from replay.ledger.metrics import METRICS, SERIES, Metric
from replay.results.deltas import Deltas
from replay.results.document import RunDocument, Started

PLANNED = "replay_planned"


@dataclass(frozen=True, slots=True)
class Point:
    """One series of a counter or gauge."""

    labels: Mapping[str, str]
    value: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Totals at one instant. `points` are by metric, `histograms` by tag."""

    points: Mapping[str, tuple[Point, ...]] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    is_final: bool = False

    def histogram_of(self, metric: Metric) -> Histogram | None:
        """Return the histogram of a metric; None if the run has not recorded any."""
        return self.histograms.get(metric.tag)


_EXPORTED = frozenset(metric.tag for metric in METRICS if metric.tag)


class Totals:
    """Adds up the seconds of a run. `snapshot` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: Mapping[str, int] = {}
        self._counts: dict[str, np.ndarray] = {}
        self._layouts: dict[str, Layout] = {}
        self._planned: int | None = None
        self._is_final = False

    def start(self, started: Started) -> None:
        """Set the number of planned requests.

        It is known only at the end for several targets, and for a schedule without a fixed length.
        """
        rows = started.plan.get("rows")
        if len(started.targets) <= 1 and isinstance(rows, int):
            self._planned = rows

    def add(self, deltas: Deltas) -> None:
        """Add the counts of one second."""
        with self._lock:
            self._counters = dict(deltas.totals)
            for delta in deltas.histograms:
                if delta.tag in _EXPORTED:
                    counts = self._counts.get(delta.tag)
                    if counts is None:
                        counts = self._counts[delta.tag] = np.zeros(delta.layout.length, np.uint64)
                        self._layouts[delta.tag] = delta.layout
                    counts[delta.at] += delta.counts

    def finish(self, document: RunDocument) -> None:
        """Make later snapshots final, because the run has ended."""
        with self._lock:
            self._planned = document.accounts.planned
            self._is_final = True

    def snapshot(self) -> Snapshot:
        """Return the present totals."""
        with self._lock:
            counters, planned, is_final = self._counters, self._planned, self._is_final
            histograms = {
                tag: Histogram(counts.copy(), self._layouts[tag]) for tag, counts in self._counts.items()
            }
        points: dict[str, tuple[Point, ...]] = {}
        if planned is not None:
            points[PLANNED] = (Point({}, planned),)
        for series in SERIES:
            value = Point(series.labels, counters.get(series.counter, 0))
            points[series.metric] = (*points.get(series.metric, ()), value)
        return Snapshot(points, histograms, is_final)
