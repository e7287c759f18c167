"""Finds routes that share a cause, only from their latencies.

Routes that get slow at the same time need not have anything in common: at 6 PM the load grows for all of them. The
latencies of routes that wait in the same queue also change together from second to second, in a way that the load
does not explain.

Therefore two routes count as sharing a cause only if three conditions are met: both got worse, both began to do so
within a few windows, and the changes of their latencies (or of their failures) from window to window agree beyond the
effect of the load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from replay.results.baseline import FAILED_MORE, slow_from_ns
from replay.results.run import Run
from replay.results.timeline import Second

from .by_route import RouteSeries, series_of

LEAST_CHANGES = 8
"""Minimum number of known changes from window to window for which two routes are compared."""

LEAST_ENDED = 5
"""Minimum number of requests of a route in a window for which its median counts."""

BEGIN_WINDOWS = 2
"""Two routes began to get worse together if their first bad windows are at most this far apart."""

AGREES, AGREES_TWICE, FAILURES_AGREE = 0.75, 0.5, 0.85
"""Minimum correlations that count as agreement: of the changes of latencies, of the changes of these changes, and of
both for failures."""

PROPORTION_SPREAD = 0.15
"""The times added to two latencies are in proportion if the median deviation of their log ratio is at most this."""

WAITED_SHARE = 0.2
"""If requests waited for a connection for more than this share of the response time, all routes share the generator's
own queue."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Routes that share a cause, and the evidence.

    Without routes, `evidence` is the reason why there are none; it is empty if the run shows no harm.
    """

    routes: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)

    @property
    def words(self) -> str:
        """A sentence with the routes that share a cause, or with the reason why there are none."""
        if not self.routes:
            why = f" ({self.evidence[0]})" if self.evidence else ""
            return f"the latencies alone do not show it{why}"
        return f"these routes share a cause: {', '.join(self.routes)}"


def shared_cause(run: Run, rows: Sequence[Second], harmed: int | None) -> Shared:
    """Find the routes of a run that share a cause; `harmed` is the row from which users felt harm, None without harm."""
    if harmed is None:
        return Shared()
    if run.document.validity.verdict == "INVALID":
        return Shared(evidence=["the run is INVALID, so the generator itself may have slowed all routes"])
    if _waited(rows[harmed:]):
        return Shared(evidence=["requests waited for a connection, and all routes share the connections"])
    edges, routes = series_of(run, rows)
    if edges.size == 0:
        return Shared(evidence=["the run has too few seconds or routes to compare routes over time"])
    return shared_among(routes, _load_by_window(rows, edges), edges)


def shared_among(routes: Sequence[RouteSeries], load: np.ndarray, starts_s: np.ndarray) -> Shared:
    """Find a group of routes in which every two share a cause (`_largest_group`).

    `load` is the number of requests due per second, by window. `starts_s` has the start of each window.
    """
    begins = {route.route: begin for route in routes if (begin := worse_from(route)) is not None}
    suffering = [route for route in routes if route.route in begins]
    if len(suffering) < 2:
        return Shared(evidence=["fewer than two routes got worse"])
    pairs: dict[tuple[int, int], float] = {}
    for one, first in enumerate(suffering):
        for other in range(one + 1, len(suffering)):
            second = suffering[other]
            if abs(begins[first.route] - begins[second.route]) <= BEGIN_WINDOWS:
                since = max(min(begins[first.route], begins[second.route]) - 1, 0)
                agreement = agreement_of(first, second, load, since)
                if agreement is not None:
                    pairs[one, other] = agreement
    group = _largest_group(len(suffering), pairs)
    if not group:
        return Shared(
            evidence=["no two routes that got worse are seen to move together more than their load explains"]
        )
    names = [suffering[at].route for at in group]
    least = min(pairs[a, b] for a in group for b in group if (a, b) in pairs)
    within_s = _span_s([begins[name] for name in names], starts_s)
    evidence = [
        f"{len(names)} routes got worse within {within_s:.0f} s of each other, and moved together from then on"
        f" (correlation of changes at least {least:.2f}, without the effect of the load)"
    ]
    unharmed = [route.route for route in routes if route.route not in begins]
    if unharmed:
        evidence.append(
            "not seen to get worse: "
            + ", ".join(unharmed[:5])
            + (f" and {len(unharmed) - 5} more" if len(unharmed) > 5 else "")
        )
    return Shared(names, evidence)


def _span_s(windows: Sequence[int], starts_s: np.ndarray) -> float:
    """Return the time from the start of the first of these windows to the end of the last one."""
    ends_s = np.append(
        starts_s[1:], 2 * starts_s[-1] - starts_s[-2] if starts_s.size > 1 else starts_s[-1] + 1
    )
    return max(float(ends_s[max(windows)] - starts_s[min(windows)]), 1.0)


def worse_from(route: RouteSeries) -> int | None:
    """Return the first of two successive windows in which a route is worse than at its beginning, or None.

    The beginning is the first fifth of the windows, and at least LEAST_CHANGES // 2 of them. Worse means a higher
    median, or a larger share of failures, than the rule of `replay.results.baseline` allows.
    Windows with fewer than LEAST_ENDED requests are skipped.
    """
    known = np.flatnonzero(route.ended >= LEAST_ENDED)
    begin = known[: max(LEAST_CHANGES // 2, known.size // 5)]
    if known.size <= begin.size + 1:
        return None
    medians = route.p50_ns[begin]
    if np.isnan(medians).all():
        return None
    base_ns = float(np.nanmedian(medians))
    base_share = float(route.failed[begin].sum() / max(route.ended[begin].sum(), 1))
    limit_ns = slow_from_ns(base_ns)
    share = route.failed_share
    bad = [
        bool(route.p50_ns[at] > limit_ns)
        or bool(share[at] > base_share + FAILED_MORE + 1 / max(route.ended[at], 1))
        for at in known
    ]
    for place in range(begin.size, known.size - 1):
        if bad[place] and bad[place + 1]:
            return int(known[place])
    return None


def agreement_of(one: RouteSeries, other: RouteSeries, load: np.ndarray, since: int) -> float | None:
    """Return how well the changes of two routes agree from window `since` on.

    Return None if too few changes are known, or if they do not agree. Three conditions hold for latencies that agree.
    Their changes are correlated. The changes of these changes are correlated, which excludes growth that only began
    at the same time. And the time added to one stays in proportion to the time added to the other, which excludes two
    queues that fill at different rates. Failures have no such proportion, so their correlation must be higher.
    """
    enough = (one.ended >= LEAST_ENDED) & (other.ended >= LEAST_ENDED)
    enough[:since] = False
    by_latency = _correlations(np.log(one.p50_ns), np.log(other.p50_ns), load, enough)
    agrees = by_latency is not None and by_latency[0] >= AGREES and by_latency[1] >= AGREES_TWICE
    if by_latency is not None and agrees and _are_in_proportion(one.p50_ns, other.p50_ns, since, enough):
        return by_latency[0]
    by_failures = _correlations(one.failed_share, other.failed_share, load, enough)
    if by_failures is not None and min(by_failures) >= FAILURES_AGREE:
        return by_failures[0]
    return None


def _correlations(
    one: np.ndarray, other: np.ndarray, load: np.ndarray, enough: np.ndarray
) -> tuple[float, float] | None:
    """Return the correlations of the changes from window to window, and of the changes of these changes.

    The effect of the load is removed. Return None if too few changes are known.
    """
    usable = enough & np.isfinite(one) & np.isfinite(other)
    once = usable[1:] & usable[:-1]
    twice = once[1:] & once[:-1]
    first = _partial(np.diff(one), np.diff(other), np.diff(load), once)
    second = _partial(np.diff(one, 2), np.diff(other, 2), np.diff(load, 2), twice)
    return None if first is None or second is None else (first, second)


def _partial(one: np.ndarray, other: np.ndarray, load: np.ndarray, usable: np.ndarray) -> float | None:
    """Return the partial rank correlation of two series given the load; None if too few values are usable."""
    count = int(usable.sum())
    if count < LEAST_CHANGES:
        return None
    given = np.column_stack([np.ones(count), _ranks(load[usable])])
    left = []
    for series in (one, other):
        ranks = _ranks(series[usable])
        left.append(ranks - given @ np.linalg.lstsq(given, ranks, rcond=None)[0])
    spread = float(np.sqrt((left[0] ** 2).sum() * (left[1] ** 2).sum()))
    return float((left[0] * left[1]).sum()) / spread if spread > 1e-9 else None


def _are_in_proportion(one_ns: np.ndarray, other_ns: np.ndarray, since: int, enough: np.ndarray) -> bool:
    """Return whether the time added to one latency stays in proportion to the time added to the other.

    Only windows in which both latencies have more than doubled count; with too few of them, the answer is False.
    """
    added = []
    for series in (one_ns, other_ns):
        before = series[: max(since, 1)]
        base = float(np.nanmedian(before)) if np.isfinite(before).any() else float("nan")
        added.append(np.where(series > 2 * base, series - base, np.nan))
    ratios = np.log(added[0][enough] / added[1][enough])
    ratios = ratios[np.isfinite(ratios)]
    if ratios.size < LEAST_CHANGES // 2:
        return False
    return bool(np.median(np.abs(ratios - np.median(ratios))) <= PROPORTION_SPREAD)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0 to 1; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    found: np.ndarray = ((ends - (counts + 1) / 2.0) / max(values.size - 1, 1))[place]
    return found


def _largest_group(size: int, pairs: dict[tuple[int, int], float]) -> list[int]:
    """Return the largest of the groups that grow from one pair each; empty if there is no pair.

    In a group every two are a pair. A larger group may exist, because each grows in one order only.
    """
    best: list[int] = []
    for (one, other), _ in sorted(pairs.items(), key=lambda pair: -pair[1]):
        group = [one, other]
        for more in range(size):
            if more not in group and all((min(more, each), max(more, each)) in pairs for each in group):
                group.append(more)
        if len(group) > len(best):
            best = sorted(group)
    return best


def _waited(rows: Sequence[Second]) -> bool:
    """Return whether requests waited for a connection for much of their response time, in most of the rows."""
    pairs = [
        (row.response_p50_ns, row.service_p50_ns)
        for row in rows
        if row.response_p50_ns is not None and row.service_p50_ns is not None
    ]
    return sum(response - service > WAITED_SHARE * response for response, service in pairs) > len(pairs) / 2


def _load_by_window(rows: Sequence[Second], edges: np.ndarray) -> np.ndarray:
    """Return the requests due per second, by window."""
    planned, length_s = np.zeros(edges.size), np.zeros(edges.size)
    for row in rows:
        at = max(int(np.searchsorted(edges, row.t_s + row.length_s / 2, "right")) - 1, 0)
        planned[at] += row.planned
        length_s[at] += row.length_s
    found: np.ndarray = planned / np.maximum(length_s, 1e-9)
    return found
