"""Stamps spread over their resolution: each group of equal stamps gets its random draws in ascending order."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

BUCKETS_MAX = 1 << 16
"""Maximum number of buckets of a group. In a larger group, each bucket has more draws."""


@kernel(inlined=True)
def _sort(values, begin, end):
    """Sort values[begin:end] by insertion, which is fast because they are nearly in order."""
    for index in range(begin + 1, end):
        value, at = values[index], index
        while at > begin and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@kernel(inlined=True)
def _spread_group(stamp, draws, begin, end, resolution_ns, out, ends):
    """Write the stamp plus the sorted draws of a group to out[begin:end].

    The draws are distributed over buckets, one per draw but at most as many as `ends` has, and then sorted by
    insertion.
    """
    buckets = min(end - begin, ends.shape[0])
    share = np.float64(buckets) / np.float64(resolution_ns)
    ends[:buckets] = 0
    for index in range(begin, end):
        ends[min(np.int64(np.float64(draws[index]) * share), buckets - 1)] += 1
    at = begin
    for bucket in range(buckets):
        count = ends[bucket]
        ends[bucket] = at
        at += count
    for index in range(begin, end):
        bucket = min(np.int64(np.float64(draws[index]) * share), buckets - 1)
        out[ends[bucket]] = stamp + draws[index]
        ends[bucket] += 1
    _sort(out, begin, end)


@kernel("void(int64[::1], int64[::1], int64, int64[::1], int64[::1])")
def spread(stamps, draws, resolution_ns, out, ends):
    """Write sort(stamps + draws) to `out`.

    Stamps are in order, and stamps that differ are at least `resolution_ns` apart. Draws are in [0,
    `resolution_ns`). Scratch: `ends` int64[BUCKETS_MAX].
    """
    begin = np.int64(0)
    while begin < stamps.shape[0]:
        end = begin + 1
        while end < stamps.shape[0] and stamps[end] == stamps[begin]:
            end += 1
        _spread_group(stamps[begin], draws, begin, end, resolution_ns, out, ends)
        begin = end
