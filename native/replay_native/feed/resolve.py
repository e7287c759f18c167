"""The rings through which a lane has names looked up for its connections (`resolve = "per-connection"`).

The lane writes a token (a slot and the slot's generation) to a ring of requests, and wakes the control plane. The
control plane answers each token once, in any order, with a row of the address table in a ring of replies. A reply for
an older generation is ignored. Each ring has one writer and one reader. Positions only grow, as in the feed.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from replay_native.ground import libc
from replay_native.ground.bundle import Array, bundle
from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire, poke_i64, store_release

_write = libc.write

REQUESTED, REPLIED, TAKEN = 0, 8, 16
"""Positions in `words`, a cache line apart.

REQUESTED: how many requests the lane has written. REPLIED: how many replies the control plane has written. TAKEN: how
many replies the lane has taken.
"""


@bundle
class ResolveRings(NamedTuple):
    """The two rings. If they have a single row, the lane sends no requests."""

    requests: Annotated[Array, "int64[::1]", "tokens; their number is a power of two"]
    replies: Annotated[
        Array, "int64[:, ::1]", "pairs of a token and a row of the address table, as many as `requests`"
    ]
    words: Annotated[Array, "int64[::1]", "positions: REQUESTED, REPLIED, TAKEN"]


def make_resolve_rings(connections: int) -> ResolveRings:
    """Create rings for a lane of this many connections. With 0 the lane sends no requests."""
    rows = 1 << max(2 * connections - 1, 0).bit_length() if connections else 1
    return ResolveRings(np.zeros(rows, np.int64), np.zeros((rows, 2), np.int64), np.zeros(24, np.int64))


@kernel(inlined=True)
def can_request(rings):
    """Return whether this lane sends requests, and there is space for one more."""
    rows = rings.requests.shape[0]
    return rows > 1 and rings.words[REQUESTED] - load_acquire(rings.words, REPLIED) < rows


@kernel()
def request_address(rings, token, fd, scratch):
    """Write a request for an address, and wake the control plane through its eventfd; `can_request` must have been True."""
    requested = rings.words[REQUESTED]
    rings.requests[requested & (rings.requests.shape[0] - 1)] = token
    store_release(rings.words, REQUESTED, requested + 1)
    poke_i64(scratch.ctypes.data, np.int64(1))
    _write(np.int32(fd), scratch.ctypes.data, np.uint64(8))


@kernel(inlined=True)
def has_reply(rings):
    """Return whether there is a reply that was not taken."""
    return rings.words[TAKEN] < load_acquire(rings.words, REPLIED)


@kernel(inlined=True)
def take_reply(rings):
    """Take the next reply, and return its token and its row of the address table."""
    at = rings.words[TAKEN] & (rings.requests.shape[0] - 1)
    rings.words[TAKEN] += 1
    return rings.replies[at, 0], rings.replies[at, 1]
