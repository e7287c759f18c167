"""Small text functions: words of eight bytes, digits, letters."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64


@kernel(inlined=True)
def word_at(data, at):
    """Return eight bytes as a word, with the first byte lowest."""
    return peek_i64(np.uint64(np.int64(data.ctypes.data) + at))


@kernel(inlined=True)
def digits(data, at, count):
    """Return the number that `count` decimal digits at `at` form, or -1."""
    value = np.int64(0)
    for index in range(at, at + count):
        digit = np.int64(data[index]) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        value = value * 10 + digit
    return value


@kernel(inlined=True)
def behind_zeros(data, begin, end):
    """Return where a line begins after leading NUL bytes, which a log that was truncated while it was open may have."""
    while begin < end and data[begin] == 0:
        begin += 1
    return begin


@kernel(inlined=True)
def lowered(byte):
    """Return a byte, as a lower-case letter if it is an ASCII letter."""
    return byte | 32 if 65 <= byte <= 90 else byte


@kernel(inlined=True)
def hex_value(byte):
    """Return the value of a hexadecimal digit, or -1."""
    if 48 <= byte <= 57:
        return np.int64(byte) - 48
    byte = lowered(byte)
    return np.int64(byte) - 87 if 97 <= byte <= 102 else np.int64(-1)
