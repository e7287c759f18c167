"""The address table of a lane: where it may connect to. The control plane changes it while the lane runs.

Rows are only ever appended. The sockaddr of a row never changes; only its word in `address_states` does. So the lane
may read the table at any time. What it reads may be outdated, but it reads again when `Control.ADDRESSES` has changed.
`docs/lane-contract.md` gives the order of the writes.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire

ADDRESSES_MAX = 1_024
"""The number of rows of the table: a run may use this many distinct addresses."""

ADDRESS_BYTES = 32
"""Bytes of a row: a sockaddr, and in the last two bytes its family and its length."""

UNUSED, IN_USE, REMOVED = range(3)
"""Values of `address_states`."""


class AddressCounts(NamedTuple):
    """Columns of `address_counts`: what a lane did with an address.

    `drained` counts connections that were closed because the address was removed.
    """

    connects: int = 0
    connects_failed: int = 1
    requests: int = 2
    errors: int = 3
    drained: int = 4


A = AddressCounts()


AF_INET, AF_INET6 = 2, 10


def pack_address(host: str, port: int) -> bytes:
    """Return an address as a row of the table."""
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
    """Return the host and port of a row."""
    packed = row[8:24] if row[ADDRESS_BYTES - 2] == AF_INET6 else row[4:8]
    return str(ipaddress.ip_address(packed)), int.from_bytes(row[2:4], "big")


@kernel()
def read_addresses(metrics, chosen, at):
    """Write the rows in use to `chosen` int64[ADDRESSES_MAX], and return how many there are.

    If no row is in use, `chosen` stays as it is, and `at`, the earlier count, is returned.
    """
    count = 0
    for row in range(ADDRESSES_MAX):
        state = load_acquire(metrics.address_states, row)
        if state == UNUSED:
            break
        if state == IN_USE:
            chosen[count] = row
            count += 1
    return np.int64(count) if count else at


@kernel(inlined=True)
def is_removed(metrics, row):
    """Return whether this address was removed, so that connections to it must end."""
    return load_acquire(metrics.address_states, row) == REMOVED
