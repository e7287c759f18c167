"""Numbers in a JSON text that is being digested. They are hashed by value, not by notation."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

from .json_state import (
    DIGIT_0,
    DIGIT_9,
    EXPONENT,
    EXPONENT_DIGIT,
    EXPONENT_SIGN,
    FAILED,
    FRACTION,
    INTEGER,
    MINUS,
    MINUS_SIGN,
    NUMBER_ENDS,
    P3,
    POINT,
    ZERO,
    mix,
)

EXPONENT_MAX = 1_000_000_000
"""Largest exponent. Larger ones count as this one."""

_PLUS, _POINT = 43, 46
_ENDS_NUMBER = np.array([byte in b" \t\n\r,]}" for byte in range(256)], np.bool_)


@kernel(inlined=True)
def _number_hash(significant, count, exponent, negative):
    """Return the hash of a number that has `count` significant digits and a decimal exponent."""
    if count == 0:
        return np.uint64(0)
    return mix(mix(significant, np.uint64(count)), np.uint64(2 * exponent + np.int64(negative)))


@kernel(inlined=True)
def take_integer(data, at, end):
    """Read a whole number without sign or exponent, and return where it ends and its hash.

    The end is -1 if there is no such number, or if it does not end before `end`.
    """
    digits = significant = np.uint64(0)
    begin, significant_end = at, at
    while at < end and DIGIT_0 <= data[at] <= DIGIT_9:
        digits = (digits + np.uint64(data[at])) * P3
        if data[at] != DIGIT_0:
            significant, significant_end = digits, at + 1
        at += 1
    if at == end or not _ENDS_NUMBER[data[at]] or (data[begin] == DIGIT_0 and at > begin + 1):
        return np.int64(-1), np.uint64(0)
    return at, _number_hash(significant, significant_end - begin, at - significant_end, False)


@kernel(inlined=True)
def _digit(j, byte):
    """Process a digit before the exponent. Leading zeros do not count."""
    if byte == DIGIT_0 and j.digit_count == 0:
        return
    j.digits = (j.digits + np.uint64(byte)) * P3
    j.digit_count += 1
    if byte != DIGIT_0:
        j.significant = j.digits
        j.significant_count = j.digit_count


@kernel(inlined=True)
def begin_number(j, byte):
    """Process the first byte of a number, and return the state."""
    j.digits = j.significant = np.uint64(0)
    j.digit_count = j.significant_count = j.point = j.exponent = 0
    j.exponent_sign = 1
    j.negative = byte == MINUS_SIGN
    if byte == MINUS_SIGN:
        return MINUS
    _digit(j, byte)
    return INTEGER if j.digit_count else ZERO


@kernel()
def end_number(j, state):
    """Complete the `hash` of a number that ends here, and return the state: FAILED if a part is missing (`1.`)."""
    if state not in (ZERO, INTEGER, FRACTION, EXPONENT_DIGIT):
        return FAILED
    exponent = j.exponent_sign * j.exponent - j.point + j.digit_count - j.significant_count
    j.hash = _number_hash(j.significant, j.significant_count, exponent, j.negative)
    return NUMBER_ENDS


@kernel()
def take_number(j, data, at, end, state):
    """Process the bytes of a number, and return where it ends (or `end`) and the state."""
    while at < end:
        byte = data[at]
        if DIGIT_0 <= byte <= DIGIT_9:
            if state == ZERO:
                return at, FAILED
            if state > FRACTION:
                j.exponent = min(j.exponent * 10 + np.int64(byte) - 48, np.int64(EXPONENT_MAX))
                state = EXPONENT_DIGIT
            else:
                _digit(j, byte)
                j.point += state >= POINT
                state = FRACTION if state >= POINT else INTEGER if j.digit_count else ZERO
        elif byte == _POINT and state in (ZERO, INTEGER):
            state = POINT
        elif byte | 32 == 101 and state in (ZERO, INTEGER, FRACTION):
            state = EXPONENT
        elif byte in (_PLUS, MINUS_SIGN) and state == EXPONENT:
            j.exponent_sign = -1 if byte == MINUS_SIGN else 1
            state = EXPONENT_SIGN
        else:
            return at, end_number(j, state)
        at += 1
    return at, state
