"""Kernels that find the end of a record in a CSV table.

A record ends with its line, unless a quoted field contains the line break (RFC 4180, 2.6).
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.libc import memchr
from replay_native.ground.simd import find_byte

_NEWLINE, _RETURN, _SPACE, _QUOTE = 10, 13, 32, 34

UNDECIDED = -1
"""The data ends before the end of the record is found."""


@kernel(inlined=True)
def line_end(data, at, end):
    """Return the offset of the first newline in data[at:end], or -1."""
    base = np.int64(data.ctypes.data)
    found = (
        memchr(np.uint64(base + at), np.int32(_NEWLINE), np.uint64(end - at)) if at < end else np.uint64(0)
    )
    return np.int64(found) - base if found != 0 else np.int64(-1)


@kernel(inlined=True)
def _opens(data, begin, quote, delimiter):
    """Return whether the quote at `quote` begins a field, after any spaces.

    Any other quote is an ordinary character.
    """
    at = quote
    while at > begin and data[at - 1] == _SPACE:
        at -= 1
    return at == begin or data[at - 1] == delimiter


@kernel(inlined=True)
def _closing(data, at, end):
    """Return the offset of the quote that closes a field whose text begins at `at`, or `end`.

    Two quotes in the text stand for one.
    """
    while True:
        at = find_byte(data, at, end, np.uint8(_QUOTE))
        if at + 1 >= end or data[at + 1] != _QUOTE:
            return at
        at += 2


@kernel(inlined=True)
def _ends_field(data, at, end, delimiter):
    """Return whether only spaces separate `at`, the place after a closing quote, from the end of the field."""
    while at < end and data[at] == _SPACE:
        at += 1
    if at + 1 < end and data[at] == _RETURN and data[at + 1] == _NEWLINE:
        at += 1
    return at >= end or data[at] == delimiter or data[at] == _NEWLINE


@kernel()
def record_end(data, begin, first_end, end, limit, delimiter):
    """Return the offset of the newline that ends the record at `begin`, whose first line ends at `first_end`.

    If a quote does not close before `limit`, or if something other than a delimiter follows the closing quote, the
    result is `first_end`: a stray quote must not swallow the lines after it. The result is UNDECIDED if the record
    may continue beyond data[:end], and `end` is before `limit`.
    """
    within = min(end, limit)
    undecided = np.int64(UNDECIDED) if end < limit else first_end
    at, last = begin, first_end
    while True:
        quote = find_byte(data, at, last, np.uint8(_QUOTE))
        if quote >= last:
            return last
        at = quote + 1
        if _opens(data, begin, quote, delimiter):
            closing = _closing(data, at, within)
            if closing >= within:
                return undecided
            at = closing + 1
            if not _ends_field(data, at, within, delimiter):
                return first_end
            if closing > last:
                last = line_end(data, at, within)
                if last < 0:
                    return undecided


@kernel("int64(uint8[::1], int64, int64, int64, int64, int64)")
def find_record_end(data, begin, first_end, end, limit, delimiter):
    """Run `record_end` for a caller in Python."""
    return record_end(data, begin, first_end, end, limit, delimiter)
