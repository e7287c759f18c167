"""SHA-256 (FIPS 180-4), for responses that are checked against a digest."""

from __future__ import annotations

import numpy as np
from numba import int64, uint8, uint32

from .jit import kernel

BLOCK_BYTES = 64
WORK_WORDS = 80
"""Words of the scratch memory: the schedule of a block (64), the state or digest (8), and 8 that are not used."""

_STATE = 64


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _fraction(number: int, root: int) -> int:
    """Return the first 32 bits of the fractional part of the square or cube root of `number`."""
    scaled = number << 32 * root
    low, high = 0, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        if middle**root <= scaled:
            low = middle
        else:
            high = middle
    return low & 0xFFFFFFFF


_K = np.array([_fraction(prime, 3) for prime in _primes(64)], np.uint32)
_INITIAL = np.array([_fraction(prime, 2) for prime in _primes(8)], np.uint32)


@kernel(inlined=True)
def _right(word, bits):
    return word >> np.uint32(bits) | word << np.uint32(32 - bits)


@kernel(inlined=True)
def _byte(data, begin, end, place, total):
    """Return byte `place` of the padded message, which has `total` bytes."""
    if begin + place < end:
        return np.uint32(data[begin + place])
    if begin + place == end:
        return np.uint32(128)
    if place >= total - 8:
        return np.uint32(8 * np.uint64(end - begin) >> np.uint64(8 * (total - 1 - place)) & np.uint64(255))
    return np.uint32(0)


@kernel()
def _take_block(work):
    """Update the state with the block in work[:16]."""
    for i in range(16, 64):
        a, b = work[i - 15], work[i - 2]
        s0 = _right(a, 7) ^ _right(a, 18) ^ a >> np.uint32(3)
        s1 = _right(b, 17) ^ _right(b, 19) ^ b >> np.uint32(10)
        work[i] = work[i - 16] + s0 + work[i - 7] + s1
    a, b, c, d = work[_STATE], work[_STATE + 1], work[_STATE + 2], work[_STATE + 3]
    e, f, g, h = work[_STATE + 4], work[_STATE + 5], work[_STATE + 6], work[_STATE + 7]
    for i in range(64):
        choice = (e & f) ^ (~e & g)
        one = np.uint32(h + (_right(e, 6) ^ _right(e, 11) ^ _right(e, 25)) + choice + _K[i] + work[i])
        two = np.uint32((_right(a, 2) ^ _right(a, 13) ^ _right(a, 22)) + ((a & b) ^ (a & c) ^ (b & c)))
        h, g, f, e = g, f, e, np.uint32(d + one)
        d, c, b, a = c, b, a, np.uint32(one + two)
    for i, word in enumerate((a, b, c, d, e, f, g, h)):
        work[_STATE + i] += word


@kernel()
def digest(data, begin, end, work):
    """Compute the digest of data[begin:end].

    `work` is uint32[WORK_WORDS]. The digest is in work[64:72], as big-endian words.
    """
    for i in range(8):
        work[_STATE + i] = _INITIAL[i]
    total = (end - begin + 8) // BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES
    for block in range(0, total, BLOCK_BYTES):
        for i in range(16):
            place = block + 4 * i
            work[i] = (
                _byte(data, begin, end, place, total) << np.uint32(24)
                | _byte(data, begin, end, place + 1, total) << np.uint32(16)
                | _byte(data, begin, end, place + 2, total) << np.uint32(8)
                | _byte(data, begin, end, place + 3, total)
            )
        _take_block(work)


@kernel()
def is_digest(data, begin, end, work, wanted, wanted_begin):
    """Return whether the digest of data[begin:end] equals the 32 bytes of `wanted` at `wanted_begin`."""
    digest(data, begin, end, work)
    for i in range(32):
        if (
            np.uint8(work[_STATE + i // 4] >> np.uint32(24 - 8 * (i % 4)) & np.uint32(255))
            != wanted[wanted_begin + i]
        ):
            return False
    return True


@kernel(int64(uint8[::1], uint32[::1]))
def digested(data, work):
    """Compute the digest of all of `data` into work[64:72], and return the length of `data` (for tests)."""
    digest(data, 0, data.size, work)
    return np.int64(data.size)
