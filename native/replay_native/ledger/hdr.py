"""HDR histograms as plain count arrays: record, merge, percentile, and the V2 payload.

The layout is the one Java, C and Python implementations share (Gil Tene, HdrHistogram), with lowest value 1 ns and
highest value 1 h. A histogram here is only its counts: `counts[index_of(value)]`; everything else is computed.
"""

from __future__ import annotations

import math

import numpy as np
from numba.cpython.unsafe.numbers import leading_zeros

from replay_native.ground.jit import kernel

HIGHEST_NS = 3_600_000_000_000
"""The largest value. A larger one is recorded as this."""


def half_magnitude(digits: int) -> int:
    """log2 of half the sub-bucket count: 10 for 3 significant digits, 7 for 2."""
    return math.ceil(math.log2(2 * 10**digits)) - 1


def counters(digits: int) -> int:
    """Length of the counts array for values from 1 to HIGHEST_NS."""
    half = half_magnitude(digits)
    smallest_untrackable, buckets = 2 << half, 1
    while smallest_untrackable <= HIGHEST_NS:
        smallest_untrackable <<= 1
        buckets += 1
    return (buckets + 1) << half


HALF_3, HALF_2 = half_magnitude(3), half_magnitude(2)
COUNTERS_3, COUNTERS_2 = counters(3), counters(2)


@kernel(inlined=True)
def index_of(value, half):
    """Index of the counter that holds `value` (1 <= value <= HIGHEST_NS)."""
    top = np.uint64(value) | ((np.uint64(2) << np.uint64(half)) - np.uint64(1))
    bucket = np.int64(63) - np.int64(half) - np.int64(leading_zeros(top))
    sub = np.int64(value) >> bucket
    return ((bucket + 1) << np.int64(half)) + sub - (np.int64(1) << np.int64(half))


@kernel(inlined=True)
def value_at(index, half):
    """Lowest value that counter `index` holds."""
    bucket = (index >> np.int64(half)) - 1
    sub = (index & ((np.int64(1) << np.int64(half)) - 1)) + (np.int64(1) << np.int64(half))
    if bucket < 0:
        sub -= np.int64(1) << np.int64(half)
        bucket = np.int64(0)
    return sub << bucket


@kernel(inlined=True)
def highest_at(index, half):
    """Highest value that counter `index` holds (what a percentile reports)."""
    bucket = (index >> np.int64(half)) - 1
    if bucket < 0:
        bucket = np.int64(0)
    return value_at(index, half) + (np.int64(1) << bucket) - 1


@kernel(inlined=True)
def clamp(value):
    """Limit a value to the range of the histograms."""
    return min(max(value, np.int64(0)), np.int64(HIGHEST_NS))


@kernel(inlined=True)
def record(counts, half, value):
    """Count one value (ns), limited to the range."""
    counts[index_of(clamp(value), half)] += 1


@kernel("void(uint64[::1], int64, int64[::1])")
def record_all(counts, half, values):
    """Count every value of an array."""
    for i in range(values.size):
        record(counts, half, values[i])


@kernel("int64(uint64[::1])")
def total(counts):
    """How many values were recorded."""
    n = np.int64(0)
    for i in range(counts.size):
        n += np.int64(counts[i])
    return n


@kernel("void(uint64[::1], uint64[::1])")
def merge(into, counts):
    """Add `counts` to `into` (same layout)."""
    for i in range(counts.size):
        into[i] += counts[i]


@kernel("int64(uint64[::1], uint64[::1], uint64[::1])")
def take_delta(now, before, delta):
    """Put `now - before` into `delta` and `now` into `before`; return how many values came since.

    `now` may be written to at the same time: each counter is read once, so every value lands in exactly one delta.
    """
    n = np.int64(0)
    for i in range(now.size):
        current = now[i]
        delta[i] = current - before[i]
        before[i] = current
        n += np.int64(delta[i])
    return n


@kernel("int64(uint32[::1], uint32[::1], uint64[::1])")
def take_delta_u32(now, before, delta):
    """`take_delta` for 32-bit counters. Correct across an overflow, if it is called at least every 2^32 values."""
    n = np.int64(0)
    for i in range(now.size):
        current = now[i]
        delta[i] = np.uint64(np.uint32(current - before[i]))
        before[i] = current
        n += np.int64(delta[i])
    return n


@kernel("void(uint64[::1], int64, int64[::1], int64[::1])")
def values_at_ranks(counts, half, ranks, values):
    """Write the value of each of the ascending 1-based `ranks` to `values`: the highest one of its counter."""
    seen, r = np.int64(0), 0
    for i in range(counts.size):
        seen += np.int64(counts[i])
        while r < ranks.size and seen >= ranks[r]:
            values[r] = highest_at(np.int64(i), half)
            r += 1
        if r == ranks.size:
            return


@kernel("void(uint64[::1], int64, int64, float64[::1])")
def moments(counts, half, unit, out):
    """Write mean and standard deviation to `out[0:2]`, from the middle value of each counter, as HdrHistogram does.

    `unit` is log2 of the width of the smallest counter.
    """
    n, sum_, squares = 0.0, 0.0, 0.0
    for i in range(counts.size):
        if counts[i]:
            sum_ += float(counts[i]) * _middle(np.int64(i), half, unit)
            n += float(counts[i])
    mean = sum_ / n if n else 0.0
    for i in range(counts.size):
        if counts[i]:
            squares += float(counts[i]) * (_middle(np.int64(i), half, unit) - mean) ** 2
    out[0] = mean
    out[1] = math.sqrt(squares / n) if n else 0.0


@kernel(inlined=True)
def _middle(index, half, unit):
    """The middle of a counter's range: lowest value plus half the width, as Java's medianEquivalentValue."""
    width = np.int64(1) << max((index >> np.int64(half)) - 1, np.int64(0)) + unit
    return float((value_at(index, half) << unit) + (width >> 1))


@kernel("int64(uint64[::1], int64, uint8[::1])")
def encode_payload(counts, limit, out):
    """Write `counts[:limit]` as ZigZag LEB128, a run of zeros as one negative number. Returns the bytes written.

    `out` needs 9 bytes per counter. This is the V2 encoding of HdrHistogram's V2CompressedHistogram.
    """
    at, i = np.int64(0), np.int64(0)
    while i < limit:
        if counts[i] == 0:
            run = i
            while run < limit and counts[run] == 0:
                run += 1
            word = np.uint64(2 * (run - i) - 1)
            i = run
        else:
            word = counts[i] << np.uint64(1)
            i += 1
        for byte in range(9):
            if byte == 8:
                out[at] = np.uint8(word)
                at += 1
                break
            if word < np.uint64(0x80):
                out[at] = np.uint8(word)
                at += 1
                break
            out[at] = np.uint8((word & np.uint64(0x7F)) | np.uint64(0x80))
            at += 1
            word >>= np.uint64(7)
    return at
