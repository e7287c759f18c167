"""The figures of a whole trace, computed in one pass and constant memory: rates, peaks, statuses, rate over time."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay import units
from replay.units import SECOND_NS

from .batch import Batch
from .reader import Trace

PEAK_WINDOWS_S = (1, 10, 60)
"""The lengths of the windows, in seconds, for which peak rates are computed."""

LATENCY_ROUTES = 100
"""How many routes, the first ones of the manifest, have their own recorded latencies."""

_QUARTER_NS = 900 * SECOND_NS
_CELLS_A_LOG = 1 / math.log(1.01)
_CELLS = int(64 * math.log(2) * _CELLS_A_LOG) + 1

BUCKETS = 60
"""The number of points on the curve of the rate over time."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Took:
    """Recorded latencies of a route: how many rows have one, and percentiles to within half a percent."""

    count: int
    p50_ns: int
    p99_ns: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a trace. Rates are requests per second.

    `peaks_per_s` has the highest rate by the window's length in seconds, `peak_second` is the busiest second since the
    epoch, and `buckets` counts the rows in each sixtieth of the span.

    `statuses` and `methods` count rows; the status -1 is unknown. `by_hour` counts rows by weekday (Monday first)
    and hour, in the time zone of the recording. `took_by_route` covers the first LATENCY_ROUTES routes of the
    manifest.
    """

    rows: int
    span_ns: int
    mean_per_s: float
    peaks_per_s: dict[int, float]
    peak_second: int
    buckets: list[int]
    statuses: dict[int, int]
    methods: dict[str, int]
    known_latencies: int
    by_hour: list[list[int]]
    took_by_route: list[Took | None]


class _Peaks:
    """Finds the most events in any window of whole seconds.

    Between batches, it keeps the counts of the seconds that later windows may include.
    """

    def __init__(self) -> None:
        self._seconds = self._counts = np.empty(0, dtype=np.int64)
        self.most = dict.fromkeys(PEAK_WINDOWS_S, 0)
        self.busiest_second = 0

    def add(self, stamps: Int64s) -> None:
        seconds, counts = np.unique(stamps // SECOND_NS, return_counts=True)
        if len(self._seconds) and seconds[0] == self._seconds[-1]:
            counts[0] += self._counts[-1]
            self._seconds, self._counts = self._seconds[:-1], self._counts[:-1]
        self._seconds = np.concatenate([self._seconds, seconds])
        self._counts = np.concatenate([self._counts, counts])
        running = np.concatenate([[0], np.cumsum(self._counts)])
        for window in PEAK_WINDOWS_S:
            firsts = np.searchsorted(self._seconds, self._seconds - window, side="right")
            sums = running[1:] - running[firsts]
            if sums.max() > self.most[window]:
                self.most[window] = int(sums.max())
                if window == 1:
                    self.busiest_second = int(self._seconds[sums.argmax()])
        recent = self._seconds > self._seconds[-1] - max(PEAK_WINDOWS_S)
        self._seconds, self._counts = self._seconds[recent], self._counts[recent]


class _Hours:
    """Counts rows by weekday and hour.

    The offset of the time zone is looked up once per quarter of an hour, because zones change only at such times.
    """

    def __init__(self, zone: dt.tzinfo) -> None:
        self._zone = zone
        self.counts = np.zeros((7, 24), dtype=np.int64)

    def add(self, stamps: Int64s) -> None:
        quarters, counts = np.unique(stamps // _QUARTER_NS, return_counts=True)
        for quarter, count in zip(quarters.tolist(), counts.tolist(), strict=True):
            local = units.to_datetime(quarter * _QUARTER_NS, self._zone)
            self.counts[local.weekday(), local.hour] += count


class _Latencies:
    """Histograms of recorded latencies by route, in which each cell is one hundredth wider than the previous one."""

    def __init__(self, trace: Trace) -> None:
        self._requests = trace.requests
        self._routes = min(len(trace.manifest.routes), LATENCY_ROUTES)
        self._counts = np.zeros(self._routes * _CELLS, dtype=np.int64)

    def _routes_of(self, request: npt.NDArray[np.uint32]) -> Int64s:
        routes = np.empty(len(request), dtype=np.int64)
        batches = request >> 20
        for index in np.unique(batches).tolist():
            rows = batches == index
            routes[rows] = self._requests.batches[index].route[request[rows] & 0xFFFFF]
        return routes

    def add(self, batch: Batch) -> None:
        known = np.flatnonzero(batch.took_ns >= 0)
        if not len(known):
            return
        for rows in self._requests.loaded(batch.request[known], columns_alone=True):
            self._add(batch, known[rows])

    def _add(self, batch: Batch, known: Int64s) -> None:
        routes = self._routes_of(batch.request[known])
        shown = routes < self._routes
        cells = (np.log1p(batch.took_ns[known][shown]) * _CELLS_A_LOG).astype(np.int64)
        self._counts += np.bincount(routes[shown] * _CELLS + cells, minlength=len(self._counts))

    def figures(self) -> list[Took | None]:
        found: list[Took | None] = []
        for counts in self._counts.reshape(-1, _CELLS):
            running = np.cumsum(counts)
            count = int(running[-1])
            ranks = [max(1, math.ceil(share * count)) for share in (0.5, 0.99)]
            cells = np.searchsorted(running, ranks)
            p50, p99 = (round(math.expm1((cell + 0.5) / _CELLS_A_LOG)) for cell in cells.tolist())
            found.append(Took(count, p50, p99) if count else None)
        return found


def _methods(trace: Trace) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for route in trace.manifest.routes:
        counts[route.route.partition(" ")[0]] += route.rows
    return dict(counts.most_common())


def summarize(trace: Trace) -> Summary:
    """Read the whole trace once and return its figures. Raises InputError if it is damaged."""
    span_ns = trace.end_ns - trace.start_ns
    peaks, statuses, known = _Peaks(), np.zeros(1 << 16, dtype=np.int64), 0
    buckets = np.zeros(BUCKETS, dtype=np.int64)
    hours, latencies = _Hours(units.parse_zone(trace.manifest.time_zone or "UTC")), _Latencies(trace)
    for batch in trace.batches():
        peaks.add(batch.at_ns)
        hours.add(batch.at_ns)
        latencies.add(batch)
        statuses += np.bincount(batch.status.view(np.uint16), minlength=1 << 16)
        known += int(np.count_nonzero(batch.took_ns >= 0))
        places = (batch.at_ns - trace.start_ns) // (span_ns // BUCKETS + 1)
        buckets += np.bincount(places, minlength=BUCKETS)
    span_s = max(span_ns / SECOND_NS, 1.0)
    found = {
        int(np.uint16(status).astype(np.int16)): int(statuses[status]) for status in np.flatnonzero(statuses)
    }
    return Summary(
        rows=trace.rows,
        span_ns=span_ns,
        mean_per_s=trace.rows / span_s,
        peaks_per_s={window: most / min(window, span_s) for window, most in peaks.most.items()},
        peak_second=peaks.busiest_second,
        buckets=buckets.tolist(),
        statuses=dict(sorted(found.items(), key=lambda item: -item[1])),
        methods=_methods(trace),
        known_latencies=known,
        by_hour=hours.counts.tolist(),
        took_by_route=latencies.figures(),
    )
