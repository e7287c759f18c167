"""What a Kafka lane does with many records at once: take up what is due, by partition, and write down what became of it."""

from __future__ import annotations

import numpy as np
from numba import boolean, int64

from .bank import BANK_TYPE, C, Control
from .feed import FEED_TYPE, entry_type
from .jit import kernel
from .libc import ppoll
from .record import record_attempt, record_done, record_sent, record_taken, record_unsent
from .shared import load_acquire, poke_i64, poke_u32, store_release

TAKEN, STARVED = 0, 1
LANE_WORDS = 2
"""State of a lane, int64: entries taken up so far, and whether the feed was found empty."""

_POLLIN = 1


@kernel("void(int64, int64, int64[::1])")
def wait_readable(fd, timeout_ns, scratch):
    """Sleep until a descriptor is readable, or for so long (below 0: without end). `scratch` is int64[3]."""
    base = np.int64(scratch.ctypes.data)
    scratch[0] = 0
    poke_u32(np.uint64(base), np.uint32(fd))
    poke_u32(np.uint64(base + 4), np.uint32(_POLLIN))
    poke_i64(np.uint64(base + 8), timeout_ns // 1_000_000_000)
    poke_i64(np.uint64(base + 16), timeout_ns % 1_000_000_000)
    time_out = base + 8 if timeout_ns >= 0 else np.int64(0)
    ppoll(np.uint64(base), np.uint64(1), np.uint64(time_out), np.uint64(0))


@kernel(int64(BANK_TYPE, FEED_TYPE, int64[::1], int64, int64[::1], entry_type[::1], boolean))
def take_up(bank, feed, lane, now_ns, counts, rows, closed_loop):
    """Take up what is due by `now_ns`, as many as `rows` holds, into `rows` in the order of their routes.

    counts int64[routes + 1] becomes where each route's rows begin. Returns how many; 0 also where nothing is due.
    """
    entries, mask = feed.entries, feed.entries.shape[0] - 1
    first, last = lane[TAKEN], load_acquire(bank.control, Control.FEED_TAIL)
    last = min(last, first + rows.shape[0])
    counts[:] = 0
    taken = first
    while taken < last and (closed_loop or entries[taken & mask].due_ns <= now_ns):
        entry = entries[taken & mask]
        if bank.counters[C.planned] == 0:
            bank.counters[C.first_due_ns] = entry.due_ns
        entry.taken_ns = now_ns
        record_taken(bank, entry.flags, now_ns - entry.due_ns, closed_loop)
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
    return taken - first


@kernel(int64(BANK_TYPE, FEED_TYPE, int64[::1]))
def next_due_ns(bank, feed, lane):
    """When the next entry is due; -1 where the feed is empty."""
    if lane[TAKEN] == load_acquire(bank.control, Control.FEED_TAIL):
        return np.int64(-1)
    return feed.entries[lane[TAKEN] & (feed.entries.shape[0] - 1)].due_ns


@kernel("void(int64[::1], int64, int64)")
def release(control, head, ring_head):
    """Give the rings back to the producer up to here."""
    store_release(control, Control.RING_HEAD, ring_head)
    store_release(control, Control.FEED_HEAD, head)


@kernel((BANK_TYPE, entry_type[::1], int64, boolean))
def sent(bank, rows, sent_ns, closed_loop):
    """These are about to be sent."""
    for row in range(rows.shape[0]):
        record_attempt(bank)
        record_sent(bank, rows[row].flags, sent_ns - rows[row].taken_ns, False, closed_loop)


@kernel((BANK_TYPE, entry_type[::1], int64, int64, int64, int64, boolean))
def done(bank, rows, outcome, sent_ns, done_ns, status, closed_loop):
    """These, sent before, ended alike."""
    for row in range(rows.shape[0]):
        entry = rows[row]
        record_done(
            bank, outcome, entry.flags, np.int64(entry.route), entry.seq, np.int64(entry.client), entry.due_ns,
            entry.taken_ns, sent_ns, np.int64(-1), done_ns, status, np.int64(0), closed_loop,
        )  # fmt: skip


@kernel((BANK_TYPE, entry_type[::1], int64, int64))
def unsent(bank, rows, reason, max_wait_ns):
    """These will not be sent; `reason` is C.unsent_..."""
    for row in range(rows.shape[0]):
        entry = rows[row]
        record_unsent(
            bank, reason, entry.flags, np.int64(entry.route), entry.seq, np.int64(entry.client), entry.due_ns,
            entry.taken_ns, max_wait_ns,
        )  # fmt: skip


@kernel("int64(int64[::1], int64[::1], int64, int64[::1], int64[::1], int64)")
def end_to_end(dues, seen, first_offset, values, latencies, which):
    """Join both sides of records by their offsets: what was produced at them (0) and consumed (1).

    dues and seen int64[power of two] hold, at offset modulo their length, the due and consumed stamps (0: not yet).
    `values` are stamps of the side `which`, from `first_offset` on (0: none). Latencies that became known are
    written; how many.
    """
    mask, count = dues.shape[0] - 1, np.int64(0)
    for row in range(values.shape[0]):
        if values[row] == 0:
            continue
        place = (first_offset + row) & mask
        if which == 0:
            dues[place] = values[row]
        else:
            seen[place] = values[row]
        if dues[place] and seen[place]:
            latencies[count] = seen[place] - dues[place]
            count += 1
            dues[place] = 0
            seen[place] = 0
    return count
