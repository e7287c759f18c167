"""Growable buffers outside of NumPy arrays, for copies of requests and values of clients.

Their sizes are known only at run time.
"""

from __future__ import annotations

import numpy as np

from . import libc
from .jit import kernel

_malloc, _free = libc.malloc, libc.free


@kernel(inlined=True)
def with_capacity(address, capacity, length):
    """Return (address, capacity) of a buffer for `length` bytes: the given buffer, or a new one if that is too small.

    If the buffer is replaced, its contents are lost. The address is 0 if no memory is left.
    """
    if length <= capacity:
        return np.uint64(address), np.int64(capacity)
    if address:
        _free(np.uint64(address))
    return np.uint64(_malloc(np.uint64(length))), np.int64(length)


@kernel(inlined=True)
def release(address):
    """Free a buffer. An address of 0 is ignored."""
    if address:
        _free(np.uint64(address))
