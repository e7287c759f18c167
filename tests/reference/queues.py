"""Exact formulas of queues with Poisson arrivals and k workers: M/M/k (Erlang) and M/D/k (Crommelin).

Times are in units of the mean service time.

- A. K. Erlang, 1917: the probability that a customer of M/M/k waits; who waits, waits for an exponential time.
- C. D. Crommelin, "Delay probability formulas when the holding times are constant", P.O. Elec. Eng. J. 25, 1932: the
  number in M/D/k one service time later is max(n - k, 0) plus a Poisson number.
- G. J. Franx, "A simple solution for the M/D/c waiting time distribution", Operations Research Letters 29, 2001: the
  distribution of waits from that of the number in the system, as a finite sum of positive terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np

from replay.staging.twin.virtual import erlang_c


@dataclass(frozen=True)
class Truth:
    """What customers of a queue experience in the long run."""

    utilization: float
    mean_wait: float
    p99_wait: float


def mm_k(workers: int, utilization: float) -> Truth:
    """M/M/k."""
    waits, spare = erlang_c(workers, workers * utilization), workers * (1 - utilization)
    return Truth(utilization, waits / spare, max(math.log(waits / 0.01) / spare, 0.0))


def md_k(workers: int, utilization: float) -> Truth:
    """M/D/k."""
    numbers = _number_in_system(workers, workers * utilization)
    queued = float(np.arange(len(numbers) - workers) @ numbers[workers:])
    low, high = 0.0, 1.0
    while md_k_waits_at_most(workers, utilization, high) < 0.99:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        is_below = md_k_waits_at_most(workers, utilization, middle) < 0.99
        low, high = (middle, high) if is_below else (low, middle)
    return Truth(utilization, queued / (workers * utilization), high)


def md_k_waits_at_most(workers: int, utilization: float, wait: float) -> float:
    """P(W <= wait) of M/D/k (Franx 2001)."""
    load = workers * utilization
    at_most = np.cumsum(_number_in_system(workers, load))[workers:]
    turns = math.floor(wait) + 1
    terms = np.arange(turns * workers)
    mean = load * (turns - wait)
    logs = terms * math.log(mean) - mean - np.array([math.lgamma(n + 1) for n in terms])
    return float(np.exp(logs) @ at_most[turns * workers - 1 - terms])


@cache
def _number_in_system(workers: int, load: float) -> np.ndarray:
    """The distribution of the number of customers in M/D/k, cut off far out: the solution of Crommelin's equations."""
    size = 60 * workers + 120
    numbers = np.arange(size)
    poisson = np.exp(numbers * math.log(load) - load - np.array([math.lgamma(n + 1) for n in numbers]))
    step = np.zeros((size, size))
    for number in range(size):
        left = max(number - workers, 0)
        step[number, left:] = poisson[: size - left]
    equations = step.T - np.eye(size)
    equations[-1] = 1.0
    found = np.linalg.solve(equations, np.concatenate([np.zeros(size - 1), [1.0]]))
    return np.clip(found, 0, None)
