"""Figures of a run, such as a percentile of a route's latency or a share of errors.

The document, objectives, reports and comparisons compute them here, in the same way for a run in memory and for one
on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from replay.errors import InputError
from replay.ledger.catalog import CONSUMED, FAILED, HISTOGRAMS, tag_over_all
from replay.ledger.histogram import NS_2, NS_3, Histogram
from replay.ledger.percentiles import REPORTED
from replay.ledger.statuses import StatusCount, count_statuses, total_of
from replay.naming import names_route
from replay_native.ledger.catalog import GENERATOR, N_OUTCOMES, OUTCOMES, PER_ROUTE, TOTALS, UNSENT
from replay_native.ledger.hdr_layout import COUNTERS_2, COUNTERS_3, HIGHEST_NS

from . import hlog
from .document import (
    Latency,
    RouteStart,
    RunDocument,
    actions_of,
)
from .folder import RunFolder

if TYPE_CHECKING:
    from replay_native.ledger.lane_metrics import LaneMetrics

__all__ = ["CONSUMED", "FAILED"]
# CONSUMED and FAILED are re-exported from the catalog, because callers of this module need them.

OTHER = "other"
"""The name under which routes that no longer fit the lanes' arena are counted: the last row of a lane's memory."""


def _has_values(histogram: Histogram | None) -> bool:
    return histogram is not None and histogram.count > 0


class Value(NamedTuple):
    """A figure in ns.

    `at_least`: it is a lower bound, because it falls among requests that were never sent, or is the histogram's
    highest value.
    """

    ns: int
    at_least: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """The histograms and counts of a run, from which all its figures are computed.

    `totals(tag)` returns the histogram of a tag, or None. `outcomes` counts requests by route, without the
    warm-up. `actions` are groups of routes by name; an action can be given instead of a route. By route, `checked`
    holds the number of checked responses and of mismatches among them, `statuses` the responses compared with the
    recording, and `not_of_target` the failed requests for which the target is not to blame.
    """

    totals: Callable[[str], Histogram | None]
    outcomes: Mapping[str, Mapping[str, int]]
    max_wait_ns: int
    actions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    checked: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    statuses: Mapping[str, StatusCount] = field(default_factory=dict)
    not_of_target: Mapping[str, int] = field(default_factory=dict)

    def histogram(self, kind: str, route: str = "") -> Histogram | None:
        """Return a histogram of `kind` (`response`, `wait.queue`, ...), or None if there is none.

        Over all routes it has 3 significant digits. For one route it is merged over the route's outcomes, with 2
        digits.
        """
        if not route:
            return self.totals(tag_over_all(kind))
        merged: Histogram | None = None
        for member in self.members(route):
            for outcome, count in self.outcomes.get(member, {}).items():
                part = self.totals(hlog.tag_of(kind, member, outcome)) if count else None
                if part is not None:
                    merged = part if merged is None else merged.merged(part)
        return merged

    def members(self, route: str) -> Sequence[str]:
        """Return the routes that `route` covers: itself, those of a business action, or those that match its `*`."""
        if route in self.outcomes:
            return (route,)
        return self.actions.get(route) or [name for name in self.outcomes if names_route(route, name)]

    def _rows(self, route: str) -> list[Mapping[str, int]]:
        """Return the outcomes of each route that `route` covers; those of every route if it is empty."""
        return [self.outcomes.get(member, {}) for member in (self.members(route) if route else self.outcomes)]

    def unsent(self, route: str = "") -> int:
        """Return how many requests were never sent. Their response times have only a lower bound."""
        return sum(outcomes.get("unsent", 0) for outcomes in self._rows(route))

    def percentiles(self, kind: str, percentiles: Sequence[float], route: str = "") -> list[Value] | None:
        """Return the values at percentiles (0 to 100); None if nothing was measured."""
        histogram = self.histogram(kind, route)
        if histogram is None or histogram.count == 0:
            return None
        censored = self.is_censored(kind, route)
        return [self.value(ns, histogram, censored) for ns in histogram.percentiles(percentiles)]

    def is_censored(self, kind: str, route: str = "") -> bool:
        """Return whether a latency includes requests that were never sent, for which only a lower bound is known."""
        return kind == "response" and self.unsent(route) > 0

    def value(self, ns: int, histogram: Histogram, censored: bool) -> Value:
        """Return the figure for a value of a histogram, and whether it is a lower bound.

        It is a lower bound if it is at least `max_wait` and requests were unsent (`censored`), or if it is the highest
        value of the histogram.
        """
        if ns >= HIGHEST_NS and histogram.layout in (NS_3, NS_2):
            return Value(HIGHEST_NS, True)
        if not censored or ns < self.max_wait_ns:
            return Value(ns, False)
        width = 1 << max(ns.bit_length() - histogram.layout.half - 1, 0)
        return Value(self.max_wait_ns if ns - self.max_wait_ns < width else ns, True)

    def latency(self, kind: str, route: str = "") -> Latency | None:
        """Return the figures of one histogram; None if nothing was measured."""
        histogram = self.histogram(kind, route)
        values = self.percentiles(kind, (*REPORTED, 100.0), route)
        if histogram is None or values is None:
            return None
        mean, deviation = histogram.mean_and_deviation()
        names = ("p50_ns", "p90_ns", "p95_ns", "p99_ns", "p99_9_ns", "p99_99_ns", "max_ns")
        at_least = [name for name, value in zip(names, values, strict=True) if value.at_least]
        return Latency(
            count=histogram.count,
            min_ns=histogram.min,
            mean_ns=round(mean, 1),
            stdev_ns=round(deviation, 1),
            at_least=(["mean_ns", *at_least] if at_least else []),
            **{name: value.ns for name, value in zip(names, values, strict=True)},
        )

    def share_of(self, outcomes: Sequence[str], route: str = "") -> float | None:
        """Return the share of requests (of one route) that ended in one of `outcomes`; None if there were none."""
        rows = self._rows(route)
        total = sum(sum(row.values()) for row in rows)
        return sum(row.get(name, 0) for row in rows for name in outcomes) / total if total else None

    def mismatched_share(self, route: str = "") -> float | None:
        """Return the share of the checked responses (of one route) that failed a check; None if none was checked."""
        rows = [
            self.checked.get(member, (0, 0)) for member in (self.members(route) if route else self.checked)
        ]
        total = sum(checked for checked, _ in rows)
        return sum(mismatches for _, mismatches in rows) / total if total else None

    def status_count(self, route: str = "") -> StatusCount:
        """Return the counts of responses compared with the recording (of one route)."""
        members = self.members(route) if route else list(self.statuses)
        return total_of([StatusCount(), *(self.statuses[name] for name in members if name in self.statuses)])


def merged_into_other(metrics: LaneMetrics) -> np.ndarray:
    """Return which (route, outcome) pairs of a lane did not fit the arena: bool[rows, outcomes].

    Such pairs are counted in OTHER's slots.
    """
    merged: np.ndarray = np.array(metrics.slots) == np.arange(N_OUTCOMES)
    merged[-1] = False
    return merged


def counts_by_route(all_metrics: Sequence[LaneMetrics]) -> np.ndarray:
    """Return the number of requests by row and outcome, int64[rows, N_OUTCOMES].

    Pairs that did not fit the arena are counted in the last row, OTHER.
    """
    counts = np.zeros(all_metrics[0].route_counts.shape, np.int64)
    for metrics in all_metrics:
        own = np.array(metrics.route_counts)
        merged = np.where(merged_into_other(metrics), own, 0)
        counts += own - merged
        counts[-1] += merged.sum(axis=0)
    return counts


def not_of_target(all_metrics: Sequence[LaneMetrics]) -> np.ndarray:
    """Return the number of failed requests for which the target is not to blame, by row as in `counts_by_route`."""
    found: np.ndarray = counts_by_route(all_metrics)[:, GENERATOR].copy()
    for metrics in all_metrics:
        own = np.array(metrics.route_own)
        merged = np.where(merged_into_other(metrics)[:, UNSENT], own, 0)
        found += own - merged
        found[-1] += merged.sum()
    return found


def from_metrics(
    all_metrics: Sequence[LaneMetrics], routes: Sequence[RouteStart], max_wait_ns: int
) -> Measured:
    """Merge the lanes' memory into the figures of a run.

    `routes` are the rows of the lanes' memory; OTHER is the last row.
    """
    names = [*(route.name for route in routes), OTHER]
    rows = {name: row for row, name in enumerate(names)}
    counts = counts_by_route(all_metrics)
    outcomes = {
        name: {OUTCOMES[code]: int(counts[row, code]) for code in np.flatnonzero(counts[row])}
        for row, name in enumerate(names)
        if counts[row].any()
    }

    def totals(tag: str) -> Histogram | None:
        if tag in TOTALS:
            merged = np.zeros(COUNTERS_3, np.uint64)
            for metrics in all_metrics:
                merged += metrics.totals[TOTALS.index(tag)]
            return Histogram(merged)
        kind, outcome, route = hlog.parts_of(tag)
        if route not in rows or kind not in PER_ROUTE or outcome not in OUTCOMES:
            return None
        return _of_route(all_metrics, rows[route], OUTCOMES.index(outcome), PER_ROUTE.index(kind))

    actions = actions_of((route.name, route.action) for route in routes)
    statuses = count_statuses(all_metrics, names)
    left_out = dict(zip(names, not_of_target(all_metrics).tolist(), strict=True))
    return Measured(totals, outcomes, max_wait_ns, actions, _checked(all_metrics, names), statuses, left_out)


def _checked(all_metrics: Sequence[LaneMetrics], names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return, by route, the number of checked responses and of mismatches among them."""
    counts = sum(
        (np.array(metrics.checked) for metrics in all_metrics), np.zeros_like(all_metrics[0].checked)
    )
    return {name: (row[0], row[1]) for name, row in zip(names, counts.tolist(), strict=False) if row[0]}


