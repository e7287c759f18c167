"""A radix sort for words that contain a time stamp and its place, when the time stamps are nearly in order."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS
SIGN_BIT = 63
"""This bit is 0 in every word, so that a pass over it leaves the order as it is."""

_MASK = np.uint64(DIGITS - 1)


@kernel(inlined=True)
def _pass(words, out, shift, counts):
    """Sort words by one digit. Words with the same digit keep their order."""
    counts[:] = 0
    for index in range(words.shape[0]):
        counts[np.int64((words[index] >> shift) & _MASK)] += 1
    place = np.int64(0)
    for digit in range(counts.shape[0]):
        here = counts[digit]
        counts[digit] = place
        place += here
    for index in range(words.shape[0]):
        its_digit = np.int64((words[index] >> shift) & _MASK)
        out[counts[its_digit]] = words[index]
        counts[its_digit] += 1


@kernel("void(uint64[::1], uint64[::1], int64, int64, int64[::1])")
def sort_words(words, spare, low_bit, high_bit, counts):
    """Sort words by their bits from low_bit to below high_bit, stably (LSD radix sort: Knuth 5.2.5).

    Bits are sorted 22 at a time, so that words may also be sorted by bits from high_bit on. Bit 63 of every word must
    be 0. Scratch memory: `spare`, as long as `words`, and counts int64[DIGITS].
    """
    shift = low_bit
    while shift < high_bit:
        _pass(words, spare, np.uint64(shift), counts)
        _pass(spare, words, np.uint64(min(shift + DIGIT_BITS, SIGN_BIT)), counts)
        shift += 2 * DIGIT_BITS
