"""The sum of an agent's reports.

It is all that is known of an agent that is lost together with its run folder.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .coordinator_state import Seat
from .messages import Report

SECOND_NS = 1_000_000_000


_EMPTY: np.ndarray = np.zeros(0, np.uint64)


@dataclass
class Reports:
    """The reports of one agent. `totals` are those of the latest report; routes and histograms are sums."""

    totals: dict[str, int] = field(default_factory=dict)
    routes: dict[str, Counter[str]] = field(default_factory=dict)
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    at_s: float = 0.0

    def add(self, report: Report) -> None:
        """Add a report: replace the totals, and add the counts of its second."""
        self.totals, self.at_s = report.totals, report.at_s
        for route, counts in report.routes.items():
            self.routes.setdefault(route, Counter()).update(counts)
        for one in report.histograms:
            at, counts_ = np.frombuffer(one.at, "<i4"), np.frombuffer(one.counts, "<u8")
            self.histograms[one.tag] = _added(self.histograms.get(one.tag, _EMPTY), at, counts_)

    def histogram_lists(self) -> dict[str, tuple[list[int], list[int]]]:
        """Return the histograms as lists of indices and counts, in ascending order of the indices."""
        return {
            tag: (np.flatnonzero(counts).tolist(), counts[counts > 0].tolist())
            for tag, counts in self.histograms.items()
        }


def _added(sums: np.ndarray, at: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Add counts to sums, extend the sums if needed, and return them. No index is in `at` twice."""
    if not at.size:
        return sums
    if at.max() >= sums.size:
        longer: np.ndarray = np.zeros(int(at.max()) + 1, np.uint64)
        longer[: sums.size] = sums
        sums = longer
    sums[at] += counts
    return sums


def unknown_requests(seat: Seat, reports: Reports, instant_ns: int, last_sending_ns: int) -> int:
    """Return how many requests of a lost agent's share may have been sent after its last report.

    They are those that were due until `last_sending_ns`, the latest instant at which it may have sent.
    """
    if seat.ready is None:
        return 0
    due = seat.ready.due_by_second
    until = max(0, math.ceil((last_sending_ns - instant_ns) / SECOND_NS))
    return max(0, min(sum(due[:until]), seat.ready.planned) - reports.totals.get("planned", 0))
