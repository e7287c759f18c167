"""Nanosecond clocks, read through libc.

`scratch` is any int64 array of at least two words. It receives the C `timespec`.
"""

from __future__ import annotations

from . import libc
from .jit import kernel
from .libc import CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID

_clock_gettime = libc.clock_gettime
NS = 1_000_000_000


@kernel(inlined=True)
def now_ns(scratch):
    """Return CLOCK_MONOTONIC in ns, the clock of every timestamp in a lane."""
    _clock_gettime(CLOCK_MONOTONIC, scratch.ctypes.data)
    return scratch[0] * NS + scratch[1]


@kernel(inlined=True)
def thread_cpu_ns(scratch):
    """Return the CPU time of the calling thread in ns."""
    _clock_gettime(CLOCK_THREAD_CPUTIME_ID, scratch.ctypes.data)
    return scratch[0] * NS + scratch[1]
