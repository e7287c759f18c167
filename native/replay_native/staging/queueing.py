"""A queue with k servers, each of which needs a fixed time per request, first come first served (M/D/k)."""

from __future__ import annotations

import numpy as np
from numba import from_dtype, types

from replay_native.ground.jit import kernel

QUEUE = np.dtype([(name, "i8") for name in ("service_ns", "retries", "patience_ns", "turn", "taken_ns")])
"""The settings and the state of a queue.

`service_ns` is how long a server needs for a request. A request that takes longer than `patience_ns` is tried again, at
most `retries` times (0: requests wait without limit). `turn` is the next server, and `taken_ns` is when the last request
arrived.
"""


@kernel()
def take_on(queue, free_ns, at_ns):
    """Give a request that arrives at `at_ns` to the server that is free first, and return when it will be done.

    `queue` is a QUEUE. free_ns int64[k] is when each server is free. All need the same time, so they become free in
    the order in which requests were given to them. Requests arrive in order: one that is reported late counts as
    arriving together with the one before it.
    """
    queue.taken_ns = max(at_ns, queue.taken_ns)
    done_ns = max(queue.taken_ns, free_ns[queue.turn]) + queue.service_ns
    free_ns[queue.turn] = done_ns
    queue.turn = queue.turn + 1 if queue.turn + 1 < free_ns.shape[0] else 0
    return done_ns


@kernel((from_dtype(QUEUE)[::1], types.int64[::1], types.int64[::1], types.int64[::1]))
def take_all_on(queue, free_ns, at_ns, done_ns):
    """Give requests that arrive at at_ns int64[n] to servers, in order, and write to done_ns when each is done."""
    for index in range(at_ns.shape[0]):
        done_ns[index] = take_on(queue[0], free_ns, at_ns[index])
