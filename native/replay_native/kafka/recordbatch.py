"""Kafka's record batches, version 2: kernels that append records, and write the header with its checksum.

The layout is that of "Record Batch" in Apache Kafka's protocol guide. Numbers in the header are big-endian, those
of records are zigzag varints. A record is given as its tail, which is everything that does not depend on its place
in the batch: key, value and headers (`put_bytes` and `put_varint` write them). The CRC of the records is stored
apart from that of the 40 header bytes that the checksum also covers, so that producer id, epoch and sequence can be
set without reading the records again.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint8, void

from replay_native.feed.ring import entry_type
from replay_native.ground import libc
from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i32, peek_u8, poke_u8

from .crc32c import crc32c_at, joined

_memcpy = libc.memcpy

HEADER_BYTES = 61
CRC_FROM = 21
"""Offset from which the checksum covers the batch: attributes, the rest of the header, and the records."""

MAGIC = 2
SIZE, COUNT, FIRST_MS, MAX_MS, RECORDS_CRC, SEALED_BYTES = 0, 1, 2, 3, 4, 5
BATCH_WORDS = 6
"""Words of a batch's state.

SIZE is the number of bytes so far, including the header. FIRST_MS and MAX_MS are the first and highest CreateTime
(ms since the epoch). RECORDS_CRC is the CRC of the records, valid if SEALED_BYTES, the size of the batch at that
time, equals SIZE (0: not sealed yet).
"""

OVERHEAD_MAX = 5 + 1 + 10 + 5
"""Maximum number of bytes of a record besides its tail."""

_MURMUR_SEED, _MURMUR_M = np.uint32(0x9747B28C), np.uint32(0x5BD1E995)


@kernel(inlined=True)
def zigzag(number):
    """Return a signed number as an unsigned one, which is small for numbers near 0."""
    return np.uint64(number << 1) ^ np.uint64(number >> 63)


@kernel(inlined=True)
def varint_bytes(number):
    """Return the length of a signed number as a varint."""
    word, count = zigzag(number) >> np.uint64(7), np.int64(1)
    while word:
        word >>= np.uint64(7)
        count += 1
    return count


@kernel(inlined=True)
def put_varint(at, number):
    """Write a signed number as a varint, and return the address after it."""
    word = zigzag(number)
    while word >= np.uint64(128):
        poke_u8(np.uint64(at), np.uint8((word & np.uint64(127)) | np.uint64(128)))
        word >>= np.uint64(7)
        at += 1
    poke_u8(np.uint64(at), np.uint8(word))
    return at + 1


@kernel(inlined=True)
def put_big(at, number, size):
    """Write a big-endian number of `size` bytes, and return the address after it."""
    for place in range(size):
        poke_u8(np.uint64(at + place), np.uint8((number >> np.int64(8 * (size - 1 - place))) & 255))
    return at + size


@kernel(inlined=True)
def tail_bytes(key_bytes, value_bytes, headers_bytes):
    """Return the length of a tail. A key or value of -1 bytes is null. `headers_bytes` includes their count."""
    return (
        varint_bytes(key_bytes)
        + max(key_bytes, np.int64(0))
        + varint_bytes(value_bytes)
        + max(value_bytes, np.int64(0))
        + headers_bytes
    )


@kernel(inlined=True)
def put_bytes(at, address, length):
    """Write a length (-1: null) and that many bytes, and return the address after them."""
    at = put_varint(at, length)
    if length > 0:
        _memcpy(np.uint64(at), np.uint64(address), np.uint64(length))
        at += length
    return at


@kernel(void(uint8[::1], int64[::1]), brief=True)
def begin(buffer, state):
    """Begin an empty batch in a buffer of at least HEADER_BYTES."""
    state[:] = 0
    state[SIZE] = HEADER_BYTES


@kernel(int64(uint8[::1], int64[::1], entry_type[::1], uint8[::1], int64, int64, int64), brief=True)
def append(buffer, state, rows, ring, first, last, limit):
    """Append the rows [first, last) until the batch has `limit` bytes, and return the row to continue with.

    The ring contains the tail of each row. A row's `state` is its CreateTime in ms. The first record of a batch is
    accepted whatever its size, if it fits the buffer. Nothing is appended after the batch is sealed.
    """
    base, source, mask = np.int64(buffer.ctypes.data), np.int64(ring.ctypes.data), ring.shape[0] - 1
    at, count, row = state[SIZE], state[COUNT], first
    limit = min(limit, buffer.shape[0])
    while row < last and state[SEALED_BYTES] == 0:
        entry = rows[row]
        if count == 0:
            state[FIRST_MS] = entry.state
            state[MAX_MS] = entry.state
        delta = entry.state - state[FIRST_MS]
        length = 1 + varint_bytes(delta) + varint_bytes(count) + entry.length
        total = varint_bytes(length) + length
        if at + total > (buffer.shape[0] if count == 0 else limit):
            break
        place = put_varint(base + at, length)
        poke_u8(np.uint64(place), np.uint8(0))
        place = put_varint(put_varint(place + 1, delta), count)
        _memcpy(np.uint64(place), np.uint64(source + (entry.offset & mask)), np.uint64(entry.length))
        state[MAX_MS] = max(state[MAX_MS], entry.state)
        at += total
        count += 1
        row += 1
    state[SIZE], state[COUNT] = at, count
    return row


@kernel(void(uint8[::1], int64[::1], int64, int64, int64, int64), brief=True)
def seal(buffer, state, attributes, producer_id, epoch, sequence):
    """Write the header and its checksum. Sealing again, for another producer, does not read the records again."""
    base, size = np.int64(buffer.ctypes.data), state[SIZE]
    records = size - HEADER_BYTES
    if state[SEALED_BYTES] != size:
        state[RECORDS_CRC] = np.int64(crc32c_at(base + HEADER_BYTES, records))
        state[SEALED_BYTES] = size
    at = put_big(base, np.int64(0), 8)
    at = put_big(at, size - 12, 4)
    at = put_big(at, np.int64(-1), 4)
    at = put_big(at, np.int64(MAGIC), 1) + 4
    at = put_big(at, attributes, 2)
    at = put_big(at, state[COUNT] - 1, 4)
    at = put_big(at, state[FIRST_MS], 8)
    at = put_big(at, state[MAX_MS], 8)
    at = put_big(at, producer_id, 8)
    at = put_big(at, epoch, 2)
    at = put_big(at, sequence, 4)
    put_big(at, state[COUNT], 4)
    head = crc32c_at(base + CRC_FROM, HEADER_BYTES - CRC_FROM)
    put_big(base + CRC_FROM - 4, np.int64(joined(head, np.uint64(state[RECORDS_CRC]), records)), 4)


@kernel("int64(int64, int64)")
def murmur2_at(address, length):
    """Return MurmurHash2 (Austin Appleby) of bytes at an address, with the seed of Kafka's Java clients."""
    hashed = np.uint32(_MURMUR_SEED ^ np.uint32(length))
    words = length // 4
    for word in range(words):
        k = np.uint32(np.uint32(peek_i32(np.uint64(address + 4 * word))) * _MURMUR_M)
        k = np.uint32((k ^ (k >> np.uint32(24))) * _MURMUR_M)
        hashed = np.uint32(np.uint32(hashed * _MURMUR_M) ^ k)
    rest, at = length & 3, address + 4 * words
    if rest >= 3:
        hashed = np.uint32(hashed ^ (np.uint32(peek_u8(np.uint64(at + 2))) << np.uint32(16)))
    if rest >= 2:
        hashed = np.uint32(hashed ^ (np.uint32(peek_u8(np.uint64(at + 1))) << np.uint32(8)))
    if rest >= 1:
        hashed = np.uint32((hashed ^ np.uint32(peek_u8(np.uint64(at)))) * _MURMUR_M)
    hashed = np.uint32((hashed ^ (hashed >> np.uint32(13))) * _MURMUR_M)
    return np.int64(np.uint32(hashed ^ (hashed >> np.uint32(15))))


@kernel(inlined=True)
def partition_of(address, length, partitions):
    """Return the partition that Kafka's Java clients choose for a key."""
    return (murmur2_at(address, length) & 0x7FFFFFFF) % partitions


@kernel(void(uint8[::1], int64[::1], int64, int64[::1]))
def partitions_of(data, offsets, partitions, out):
    """Write the partitions of keys data[offsets[i]:offsets[i + 1]] to `out`."""
    base = np.int64(data.ctypes.data)
    for i in range(out.shape[0]):
        out[i] = partition_of(base + offsets[i], offsets[i + 1] - offsets[i], partitions)
