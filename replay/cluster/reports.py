"""What agents have reported, added up: all that is known of an agent that is lost with its run folder."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from .messages import Report
from .protocol import Seat

SECOND_NS = 1_000_000_000


@dataclass
class Reports:
    """The reports of one agent. `totals` are those of the last one; routes and histograms are added up."""

    totals: dict[str, int] = field(default_factory=dict)
    routes: dict[str, Counter[str]] = field(default_factory=dict)
    histograms: dict[str, Counter[int]] = field(default_factory=dict)
    at_s: float = 0.0

    def add(self, report: Report) -> None:
        """Add one."""
        self.totals, self.at_s = report.totals, report.at_s
        for route, counts in report.routes.items():
            self.routes.setdefault(route, Counter()).update(counts)
        for one in report.histograms:
            at, counts_ = np.frombuffer(one.at, "<i4"), np.frombuffer(one.counts, "<u8")
            self.histograms.setdefault(one.tag, Counter()).update(
                dict(zip(at.tolist(), counts_.tolist(), strict=True))
            )

    def histogram_lists(self) -> dict[str, tuple[list[int], list[int]]]:
        """The histograms as places and counts, in order."""
        return {
            tag: (sorted(counts), [counts[at] for at in sorted(counts)])
            for tag, counts in self.histograms.items()
        }


def unknown_requests(seat: Seat, reports: Reports, instant_ns: int, last_sending_ns: int) -> int:
    """How many requests of a lost agent's share may have been sent after its last report: those that were due until it
    can have sent no longer.
    """
    if seat.ready is None:
        return 0
    due = seat.ready.due_by_second
    until = max(0, math.ceil((last_sending_ns - instant_ns) / SECOND_NS))
    return max(0, min(sum(due[:until]), seat.ready.planned) - reports.totals.get("planned", 0))
