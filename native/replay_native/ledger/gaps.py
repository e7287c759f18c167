"""Time that a lane lost: it slept longer than it asked to, or did not look at its sockets for too long.

A process that is stopped (SIGSTOP, a frozen container) shows in no counter of the scheduler, so the lane compares its
own clock with what it asked for. While it has requests in flight it wakes at least every `BEAT_NS`: a stop during a
sleep is then seen as one, and not mistaken for a target that responded late.
"""

from __future__ import annotations

import numpy as np
from numba import int64

from replay_native.ground.jit import kernel

from .lane_metrics import METRICS_TYPE, C

GAP_NS = 1_000_000
"""A shorter gap does not count: any sleeping thread has such gaps."""

BEAT_NS = 1_000_000
"""The longest sleep while a response may come."""

OWN_PART = 4
"""An unsent request is the lane's own fault if more than this fraction (1 in N) of its wait was."""

INSTANT_NS = 50_000
"""A poll that returns sooner did not sleep: its events were there before."""


@kernel((METRICS_TYPE, int64, int64, int64, int64, int64, int64))
def note_poll(metrics, awake_ns, asleep_ns, until_ns, woke_ns, gap_ns, behind):
    """Count the time lost in one turn of a lane. Awake since `awake_ns`, it polled from `asleep_ns` and asked to be
    woken at `until_ns`, but woke at `woke_ns`. Gaps up to `gap_ns` do not count. `behind`: dials were put off all the
    time.

    Returns for how long at most a response that is read now has lain unread.
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
    """For how long a response has lain unread: what `note_poll` returned, and the time since if earlier events took
    long.
    """
    return found_ns + (now - polled_ns if now - polled_ns > GAP_NS else np.int64(0))
