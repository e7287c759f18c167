"""Simulated runs of a service, as their log quantiles. The decision rule is calibrated on them.

A run has its own level (normal), a level that is autoregressive from interval to interval, and requests around the
sum of both.
"""

from __future__ import annotations

import math

import numpy as np

from replay_native.ground.jit import kernel

from .rank import nth_value

INTERVALS, REQUESTS = 50, 20
"""Intervals per run, and requests per interval: 1,000 requests, just enough for a p99."""

LEVEL_SD = 0.1
"""Standard deviation of the level of the intervals."""

QUANTILES = 3
"""Number of quantiles per run: p50, p90 and p99."""

LOGNORMAL, BIMODAL, HEAVY = 0, 1, 2


@kernel(inlined=True)
def _uniform(state):
    """Return a random float in (0, 1), by SplitMix64."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    word = state[0]
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return (float(word >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@kernel(inlined=True)
def _normal(state):
    """Return a standard normal variate (Box and Muller)."""
    return math.sqrt(-2.0 * math.log(_uniform(state))) * math.cos(2.0 * math.pi * _uniform(state))


@kernel(inlined=True)
def _fill(state, kind, level, requests, start):
    """Write REQUESTS log latencies around `level`.

    LOGNORMAL has sigma 0.5. With BIMODAL, one request in ten is about five times slower. HEAVY is Pareto with
    exponent 1.5.
    """
    if kind == HEAVY:
        for at in range(start, start + REQUESTS):
            requests[at] = level - math.log(_uniform(state)) / 1.5
        return
    for at in range(start, start + REQUESTS, 2):
        radius, angle = math.sqrt(-2.0 * math.log(_uniform(state))), 2.0 * math.pi * _uniform(state)
        requests[at], requests[at + 1] = radius * math.cos(angle), radius * math.sin(angle)
    for at in range(start, start + REQUESTS):
        if kind == BIMODAL:
            slow = _uniform(state) < 0.1
            requests[at] = level + (1.609 + 0.3 * requests[at] if slow else 0.2 * requests[at])
        else:
            requests[at] = level + 0.5 * requests[at]


@kernel("void(uint64[::1], float64, float64, int64, float64[::1], float64[:, ::1])")
def quantiles_of_runs(state, run_sd, autocorrelation, kind, requests, out):
    """Write log p50, p90, p99 (with Java's ranks) of each run to `out` float64[runs, 3].

    `state` uint64[1] is that of the random generator. `requests` float64[INTERVALS * REQUESTS] is scratch.
    """
    fresh = LEVEL_SD * math.sqrt(1.0 - autocorrelation * autocorrelation)
    for run in range(out.shape[0]):
        own = run_sd * _normal(state)
        level = LEVEL_SD * _normal(state)
        for interval in range(INTERVALS):
            _fill(state, kind, own + level, requests, interval * REQUESTS)
            level = autocorrelation * level + fresh * _normal(state)
        count = requests.size
        out[run, 0] = nth_value(requests, (count + 1) // 2 - 1)
        out[run, 1] = nth_value(requests, (count * 9 + 9) // 10 - 1)
        out[run, 2] = nth_value(requests, (count * 99 + 99) // 100 - 1)
