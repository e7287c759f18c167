"""Java's rule for percentiles, which every figure of this project follows.

`org.HdrHistogram.AbstractHistogram.getValueAtPercentile` computes the rank as `ceil(nextDown(p) * N / 100)`, at least
1, and returns the highest value that is equivalent to the value of that rank. Python's and C's packages round
instead, and may differ by a rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

REPORTED = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)
"""Percentiles that run.json holds."""


def rank(percentile: float, count: int) -> int:
    """Return the 1-based rank of `percentile` (0 to 100) among `count` values."""
    asked = min(max(math.nextafter(percentile, -math.inf), 0.0), 100.0)
    return max(math.ceil(asked * count / 100.0), 1)


def values_at(counts: np.ndarray, half: int, count: int, percentiles: Sequence[float]) -> list[int]:
    """Return the value at each of `percentiles` (any order); zeros if nothing was recorded.

    `counts` is uint64[n] laid out with `half` (see `replay_native.ledger.hdr_layout`), and `count` is its sum. Values
    are multiples of the width of the smallest counter.
    """
    used = np.flatnonzero(counts)
    if count == 0 or not used.size:
        return [0] * len(percentiles)
    ranks = np.array([rank(p, count) for p in percentiles], np.uint64)
    found = np.searchsorted(np.cumsum(counts[used]), ranks)
    highest = highest_at(used[np.minimum(found, used.size - 1)], half)
    return [int(value) for value in highest]


def highest_at(index: np.ndarray, half: int) -> np.ndarray:
    """Return the highest value of each counter, int64, as a multiple of the width of the smallest counter."""
    bucket = np.maximum((index >> half) - 1, 0)
    sub = (index & ((1 << half) - 1)) + np.where(index >> half > 0, 1 << half, 0)
    return np.asarray(((sub + 1) << bucket) - 1, np.int64)
