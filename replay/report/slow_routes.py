"""Finds the slowest routes of the last seconds from per-second deltas, for the live view."""

from __future__ import annotations

import numpy as np

from replay.ledger.histogram import NS_2
from replay.ledger.percentiles import values_at
from replay.results.deltas import Deltas

KEPT_S = 30.0
"""How many seconds a route is kept after its last requests.

If intervals are long, it is kept for twice the longest one.
"""


class SlowRoutes:
    """The p99 of each route in its last interval.

    `kind` is the histogram: `response`, or `service` in a closed loop.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._p99_ns: dict[str, tuple[int, float]] = {}

    def take(self, now_s: float, deltas: Deltas) -> None:
        """Add the intervals that have ended. `now_s` counts from the start of the run."""
        by_route: dict[str, np.ndarray] = {}
        longest_s = 0.0
        for delta in deltas.histograms:
            if delta.kind == self._kind and delta.route:
                counts = by_route.setdefault(delta.route, np.zeros(delta.layout.length, np.uint64))
                counts[delta.at] += delta.counts
                longest_s = max(longest_s, delta.length_s)
        for route, counts in by_route.items():
            if count := int(counts.sum()):
                self._p99_ns[route] = (int(values_at(counts, NS_2.half, count, [99.0])[0]), now_s)
        kept_s = max(KEPT_S, 2 * longest_s)
        self._p99_ns = {route: seen for route, seen in self._p99_ns.items() if now_s - seen[1] <= kept_s}

    def first(self, count: int) -> list[tuple[str, int]]:
        """Return the slowest routes with their p99 in ns, the slowest first."""
        found = sorted(self._p99_ns.items(), key=lambda each: -each[1][0])[:count]
        return [(route, p99_ns) for route, (p99_ns, _) in found]
