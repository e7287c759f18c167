"""The offset between the clocks of two machines, and its error.

A probe leaves at s by our clock, comes at c and is answered at l by the other clock, and the answer is here at r. If
the other clock is ahead by o, then c - o lies after s and l - o before r: o is between l - r and c - s. The middle is
the estimate, half of the width the bound. It holds whatever the network does.

Agents on the coordinator's own machine read the same clock (`same_clock` in `agent_clock`). Then the offset is 0, unless
an exchange contradicts that.

Clocks drift, so an exchange says less the older it is. How much less follows from the exchanges themselves: two of them
bound by how much the offset changed in between, hence the drift. Each exchange is carried to the instant in question
with that range of drifts, and the offset is in all of the ranges that result.

The start must be given before it is due, so its offset is extrapolated. After the run the offset at that instant is
known better, because there are exchanges on both sides of it (`PeerClock.settled`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

DRIFT_MAX_PPM = 600
"""How much faster or slower another clock may run before the difference has been measured. Crystals keep within 100 ppm,
and the kernel's time synchronization slews CLOCK_MONOTONIC by up to 500 ppm (adjtimex(2)).
"""

DRIFT_CHANGE_PPM = 20
"""Maximum change of the drift while exchanges are remembered."""

SAMPLES_MAX = 64
"""Number of exchanges that are remembered: those of the last 16 s."""

JUMP_PPM = 2_000
"""A faster change is not a drift: one of the clocks was set."""

NEAR_NS = 8_000_000_000
"""Exchanges within this time after the start are used to settle the offset at the start."""

DRIFT_SPAN_NS = 1_000_000_000
"""A drift is stated only if it was measured over at least this time."""


class Sample(NamedTuple):
    """The result of one exchange: the other clock's lead, its bound, and the instant by our clock."""

    offset_ns: int
    bound_ns: int
    at_ns: int


class Estimate(NamedTuple):
    """The other clock is `offset_ns` ahead, plus or minus `bound_ns`."""

    offset_ns: int
    bound_ns: int


