"""The address table of a lane: where it may connect to, changed by the control plane while the lane runs.

Rows are only ever appended; a row's sockaddr never changes, only its word in `address_states` does. So the lane may
read the table at any moment: whatever it sees was right once, and the version tells it to look again.
`docs/lane-contract.md` has the order of the writes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .jit import kernel
from .shared import load_acquire

ADDRESSES_MAX = 1_024
"""Rows: distinct addresses of one run."""

ADDRESS_BYTES = 32
"""Room for one sockaddr; the two bytes at the end of a row hold the family and the length."""

UNUSED, IN_USE, REMOVED = range(3)
"""Values of `address_states`."""


class AddressCounts(NamedTuple):
    """Columns of `address_counts`: what a lane did with an address. `drained` connections were closed for its removal."""

    connects: int = 0
    connects_failed: int = 1
    requests: int = 2
    errors: int = 3
    drained: int = 4


A = AddressCounts()


@kernel()
def heed_addresses(bank, chosen, at):
    """List the rows in use in `chosen` int64[ADDRESSES_MAX]; how many. `at` is how many were listed before, which stay
    where the table has none.
    """
    count = 0
    for row in range(ADDRESSES_MAX):
        state = load_acquire(bank.address_states, row)
        if state == UNUSED:
            break
        if state == IN_USE:
            chosen[count] = row
            count += 1
    return np.int64(count) if count else at


@kernel(inlined=True)
def is_removed(bank, row):
    """Whether connections to this row are to end."""
    return load_acquire(bank.address_states, row) == REMOVED
