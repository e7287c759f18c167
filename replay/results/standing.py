"""The state of an objective during a run: over the run so far, over its current window, and the rest of its budget.

An objective over the whole run is also evaluated over the last NOW_NS. So a breach and a recovery show within seconds,
whatever happened earlier in the run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from replay.ledger.catalog import tag_over_all
from replay.ledger.histogram import NS_3, Histogram, Layout
from replay.units import SECOND_NS, format_latency, format_share

from . import slo
from .deltas import Deltas
from .document import SloOutcome
from .measured import Measured
from .timeline import Second

NOW_NS = 10 * SECOND_NS
"""The window for an objective that has none of its own."""

LEAST = 20
"""The minimum number of requests in the last window for which `met_now` is known."""


@dataclass(frozen=True, slots=True)
class StandingNow:
    """The state of an objective after one second. None means that a value is not known (yet).

    `met` is whether the objective is met over the run so far, or in every window so far if it is one by window.
    `met_now` is whether it is met in the last window. `left` is the remaining share of the budget of requests that
    may be slow or fail, or of the distance to the limit.
    """

    text: str
    so_far: str
    now: str
    met: bool | None
    met_now: bool | None
    left: float | None
    budget: str


class Standing:
    """Follows one objective during a run.

    `routes` are those that the objective covers, None for all requests. `planned` is the number of requests in the
    run, if known.
    """

    def __init__(
        self, objective: slo.Slo, routes: Sequence[str] | None, max_wait_ns: int, planned: int | None = None
    ) -> None:
        self._objective, self._routes, self._planned = objective, routes, planned
        self._recent = _Recent(objective, routes, max_wait_ns)
        self._plain = replace(objective, route="", window_ns=None)
        self._worst: SloOutcome | None = None
        self._windows = self._failed = 0

    def take(self, second: Second, deltas: Deltas, measured: Measured) -> StandingNow:
        """Add one second, and return the state after it. `measured` is the run so far, including this second."""
        self._recent.add(second, deltas)
        window = self._recent.measured()
        (now,) = slo.evaluate([self._plain], window)
        is_judged = now.value is not None and self._recent.count >= LEAST
        met_now = now.passed if is_judged else None
        if self._objective.window_ns is not None:
            return self._by_window(now, met_now)
        (whole,) = slo.evaluate([self._objective], measured)
        met = whole.passed if whole.value is not None else None
        left, budget = self._budget(measured)
        return StandingNow(self._objective.text, _words(whole), _words(now), met, met_now, left, budget)

    def _by_window(self, now: SloOutcome, met_now: bool | None) -> StandingNow:
        if now.value is not None and self._recent.is_full:
            self._windows += 1
            self._failed += not now.passed
            if self._worst is None or self._worst.value is None or now.value > self._worst.value:
                self._worst = now
        worst = self._worst
        if worst is None or worst.value is None:
            return StandingNow(self._objective.text, "", _words(now), None, met_now, None, "no window yet")
        limit = self._objective.limit
        left = max(0.0, 1 - worst.value / limit) if limit else None
        budget = f"{self._failed:,} of {self._windows:,} windows fail" if self._failed else "no window fails"
        so_far = f"{_words(worst)} in the worst window"
        return StandingNow(self._objective.text, so_far, _words(now), not self._failed, met_now, left, budget)

    def _budget(self, measured: Measured) -> tuple[float | None, str]:
        """Return the remaining share of the budget of slow or failed requests, and words about it.

        For an objective on all requests, the budget is based on the planned requests if their number is known.
        Otherwise it is based on those that ended. The share is None if it is decided only at the end, or if nothing
        ended.
        """
        objective = self._objective
        spent, ended = _spent(objective, measured)
        if spent is None or not ended:
            return None, "decided at the end" if spent is None and measured.outcomes else ""
        total = max(self._planned or 0, ended) if not objective.route else ended
        share = objective.limit if objective.percentile is None else 1 - objective.percentile / 100
        allowed = share * total
        words = f"{spent:,} of {allowed:,.0f} {'spent' if objective.percentile is None else 'slow'}"
        if allowed < 1:
            return (0.0 if spent else 1.0), f"{spent:,} spent, none allowed"
        return max(0.0, 1 - spent / allowed), words


def _spent(objective: slo.Slo, measured: Measured) -> tuple[int | None, int]:
    """Return how many requests count against an objective, and how many ended.

    The first is None if it is known only at the end of a run.
    """
    route = objective.route
    rows = [
        measured.outcomes.get(name, {}) for name in (measured.members(route) if route else measured.outcomes)
    ]
    if objective.percentile is None:
        if objective.outcomes in ((slo.STATUSES,), (slo.MISMATCHES,)):
            return None, 0
        total = sum(sum(row.values()) for row in rows)
        return sum(row.get(name, 0) for row in rows for name in objective.outcomes), total
    histogram = measured.histogram(objective.metric, route)
    if histogram is None:
        return 0, 0
    at = np.flatnonzero(histogram.counts)
    values = histogram.values()[at]
    slow = values > objective.limit if objective.or_equal else values >= objective.limit
    return int(histogram.counts[at][slow].sum()), histogram.count


def _words(outcome: SloOutcome) -> str:
    if outcome.value is None:
        return ""
    figure = format_share(outcome.value) if outcome.unit == "share" else format_latency(outcome.value)
    return f"{'≥' if outcome.at_least else ''}{figure}"


@dataclass(frozen=True, slots=True)
class _Interval:
    length_s: float
    outcomes: Counter[str]
    parts: list[tuple[np.ndarray, np.ndarray]]


class _Recent:
    """The sum of the last seconds over which an objective is evaluated.

    Each second is added once and subtracted once.
    """

    def __init__(self, objective: slo.Slo, routes: Sequence[str] | None, max_wait_ns: int) -> None:
        self._routes = None if routes is None else frozenset(routes)
        self._kind = objective.metric
        self._window_s = (objective.window_ns or NOW_NS) / SECOND_NS
        self._max_wait_ns = max_wait_ns
        self._layout: Layout = NS_3
        self._counts = np.zeros(0, np.uint64)
        self._outcomes: Counter[str] = Counter()
        self._intervals: deque[_Interval] = deque()
        self._length_s = 0.0

    @property
    def is_full(self) -> bool:
        """Whether the seconds cover a complete window."""
        return self._length_s >= self._window_s - 0.5

    @property
    def count(self) -> int:
        """The number of requests that ended in the window."""
        return max(self._outcomes.total(), int(self._counts.sum()))

    def add(self, second: Second, deltas: Deltas) -> None:
        """Add a second, and subtract those that are no longer in the window."""
        interval = _Interval(second.length_s, self._outcomes_of(second, deltas), self._parts_of(deltas))
        self._intervals.append(interval)
        self._length_s += interval.length_s
        self._outcomes.update(interval.outcomes)
        for at, counts in interval.parts:
            self._counts[at] += counts
        while (
            len(self._intervals) > 1 and self._length_s - self._intervals[0].length_s > self._window_s - 0.5
        ):
            gone = self._intervals.popleft()
            self._length_s -= gone.length_s
            self._outcomes.subtract(gone.outcomes)
            for at, counts in gone.parts:
                self._counts[at] -= counts

    def _outcomes_of(self, second: Second, deltas: Deltas) -> Counter[str]:
        if self._routes is None:
            return Counter(second.measured)
        found: Counter[str] = Counter()
        for route in self._routes & deltas.routes.keys():
            found.update(deltas.routes[route])
        return found

    def _parts_of(self, deltas: Deltas) -> list[tuple[np.ndarray, np.ndarray]]:
        parts = []
        for delta in deltas.histograms:
            if self._routes is None:
                is_wanted = delta.tag == tag_over_all(self._kind)
            else:
                is_wanted = delta.kind == self._kind and delta.route in self._routes
            if is_wanted:
                self._layout = delta.layout
                if self._counts.size != delta.layout.length:
                    self._counts = np.zeros(delta.layout.length, np.uint64)
                parts.append((delta.at, delta.counts))
        return parts

    def measured(self) -> Measured:
        """Return the figures of this window only."""
        whole = Histogram(self._counts, self._layout) if self._counts.size else None
        return Measured(lambda _: whole, {"": self._outcomes}, self._max_wait_ns)
