"""The feed of a lane: a ring of due entries and a ring of rendered request bytes.

Theory of operation
-------------------

One producer (the control plane) and one consumer (the lane) share two rings. The producer renders a request into the
byte ring, describes it in an entry, and only then publishes the new tail (`Control.FEED_TAIL`, release). The lane
reads entries up to the tail (acquire). It advances the heads (`FEED_HEAD`, `RING_HEAD`) when it no longer needs an
entry and its bytes. Positions only grow. Their lower bits are the place in the ring, whose size is a power of two.
The producer never changes what is between head and tail, so neither side ever locks or waits for the other.

A request never wraps around the end of the byte ring. If it would, the producer skips to the ring's start. So a
request is always contiguous, and one send call can send it.

The entries between `FEED_HEAD` and the next one that the lane will take up are its waiting queue: requests wait where
they were rendered.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import from_dtype

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire

from .control import Control

HEAD, IDEMPOTENT, WARM_UP, EVALUATED = 1, 2, 4, 8
"""Flags of an entry. EVALUATED: captures and checks read its response."""

PATCHES_SHIFT, PATCHES_MASK = 16, 0xFFFF
"""Bits of the flags that count the patches after the request's bytes."""

STATUS_SHIFT = 32
"""Position in the flags of the recorded status, which is 0 if it is not known."""

ENTRY = np.dtype([
    ("due_ns", "i8"), ("seq", "i8"), ("offset", "i8"), ("length", "i8"),
    ("client", "u4"), ("route", "u4"), ("flags", "i8"), ("taken_ns", "i8"), ("state", "i8"),
])  # fmt: skip
"""One due request: 64 bytes, which is a cache line.

The lane writes `taken_ns` and `state`. With HTTP `state` is the lane's `lost_ns` when it took up the request.
"""

entry_type = from_dtype(ENTRY)


@bundle
class Feed(NamedTuple):
    """The two rings of a lane."""

    entries: Annotated[Array, entry_type[::1], "due requests; their number is a power of two"]
    ring: Annotated[Array, "uint8[::1]", "the bytes of requests; their number is a power of two"]


@bundle
class FeedEnd(NamedTuple):
    """The producer's end of a feed."""

    feed: Annotated[Feed, Feed, "the rings"]
    control: Annotated[Array, "int64[::1]", "the lane's control words"]
    tails: Annotated[Array, "int64[::1]", "the tail of the entries and of the byte ring, not yet published"]


FEED_TYPE, FEED_END_TYPE = numba_type(Feed), numba_type(FeedEnd)

TAIL, RING_TAIL = 0, 1
"""Places in `tails`."""

FULL, TOO_LARGE = -1, -2
"""Results of `place_in_ring`: there is no space now, or there never will be."""

ENTRIES_MIN, ENTRIES_MAX = 4_096, 1 << 20
RING_BYTES_MIN, RING_BYTES_MAX = 4 << 20, 256 << 20


def _power_of_two(least: int, low: int, high: int) -> int:
    return min(max(1 << max(least - 1, 1).bit_length(), low), high)


def make_feed(entries: int, ring_bytes: int) -> Feed:
    """Create a feed of at least this size (within limits), and touch every page so that it is in memory."""
    rows = np.empty(_power_of_two(entries, ENTRIES_MIN, ENTRIES_MAX), ENTRY)
    ring = np.empty(_power_of_two(ring_bytes, RING_BYTES_MIN, RING_BYTES_MAX), np.uint8)
    rows.view(np.uint8)[:] = 0
    ring[:] = 0
    return Feed(rows, ring)


@kernel(inlined=True)
def has_entry(end, head):
    """Return whether an entry is free. `head` is the last FEED_HEAD that was read."""
    return end.tails[TAIL] - head < end.feed.entries.shape[0]


@kernel(inlined=True)
def place_in_ring(end, length, ring_head):
    """Return the position in the byte ring for a request of `length` bytes, which does not wrap, or FULL or TOO_LARGE."""
    size, tail = np.int64(end.feed.ring.shape[0]), end.tails[RING_TAIL]
    if length > size:
        return np.int64(TOO_LARGE)
    left = size - (tail & (size - 1))
    offset = tail if length <= left else tail + left
    return offset if offset + length - ring_head <= size else np.int64(FULL)


@kernel(inlined=True)
def address_in_ring(end, offset):
    """Return the address of a position in the byte ring."""
    ring = end.feed.ring
    return np.int64(ring.ctypes.data) + (offset & (np.int64(ring.shape[0]) - 1))


@kernel(inlined=True)
def push_entry(end, due_ns, seq, offset, length, client):
    """Append an entry for bytes that were written at `offset`, and return it.

    The caller sets `route`, `flags` and `state`, and later publishes the tail.
    """
    entries = end.feed.entries
    entry = entries[end.tails[TAIL] & (entries.shape[0] - 1)]
    entry.due_ns, entry.seq, entry.offset, entry.length = due_ns, seq, offset, length
    entry.client = client
    entry.taken_ns = 0
    end.tails[TAIL] += 1
    end.tails[RING_TAIL] = offset + length
    return entry


@kernel(inlined=True)
def heads_of(end):
    """Return how far the lane has released the entries and the byte ring."""
    return load_acquire(end.control, Control.FEED_HEAD), load_acquire(end.control, Control.RING_HEAD)


@bundle
class LaneShare(NamedTuple):
    """Which due rows of a batch a lane gets, and the times by which they are rendered."""

    lane: Annotated[int, "int64", "the lane's number"]
    lanes: Annotated[int, "int64", "the number of lanes"]
    by_client: Annotated[bool, "boolean", "rows are assigned to lanes by client; otherwise by number"]
    start_ns: Annotated[int, "int64", "the start of the run (CLOCK_MONOTONIC), from which due times count"]
    warm_up_ns: Annotated[int, "int64", "rows that are due earlier are warm-up"]
    horizon_ns: Annotated[int, "int64", "rows that are due later (CLOCK_MONOTONIC) are not rendered yet"]


SHARE_TYPE = numba_type(LaneShare)


@kernel(inlined=True)
def first_row(share, first_seq, begin):
    """Return the first row of this lane at or after row `begin`.

    By client, this is `begin`, and callers call `is_mine` for each row.
    """
    if share.by_client:
        return begin
    return begin + (share.lane - (first_seq + begin) % share.lanes + share.lanes) % share.lanes


@kernel(inlined=True)
def row_step(share):
    """Return the distance to the row that may be the next of this lane."""
    return np.int64(1) if share.by_client else share.lanes


@kernel(inlined=True)
def is_mine(share, client):
    """Return whether a client's row belongs to this lane, for rows that `first_row` and `row_step` select."""
    return not share.by_client or np.int64(client) % share.lanes == share.lane
