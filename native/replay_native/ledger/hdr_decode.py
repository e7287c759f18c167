"""The V2 payload of an HDR histogram decoded to its counts, and the used part of a counts array."""

from __future__ import annotations

import numpy as np
from numba import types, uint64

from replay_native.ground.jit import kernel

_BYTES = types.Array(types.uint8, 1, "C", readonly=True)

CUT_SHORT, TOO_MANY_COUNTERS, NEGATIVE_RUN = -1, -2, -3
"""What `decode_payload` returns for a payload that ends inside a number, has more counters than the histogram, or has
a run of zeros of impossible length.
"""


@kernel((_BYTES, uint64[::1]))
def decode_payload(payload, counts):
    """Fill `counts`, which the caller has zeroed, from ZigZag LEB128. Returns the counters read, or a negative code.

    This is the V2 encoding of HdrHistogram: at most 9 bytes per number, all 8 bits of the ninth count, and a negative
    number is a run of zeros.
    """
    at, index = np.int64(0), np.int64(0)
    while at < payload.size:
        word, shift = np.uint64(0), np.uint64(0)
        while True:
            if at == payload.size:
                return np.int64(CUT_SHORT)
            byte = np.uint64(payload[at])
            at += 1
            if shift == np.uint64(56):
                word |= byte << shift
                break
            word |= (byte & np.uint64(0x7F)) << shift
            if byte < np.uint64(0x80):
                break
            shift += np.uint64(7)
        half = word >> np.uint64(1)
        if word & np.uint64(1):
            if half >= np.uint64(counts.size):
                return np.int64(NEGATIVE_RUN)
            index += np.int64(half) + 1
        else:
            if index >= counts.size:
                return np.int64(TOO_MANY_COUNTERS)
            counts[index] = half
            index += 1
    if index > counts.size:
        return np.int64(TOO_MANY_COUNTERS)
    return index


@kernel("int64(uint64[::1])")
def used(counts):
    """Index of the highest counter in use, plus one; 0 for an empty histogram."""
    at = counts.size
    while at > 0 and counts[at - 1] == 0:
        at -= 1
    return np.int64(at)


@kernel("int64(uint64[::1])")
def first_used(counts):
    """Index of the lowest counter in use; the length for an empty histogram."""
    at = 0
    while at < counts.size and counts[at] == 0:
        at += 1
    return np.int64(at)
