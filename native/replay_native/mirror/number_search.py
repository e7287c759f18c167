"""Kernels that search bodies and header values for phone, card and account numbers."""

from __future__ import annotations

import string

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.nibbles import HAS_NIBBLES, byte_set, bytes_in_set
from replay_native.ground.shared import trailing_zeros
from replay_native.ground.simd import WIDTH

NUMBER_BYTES = 7
"""A run of fewer bytes cannot hold a number."""

CARD_DIGITS, PHONE_DIGITS, LOCAL_PHONE_DIGITS, IBAN_BYTES = 13, 8, 10, 15
_MEMBERS = f"{string.digits}{string.ascii_uppercase} ()+-.".encode()
"""The bytes that may stand in a phone, card or account number, or between its digits."""

_SET = byte_set(_MEMBERS)
_IN_NUMBER = np.isin(np.arange(256), list(_MEMBERS)).astype(np.uint8)


@kernel()
def _is_number(data, place, begin, end):
    """Return where the run of bytes around `place` ends, and whether it may hold a phone, card or account number."""
    first, last = place, place
    while first > begin and _IN_NUMBER[data[first - 1]]:
        first -= 1
    digits, capitals, plus, bracket = 0, 0, False, False
    for at in range(first, end):
        byte = data[at]
        if not _IN_NUMBER[byte]:
            break
        last = at + 1
        digits += 48 <= byte <= 57
        capitals += 65 <= byte <= 90
        plus = plus or byte == 43
        bracket = bracket or byte == 40
    if (
        digits >= CARD_DIGITS
        or (plus and digits >= PHONE_DIGITS)
        or (bracket and digits >= LOCAL_PHONE_DIGITS)
    ):
        return last, True
    return last, capitals >= 2 and digits >= 2 and digits + capitals >= IBAN_BYTES


@kernel()
def _search_from(data, place, begin, end):
    """Search data[begin:end] for numbers of which a byte is at `place` or later, by looking at every seventh byte."""
    while place < end:
        if _IN_NUMBER[data[place]]:
            last, found = _is_number(data, place, begin, end)
            if found:
                return True
            place = last
        place += NUMBER_BYTES
    return False


@kernel()
def search_steps(data, begin, end):
    """Return what `has_number` returns, by looking at every seventh byte."""
    return _search_from(data, begin + NUMBER_BYTES - 1, begin, end)


@kernel()
def search_runs(data, begin, end):
    """Return what `has_number` returns, by looking only at runs of at least NUMBER_BYTES bytes."""
    base, rows, at, earlier = np.int64(data.ctypes.data), np.int64(_SET.ctypes.data), begin, np.int64(0)
    while at < end and at + WIDTH <= data.shape[0]:
        found = bytes_in_set(base + at, rows)
        if end - at < WIDTH:
            found &= (1 << (end - at)) - 1
        # Bit i + WIDTH is for the byte at `at` + i. A bit stays if the six bytes before it are in the set, too.
        both = found << WIDTH | earlier
        runs = both & both << 1
        runs &= runs << 2
        runs &= runs << 3
        runs >>= WIDTH
        if runs != 0:
            last, is_number = _is_number(data, at + trailing_zeros(runs), begin, end)
            if is_number:
                return True
            at, earlier = last, np.int64(0)
        else:
            at, earlier = at + WIDTH, found
    return _search_from(data, at, begin, end)


has_number = search_runs if HAS_NIBBLES else search_steps
"""Return whether data[begin:end], a body or a header's value, may hold a phone, card or account number."""
