"""How a lane has names looked up for its connections (`resolve = "per-connection"`): a ring of asks, a ring of grants.

The lane writes a token (its slot and the slot's generation) and wakes the control plane; that answers each token once,
in any order, with a row of the address table. `docs/lane-contract.md` says what that means.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import types

from replay_native.ground import libc
from replay_native.ground.bundle import bundle_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire, poke_i64, store_release

_write = libc.write

ASKED, GRANTED, TAKEN = 0, 8, 16
"""Words of `words`, a cache line apart: asks written (by the lane), grants written (by the control plane), grants taken."""

Asks = namedtuple("Asks", "tokens grants words")
"""tokens int64[power of two], grants int64[the same, 2] (token, row), words int64[24]. One of a single row asks nobody."""

ASKS_TYPE = bundle_type(Asks, [types.int64[::1], types.int64[:, ::1], types.int64[::1]])


def make_asks(connections: int) -> Asks:
    """Rings for a lane of this many connections; 0 is a lane that asks nobody."""
    rows = 1 << max(2 * connections - 1, 0).bit_length() if connections else 1
    return Asks(np.zeros(rows, np.int64), np.zeros((rows, 2), np.int64), np.zeros(24, np.int64))


@kernel(inlined=True)
def can_ask(asks):
    """Whether this lane asks, and the control plane has room for one more."""
    rows = asks.tokens.shape[0]
    return rows > 1 and asks.words[ASKED] - load_acquire(asks.words, GRANTED) < rows


@kernel()
def ask(asks, token, fd, scratch):
    """Ask for an address, and wake the control plane by its eventfd."""
    asked = asks.words[ASKED]
    asks.tokens[asked & (asks.tokens.shape[0] - 1)] = token
    store_release(asks.words, ASKED, asked + 1)
    poke_i64(scratch.ctypes.data, np.int64(1))
    _write(np.int32(fd), scratch.ctypes.data, np.uint64(8))


@kernel(inlined=True)
def has_grant(asks):
    """Whether an answer came that was not taken."""
    return asks.words[TAKEN] < load_acquire(asks.words, GRANTED)


@kernel(inlined=True)
def take_grant(asks):
    """The next answer: its token and row."""
    at = asks.words[TAKEN] & (asks.tokens.shape[0] - 1)
    asks.words[TAKEN] += 1
    return asks.grants[at, 0], asks.grants[at, 1]
