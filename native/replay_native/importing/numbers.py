"""Kernels that read the decimal numbers in log fields, and recognize the notations for a missing value."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

from .text import digits, word_at

_DASH, _SLASH, _PLUS, _DOT = 45, 47, 43, 46
_HALVES = np.int64(-0x0F0F0F0F0F0F0F10)
_LOW_HALVES = np.int64(0x0F0F0F0F0F0F0F0F)
_NS = np.int64(1_000_000_000)
_OF_PAIRS = np.int64(100 + (1_000_000 << 32))
_OF_OTHER_PAIRS = np.int64(1 + (10_000 << 32))
_PAIRS = np.int64(0x000000FF000000FF)
_SIXES = np.int64(0x0606060606060606)
_THREES = np.int64(0x3333333333333333)
POWERS = np.array([10**n for n in range(19)], dtype=np.int64)


@kernel(inlined=True)
def _are_digits(word):
    """Return whether eight bytes are decimal digits (Daniel Lemire, "Quickly parsing eight digits")."""
    return ((word & _HALVES) | (((word + _SIXES) & _HALVES) >> 4)) == _THREES


@kernel(inlined=True)
def _eight_digits(word):
    """Return the number that eight decimal digits form, the first one in the lowest byte.

    Pairs are added up first, then fours, then all eight (same source as `_are_digits`).
    """
    word &= _LOW_HALVES
    word = word * 10 + (word >> 8)
    return ((word & _PAIRS) * _OF_PAIRS + ((word >> 16) & _PAIRS) * _OF_OTHER_PAIRS) >> 32


@kernel(inlined=True)
def number_at(data, at, end, point, out):
    """Read a decimal number, whose decimal point is `.` or `point`, and return where it ends.

    out[0] is the whole part, out[1] the fraction in billionths, out[2] the number of digits that the fraction has,
    at most 9. The result is -1 when there is no number, or when its whole part does not fit int64.
    """
    whole, fraction, length = np.int64(0), np.int64(0), np.int64(0)
    first = at
    if end - at >= 8 and _are_digits(word_at(data, at)):
        whole = _eight_digits(word_at(data, at))
        at += 8
    while at < end and 48 <= data[at] <= 57:
        whole = whole * 10 + np.int64(data[at]) - 48
        at += 1
        if at - first > 19 or whole < 0:
            return np.int64(-1)
    if at == first:
        return np.int64(-1)
    if at < end and (data[at] == _DOT or data[at] == point):
        at += 1
        if end - at >= 8 and _are_digits(word_at(data, at)):
            fraction, length = _eight_digits(word_at(data, at)), np.int64(8)
            at += 8
        while at < end and 48 <= data[at] <= 57:
            if length < 9:
                fraction = fraction * 10 + np.int64(data[at]) - 48
                length += 1
            at += 1
    out[0], out[1], out[2] = whole, fraction * POWERS[9 - length], length
    return at


@kernel()
def scaled(data, at, end, out):
    """Apply the exponent at `at` (`e-05`) to the number in `out`, and return where it ends.

    The result is -1 when there is no exponent, or when the number is too large.
    """
    negative = at + 1 < end and data[at + 1] == _DASH
    signed = negative or (at + 1 < end and data[at + 1] == _PLUS)
    first = at + 1 + signed
    at = first
    exponent = np.int64(0)
    while at < end and at - first < 3 and 48 <= data[at] <= 57:
        exponent = exponent * 10 + np.int64(data[at]) - 48
        at += 1
    if at == first or out[0] >= _NS:
        return np.int64(-1)
    value = out[0] * _NS + out[1]
    if negative:
        value = value // POWERS[exponent] if exponent < 19 else np.int64(0)
    elif exponent > 18 or value > np.int64(9_000_000_000_000_000_000) // POWERS[exponent]:
        return np.int64(-1)
    else:
        value *= POWERS[exponent]
    out[0], out[1] = value // _NS, value % _NS
    return at


@kernel()
def scientific(data, begin, end, out):
    """Read a number with an exponent (`1.774749599123e+12`) to `out`, in the form that `number_at` writes.

    The result is False when there is no such number, or when it is too large, too small or too long.
    """
    mantissa, length, point, at = np.int64(0), np.int64(0), np.int64(-1), begin
    while at < end and (48 <= data[at] <= 57 or data[at] == _DOT):
        if data[at] == _DOT:
            if point >= 0:
                return False
            point = length
        else:
            mantissa = mantissa * 10 + np.int64(data[at]) - 48
            length += 1
            if length > 18:
                return False
        at += 1
    if length == 0 or at + 1 >= end or (data[at] | 32) != 101:
        return False
    negative = data[at + 1] == _DASH
    at += 1 + (negative or data[at + 1] == _PLUS)
    if not 0 < end - at <= 3:
        return False
    exponent = digits(data, at, end - at)
    if exponent < 0:
        return False
    places = (np.int64(0) if point < 0 else length - point) - (-exponent if negative else exponent)
    if places <= 0:
        if places < -18 or mantissa > np.int64(9_000_000_000_000_000_000) // POWERS[-places]:
            return False
        out[0], out[1], out[2] = mantissa * POWERS[-places], 0, 0
        return True
    if places > 18:
        return False
    rest = mantissa % POWERS[places]
    out[0], out[2] = mantissa // POWERS[places], min(places, np.int64(9))
    out[1] = rest * POWERS[9 - places] if places <= 9 else rest // POWERS[places - 9]
    return True


@kernel(inlined=True)
def is_none(data, begin, end):
    """Return whether a field is absent, empty, or `-`."""
    return begin < 0 or begin == end or (end - begin == 1 and data[begin] == _DASH)


@kernel()
def _is_null(data, begin, end):
    r"""Return whether data[begin:end] is `null`, `nil`, `None`, `NaN` or `N/A` in any case, or `\N`."""
    first = data[begin] | 32
    if end - begin == 2:
        return data[begin] == 92 and data[begin + 1] == 78
    if first != 110:
        return False
    second, third = data[begin + 1] | 32, data[begin + 2] | 32
    if end - begin == 3:
        return (
            (second == 97 and third == 110)
            or (second == 105 and third == 108)
            or (data[begin + 1] == _SLASH and third == 97)
        )
    fourth = data[begin + 3] | 32
    return (second == 117 and third == 108 and fourth == 108) or (
        second == 111 and third == 110 and fourth == 101
    )


@kernel(inlined=True)
def is_nothing(data, begin, end):
    """Return whether a field is absent, empty, `-`, `null`, `None`, `NaN`, `N/A` or another notation for no value."""
    if is_none(data, begin, end):
        return True
    return 2 <= end - begin <= 4 and data[begin] in (78, 92, 110) and _is_null(data, begin, end)
