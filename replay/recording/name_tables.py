"""Builds the tables with which kernels search bodies for parts of secret names."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from replay_native.ground.nibbles import (
    BUCKETS,
    PREFIX_BYTES,
    PREFIX_ROWS,
    ROWS_OF_EIGHT,
    SET_ROWS,
    byte_set,
)
from replay_native.mirror.name_search import CLASS_BITS, IGNORED_CLASS, Names

STATES_MAX = 256

LETTERS = dict(zip("etaoinshrdlcumwfgypbvkjxqz", (
    12.7, 9.1, 8.2, 7.5, 7.0, 6.7, 6.3, 6.1, 6.0, 4.3, 4.0, 2.8, 2.8, 2.4, 2.4, 2.2, 2.0, 2.0, 1.9, 1.5, 1.0, 0.8,
    0.2, 0.2, 0.1, 0.1), strict=True))  # fmt: skip
OTHER, DIGIT, BLANK = 0.3, 1.5, 15.0
"""How often bytes are in a text, in percent of its letters. Only the speed of the search depends on it."""


def name_tables(parts: Iterable[bytes], ignored: bytes) -> Names:
    """Build the tables that find any of `parts`, which are in lower case.

    They are also found in upper case, and with `ignored` bytes between their bytes.
    """
    parts = list(parts)
    classes = np.zeros(256, np.uint8)
    classes[list(ignored)] = IGNORED_CLASS
    letters = sorted(set(b"".join(parts)))
    for number, byte in enumerate(letters, IGNORED_CLASS + 1):
        classes[byte] = number
        if 97 <= byte <= 122:
            classes[byte - 32] = number
    assert len(letters) + IGNORED_CLASS < 1 << CLASS_BITS
    children, ends, depths = _tree(parts)
    end = len(children)
    assert end < STATES_MAX
    states = np.zeros((end + 1, 1 << CLASS_BITS), np.uint8)
    states[end] = end
    fallback = [0] * end
    waiting = deque([0])
    while waiting:
        state = waiting.popleft()
        states[state] = states[fallback[state]] if state else 0
        states[state, IGNORED_CLASS] = state
        for byte, child in children[state].items():
            behind = int(states[fallback[state], classes[byte]]) if state else 0
            fallback[child] = 0 if behind == end else behind
            states[state, classes[byte]] = end if ends[child] or behind == end else child
            waiting.append(child)
    return Names(
        classes=classes,
        states=np.ascontiguousarray(states.reshape(-1)),
        depths=np.array([*depths, 0], np.uint8),
        end_state=end,
        prefixes=_prefix_rows({part[:PREFIX_BYTES] for part in parts}),
        ignored=byte_set(ignored),
    )


def _tree(parts: list[bytes]) -> tuple[list[dict[int, int]], list[bool], list[int]]:
    """Return the tree of all parts: the children of each state by byte, whether a part ends there, and its depth."""
    children: list[dict[int, int]] = [{}]
    ends, depths = [False], [0]
    for part in parts:
        state = 0
        for byte in part:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
                ends.append(False)
                depths.append(depths[state] + 1)
            state = children[state][byte]
        ends[state] = True
    return children, ends, depths


def _prefix_rows(prefixes: set[bytes]) -> NDArray[np.uint8]:
    """Return the rows of `nibbles.prefix_places`."""
    rows = np.zeros((PREFIX_ROWS, 16), np.uint8)
    for number, bucket in enumerate(_buckets(prefixes)):
        for place in range(PREFIX_BYTES):
            for half, values in enumerate(_nibbles(bucket, place)):
                row = ROWS_OF_EIGHT * (number // 8) + SET_ROWS * place + half
                rows[row, sorted(values)] |= 1 << number % 8
    return np.tile(rows, 2)


def _buckets(prefixes: set[bytes]) -> list[frozenset[bytes]]:
    """Distribute the prefixes, so that few places of a text look like one: each in turn where it costs the least."""
    buckets = [frozenset[bytes]()] * BUCKETS
    for prefix in sorted(prefixes, key=lambda each: (len(each), each)):
        added = [_share(bucket | {prefix}) - _share(bucket) for bucket in buckets]
        best = added.index(min(added))
        buckets[best] |= {prefix}
    return buckets


@functools.cache
def _share(bucket: frozenset[bytes]) -> float:
    """Return the share of the places of a text that look like the beginning of a word of this bucket, about."""
    if not bucket:
        return 0.0
    share = 1.0
    for place in range(PREFIX_BYTES):
        low, high = _nibbles(bucket, place)
        share *= sum(_FREQUENCIES[16 * upper + lower] for upper in high for lower in low)
    return share


def _nibbles(bucket: frozenset[bytes], place: int) -> tuple[set[int], set[int]]:
    """Return the low and the high nibbles of the bytes that words of a bucket have at a place, in either case."""
    if any(len(prefix) <= place for prefix in bucket):
        return set(range(16)), set(range(16))
    found = {
        byte for prefix in bucket for byte in prefix[place : place + 1].upper() + prefix[place : place + 1]
    }
    return {byte & 15 for byte in found}, {byte >> 4 for byte in found}


def _frequencies() -> list[float]:
    by_byte = [OTHER] * 128 + [0.0] * 128
    by_byte[32] = BLANK
    by_byte[48:58] = [DIGIT] * 10
    for letter, percent in LETTERS.items():
        by_byte[ord(letter)], by_byte[ord(letter.upper())] = percent, percent / 10
    return [each / sum(by_byte) for each in by_byte]


_FREQUENCIES = _frequencies()
