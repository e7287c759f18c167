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


@kernel(inlined=True)
def _record_size(request_bytes):
    return (RECORD_BYTES + request_bytes + 7) & ~7


@kernel()
def reserve(ring, request_bytes):
    """Return the offset at which a request of that length fits into the ring, or -1 if it is full or closed.

    The request itself goes RECORD_BYTES behind the offset. It does not exist for the reader until `publish`.
    """
    words, capacity = ring.words, np.int64(ring.data.shape[0])
    size, written = _record_size(request_bytes), words[RingWords.PUT]
    at = written & (capacity - 1)
    skipped = capacity - at if capacity - at < size else np.int64(0)
    room = capacity - (written - load_acquire(words, RingWords.TAKEN))
    if size + skipped > room or load_acquire(words, RingWords.CLOSED) != 0:
        return np.int64(-1)
    return np.int64(0) if skipped else at


@kernel()
def publish(ring, at, request_bytes, head, connection):
    """Let the reader see the request that was copied to a reserved offset. It may be shorter than reserved."""
    words, capacity = ring.words, np.int64(ring.data.shape[0])
    written = words[RingWords.PUT]
    base, skipped = np.uint64(ring.data.ctypes.data), (at - written) & (capacity - 1)
    if skipped:
        poke_i64(base + np.uint64(written & (capacity - 1)), np.int64(0))
    address, size = base + np.uint64(at), _record_size(request_bytes)
    poke_i64(_word(address, RecordWords.AT_NS), connection.at_ns)
    poke_i64(_word(address, RecordWords.LINE_END), head[H.line_end])
    poke_i64(_word(address, RecordWords.HEAD_END), head[H.head_end])
    poke_i64(_word(address, RecordWords.END), request_bytes)
    poke_i64(_word(address, RecordWords.FAMILY), connection.family)
    poke_i64(_word(address, RecordWords.ADDRESS), connection.address)
    poke_i64(_word(address, RecordWords.MORE_ADDRESS), connection.more_address)
    poke_i64(address, size)
    store_release(words, RingWords.PUT_RECORDS, words[RingWords.PUT_RECORDS] + 1)
    store_release(words, RingWords.PUT, written + skipped + size)


@kernel()
def put(ring, data, begin, end, head, connection):
    """Copy the request data[begin:end] into the ring, and return whether that was possible."""
    at = reserve(ring, end - begin)
    if at < 0:
        return False
    to = np.uint64(ring.data.ctypes.data) + np.uint64(at + RECORD_BYTES)
    _memcpy(to, np.uint64(data.ctypes.data) + np.uint64(begin), np.uint64(end - begin))
    publish(ring, at, end - begin, head, connection)
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
