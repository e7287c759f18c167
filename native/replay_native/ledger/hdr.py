"""HDR histograms as plain count arrays: kernels that record, merge, compute deltas, and encode the V2 payload.

The layout is the one Java, C and Python implementations share (Gil Tene, HdrHistogram), with lowest value 1 ns and
highest value 1 h. A histogram here is only its counts, `counts[index_of(value)]`. Everything else is computed.
"""

from __future__ import annotations

import numpy as np
from numba.cpython.unsafe.numbers import leading_zeros

from replay_native.ground.jit import kernel

from .hdr_layout import COUNTERS_2, COUNTERS_3, HALF_2, HALF_3, HIGHEST_NS

__all__ = ["COUNTERS_2", "COUNTERS_3", "HALF_2", "HALF_3", "HIGHEST_NS"]
# Re-exported, so that users of this module need not import `hdr_layout`.


@kernel(inlined=True)
def index_of(value, half):
    """Return the index of the counter for `value` (0 <= value <= HIGHEST_NS)."""
    top = np.uint64(value) | ((np.uint64(2) << np.uint64(half)) - np.uint64(1))
    bucket = np.int64(63) - np.int64(half) - np.int64(leading_zeros(top))
    sub = np.int64(value) >> bucket
    return ((bucket + 1) << np.int64(half)) + sub - (np.int64(1) << np.int64(half))


@kernel(inlined=True)
def value_at(index, half):
    """Return the lowest value that counter `index` counts."""
    bucket = (index >> np.int64(half)) - 1
    sub = (index & ((np.int64(1) << np.int64(half)) - 1)) + (np.int64(1) << np.int64(half))
    if bucket < 0:
        sub -= np.int64(1) << np.int64(half)
        bucket = np.int64(0)
    return sub << bucket


@kernel(inlined=True)
def clamp(value):
    """Limit a value to the range of the histograms."""
    return min(max(value, np.int64(0)), np.int64(HIGHEST_NS))


@kernel(inlined=True)
def record(counts, half, value):
    """Count one value (ns), limited to the range of the histograms."""
    counts[index_of(clamp(value), half)] += 1


@kernel("void(uint64[::1], int64, int64[::1])")
def record_all(counts, half, values):
    """Count every value of an array."""
    for i in range(values.size):
        record(counts, half, values[i])


@kernel("void(uint64[::1], uint64[::1])")
def merge(into, counts):
    """Add `counts` to `into`, which has the same layout."""
    for i in range(counts.size):
        into[i] += counts[i]


@kernel("int64(uint64[::1], uint64[::1], uint64[::1])")
def take_delta(now, before, delta):
    """Write `now - before` to `delta` and `now` to `before`, and return how many values were recorded in between.

    Another thread may write to `now` at the same time: each counter is read once, so that every value is in exactly
    one delta.
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
    """Compute a delta as `take_delta` does, for 32-bit counters.

    The delta is correct across an overflow if the call comes at least every 2^32 values.
    """
    n = np.int64(0)
    for i in range(now.size):
        current = now[i]
        delta[i] = np.uint64(np.uint32(current - before[i]))
        before[i] = current
        n += np.int64(delta[i])
    return n


@kernel("int64(uint64[::1], int64, uint8[::1])")
def encode_payload(counts, limit, out):
    """Write `counts[:limit]` as ZigZag LEB128, and return the number of bytes.

    A run of zeros is one negative number. `out` needs 9 bytes per counter. This is the V2 encoding of
    HdrHistogram's V2CompressedHistogram.
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
