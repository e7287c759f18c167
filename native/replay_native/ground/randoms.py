"""Random bits that depend only on a seed and a number.

So they are the same in every process, in any order, and in portions of any size.
"""

from __future__ import annotations

import math

import numpy as np

from .jit import kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_UNIT = 1.0 / (1 << 53)


@kernel(inlined=True)
def mix(word):
    """Mix the bits of a word with SplitMix64's finalizer (Steele, Lea, Flood, OOPSLA 2014).

    The function is a bijection, so that no two words give the same bits.
    """
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@kernel(inlined=True)
def random_of(seed, seq, salt):
    """Return the 64 random bits of a row; another `salt` gives independent bits of the same row."""
    return mix(mix(seed ^ salt) + (np.uint64(seq) + np.uint64(1)) * GOLDEN)


@kernel(inlined=True)
def unit_of(bits):
    """Convert 64 random bits to a number in (0, 1]."""
    return (np.float64(bits >> np.uint64(11)) + 1.0) * _UNIT


@kernel(inlined=True)
def exponential_of(bits):
    """Convert 64 random bits to an exponential variate of mean 1, by inversion."""
    return -math.log(unit_of(bits))
