"""Drives a station with Poisson arrivals on a virtual clock, so that its queue can be compared with formulas."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from .station import Admission, Station

BLOCK = 16_384
"""The number of random times that are drawn together."""


@dataclass(frozen=True)
class Outcome:
    """The result of a simulation: the utilization of the station, waiting times, and refused customers.

    `waits_ns` has the waiting times of the customers that were served, in the order of service.
    """

    utilization: float
    waits_ns: np.ndarray
    refused: int

    @property
    def mean_wait_ns(self) -> float:
        """The mean time in the queue, to which customers that found a free worker contribute 0."""
        return float(self.waits_ns.mean())

    @property
    def p99_wait_ns(self) -> float:
        """The nearest-rank 99th percentile of the time in the queue."""
        rank = -(-99 * len(self.waits_ns) // 100) - 1
        return float(np.partition(self.waits_ns, rank)[rank])


def drive(
    workers: int, queue_max: int, mean_gap_ns: float, service_ns: Callable[[], int], customers: int, seed: int
) -> Outcome:
    """Simulate `customers` arrivals with exponential gaps at a station of `workers`, and return the outcome."""
    station: Station[int] = Station(workers, queue_max)
    ends: list[int] = []
    waits = array("q")
    refused = 0
    now_ns = 0
    for gap_ns in islice(exponential_ns(mean_gap_ns, seed), customers):
        now_ns += gap_ns
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
    return Outcome(station.busy_ns / (workers * now_ns), np.array(waits, np.int64), refused)


def exponential_ns(mean_ns: float, seed: int) -> Iterator[int]:
    """Yield exponentially distributed times without end."""
    draw = np.random.default_rng(seed)
    while True:
        yield from np.rint(draw.exponential(mean_ns, BLOCK)).astype(np.int64).tolist()


def erlang_c(workers: int, load: float) -> float:
    """Return the probability that a customer waits in M/M/k, at `load` erlangs."""
    blocked = 1.0
    for k in range(1, workers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked / (1 - load / workers * (1 - blocked))
