"""Counts of one second of a run by counter, route and histogram; sinks receive them with the `Second`.

The sums over all seconds of a run are exact: `counters` add up to the accounts of run.json, `routes` to the outcomes
of each route, and the histograms of a tag to the one in totals.hlog. docs/sinks.md is the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from replay.ledger import catalog
from replay.ledger.histogram import Histogram, Layout
from replay_native.ledger.catalog import COUNTERS

from . import hlog

_OTHERS = {counter.name for counter in catalog.COUNTERS if counter.kind != "count"}
SUMMED = tuple(name for name in COUNTERS if name not in _OTHERS)
"""Counters of a lane that only grow, so that their growth per second adds up."""


@dataclass(frozen=True, slots=True)
class HistogramDelta:
    """The values that one histogram counted in `length_s` from `since_s` (seconds since the start).

    `at` are the indices of the counters that grew, in ascending order, and `counts` the increments.
    """

    tag: str
    since_s: float
    length_s: float
    layout: Layout
    at: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(
        cls, tag: str, since_s: float, length_s: float, counts: np.ndarray, layout: Layout
    ) -> HistogramDelta:
        """Create a delta from the nonzero entries of `counts`, which the caller may reuse afterwards."""
        at = np.flatnonzero(counts)
        return cls(tag, since_s, length_s, layout, at.astype(np.int32), counts[at].astype(np.uint64))

    @property
    def kind(self) -> str:
        """The kind of histogram, for example `response.all`, or `response` for a single route."""
        return hlog.parts_of(self.tag)[0]

    @property
    def outcome(self) -> str:
        """How the requests ended (`2xx`, `timeout`); empty if the histogram covers all routes."""
        return hlog.parts_of(self.tag)[1]

    @property
    def route(self) -> str:
        """The route; empty if the histogram covers all routes."""
        return hlog.parts_of(self.tag)[2]

    @property
    def count(self) -> int:
        """The number of recorded values."""
        return int(self.counts.sum())

    @property
    def histogram(self) -> Histogram:
        """The counts as a histogram, for percentiles, mean and merging."""
        counts: np.ndarray = np.zeros(self.layout.length, np.uint64)
        counts[self.at] = self.counts
        return Histogram(counts, self.layout)


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event in a run, `at_s` seconds after its start.

    `kind` is `address` (the addresses of the target's name changed), `agent_lost` (in a run over several machines),
    or how the run ended early (`Ending.how`, such as `interrupted` or `circuit_breaker`).
    """

    at_s: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Deltas:
    """All figures of one second.

    `counters` are the lanes' counters (docs/lane-contract.md) in this second; `totals` are the same counters since
    the start. `routes` counts requests by route and outcome, without the warm-up. `histograms` contains those over
    all routes and those of the routes whose turn it is; each `HistogramDelta` states when its counts begin. `events`
    are the events of this second.
    """

    counters: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    routes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    histograms: Sequence[HistogramDelta] = ()
    events: Sequence[RunEvent] = ()
