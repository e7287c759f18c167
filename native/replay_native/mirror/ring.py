"""The ring of requests between the receiver, which writes it, and the process that cleans them, which reads it."""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire, peek_i64, poke_i64, store_release

from .memory import RecordWords, RingWords
from .request import H

_memcpy = libc.memcpy
RECORD_BYTES = RecordWords.WORDS * 8


@kernel(inlined=True)
def _word(address, index):
    return address + np.uint64(8 * index)


@kernel()
def put(ring, data, begin, end, head, connection):
    """Copy the request data[begin:end] into the ring, and return whether that was possible.

    A ring that is full or closed accepts no request.
    """
    words, capacity = ring.words, np.int64(ring.data.shape[0])
    size = (RECORD_BYTES + end - begin + 7) & ~7
    written = words[RingWords.PUT]
    at = written & (capacity - 1)
    skipped = capacity - at if capacity - at < size else np.int64(0)
    room = capacity - (written - load_acquire(words, RingWords.TAKEN))
    if size + skipped > room or load_acquire(words, RingWords.CLOSED) != 0:
        return False
    base = np.uint64(ring.data.ctypes.data)
    if skipped:
        poke_i64(base + np.uint64(at), np.int64(0))
        at = np.int64(0)
    address = base + np.uint64(at)
    poke_i64(_word(address, RecordWords.AT_NS), connection.at_ns)
    poke_i64(_word(address, RecordWords.LINE_END), head[H.line_end])
    poke_i64(_word(address, RecordWords.HEAD_END), head[H.head_end])
    poke_i64(_word(address, RecordWords.END), end - begin)
    poke_i64(_word(address, RecordWords.FAMILY), connection.family)
    poke_i64(_word(address, RecordWords.ADDRESS), connection.address)
    poke_i64(_word(address, RecordWords.MORE_ADDRESS), connection.more_address)
    _memcpy(
        address + np.uint64(RECORD_BYTES),
        np.uint64(data.ctypes.data) + np.uint64(begin),
        np.uint64(end - begin),
    )
    poke_i64(address, size)
    store_release(words, RingWords.PUT_RECORDS, words[RingWords.PUT_RECORDS] + 1)
    store_release(words, RingWords.PUT, written + skipped + size)
    return True


@kernel()
def next_record(ring, taken):
    """Return the position of the request after `taken` bytes, or -1 if there is none yet.

    Positions count all bytes ever written to the ring.
    """
    written = load_acquire(ring.words, RingWords.PUT)
    if taken == written:
        return np.int64(-1)
    capacity = np.int64(ring.data.shape[0])
    at = taken & (capacity - 1)
    if peek_i64(np.uint64(ring.data.ctypes.data) + np.uint64(at)) == 0:
        taken += capacity - at
    return taken
