"""Which rows of a trace are sent. The numbers that requests get from this are the same in every run of the trace."""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, uint8, uint32

from replay_native.ground.jit import kernel
from replay_native.trace.columns import method_of

from .survey import NOT_ALLOWED


@kernel((uint32[::1], int64[:, ::1], uint8[::1], boolean[::1]))
def mark_sent(request, requests, rules, marks):
    """Mark the rows of a batch that are sent, according to the rules of their methods."""
    for row in range(request.shape[0]):
        marks[row] = rules[method_of(requests, np.int64(request[row]))] < NOT_ALLOWED
