"""The figures of a run in progress, summed from its seconds, and the state of each objective.

They are computed as for a finished run (`Measured`).
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from replay.ledger.catalog import tag_over_all
from replay.ledger.histogram import NS_2, NS_3, Histogram

from . import hlog, slo
from .action_counts import added
from .business import recorded_hours, sentences, warm_up_s
from .deltas import Deltas, HistogramDelta
from .measured import OTHER, Measured
from .standing import Standing, StandingNow
from .started import Started, actions_of
from .timeline import Second

ROUTE_TAGS_MAX = 2_000
"""From this number of histograms on, further routes and outcomes (18 kB each) get none, except for routes that
objectives use."""


class SoFar:
    """Adds up the seconds of one run; `measured` returns the figures so far."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._counts: dict[str, np.ndarray] = {}
        self._outcomes: dict[str, Counter[str]] = {}
        self.sums: Counter[str] = Counter()
        """Sums since the start: the lanes' counters that only grow (planned, sent, ok, ...), `unsent`, `status_worse`."""
        self.outcomes: Counter[str] = Counter()
        """Requests by outcome, including the warm-up."""
        self.elapsed_s = 0.0
        self.business: dict[str, tuple[int, int]] = {}
        """For each business action the number of its requests, and how many of them failed because of the target."""
        self.left_out = 0
        """The number of deltas by route that were dropped because ROUTE_TAGS_MAX histograms were kept already."""
        self._actions = actions_of((route.name, route.action) for route in started.routes)
        objectives = [slo.parse(text) for text in started.slo]
        self._routes_asked = self._asked(objectives)
        rows = started.plan.get("rows")
        planned = rows if isinstance(rows, int) and len(started.targets) < 2 else None
        self.standings = [
            Standing(objective, self._members(objective), started.max_wait_ns, planned)
            for objective in objectives
        ]

    def _asked(self, objectives: list[slo.Slo]) -> set[str]:
        return {name for objective in objectives for name in self._members(objective) or ()}

    def _members(self, objective: slo.Slo) -> list[str] | None:
        """Return the routes that an objective covers; None for all requests."""
        if not objective.route:
            return None
        names = [*(route.name for route in self._started.routes), OTHER]
        return [names[row] for row in slo.rows_of(objective, self._started.routes)]

    def take(self, second: Second, deltas: Deltas) -> list[StandingNow]:
        """Add one second, and return the state of each objective after it, in the order of the objectives."""
        self.elapsed_s = second.t_s + second.length_s
        self.sums.update(deltas.counters)
        self.sums.update(unsent=second.unsent, status_worse=second.status_worse)
        self.outcomes.update(second.outcomes)
        self.business = added((self.business, second.actions))
        for route, outcomes in deltas.routes.items():
            self._outcomes.setdefault(route, Counter()).update(outcomes)
        for delta in deltas.histograms:
            self._add(delta)
        measured = self.measured
        return [standing.take(second, deltas, measured) for standing in self.standings]

    def _add(self, delta: HistogramDelta) -> None:
        counts = self._counts.get(delta.tag)
        if counts is None:
            if delta.route and delta.route not in self._routes_asked and len(self._counts) >= ROUTE_TAGS_MAX:
                self.left_out += 1
                return
            kind = np.uint32 if delta.route else np.uint64
            counts = self._counts[delta.tag] = np.zeros(delta.layout.length, kind)
        counts[delta.at] += delta.counts.astype(counts.dtype)

    def histogram(self, tag: str) -> Histogram | None:
        """Return the accumulated counts of a histogram; None if it has none."""
        counts = self._counts.get(tag)
        if counts is None:
            return None
        is_of_route = bool(hlog.parts_of(tag)[2])
        return Histogram(counts.astype(np.uint64), NS_2 if is_of_route else NS_3)

    def total(self, kind: str) -> Histogram | None:
        """Return the histogram of a kind (`response`) over all requests; None if it has no counts."""
        return self.histogram(tag_over_all(kind))

    @property
    def measured(self) -> Measured:
        """The figures so far, without the warm-up, and without mismatches and the counts of statuses."""
        return Measured(self.histogram, self._outcomes, self._started.max_wait_ns, self._actions)

    @property
    def business_sentences(self) -> list[str]:
        """A sentence for each business action with failed requests; the action with the most failures comes first."""
        started = self._started
        hours = recorded_hours(self.elapsed_s, warm_up_s(started.plan), started.recorded_clock)
        return sentences(self.business, started.scenario, hours, only_failed=True)

    @property
    def routes(self) -> list[tuple[str, Counter[str]]]:
        """Routes with their requests by outcome; the busiest route comes first."""
        return sorted(self._outcomes.items(), key=lambda each: (-each[1].total(), each[0]))

    @property
    def actions(self) -> list[tuple[str, Counter[str]]]:
        """Business actions with their requests by outcome; the busiest action comes first."""
        found = []
        for action, routes in self._actions.items():
            outcomes: Counter[str] = Counter()
            for route in routes:
                outcomes.update(self._outcomes.get(route, {}))
            if outcomes:
                found.append((action, outcomes))
        return sorted(found, key=lambda each: (-each[1].total(), each[0]))
