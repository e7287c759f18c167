"""Parts of templates that HTTP requests and Kafka records share.

Every `put...` kernel writes at a raw address, and returns the address after what it has written.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.jit import kernel
from replay_native.ground.randoms import random_of
from replay_native.ground.shared import poke_u8

_memcpy = libc.memcpy

LITERAL, UUID, EMAIL, CLIENT, NUMBER = range(5)
"""Kinds of parts that every template may have.

UUID and EMAIL are generated for each request. CLIENT and NUMBER are the numbers of the client and the request, in
decimal. The kinds of a protocol begin at `OWN_KINDS`.
"""

OWN_KINDS = 5

UUID_BYTES = 36
WORD_BYTES = 17
EMAIL_BYTES = 29

_EMAIL_TAIL = np.frombuffer(b"@example.com", dtype=np.uint8)
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_SALT_EMAIL, _SALT_UUID = np.uint64(0xA5A5A5A5A5A5A5A5), np.uint64(0xC3C3C3C3C3C3C3C3)
_DASH = 45


@kernel(inlined=True)
def digits_of(number):
    """Return how many decimal digits a number of at least 0 has."""
    count = np.int64(1)
    while number >= 10:
        number //= 10
        count += 1
    return count


@kernel(inlined=True)
def put_number(at, number, digits):
    """Write a number with `digits` decimal digits."""
    place = at + digits
    for _ in range(digits):
        place -= 1
        rest = number // 10
        poke_u8(np.uint64(place), np.uint8(48 + number - 10 * rest))
        number = rest
    return at + digits


@kernel(inlined=True)
def put(at, source, begin, end):
    """Write `source[begin:end]`."""
    _memcpy(np.uint64(at), np.uint64(source.ctypes.data + begin), np.uint64(end - begin))
    return at + end - begin


@kernel(inlined=True)
def put_hex(at, word, digits):
    """Write the lowest `digits` hexadecimal digits of a word."""
    for place in range(digits):
        shift = np.uint64(4 * (digits - 1 - place))
        poke_u8(np.uint64(at + place), _HEX[(word >> shift) & np.uint64(15)])
    return at + digits


@kernel()
def put_uuid(at, seed, seq):
    """Write a version 4 UUID (RFC 9562, 5.4) that depends on `seed` and `seq` only."""
    high, low = random_of(seed, seq, _SALT_UUID), random_of(seed, seq, ~_SALT_UUID)
    high = (high & ~np.uint64(0xF000)) | np.uint64(0x4000)
    low = (low & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    at = put_hex(at, high >> np.uint64(32), 8)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    at = put_hex(at + 1, high >> np.uint64(16), 4)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    at = put_hex(at + 1, high, 4)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    at = put_hex(at + 1, low >> np.uint64(48), 4)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    return put_hex(at + 1, low, 12)


@kernel()
def put_word(at, seed, seq):
    """Write a word that no other row of this seed has."""
    poke_u8(np.uint64(at), np.uint8(117))
    return put_hex(at + 1, random_of(seed, seq, _SALT_EMAIL), 16)


@kernel()
def put_email(at, seed, seq):
    """Write an e-mail address that no other row of this seed has."""
    return put(put_word(at, seed, seq), _EMAIL_TAIL, 0, _EMAIL_TAIL.shape[0])