def sample(sent_ns: int, came_ns: int, left_ns: int, returned_ns: int) -> Sample | None:
    """The result of one exchange; None if its timestamps contradict each other."""
    most, least = came_ns - sent_ns, left_ns - returned_ns
    if least > most or returned_ns < sent_ns or left_ns < came_ns:
        return None
    drifted_ns = (returned_ns - sent_ns) * DRIFT_MAX_PPM // 1_000_000
    return Sample((most + least) // 2, (most - least + 1) // 2 + 1 + drifted_ns, returned_ns)


class PeerClock:
    """The clock of one agent, seen from the coordinator. When it is set, all earlier exchanges become invalid.

    `is_same` states that the agent reads the coordinator's own clock. One exchange that contradicts it makes it False.
    """

    def __init__(self, *, is_same: bool = False) -> None:
        self.is_same = self._began_same = is_same
        self.samples: list[Sample] = []
        self.first: Sample | None = None
        self.contradictions = 0
        self._jumps_ns = 0
        self._before_jump: tuple[int, int] | None = None
        self._start_ns: int | None = None
        self._near_start: list[Sample] = []

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
                self._jumped(found.at_ns)
        self.is_same = self.is_same and abs(found.offset_ns) <= found.bound_ns
        self.samples.append(found)
        if self._start_ns is not None and found.at_ns < self._start_ns + NEAR_NS:
            self._near_start.append(found)
        del self.samples[:-SAMPLES_MAX]
        if self.first is None and self._before_jump is not None:
            self.first = found

    def _jumped(self, at_ns: int) -> None:
        """Forget what was measured before, because the clock was set just before `at_ns`."""
        self._jumps_ns = self.jumped_ns
        self._before_jump = at_ns, self.estimate(at_ns).offset_ns
        self.samples.clear()
        self.first = None
        self._start_ns = None

    @property
    def jumped_ns(self) -> int:
        """By how much the clock was set in total."""
        if self._before_jump is None:
            return self._jumps_ns
        at_ns, offset_ns = self._before_jump
        return self._jumps_ns + self.estimate(at_ns).offset_ns - offset_ns

    def estimate(self, at_ns: int) -> Estimate:
        """The offset at an instant of our clock, which may be in the future."""
        return Estimate(0, 0) if self.is_same else _estimated(self.samples, at_ns)

    def reference(self, at_ns: int) -> Estimate:
        """Return the estimate for the start at `at_ns`, from which the drift is measured."""
        self.first = min(self.samples, key=lambda one: _bound_at(one, at_ns))
        self._start_ns, self._near_start = at_ns, list(self.samples)
        return self.estimate(at_ns)

    def settled(self, used: Estimate, at_ns: int) -> Estimate:
        """Return `used`, the estimate with which a run was started at `at_ns`, with its bound as later exchanges have it.

        The bound covers both the distance from `used` to the later estimate and the bound of that one. It is not wider
        than before, unless the clock was wrongly taken for the coordinator's own.
        """
        if self.is_same or not self._near_start:
            return used
        found = _estimated(self._near_start, at_ns)
        bound_ns = abs(found.offset_ns - used.offset_ns) + found.bound_ns
        return used._replace(bound_ns=bound_ns if self._began_same else min(bound_ns, used.bound_ns))

    def drift(self) -> tuple[float, int]:
        """The drift since the reference, or since the clock was set, in ppm, and by how much the offset has changed in
        ns. 0 if too little time has passed, or if the change is within the error.
        """
        if self.is_same or self.first is None or not self.samples:
            return 0.0, 0
        recent = [one for one in self.samples if one.at_ns > self.first.at_ns] or self.samples
        half = recent[len(recent) // 2 :]
        best = min(half, key=lambda one: one.bound_ns)
        span_ns = best.at_ns - self.first.at_ns
        if span_ns < DRIFT_SPAN_NS:
            return 0.0, 0
        change_ns = best.offset_ns - self.first.offset_ns
        if abs(change_ns) <= best.bound_ns + self.first.bound_ns:
            return 0.0, 0
        return change_ns / span_ns * 1e6, change_ns


def drift_range(samples: Sequence[Sample]) -> tuple[float, float]:
    """The slowest and the fastest drift (ppm) that are compatible with every pair of exchanges."""
    slowest, fastest = -float(DRIFT_MAX_PPM), float(DRIFT_MAX_PPM)
    for before, after in itertools.combinations(samples, 2):
        span_ns = after.at_ns - before.at_ns
        if span_ns <= 0:
            continue
        change_ns, width_ns = after.offset_ns - before.offset_ns, after.bound_ns + before.bound_ns
        slowest = max(slowest, (change_ns - width_ns) / span_ns * 1e6 - DRIFT_CHANGE_PPM)
        fastest = min(fastest, (change_ns + width_ns) / span_ns * 1e6 + DRIFT_CHANGE_PPM)
    return (slowest, fastest) if slowest <= fastest else (-float(DRIFT_MAX_PPM), float(DRIFT_MAX_PPM))


def _estimated(samples: Sequence[Sample], at_ns: int) -> Estimate:
    """Return the offset at an instant that is compatible with all exchanges."""
    slowest, fastest = drift_range(samples)
    least, most = _carried(samples, at_ns, slowest, fastest)
    if least > most:
        # The drift changed, so each exchange is used with any possible drift since.
        best = min(samples, key=lambda one: _bound_at(one, at_ns))
        return Estimate(best.offset_ns, _bound_at(best, at_ns))
    return Estimate(round((most + least) / 2), math.ceil((most - least) / 2) + 1)


def _carried(samples: Sequence[Sample], at_ns: int, slowest: float, fastest: float) -> tuple[float, float]:
    """The minimum and maximum offset at an instant that are compatible with all exchanges. The minimum is above the
    maximum if the exchanges contradict each other.
    """
    least, most = -math.inf, math.inf
    for one in samples:
        change_ns = sorted(((at_ns - one.at_ns) * slowest / 1e6, (at_ns - one.at_ns) * fastest / 1e6))
        least = max(least, one.offset_ns - one.bound_ns + change_ns[0])
        most = min(most, one.offset_ns + one.bound_ns + change_ns[1])
    return least, most


def _bound_at(one: Sample, now_ns: int) -> int:
    return one.bound_ns + abs(now_ns - one.at_ns) * DRIFT_MAX_PPM // 1_000_000
