"""The offset between the clocks of two machines, and how wrong it may be.

A probe leaves at s by our clock, comes at c and is answered at l by the other clock, and the answer is here at r. If
the other clock is ahead by o, then c - o lies after s and l - o before r: o is between l - r and c - s. The middle is
the estimate, half of the width the bound. It holds whatever the network does, as long as both clocks run equally fast
meanwhile. The exchange with the shortest round trip has the smallest bound.
"""

from __future__ import annotations

from typing import NamedTuple

DRIFT_MAX_PPM = 100
"""How much faster or slower another clock may run before the difference has been measured. Crystals keep within this."""

SAMPLES_MAX = 64
"""Exchanges that are remembered: the latest ones, 16 s of them."""

JUMP_PPM = 2_000
"""A change faster than this is not a drift: one of the clocks was set."""

DRIFT_SPAN_NS = 1_000_000_000
"""The shortest time over which a drift is worth stating."""


class Sample(NamedTuple):
    """The result of one exchange: the other clock's lead, its bound, and the instant by our clock."""

    offset_ns: int
    bound_ns: int
    at_ns: int


class Estimate(NamedTuple):
    """The other clock is `offset_ns` ahead, give or take `bound_ns`."""

    offset_ns: int
    bound_ns: int


def sample(sent_ns: int, came_ns: int, left_ns: int, returned_ns: int) -> Sample | None:
    """What one exchange shows; None if the stamps contradict each other."""
    most, least = came_ns - sent_ns, left_ns - returned_ns
    if least > most or returned_ns < sent_ns or left_ns < came_ns:
        return None
    return Sample((most + least) // 2, (most - least + 1) // 2 + 1, returned_ns)


class PeerClock:
    """The clock of one agent, seen from the coordinator. `jumped_ns` is by how much it was set meanwhile."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.first: Sample | None = None
        self.contradictions = 0
        self.jumped_ns = 0

    def add(self, sent_ns: int, came_ns: int, left_ns: int, returned_ns: int) -> None:
        """Add an exchange."""
        found = sample(sent_ns, came_ns, left_ns, returned_ns)
        if found is None:
            self.contradictions += 1
            return
        if self.samples:
            before = self.samples[-1]
            jump_ns = found.offset_ns - before.offset_ns
            possible_ns = (
                found.bound_ns + before.bound_ns + (found.at_ns - before.at_ns) * JUMP_PPM // 1_000_000
            )
            if abs(jump_ns) > possible_ns:
                self.jumped_ns += jump_ns
                self.samples.clear()
        self.samples.append(found)
        del self.samples[:-SAMPLES_MAX]

    def estimate(self, now_ns: int) -> Estimate:
        """The offset now. The bound of an older exchange is widened by the drift that is possible since then."""
        best = min(self.samples, key=lambda one: _bound_at(one, now_ns))
        return Estimate(best.offset_ns, _bound_at(best, now_ns))

    def reference(self, now_ns: int) -> Estimate:
        """The estimate from which the drift is measured, usually that of the start."""
        self.first = min(self.samples, key=lambda one: _bound_at(one, now_ns))
        return Estimate(self.first.offset_ns, _bound_at(self.first, now_ns))

    def drift(self) -> tuple[float, int]:
        """The drift since the reference in ppm, and by how much the offset has changed in ns. 0 if too little time has
        passed, or if the bounds are too wide to tell the change from nothing.
        """
        if self.first is None or not self.samples:
            return 0.0, 0
        recent = [one for one in self.samples if one.at_ns > self.first.at_ns] or self.samples
        half = recent[len(recent) // 2 :]
        best = min(half, key=lambda one: one.bound_ns)
        span_ns = best.at_ns - self.first.at_ns
        if span_ns < DRIFT_SPAN_NS:
            return 0.0, 0
        change_ns = best.offset_ns - self.first.offset_ns - self.jumped_ns
        if abs(change_ns) <= best.bound_ns + self.first.bound_ns:
            return 0.0, 0
        return change_ns / span_ns * 1e6, change_ns


def _bound_at(one: Sample, now_ns: int) -> int:
    return one.bound_ns + abs(now_ns - one.at_ns) * DRIFT_MAX_PPM // 1_000_000
