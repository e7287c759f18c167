"""Drives a station on a virtual clock: Poisson arrivals, no real time, so that its queue can be held to formulas."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from .station import Admission, Station


@dataclass(frozen=True)
class Outcome:
    """What customers of a station experienced."""

    utilization: float
    mean_wait_ns: float
    p99_wait_ns: float
    refused: int


def drive(
    workers: int, queue_max: int, mean_gap_ns: float, service_ns: Callable[[], int], customers: int, seed: int
) -> Outcome:
    """Send `customers` arrivals, with exponential gaps, through a station of `workers`."""
    draw = random.Random(seed)
    station: Station[int] = Station(workers, queue_max)
    ends: list[int] = []
    waits: list[int] = []
    refused = 0
    now_ns = 0
    for _ in range(customers):
        now_ns += round(draw.expovariate(1) * mean_gap_ns)
        while ends and ends[0] <= now_ns:
            end_ns = heapq.heappop(ends)
            arrived_ns = station.finish(end_ns)
            if arrived_ns is not None:
                waits.append(end_ns - arrived_ns)
                heapq.heappush(ends, end_ns + service_ns())
        admission = station.arrive(now_ns, now_ns)
        if admission is Admission.STARTED:
            waits.append(0)
            heapq.heappush(ends, now_ns + service_ns())
        refused += admission is Admission.FULL
    station.observe(now_ns)
    waits.sort()
    p99 = waits[math.ceil(0.99 * len(waits)) - 1]
    return Outcome(station.busy_ns / (workers * now_ns), sum(waits) / len(waits), p99, refused)


def erlang_c(workers: int, load: float) -> float:
    """The probability that a customer waits in M/M/k, at `load` erlangs."""
    blocked = 1.0
    for k in range(1, workers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1 - load / workers * (1 - blocked))
