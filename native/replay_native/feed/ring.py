"""The feed of a lane: a ring of due entries and a ring of rendered request bytes.

Theory of operation
-------------------

One producer (the control plane) and one consumer (the lane) share two rings. The producer renders a request into the
byte ring, describes it in an entry, and only then publishes the new tail (`Control.FEED_TAIL`, release). The lane
takes entries up to the tail (acquire), and releases the heads (`FEED_HEAD`, `RING_HEAD`) when it needs an entry and
its bytes no more. Positions only grow; their lower bits are the place in the ring, whose size is a power of two. What
lies between head and tail is never touched by the producer, so neither side ever locks or waits for the other.

A request never wraps around the end of the byte ring: where it would, the producer skips to the ring's start. So a
request is always one piece of memory, and one send call.

The entries between `FEED_HEAD` and what the lane has taken up are its waiting queue: requests wait where they were
rendered.
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
"""Flags of an entry. EVALUATED: captures and checks look at its response."""

PATCHES_SHIFT, PATCHES_MASK = 16, 0xFFFF
"""Among the flags: how many patches follow the request's bytes."""

STATUS_SHIFT = 32
"""Among the flags: the recorded status, 0 where it is not known."""

ENTRY = np.dtype([
    ("due_ns", "i8"), ("seq", "i8"), ("offset", "i8"), ("length", "i8"),
    ("client", "u4"), ("route", "u4"), ("flags", "i8"), ("taken_ns", "i8"), ("state", "i8"),
])  # fmt: skip
"""One due request: 64 bytes, a cache line. `taken_ns` and `state` are the lane's own notes. With HTTP `state` is the
lane's `lost_ns` when the request was taken up.
"""

entry_type = from_dtype(ENTRY)


@bundle
class Feed(NamedTuple):
    """The two rings of a lane."""

    entries: Annotated[Array, entry_type[::1], "due requests; a power of two of them"]
    ring: Annotated[Array, "uint8[::1]", "their bytes; a power of two of them"]


@bundle
class FeedEnd(NamedTuple):
    """The producer's end of a feed."""

    feed: Annotated[Feed, Feed, "the rings"]
    control: Annotated[Array, "int64[::1]", "the lane's control words"]
    tails: Annotated[Array, "int64[::1]", "the tail of the entries and of the byte ring, not yet published"]


FEED_TYPE, FEED_END_TYPE = numba_type(Feed), numba_type(FeedEnd)

TAIL, RING_TAIL = 0, 1
"""Words of `tails`."""

FULL, TOO_LARGE = -1, -2
"""Results of `place_in_ring` if there is no space at present, or never will be."""

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


@kernel(inlined=True)
def has_entry(end, head):
    """Whether there is a free entry; `head` is FEED_HEAD as it was read last."""
    return end.tails[TAIL] - head < end.feed.entries.shape[0]


@kernel(inlined=True)
def place_in_ring(end, length, ring_head):
    """Where in the stream of ring bytes the next request goes, or FULL, or TOO_LARGE. It never wraps."""
    size, tail = np.int64(end.feed.ring.shape[0]), end.tails[RING_TAIL]
    if length > size:
        return np.int64(TOO_LARGE)
    left = size - (tail & (size - 1))
    offset = tail if length <= left else tail + left
    return offset if offset + length - ring_head <= size else np.int64(FULL)


@kernel(inlined=True)
def address_in_ring(end, offset):
    """The address of a place in the stream of ring bytes."""
    ring = end.feed.ring
    return np.int64(ring.ctypes.data) + (offset & (np.int64(ring.shape[0]) - 1))


@kernel(inlined=True)
def push_entry(end, due_ns, seq, offset, length, client):
    """Append an entry for bytes that were written at `offset`; the entry, of which the caller fills in the rest."""
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
    """How far the lane has released the entries and the byte ring."""
    return load_acquire(end.control, Control.FEED_HEAD), load_acquire(end.control, Control.RING_HEAD)


@bundle
class LaneShare(NamedTuple):
    """Which due rows of a batch a lane gets, and what their times mean."""

    lane: Annotated[int, "int64", "the lane's number"]
    lanes: Annotated[int, "int64", "how many there are"]
    by_client: Annotated[bool, "boolean", "rows go by client; else by number"]
    start_ns: Annotated[int, "int64", "the run's start by CLOCK_MONOTONIC, from which due times count"]
    warm_up_ns: Annotated[int, "int64", "what is due before is warm-up"]
    horizon_ns: Annotated[int, "int64", "stop before the first row that is due later, by CLOCK_MONOTONIC"]


SHARE_TYPE = numba_type(LaneShare)


@kernel(inlined=True)
def first_row(share, first_seq, begin):
    """The first row of this lane at or after row `begin`. By client it is `begin`: callers ask `is_mine` for each row."""
    if share.by_client:
        return begin
    return begin + (share.lane - (first_seq + begin) % share.lanes + share.lanes) % share.lanes


@kernel(inlined=True)
def row_step(share):
    """How far the next row of this lane may be."""
    return np.int64(1) if share.by_client else share.lanes


@kernel(inlined=True)
def is_mine(share, client):
    """Whether the row of a client is this lane's, among the rows that `first_row` and `row_step` lead to."""
    return not share.by_client or np.int64(client) % share.lanes == share.lane
