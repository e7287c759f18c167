"""Figures of a whole trace, in one pass and constant memory: rates, peaks, statuses, the shape over time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .reader import Trace

SECOND_NS = 1_000_000_000

PEAK_WINDOWS_S = (1, 10, 60)
"""Windows of whole seconds over which peak rates are given."""

BUCKETS = 60
"""Points of the rate over time."""

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in a trace. Rates are requests a second; `statuses` and `methods` count rows (-1: no status
    known).
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


class _Peaks:
    """Most events in any window of whole seconds; keeps the last window's seconds between batches."""

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


def _methods(trace: Trace) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for route in trace.manifest.routes:
        counts[route.route.partition(" ")[0]] += route.rows
    return dict(counts.most_common())


def summarize(trace: Trace) -> Summary:
    """Read the whole trace once. InputError where it is damaged."""
    span_ns = trace.end_ns - trace.start_ns
    peaks, statuses, known = _Peaks(), np.zeros(1 << 16, dtype=np.int64), 0
    buckets = np.zeros(BUCKETS, dtype=np.int64)
    for batch in trace.batches():
        peaks.add(batch.at_ns)
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
    )
