"""Decodes counters from the V2 encoding of HdrHistogram, which `replay_native.ledger.hdr.encode_payload` writes.

A counter is a ZigZag LEB128 number of at most 9 bytes; all 8 bits of the ninth byte count. A run of zeros is one
negative number. Reports decode counters without Numba, so this module uses NumPy and does each step for all numbers
at once.
"""

from __future__ import annotations

import numpy as np

BYTES_MAX = 9
"""The most bytes that a number takes."""


def decoded(payload: np.ndarray, length: int) -> np.ndarray:
    """Return the counters in a payload: uint64[length] from uint8[n].

    Raises ValueError if the payload ends inside a number, or holds more counters than `length`.
    """
    words = _words(payload)
    is_run = (words & np.uint64(1)).astype(bool)
    halves = words >> np.uint64(1)
    if is_run.any() and int(halves[is_run].max()) >= length:
        raise ValueError("a run of zeros is longer than the histogram")
    after = np.cumsum(np.where(is_run, halves + np.uint64(1), np.uint64(1)).astype(np.int64))
    if after.size and after[-1] > length:
        raise ValueError("there are more counters than the histogram has")
    counts = np.zeros(length, np.uint64)
    counts[after[~is_run] - 1] = halves[~is_run]
    return counts


def _words(payload: np.ndarray) -> np.ndarray:
    """Return the unsigned numbers in a payload, uint64[m].

    Raises ValueError if the payload ends inside a number.
    """
    starts = _starts(payload)
    words = np.zeros(starts.size, np.uint64)
    at, left = starts.copy(), np.arange(starts.size)
    for place in range(BYTES_MAX):
        if at.size and at[-1] >= payload.size:
            raise ValueError("the payload ends inside a number")
        byte = payload[at].astype(np.uint64)
        is_last = place == BYTES_MAX - 1
        words[left] |= (byte if is_last else byte & np.uint64(0x7F)) << np.uint64(7 * place)
        goes_on = byte >= np.uint64(0x80)
        at, left = at[goes_on] + 1, left[goes_on]
        if not at.size:
            break
    return words


def _starts(payload: np.ndarray) -> np.ndarray:
    """Return where each number begins, int64[m].

    A number ends with a byte without the continuation bit, or with its ninth byte.
    """
    ends = np.flatnonzero(payload < 0x80)
    starts = np.concatenate((np.zeros(1, np.int64), ends + 1))
    starts = starts[starts < payload.size]
    lengths = np.diff(np.append(starts, payload.size))
    if not lengths.size or lengths.max() < BYTES_MAX:
        return starts
    found, at = [], 0
    # Only numbers of nine bytes need this loop: counts of at least 2^55, which are very rare.
    while at < payload.size:
        found.append(at)
        rest = payload[at : at + BYTES_MAX - 1]
        short = np.flatnonzero(rest < 0x80)
        at += int(short[0]) + 1 if short.size else BYTES_MAX
    return np.array(found, np.int64)
