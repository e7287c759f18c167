"""Obvious twins of the workload kernels: one event at a time, in plain Python."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

from .naive import random_of

GAPS, CHAIN = 0x67617073, 0x636861696E
REQUESTS, CLIENTS = 0x7265717565737473, 0x636C69656E7473
EXTRAS, PLACES = 0x657874726173, 0x706C61636573


def unit_of(bits: int) -> float:
    """Above 0, at most 1."""
    return ((bits >> 11) + 1) / 2**53


class Segment(NamedTuple):
    """A part of a rate curve: from and until in ns, requests a second at both."""

    from_ns: int
    until_ns: int
    begin_rate: float
    end_rate: float

    @property
    def length_s(self) -> float:
        return (self.until_ns - self.from_ns) / 1e9

    def area_at(self, at_s: float) -> float:
        """Requests expected in the first `at_s` of it."""
        slope = (self.end_rate - self.begin_rate) / self.length_s
        return self.begin_rate * at_s + slope * at_s * at_s / 2


def arrivals(segments: Sequence[Segment], gaps: Sequence[float]) -> list[int]:
    """Where the sums of gaps fall on the area under a curve: each found by bisection."""
    found, total = [], 0.0
    areas = [segment.area_at(segment.length_s) for segment in segments]
    for gap in gaps:
        total += gap
        rest = total
        for segment, area in zip(segments, areas, strict=True):
            if rest < area:
                low, high = 0.0, segment.length_s
                for _ in range(80):
                    middle = (low + high) / 2
                    low, high = (middle, high) if segment.area_at(middle) < rest else (low, middle)
                found.append(segment.from_ns + round(low * 1e9))
                break
            rest -= area
        else:
            return found
    return found


def exponential_gaps(seed: int, count: int) -> list[float]:
    """The gaps of a Poisson process."""
    return [-math.log(unit_of(random_of(seed, number, GAPS))) for number in range(count)]


class Event(NamedTuple):
    """An event of a route, and of a class (-1: none)."""

    at_ns: int
    route: int
    found: int


def grown(
    events: Sequence[Event], whole: Sequence[int], extra: Sequence[int], seed: int
) -> list[tuple[int, int]]:
    """(at_ns, index of the event copied), in the order of the events and then of time. Each class has its `whole`
    number of times, each route its `extra` events that are there once more.
    """
    result = []
    extra = list(extra)
    left = [sum(event.route == route for event in events) for route in range(len(extra))]
    before: dict[int, int] = {}
    for index, (at_ns, route, found) in enumerate(events):
        times = 1
        if found >= 0:
            more = extra[route] > 0 and unit_of(random_of(seed, index, EXTRAS)) * left[route] <= extra[route]
            extra[route] -= more
            left[route] -= 1
            times = whole[found] + more
            from_ns = before.get(found, at_ns)
            places = [
                at_ns - int(unit_of(random_of(seed, (index << 14) + copy, PLACES)) * float(at_ns - from_ns))
                for copy in range(times - 1)
            ]
            before[found] = at_ns
        result += [(place, index) for place in ([*sorted(places), at_ns] if times > 1 else [at_ns] * times)]
    return result


def dispersion(at_ns: Sequence[int], start_ns: int, window_ns: int, windows: int) -> tuple[float, float]:
    """IDC and beta by their definition."""
    counts = [0] * windows
    for at in at_ns:
        place = (at - start_ns) // window_ns
        if place < windows:
            counts[place] += 1
    mean = sum(counts) / windows
    variance = sum((count - mean) ** 2 for count in counts) / windows
    return variance / mean, (variance - mean) / mean**2


def served(arrivals_ns: Sequence[int], servers: int, service_ns: int) -> list[int]:
    """When each request is done that goes to the server that is free first, in order of coming."""
    free_ns = [0] * servers
    done_ns = []
    for at_ns in arrivals_ns:
        done_ns.append(max(at_ns, heapq.heappop(free_ns)) + service_ns)
        heapq.heappush(free_ns, done_ns[-1])
    return done_ns
