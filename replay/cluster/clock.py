"""The offset between the clocks of two machines, and its error.

The coordinator sends a probe at s and receives the answer at r, by its own clock. The agent receives the probe at
c and answers at l, by the agent's clock. If the agent's clock is ahead by o, the probe arrives at c - o by the
coordinator's clock, which is after s, and the answer leaves at l - o, which is before r. So o lies between l - r
and c - s. The middle of this range is the estimate, and half of its width is the bound of the error. The bound
holds whatever the delays of the network are.

Agents on the coordinator's own machine read the same clock (`agent_clock.same_clock`). Their offset is 0, unless an
exchange contradicts that.

Clocks drift, so an old exchange is less exact than a new one. The range of possible drifts follows from the
exchanges: each pair of them limits how much the offset changed in between. For an instant in question, the range
of each exchange is widened by the possible drift until that instant. The offset lies in all of these ranges.

The start is ordered before it is due, so its offset is extrapolated. After the run there are exchanges on both sides
of the start, and its offset is known more exactly (`PeerClock.settled`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

DRIFT_MAX_PPM = 600
"""The largest drift of a clock that is assumed before the drift has been measured.

Crystals keep within 100 ppm, and the kernel's time synchronization slews CLOCK_MONOTONIC by up to 500 ppm
(adjtimex(2)).
"""

DRIFT_CHANGE_PPM = 20
"""The largest change of the drift that is assumed during the time that the remembered exchanges span."""

SAMPLES_MAX = 64
"""Number of exchanges that are remembered. At a probe every 125 ms (`coordinator.TICK_S`) they span 8 s."""

JUMP_PPM = 2_000
"""The offset never drifts faster than this. A faster change means that one of the clocks was set."""

NEAR_NS = 8_000_000_000
"""Exchanges until this time after the start are used to settle the offset at the start."""

DRIFT_SPAN_NS = 1_000_000_000
"""A drift is reported only if it was measured over at least this time."""


class Sample(NamedTuple):
    """The result of one exchange: the other clock's lead, the bound of its error, and the instant by our clock."""

    offset_ns: int
    bound_ns: int
    at_ns: int


class Estimate(NamedTuple):
    """An estimate of an offset: the other clock is `offset_ns` ahead, plus or minus `bound_ns`."""

    offset_ns: int
    bound_ns: int


def sample(sent_ns: int, came_ns: int, left_ns: int, returned_ns: int) -> Sample | None:
    """Return the result of one exchange, or None if its timestamps contradict each other."""
    most, least = came_ns - sent_ns, left_ns - returned_ns
    if least > most or returned_ns < sent_ns or left_ns < came_ns:
        return None
    drifted_ns = (returned_ns - sent_ns) * DRIFT_MAX_PPM // 1_000_000
    return Sample((most + least) // 2, (most - least + 1) // 2 + 1 + drifted_ns, returned_ns)


class PeerClock:
    """The clock of one agent, seen from the coordinator.

    When the clock is set, all earlier exchanges become invalid.

    `is_same` states that the agent reads the coordinator's own clock. An exchange that contradicts this sets it to
    False.
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
        """Add the four timestamps of an exchange, and detect whether the clock was set since the last one.

        Timestamps that contradict each other are only counted.
        """
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
        """Discard all earlier exchanges, because the clock was set just before `at_ns`."""
        self._jumps_ns = self.jumped_ns
        self._before_jump = at_ns, self.estimate(at_ns).offset_ns
        self.samples.clear()
        self.first = None
        self._start_ns = None

    @property
    def jumped_ns(self) -> int:
        """The total by which the clock was set, in ns."""
        if self._before_jump is None:
            return self._jumps_ns
        at_ns, offset_ns = self._before_jump
        return self._jumps_ns + self.estimate(at_ns).offset_ns - offset_ns

    def estimate(self, at_ns: int) -> Estimate:
        """Estimate the offset at an instant of our clock, which may be in the future."""
        return Estimate(0, 0) if self.is_same else _estimated(self.samples, at_ns)

    def reference(self, at_ns: int) -> Estimate:
        """Return the estimate for the start of the run at `at_ns`.

        The best exchange becomes the reference from which the drift is measured.
        """
        self.first = min(self.samples, key=lambda one: _bound_at(one, at_ns))
        self._start_ns, self._near_start = at_ns, list(self.samples)
        return self.estimate(at_ns)

    def settled(self, used: Estimate, at_ns: int) -> Estimate:
        """Return `used`, the estimate with which the run was started at `at_ns`, with a bound from later exchanges.

        The bound covers both the distance from `used` to the later estimate and the bound of that one. It is not wider
        than before, unless the clock was wrongly taken for the coordinator's own.
        """
        if self.is_same or not self._near_start:
            return used
        found = _estimated(self._near_start, at_ns)
        bound_ns = abs(found.offset_ns - used.offset_ns) + found.bound_ns
        return used._replace(bound_ns=bound_ns if self._began_same else min(bound_ns, used.bound_ns))

    def drift(self) -> tuple[float, int]:
        """Return the drift in ppm and the change of the offset in ns since the reference, or since the clock was set.

        Both are 0 if there is no reference yet, if too little time has passed, if the change is within the error, or if
        the agent reads the coordinator's own clock.
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
    """Return the slowest and the fastest drift (ppm) that are compatible with every pair of exchanges.

    If there is no such drift, they are -DRIFT_MAX_PPM and DRIFT_MAX_PPM.
    """
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
    """Estimate the offset at an instant from all exchanges."""
    slowest, fastest = drift_range(samples)
    least, most = _carried(samples, at_ns, slowest, fastest)
    if least > most:
        # The drift has changed, so no offset fits all exchanges. Only the exchange whose bound is the smallest at this
        # instant is used, with the largest possible drift since then.
        best = min(samples, key=lambda one: _bound_at(one, at_ns))
        return Estimate(best.offset_ns, _bound_at(best, at_ns))
    return Estimate(round((most + least) / 2), math.ceil((most - least) / 2) + 1)


def _carried(samples: Sequence[Sample], at_ns: int, slowest: float, fastest: float) -> tuple[float, float]:
    """Return the minimum and the maximum offset at an instant that are compatible with all exchanges.

    The minimum is above the maximum if the exchanges contradict each other.
    """
    least, most = -math.inf, math.inf
    for one in samples:
        change_ns = sorted(((at_ns - one.at_ns) * slowest / 1e6, (at_ns - one.at_ns) * fastest / 1e6))
        least = max(least, one.offset_ns - one.bound_ns + change_ns[0])
        most = min(most, one.offset_ns + one.bound_ns + change_ns[1])
    return least, most


def _bound_at(one: Sample, now_ns: int) -> int:
    return one.bound_ns + abs(now_ns - one.at_ns) * DRIFT_MAX_PPM // 1_000_000
