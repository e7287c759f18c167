"""The feed of a lane: a ring of due entries and a ring of rendered request bytes."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import from_dtype, types

from replay_native.ground.bundle import bundle_type

HEAD, IDEMPOTENT, WARM_UP, LOOKED_AT = 1, 2, 4, 8
"""Flags of an entry; LOOKED_AT: its answer is (`sessions`)."""

PATCHES_SHIFT, PATCHES_MASK = 16, 0xFFFF
"""Among the flags: how many patches stand behind the request's bytes."""

STATUS_SHIFT = 32
"""And the recorded status of every entry, 0 where it is not known."""

ENTRY = np.dtype([
    ("due_ns", "i8"), ("seq", "i8"), ("offset", "i8"), ("length", "i8"),
    ("client", "u4"), ("route", "u4"), ("flags", "i8"), ("taken_ns", "i8"), ("state", "i8"),
])  # fmt: skip
"""One due request: 64 bytes, a cache line. `taken_ns` and `state` are the lane's own notes: of HTTP `state` is the lane's
`lost_ns` when it was taken up."""

Feed = namedtuple("Feed", "entries ring")
"""entries ENTRY[power of two], ring uint8[power of two]."""

entry_type = from_dtype(ENTRY)
FEED_TYPE = bundle_type(Feed, [entry_type[::1], types.uint8[::1]])

ENTRIES_MIN, ENTRIES_MAX = 4_096, 1 << 20
RING_BYTES_MIN, RING_BYTES_MAX = 4 << 20, 256 << 20


def _power_of_two(least: int, low: int, high: int) -> int:
    return min(max(1 << max(least - 1, 1).bit_length(), low), high)


def make_feed(entries: int, ring_bytes: int) -> Feed:
    """A feed of at least this size (within limits), every page of it resident."""
    rows = np.empty(_power_of_two(entries, ENTRIES_MIN, ENTRIES_MAX), ENTRY)
    ring = np.empty(_power_of_two(ring_bytes, RING_BYTES_MIN, RING_BYTES_MAX), np.uint8)
    rows.view(np.uint8)[:] = 0
    ring[:] = 0
    return Feed(rows, ring)
