"""Which rows of a trace are sent. `replay.plan.numbers` maps the numbers of requests to rows by this."""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, uint8, uint32

from replay_native.ground.jit import kernel
from replay_native.trace.columns import method_of

from .survey import NOT_ALLOWED


@kernel((uint32[::1], int64[:, ::1], uint8[::1], boolean[::1]))
def mark_sent(request, requests, rules, marks):
    """Write to `marks` whether each row of a batch is sent, according to the rule of its method."""
    for row in range(request.shape[0]):
        marks[row] = rules[method_of(requests, np.int64(request[row]))] < NOT_ALLOWED
