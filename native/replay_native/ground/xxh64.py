"""XXH64 (Yann Collet, "xxHash fast digest algorithm") of data that arrives in pieces.

It computes the checksum of a file of any size at the speed of memory.
"""

from __future__ import annotations

import numpy as np

from .jit import kernel
from .shared import peek_i64, peek_u8, peek_u32

LANES, LENGTH, HELD = 0, 4, 5
STATE_WORDS = 6
"""The length of the state, uint64[STATE_WORDS].

It has four lanes, the length of the input so far, and the number of bytes that are held in `tail` (uint8[32]).
"""

_P1, _P2, _P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_P4, _P5 = np.uint64(0x85EBCA77C2B2AE63), np.uint64(0x27D4EB2F165667C5)


@kernel(inlined=True)
def _rotated(word, bits):
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@kernel(inlined=True)
def _round(lane, word):
    return _rotated(lane + word * _P2, 31) * _P1


@kernel(inlined=True)
def _word(address):
    return np.uint64(peek_i64(np.uint64(address)))


@kernel("void(uint64[::1])")
def begin(state):
    """Reset the state to that of an empty input, with seed 0."""
    state[0], state[1], state[2], state[3] = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1
    state[LENGTH] = state[HELD] = np.uint64(0)


@kernel(inlined=True)
def _stripes(state, address, count):
    """Add `count` stripes of 32 bytes to the state."""
    one, two, three, four = state[0], state[1], state[2], state[3]
    for _ in range(count):
        one, two = _round(one, _word(address)), _round(two, _word(address + 8))
        three, four = _round(three, _word(address + 16)), _round(four, _word(address + 24))
        address += 32
    state[0], state[1], state[2], state[3] = one, two, three, four


@kernel("void(uint64[::1], uint8[::1], uint8[::1])")
def update(state, tail, data):
    """Add the next piece of the input to the state. `tail` holds the bytes of an incomplete stripe."""
    at, end, held = np.int64(0), np.int64(data.shape[0]), np.int64(state[HELD])
    state[LENGTH] += np.uint64(end)
    while held > 0 and held < 32 and at < end:
        tail[held] = data[at]
        held += 1
        at += 1
    if held == 32:
        _stripes(state, np.int64(tail.ctypes.data), 1)
        held = np.int64(0)
    stripes = (end - at) // 32
    if stripes > 0:
        _stripes(state, np.int64(data.ctypes.data) + at, stripes)
        at += 32 * stripes
    while at < end:
        tail[held] = data[at]
        held += 1
        at += 1
    state[HELD] = np.uint64(held)


@kernel("uint64(uint64[::1], uint8[::1])")
def digest(state, tail):
    """Return the checksum of everything that was added."""
    hashed = _P5
    if state[LENGTH] >= np.uint64(32):
        hashed = (
            _rotated(state[0], 1) + _rotated(state[1], 7) + _rotated(state[2], 12) + _rotated(state[3], 18)
        )
        for lane in range(4):
            hashed = (hashed ^ _round(np.uint64(0), state[lane])) * _P1 + _P4
    hashed += state[LENGTH]
    at, end = np.int64(0), np.int64(state[HELD])
    base = np.int64(tail.ctypes.data)
    while at + 8 <= end:
        hashed = _rotated(hashed ^ _round(np.uint64(0), _word(base + at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        hashed = _rotated(hashed ^ (np.uint64(peek_u32(np.uint64(base + at))) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        hashed = _rotated(hashed ^ (np.uint64(peek_u8(np.uint64(base + at))) * _P5), 11) * _P1
        at += 1
    hashed = (hashed ^ (hashed >> np.uint64(33))) * _P2
    hashed = (hashed ^ (hashed >> np.uint64(29))) * _P3
    return hashed ^ (hashed >> np.uint64(32))
