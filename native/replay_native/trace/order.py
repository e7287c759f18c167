"""The order of stamps that are nearly in it: a radix sort of words that hold a stamp and its place."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

DIGIT_BITS = 11
DIGITS = 1 << DIGIT_BITS
SIGN_BIT = 63
"""It is 0 in every word: a pass over it moves nothing."""

_MASK = np.uint64(DIGITS - 1)


@kernel(inlined=True)
def _pass(words, out, shift, counts):
    """Move words to their places by one digit; words of the same one keep their order."""
    counts[:] = 0
    for index in range(words.shape[0]):
        counts[np.int64((words[index] >> shift) & _MASK)] += 1
    place = np.int64(0)
    for digit in range(counts.shape[0]):
        here = counts[digit]
        counts[digit] = place
        place += here
    for index in range(words.shape[0]):
        digit = np.int64((words[index] >> shift) & _MASK)
        out[counts[digit]] = words[index]
        counts[digit] += 1


@kernel("void(uint64[::1], uint64[::1], int64, int64, int64[::1])")
def sort_words(words, spare, low_bit, high_bit, counts):
    """Sort words by their bits from low_bit to below high_bit, stably (LSD radix sort: Knuth 5.2.5); bit 63 is 0.

    spare is as long as words, counts int64[DIGITS]; both are overwritten.
    """
    shift = low_bit
    while shift < high_bit:
        _pass(words, spare, np.uint64(shift), counts)
        _pass(spare, words, np.uint64(min(shift + DIGIT_BITS, SIGN_BIT)), counts)
        shift += 2 * DIGIT_BITS
