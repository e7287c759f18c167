"""A queue with k servers, each of which takes a fixed time per request, first come first served (M/D/k)."""

from __future__ import annotations

import numpy as np
from numba import from_dtype, types

from replay_native.ground.jit import kernel

QUEUE = np.dtype([(name, "i8") for name in ("service_ns", "retries", "patience_ns", "turn", "taken_ns")])
"""How long a server takes; how often a request that took longer than `patience_ns` is tried again (0: requests wait
without limit); which server is next, and when the last request came.
"""


@kernel()
def take_on(queue, free_ns, at_ns):
    """Give a request that comes at `at_ns` to the server that is free first. Returns when it will be done.

    `queue` is a QUEUE; free_ns int64[k] is when each server is free. All take equally long, so they become free in the
    order in which they were taken. Requests come in order: one that is reported late counts as coming with the one
    before it.
    """
    queue.taken_ns = max(at_ns, queue.taken_ns)
    done_ns = max(queue.taken_ns, free_ns[queue.turn]) + queue.service_ns
    free_ns[queue.turn] = done_ns
    queue.turn = queue.turn + 1 if queue.turn + 1 < free_ns.shape[0] else 0
    return done_ns


@kernel((from_dtype(QUEUE)[::1], types.int64[::1], types.int64[::1], types.int64[::1]))
def take_all_on(queue, free_ns, at_ns, done_ns):
    """Give requests that come at at_ns int64[n] to servers, one after another. Writes to done_ns when each is done."""
    for index in range(at_ns.shape[0]):
        done_ns[index] = take_on(queue[0], free_ns, at_ns[index])
