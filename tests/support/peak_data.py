"""Services of known capacity, in time of their own: a queue with k servers, and one whose clients try again."""

from __future__ import annotations

import heapq
import math

import numpy as np

from replay.peaks.recovery import Moment
from replay.peaks.search import Trial


def waits(arrivals_s: np.ndarray, servers: int, service_s: float) -> np.ndarray:
    """How long each arrival waits for one of k servers of fixed service time, first come first served.

    Request i starts when i - k has ended, or at its arrival: a running maximum in each residue class.
    """
    rows = -(-len(arrivals_s) // servers)
    padded = np.full(rows * servers, np.inf)
    padded[: len(arrivals_s)] = arrivals_s
    shift = np.arange(rows)[:, None] * service_s
    starts = np.maximum.accumulate(padded.reshape(rows, servers) - shift, axis=0) + shift
    waits: np.ndarray = starts.ravel()[: len(arrivals_s)] - arrivals_s
    return waits


def waits_longer(load_per_s: float, servers: int, service_s: float, services: int) -> float:
    """P(W > services * service time) of M/D/k, exactly.

    The number in the system one service time later is max(n - k, 0) plus a Poisson number (Crommelin 1932); an
    arrival that finds n waits longer than j service times where n >= (j + 1) k.
    """
    mean = load_per_s * service_s
    size = 60 * servers
    poisson = np.exp(
        np.arange(size) * math.log(mean) - mean - np.array([math.lgamma(n + 1) for n in range(size)])
    )
    state = np.zeros(size)
    state[0] = 1.0
    for _ in range(3_000):
        kept = np.concatenate([[state[: servers + 1].sum()], state[servers + 1 :], np.zeros(servers)])
        after = np.convolve(kept, poisson)[:size]
        after /= after.sum()
        if np.abs(after - state).sum() < 1e-12:
            break
        state = after
    return float(state[(services + 1) * servers :].sum())


def capacity(servers: int, service_s: float, services: int, share: float) -> float:
    """The load at which exactly `share` of the requests wait for longer than so many service times."""
    low, high = 0.2 * servers / service_s, 0.9999 * servers / service_s
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if waits_longer(middle, servers, service_s, services) < share else (low, middle)
        )
    return low


class Queue:
    """Trials on M/D/k; its goals are shares of requests that wait for longer than one service time."""

    def __init__(
        self, servers: int, service_s: float, shares: dict[str, float], seed: int, requests: int
    ) -> None:
        self.servers, self.service_s, self.shares, self.requests = servers, service_s, shares, requests
        self.random = np.random.default_rng(seed)

    def __call__(self, load: float, stage: str) -> Trial:
        arrivals_s = np.cumsum(self.random.exponential(1 / load, self.requests))
        late = float((waits(arrivals_s, self.servers, self.service_s) > self.service_s).mean())
        return Trial(
            load=load,
            passed={goal: late <= share for goal, share in self.shares.items()},
            stage=stage,
            length_s=float(arrivals_s[-1]),
            rate_per_s=load,
        )


def retry_storm(
    retries: int, *, surge: float, base_per_s: float = 60.0, timeout_s: float = 1.0
) -> list[Moment]:
    """A server that does 100 a second, ten seconds of ordinary load, ten of a surge, thirty of ordinary load again.

    A client that has no answer within the time-out gives up and asks again, `retries` times at most, while the
    server still works on what was given up (that is what keeps it down). Rows a second.
    """
    random = np.random.default_rng(1)
    ends_s, length_s = np.array([10, 20, 50]), 50
    pending: list[tuple[float, int, float]] = []
    for begin, end, rate in zip(
        [0, 10, 20], ends_s, [base_per_s, base_per_s * surge, base_per_s], strict=True
    ):
        at = float(begin) + random.exponential(1 / rate)
        while at < end:
            pending.append((at, 0, at))
            at += random.exponential(1 / rate)
    heapq.heapify(pending)
    free_s, ended, failed = 0.0, np.zeros(length_s + 1, int), np.zeros(length_s + 1, int)
    took: list[list[float]] = [[] for _ in range(length_s + 1)]
    while pending:
        at, tries, first = heapq.heappop(pending)
        if at >= length_s:
            break
        free_s = max(free_s, at) + 0.01
        if free_s - at <= timeout_s:
            second = min(int(free_s), length_s)
            ended[second] += 1
            took[second].append(free_s - first)
        elif tries < retries:
            heapq.heappush(pending, (at + timeout_s, tries + 1, first))
        else:
            failed[min(int(at + timeout_s), length_s)] += 1
    return [
        Moment(
            float(second), int(ended[second]), int(failed[second]),
            int(np.median(took[second]) * 1e9) if took[second] else None, 1,
        )
        for second in range(length_s)
    ]  # fmt: skip
