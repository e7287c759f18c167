"""Time that a lane lost because it slept longer than requested, or did not poll its sockets for too long.

A process that is stopped (SIGSTOP, a frozen container) shows in no counter of the scheduler, so the lane compares
its own clock with the times that it requested. While it has requests in flight it wakes at least every `BEAT_NS`: a
stop during a sleep is then recognized as one, and not mistaken for a target that responded late.
"""

from __future__ import annotations

import numpy as np
from numba import int64

from replay_native.ground.jit import kernel

from .lane_metrics import METRICS_TYPE, C

GAP_NS = 1_000_000
"""Shortest gap that counts. Any sleeping thread has shorter ones."""

BEAT_NS = 1_000_000
"""Longest sleep while a response may arrive."""

OWN_PART = 4
"""An unsent request is the lane's own fault if the lane caused more than 1/OWN_PART of its wait."""

INSTANT_NS = 50_000
"""A poll that returns sooner did not sleep, because its events were already pending."""


@kernel((METRICS_TYPE, int64, int64, int64, int64, int64, int64))
def note_poll(metrics, awake_ns, asleep_ns, until_ns, woke_ns, gap_ns, behind):
    """Count the time that a lane lost in one turn, and return how long its responses may have been unread, in ns.

    The lane was awake from `awake_ns`, polled from `asleep_ns`, asked to be woken at `until_ns`, and woke at
    `woke_ns`. Gaps up to `gap_ns` do not count. `behind` means that connects were postponed during the whole turn,
    all of which is then lost.
    """
    counters = metrics.counters
    worked, overslept = asleep_ns - awake_ns, woke_ns - max(until_ns, asleep_ns)
    worked = worked if worked > gap_ns else np.int64(0)
    overslept = overslept if overslept > gap_ns else np.int64(0)
    gap = max(worked, overslept)
    if gap > 0:
        counters[C.gaps] += 1
        counters[C.gaps_ns] += worked + overslept
        counters[C.gap_max_ns] = max(counters[C.gap_max_ns], gap)
    if behind:
        counters[C.dials_postponed_ns] += woke_ns - awake_ns
        counters[C.lost_ns] += woke_ns - awake_ns
    else:
        counters[C.lost_ns] += worked + overslept
    if overslept > 0:
        return woke_ns - asleep_ns
    slept = until_ns > asleep_ns and woke_ns - asleep_ns >= INSTANT_NS
    return np.int64(0) if slept else worked


@kernel(inlined=True)
def unread_ns(found_ns, polled_ns, now):
    """Return for how long a response has been unread.

    This is the result of `note_poll`, plus the time since then if the events before this one took long.
    """
    return found_ns + (now - polled_ns if now - polled_ns > GAP_NS else np.int64(0))
