"""Requests that are tried again: whether they may be, how long they back off, and the heap of those that do.

Back-off with jitter is that of M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015); the budget that
of B. Beyer et al., "Site Reliability Engineering" (2016), chapter 21, as a bucket of tokens: docs/retries.md.
"""

from __future__ import annotations

import numpy as np

from .jit import kernel
from .randoms import random_of, unit_of

RETRY_ON = 1_024
"""Length of the table of what is tried again: by status of whole answers, by FAILURE + outcome of others."""

FAILURE = 600
PPM = 1_000_000
"""One retry in tokens of the budget; shares are parts per million."""

_SALT = np.uint64(0x5E77AB1E5E77AB1E)


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def backoff_ns(seq, retry, base_ns, most_ns, jitter_ppm, seed):
    """How long retry number `retry` (from 1) of a request backs off: base * 2^(retry - 1), `most_ns` at most, of which
    a random part of up to `jitter_ppm` is taken away. The same seed gives the same again.
    """
    wait_ns = base_ns
    for _ in range(1, retry):
        wait_ns = min(2 * wait_ns, most_ns)
    wait_ns = min(wait_ns, most_ns)
    unit = unit_of(random_of(np.uint64(seed), np.int64(seq * 64 + retry), _SALT))
    return np.int64(wait_ns * (1.0 - unit * jitter_ppm / PPM))


@kernel(inlined=True)
def is_retried(table, outcome, status):
    """Whether what a try came to is tried again."""
    return table[FAILURE + outcome if outcome > 3 else status] != 0


@kernel(inlined=True)
def push_backoff(lane, row):
    """Into the heap, by `retry_ns`: its first is the next to be tried again."""
    st, heap, room = lane.state[0], lane.backoff, lane.room
    at = st.backing_off
    st.backing_off += 1
    while at > 0:
        above = (at - 1) // 2
        if room[heap[above]].retry_ns <= room[row].retry_ns:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = np.int32(row)


@kernel(inlined=True)
def pop_backoff(lane):
    """The first of the heap, which is not empty."""
    st, heap, room = lane.state[0], lane.backoff, lane.room
    first = np.int64(heap[0])
    st.backing_off -= 1
    last, count = heap[st.backing_off], st.backing_off
    at = np.int64(0)
    while 2 * at + 1 < count:
        below = 2 * at + 1
        if below + 1 < count and room[heap[below + 1]].retry_ns < room[heap[below]].retry_ns:
            below += 1
        if room[last].retry_ns <= room[heap[below]].retry_ns:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = last
    return first
