"""Counters out of the V2 encoding of HdrHistogram, which `replay_native.ledger.hdr.encode_payload` writes.

It is ZigZag LEB128 of at most 9 bytes, all 8 bits of the ninth counting, and a run of zeros is one negative number. A
report reads it without Numba, so this is NumPy: each step is done for all numbers at once.
"""

from __future__ import annotations

import numpy as np

BYTES_MAX = 9
"""Most bytes of one number."""


def decoded(payload: np.ndarray, length: int) -> np.ndarray:
    """uint64[length] from payload uint8[n]. ValueError if it ends inside a number, or does not fit the length."""
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
    """The unsigned numbers in a payload, uint64[m]. ValueError if the payload ends inside a number."""
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
    """Where each number begins, int64[m]: after a byte without the continuation bit, or after eight with it and one
    more.
    """
    ends = np.flatnonzero(payload < 0x80)
    starts = np.concatenate((np.zeros(1, np.int64), ends + 1))
    starts = starts[starts < payload.size]
    lengths = np.diff(np.append(starts, payload.size))
    if not lengths.size or lengths.max() < BYTES_MAX:
        return starts
    found, at = [], 0
    while at < payload.size:  # Counts above 2^55 are very rare.
        found.append(at)
        rest = payload[at : at + BYTES_MAX - 1]
        short = np.flatnonzero(rest < 0x80)
        at += int(short[0]) + 1 if short.size else BYTES_MAX
    return np.array(found, np.int64)
