"""The figures of every window of a run; a window spans several intervals of the logs, and advances by one interval.

Percentiles are those of the histogram of the window, which is summed from `latency.hlog`, because percentiles cannot
be averaged. Shares are relative to the requests that ended in the window. A window has the number of intervals that
comes closest to its length; if the run is shorter, it is the whole run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from replay.errors import InputError
from replay.ledger.catalog import tag_over_all
from replay.ledger.histogram import NS_3, Histogram, Layout

from . import hlog
from .folder import RunFolder
from .measured import Measured
from .timeline import Second

LEAST_WINDOW_NS = 1_000_000_000
"""The minimum length of a window: one interval of the logs."""


class Window(NamedTuple):
    """A window that begins `start_s` after the start of the run.

    `measured` has only the requested figures, and is valid until the next window.
    """

    start_s: float
    measured: Measured


class _Interval(NamedTuple):
    """One interval: requests by outcome, and histograms as (indices of counters, increments)."""

    outcomes: Counter[str]
    parts: list[tuple[np.ndarray, np.ndarray]]


def windows_of(
    folder: RunFolder,
    rows: Sequence[Second],
    kind: str,
    routes: Collection[str] | None,
    window_ns: int,
    max_wait_ns: int,
) -> Iterator[Window]:
    """Yield every window of a run: the latency `kind` of all requests (`routes` is None), or of `routes`.

    `rows` is the timeline of the run. The log must contain every interval of these histograms; the recorder logs all
    intervals of objectives by window. Raise InputError if the log cannot be read, or if lines of it are damaged; some
    windows have then been yielded already.
    """
    begins = _begins(rows, window_ns / 1e9)
    running = _Running(max_wait_ns)
    for end, interval in enumerate(_intervals(folder, rows, kind, routes, running)):
        running.add(interval)
        if begins[end] >= 0:
            running.keep_last(end + 1 - begins[end])
            yield Window(rows[begins[end]].t_s, running.measured())


def _begins(rows: Sequence[Second], window_s: float) -> list[int]:
    """Return, for each interval, the first interval of the window that ends with it.

    The value is -1 if the run is still shorter than the window, or if the next window contains this one.
    """
    if not rows:
        return []
    lengths = np.array([row.length_s for row in rows])
    edges = np.concatenate([[0.0], lengths.cumsum()])
    wanted = edges[1:] - window_s
    after = np.clip(np.searchsorted(edges, wanted), 1, len(rows))
    begins = np.where(wanted - edges[after - 1] <= edges[after] - wanted, after - 1, after)
    begins = np.clip(begins, 0, np.arange(len(rows)))
    young = wanted < -float(np.median(lengths)) / 2
    young[-1] = False
    within_next = np.append(begins[1:] == begins[:-1], False)
    found: list[int] = np.where(young | within_next, -1, begins).tolist()
    return found


def _intervals(
    folder: RunFolder, rows: Sequence[Second], kind: str, routes: Collection[str] | None, running: _Running
) -> Iterator[_Interval]:
    """Yield an interval for each row of the timeline; the log has the same order.

    Raise InputError as `windows_of` does.
    """

    def is_wanted(tag: str) -> bool:
        if routes is None:
            return tag == tag_over_all(kind)
        found, _, route = hlog.parts_of(tag)
        return found == kind and route in routes

    log = hlog.Log(folder.latency)
    stream = hlog.scan(log, is_wanted)
    found = next(stream, None)
    for row in rows:
        interval = _Interval(Counter(row.measured if routes is None else {}), [])
        while found is not None and found.start_s - (log.base_s or 0.0) < row.t_s + row.length_s / 2:
            histogram = found.histogram
            running.layout = histogram.layout
            used = np.flatnonzero(histogram.counts)
            interval.parts.append((used, histogram.counts[used]))
            if routes is not None:
                interval.outcomes[hlog.parts_of(found.tag)[1]] += histogram.count
            found = next(stream, None)
        yield interval
    if log.is_damaged:
        raise InputError(log.problems[0])
    if found is not None and not rows:
        raise InputError(f"{folder.timeline} has no second that can be read")


class _Running:
    """The sum of the last intervals.

    Each interval is added once and subtracted once.
    """

    def __init__(self, max_wait_ns: int) -> None:
        self.layout: Layout = NS_3
        self._max_wait_ns = max_wait_ns
        self._counts = np.zeros(0, np.uint64)
        self._outcomes: Counter[str] = Counter()
        self._intervals: deque[_Interval] = deque()

    def add(self, interval: _Interval) -> None:
        if self._counts.size != self.layout.length:
            self._counts = np.zeros(self.layout.length, np.uint64)
        self._intervals.append(interval)
        self._outcomes.update(interval.outcomes)
        for at, counts in interval.parts:
            self._counts[at] += counts

    def keep_last(self, intervals: int) -> None:
        """Subtract all but the last `intervals` intervals."""
        while len(self._intervals) > intervals:
            gone = self._intervals.popleft()
            self._outcomes.subtract(gone.outcomes)
            for at, counts in gone.parts:
                self._counts[at] -= counts

    def measured(self) -> Measured:
        """Return the figures of this window only."""
        whole = Histogram(self._counts, self.layout)
        return Measured(lambda _: whole, {"": self._outcomes}, self._max_wait_ns)
