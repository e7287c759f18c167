"""Kernels for many records of a Kafka lane at once: dequeue due ones by partition, and record their outcomes."""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, uint8

from replay_native.feed.ring import FEED_TYPE, entry_type
from replay_native.ground.jit import kernel
from replay_native.ground.libc import ppoll
from replay_native.ground.shared import load_acquire, peek_u8, poke_i64, poke_u32, store_release
from replay_native.ledger.lane_metrics import METRICS_TYPE, C, Control
from replay_native.ledger.record import (
    record_done_together,
    record_sent_together,
    record_taken,
    record_unsent,
    request_of,
)

from .recordbatch import COUNT, append

TAKEN, NEXT_DUE_NS = 0, 1
LANE_WORDS = 2
"""Words of a lane's state: the number of dequeued entries, and when the next is due (-1: the feed is empty)."""

_POLLIN = 1


@kernel("int64(int64, int64, int64[::1])")
def wait_readable(fd, timeout_ns, scratch):
    """Sleep until a descriptor is readable, at most `timeout_ns` (below 0: without limit).

    Returns 1 if it is readable or has failed, 0 after the time-out, and -1 if the call failed or a signal interrupted
    it. Scratch: int64[3].
    """
    base = np.int64(scratch.ctypes.data)
    scratch[0] = 0
    poke_u32(np.uint64(base), np.uint32(fd))
    poke_u32(np.uint64(base + 4), np.uint32(_POLLIN))
    poke_i64(np.uint64(base + 8), timeout_ns // 1_000_000_000)
    poke_i64(np.uint64(base + 16), timeout_ns % 1_000_000_000)
    time_out = base + 8 if timeout_ns >= 0 else np.int64(0)
    return np.int64(ppoll(np.uint64(base), np.uint64(1), np.uint64(time_out), np.uint64(0)))


@kernel(int64(METRICS_TYPE, FEED_TYPE, int64[::1], int64, int64[::1], entry_type[::1], boolean), brief=True)
def take_up(metrics, feed, lane, now_ns, counts, rows, closed_loop):
    """Dequeue entries that are due by `now_ns` into `rows`, in the order of their routes, and return how many.

    `rows` limits their number. A closed loop ignores when entries are due. counts int64[routes + 1] gets the index
    in `rows` at which each route begins.
    """
    entries, mask = feed.entries, feed.entries.shape[0] - 1
    first, tail = lane[TAKEN], load_acquire(metrics.control, Control.FEED_TAIL)
    last = min(tail, first + rows.shape[0])
    counts[:] = 0
    taken = first
    while taken < last and (closed_loop or entries[taken & mask].due_ns <= now_ns):
        entry = entries[taken & mask]
        if metrics.counters[C.planned] == 0:
            metrics.counters[C.first_due_ns] = entry.due_ns
        entry.taken_ns = now_ns
        record_taken(metrics, entry.flags, now_ns - entry.due_ns, closed_loop)
        counts[entry.route + 1] += 1
        taken += 1
    for route in range(counts.shape[0] - 1):
        counts[route + 1] += counts[route]
    for number in range(first, taken):
        route = entries[number & mask].route
        rows[counts[route]] = entries[number & mask]
        counts[route] += 1
    for route in range(counts.shape[0] - 1, 0, -1):
        counts[route] = counts[route - 1]
    counts[0] = 0
    lane[TAKEN] = taken
    lane[NEXT_DUE_NS] = entries[taken & mask].due_ns if taken < tail else -1
    return taken - first


@kernel(
    int64(uint8[::1], int64[::1], entry_type[::1], entry_type[::1], uint8[::1], int64, int64, int64),
    brief=True,
)
def add(buffer, state, kept, rows, ring, first, last, limit):
    """Append rows to a batch as `recordbatch.append` does, and copy the appended ones to `kept`."""
    before = state[COUNT]
    behind = append(buffer, state, rows, ring, first, last, limit)
    for row in range(first, behind):
        kept[before + row - first] = rows[row]
    return behind


@kernel("void(int64[::1], int64, int64)", brief=True)
def release(control, head, ring_head):
    """Release the feed's entries before `head`, and the ring's bytes before `ring_head`, to the producer."""
    store_release(control, Control.RING_HEAD, ring_head)
    store_release(control, Control.FEED_HEAD, head)


@kernel((METRICS_TYPE, entry_type[::1], int64, boolean), brief=True)
def sent(metrics, rows, sent_ns, closed_loop):
    """Record that rows are about to be sent."""
    record_sent_together(metrics, rows, sent_ns, closed_loop)


@kernel((METRICS_TYPE, entry_type[::1], int64, int64, int64, int64, boolean), brief=True)
def done(metrics, rows, outcome, sent_ns, done_ns, status, closed_loop):
    """Record that rows of one route, which were sent together, ended with the same outcome."""
    record_done_together(metrics, outcome, rows, sent_ns, done_ns, status, closed_loop)


@kernel((METRICS_TYPE, entry_type[::1], int64, int64))
def unsent(metrics, rows, reason, max_wait_ns):
    """Record that rows are given up before they were sent. `reason` is C.unsent_..."""
    for row in range(rows.shape[0]):
        record_unsent(metrics, reason, request_of(rows[row]), max_wait_ns)


@kernel(inlined=True)
def _take_varint(at):
    """Read a signed varint, and return the number and the address after it."""
    word, shift, byte = np.uint64(0), np.uint64(0), np.uint64(128)
    while byte >= np.uint64(128):
        byte = np.uint64(peek_u8(np.uint64(at)))
        word |= (byte & np.uint64(127)) << shift
        shift += np.uint64(7)
        at += 1
    return np.int64(word >> np.uint64(1)) ^ -np.int64(word & np.uint64(1)), at


@kernel(inlined=True)
def _is_name(at, length, name):
    """Return whether the bytes at an address equal `name`."""
    same = length if length == name.shape[0] else np.int64(-1)
    place = np.int64(0)
    while place < same and peek_u8(np.uint64(at + place)) == name[place]:
        place += 1
    return place == same


@kernel("void(uint8[::1], uint8[::1], int64[:, ::1])")
def correlations(records, name, spans):
    """Find the correlation of each record: its key, or the value of the header `name` if that is not empty.

    `records` are those of a batch, after its header. Writes to spans int64[count, 2] where each correlation begins
    and ends in `records`. The span is (-1, -1) if a record has no correlation, or if it is null.
    """
    base = np.int64(records.ctypes.data)
    at = base
    for row in range(spans.shape[0]):
        spans[row, 0] = spans[row, 1] = -1
        length, at = _take_varint(at)
        behind = at + length
        _, at = _take_varint(at + 1)
        _, at = _take_varint(at)
        length, at = _take_varint(at)
        if name.shape[0] == 0:
            if length >= 0:
                spans[row, 0], spans[row, 1] = at - base, at - base + length
        else:
            length, at = _take_varint(at + max(length, np.int64(0)))
            count, at = _take_varint(at + max(length, np.int64(0)))
            for _ in range(count):
                length, at = _take_varint(at)
                found = _is_name(at, length, name)
                length, at = _take_varint(at + length)
                if found and length >= 0 and spans[row, 0] < 0:
                    spans[row, 0], spans[row, 1] = at - base, at - base + length
                at += max(length, np.int64(0))
        at = behind
