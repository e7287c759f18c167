"""Growable buffers whose size is known only at run time: copies of requests, values of clients."""

from __future__ import annotations

import numpy as np

from . import libc
from .jit import kernel

_malloc, _free = libc.malloc, libc.free


@kernel(inlined=True)
def with_capacity(address, capacity, length):
    """(address, capacity) of a buffer for `length` bytes: this one, or a new one in its place. The contents are lost."""
    if length <= capacity:
        return np.uint64(address), np.int64(capacity)
    if address:
        _free(np.uint64(address))
    return np.uint64(_malloc(np.uint64(length))), np.int64(length)


@kernel(inlined=True)
def release(address):
    """Free a buffer; 0 is none."""
    if address:
        _free(np.uint64(address))
