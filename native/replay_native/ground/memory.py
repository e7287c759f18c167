"""Memory of which it shows in the course of a run how much is needed: a request's, a client's value's."""

from __future__ import annotations

import numpy as np

from . import libc
from .jit import kernel

_malloc, _free = libc.malloc, libc.free


@kernel(inlined=True)
def with_room(address, capacity, length):
    """(address, capacity) of memory for `length` bytes: this, or other memory in its place, without what was in it."""
    if length <= capacity:
        return np.uint64(address), np.int64(capacity)
    if address:
        _free(np.uint64(address))
    return np.uint64(_malloc(np.uint64(length))), np.int64(length)


@kernel(inlined=True)
def release(address):
    """Give memory back; 0 is none."""
    if address:
        _free(np.uint64(address))
