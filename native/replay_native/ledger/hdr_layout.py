"""The layout of the lanes' histograms in numbers: how many counters they have, and their highest value.

Reports read it without Numba.
"""

from __future__ import annotations

import math

HIGHEST_NS = 3_600_000_000_000
"""The largest value. Larger ones are recorded as this value."""


def half_magnitude(digits: int) -> int:
    """Return log2 of half the sub-bucket count: 10 for 3 significant digits, 7 for 2."""
    return math.ceil(math.log2(2 * 10**digits)) - 1


def counters(digits: int) -> int:
    """Return the length of the counts array for values from 1 to HIGHEST_NS."""
    half = half_magnitude(digits)
    smallest_untrackable, buckets = 2 << half, 1
    while smallest_untrackable <= HIGHEST_NS:
        smallest_untrackable <<= 1
        buckets += 1
    return (buckets + 1) << half


HALF_3, HALF_2 = half_magnitude(3), half_magnitude(2)
COUNTERS_3, COUNTERS_2 = counters(3), counters(2)