def slot_of(metrics: LaneMetrics, row: int, code: int) -> int:
    """Return the arena slot of a row and outcome; -1 if the pair has no slot of its own and is counted in OTHER's."""
    slot = int(metrics.slots[row, code])
    return slot if slot >= N_OUTCOMES or row == metrics.slots.shape[0] - 1 else -1


def _of_route(all_metrics: Sequence[LaneMetrics], row: int, code: int, kind: int) -> Histogram | None:
    counts: np.ndarray | None = None
    for metrics in all_metrics:
        slot = slot_of(metrics, row, code)
        if slot >= 0:
            counts = np.zeros(COUNTERS_2, np.uint64) if counts is None else counts
            counts += metrics.arena[slot, kind]
    return None if counts is None else Histogram(counts, NS_2)


def tags(measured: Measured, closed_loop: bool) -> list[str]:
    """Return the tags that totals.hlog contains; those over all routes come first."""
    over_all = [
        histogram.tag
        for histogram in HISTOGRAMS
        if histogram.closed_loop or not closed_loop
        if not histogram.only or histogram.logged_empty or _has_values(measured.totals(histogram.tag))
    ]
    return over_all + _tags_by_route(measured.outcomes, closed_loop)


def _tags_by_route(outcomes: Mapping[str, Mapping[str, int]], closed_loop: bool) -> list[str]:
    return [
        hlog.tag_of(kind, route, outcome)
        for route, of_route in outcomes.items()
        for outcome in of_route
        for kind in (("service",) if closed_loop else PER_ROUTE)
        if not (kind == "service" and outcome == "unsent")
    ]


def from_folder(folder: RunFolder, document: RunDocument) -> Measured:
    """Return the figures of a run on disk, from its totals.hlog, without the counts of statuses.

    Each histogram is decoded when it is needed. Raise InputError if the file cannot be read.
    """
    texts = hlog.index(folder.totals)
    outcomes = {route.route: route.outcomes for route in document.routes}
    actions = actions_of((route.route, route.action) for route in document.routes)
    must_have = {*_tags_by_route(outcomes, document.closed_loop), *(["service.all"] if outcomes else [])}

    def totals(tag: str) -> Histogram | None:
        if tag in texts:
            return hlog.decode_at(folder.totals, tag, texts[tag])
        if tag in must_have:
            raise InputError(f"{folder.totals} is cut short: it has no {tag}", hint="copy the folder again")
        return None

    checked = {route.route: (route.checked, route.mismatches) for route in document.routes if route.checked}
    left_out = {route.route: route.not_of_target for route in document.routes}
    return Measured(totals, outcomes, document.max_wait_ns, actions, checked, not_of_target=left_out)
