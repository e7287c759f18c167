"""How often a diagnosis from latency alone is right: `python -m benchmarks.diagnosis --seed 1 --systems 300`.

Each system is a simulation whose truth is known. Routes are assigned to queues at random, and their load rises together, so
that several queues may overload at the same time without a common cause. A claim is right if all routes that it names wait
in one queue.
"""

from __future__ import annotations

import argparse
import heapq
import time
from dataclasses import dataclass

import numpy as np

from replay.diagnosis.by_route import RouteSeries
from replay.diagnosis.shared import shared_among

WINDOWS = 30


@dataclass(frozen=True, slots=True)
class System:
    """A simulated system: its routes, the load by window, the routes of each queue, and the number of overloaded queues."""

    routes: list[RouteSeries]
    load: np.ndarray
    groups: list[frozenset[str]]
    overloaded: int


def simulated(rng: np.random.Generator) -> System:
    """Simulate 3 to 8 routes over 1 to 5 queues, some of which may overload when the load rises."""
    names = [f"GET /{letter}" for letter in "abcdefgh"[: rng.integers(3, 9)]]
    queue_of = rng.integers(0, rng.integers(1, 6), len(names))
    shape = _shape(rng)
    wiggle = np.exp(rng.normal(0, 0.08, WINDOWS))
    rates = rng.uniform(8, 40, len(names))
    done: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    load, overloaded = np.zeros(WINDOWS), 0
    groups: list[frozenset[str]] = []
    for queue in np.unique(queue_of):
        members = [at for at in range(len(names)) if queue_of[at] == queue]
        servers, mean_s = int(rng.integers(1, 9)), rng.uniform(0.01, 0.08)
        at_rest = rng.choice([0.15, 0.25, 0.6])
        arrivals, owners = [], []
        for at in members:
            counts = rng.poisson(rates[at] * shape * wiggle)
            load += counts
            arrivals += [window + rng.random(count) for window, count in enumerate(counts)]
            owners += [at] * int(counts.sum())
        times, order = np.concatenate(arrivals), None
        order = np.argsort(times)
        speed = at_rest * servers / (sum(rates[at] for at in members) * mean_s)
        patience_s = float(rng.choice([2.0, 5.0, 30.0]))
        waits, served = _served(
            times[order], rng.exponential(mean_s * speed, times.size), servers, patience_s
        )
        groups.append(frozenset(names[at] for at in members))
        overloaded += bool(shape.max() * at_rest > 1.1)
        for at in members:
            own = np.array(owners)[order] == at
            done[names[at]] = (times[order][own] + waits[own], waits[own], served[own])
    return System([_series(name, *done[name]) for name in names], load, groups, overloaded)


def _shape(rng: np.random.Generator) -> np.ndarray:
    """Draw the load by window as a multiple of the load at rest: a step or a ramp that may fall again."""
    high, begin = rng.uniform(1.5, 4.0), int(rng.integers(8, 14))
    length = int(rng.integers(1, 8))
    up = np.clip((np.arange(WINDOWS) - begin) / length, 0, 1)
    down = np.clip((np.arange(WINDOWS) - rng.integers(20, 40)) / 3, 0, 1)
    found: np.ndarray = 1 + (high - 1) * up * (1 - down)
    return found


def _served(
    arrivals: np.ndarray, services: np.ndarray, servers: int, patience_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the latency of each request of a queue served in order, and whether it was served.

    A request that would wait longer than `patience_s` times out.
    """
    free = [0.0] * servers
    latencies, served = np.zeros(arrivals.size), np.ones(arrivals.size, bool)
    for at, (arrival, service) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
        begin = max(arrival, free[0])
        if begin - arrival > patience_s:
            latencies[at], served[at] = patience_s, False
            continue
        heapq.heapreplace(free, begin + service)
        latencies[at] = begin + service - arrival
    return latencies, served


def _series(route: str, ended_at: np.ndarray, latencies: np.ndarray, served: np.ndarray) -> RouteSeries:
    p50, ended, failed = np.full(WINDOWS, np.nan), np.zeros(WINDOWS), np.zeros(WINDOWS)
    for window in range(WINDOWS):
        here = (ended_at >= window) & (ended_at < window + 1)
        ended[window], failed[window] = here.sum(), (here & ~served).sum()
        if here.any():
            p50[window] = np.median(latencies[here]) * 1e9
    return RouteSeries(route, p50, ended, failed)


def main() -> None:
    """Simulate systems, and print how many claims are made and how many are right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--systems", type=int, default=300)
    given = parser.parse_args()
    began_s = time.perf_counter()
    said = right = independent = 0
    for number in range(given.systems):
        system = simulated(np.random.default_rng([given.seed, number]))
        claimed = frozenset(
            shared_among(system.routes, system.load, np.arange(float(system.load.size))).routes
        )
        independent += system.overloaded > 1
        if claimed:
            said += 1
            right += any(claimed <= group for group in system.groups)
    print(f"seed {given.seed}: {given.systems} systems, {independent} with several queues overloaded at once")
    print(f"claims: {said}, right: {right} ({right / max(said, 1):.1%})")
    print(f"{time.perf_counter() - began_s:.1f} s")


if __name__ == "__main__":
    main()
