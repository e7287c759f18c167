"""The address table of a lane: where it may connect to, changed by the control plane while the lane runs.

Rows are only ever appended; a row's sockaddr never changes, only its word in `address_states` does. So the lane may
read the table at any moment: whatever it sees was right once, and the version tells it to look again.
`docs/lane-contract.md` has the order of the writes.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire

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


AF_INET, AF_INET6 = 2, 10


def pack_address(host: str, port: int) -> bytes:
    """A sockaddr_in or sockaddr_in6 in a row of ADDRESS_BYTES, its family and length in the last two bytes."""
    packed = ipaddress.ip_address(host).packed
    place = port.to_bytes(2, "big")
    if len(packed) == 16:
        raw = AF_INET6.to_bytes(2, "little") + place + bytes(4) + packed + bytes(4)
        family = AF_INET6
    else:
        raw = AF_INET.to_bytes(2, "little") + place + packed + bytes(8)
        family = AF_INET
    return raw.ljust(ADDRESS_BYTES - 2, b"\0") + bytes([family, len(raw)])


def unpack_address(row: bytes) -> tuple[str, int]:
    """Host and port of what `pack_address` made."""
    packed = row[8:24] if row[ADDRESS_BYTES - 2] == AF_INET6 else row[4:8]
    return str(ipaddress.ip_address(packed)), int.from_bytes(row[2:4], "big")


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
