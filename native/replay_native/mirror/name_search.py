"""Kernels that search bodies for parts of secret names, with tables that `replay.recording.name_tables` builds."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from replay_native.ground.bundle import Array, bundle
from replay_native.ground.jit import kernel
from replay_native.ground.nibbles import (
    HAS_NIBBLES,
    PREFIX_BYTES,
    PREFIX_READ_BYTES,
    bytes_in_set,
    prefix_places,
)
from replay_native.ground.shared import trailing_zeros
from replay_native.ground.simd import WIDTH

_MASK = (1 << WIDTH) - 1
CLASS_BITS, IGNORED_CLASS = 6, 1
"""A byte of class IGNORED_CLASS does not count as part of a name."""


@bundle
class Names(NamedTuple):
    """The automaton that finds parts of names (Aho and Corasick, 1975), and the tables of their first bytes."""

    classes: Annotated[Array, "uint8[::1]", "per byte: its class"]
    states: Annotated[Array, "uint8[::1]", "by state and class: the next state"]
    depths: Annotated[Array, "uint8[::1]", "per state: how many bytes of a part it has matched"]
    end_state: Annotated[int, "int64", "the state after any part is found; no byte leads out of it"]
    prefixes: Annotated[Array, "uint8[:, ::1]", "first bytes of the parts: see nibbles.PREFIX_ROWS"]
    ignored: Annotated[Array, "uint8[:, ::1]", "the bytes of IGNORED_CLASS: see nibbles.byte_set"]


@kernel()
def _begins_part(data, at, end, names):
    """Return whether a part begins at `at`. True may also mean that a part begins a little later."""
    state, matched = np.int64(0), np.int64(0)
    while at < end:
        byte_class = np.int64(names.classes[data[at]])
        state = np.int64(names.states[state << CLASS_BITS | byte_class])
        if state == names.end_state:
            return True
        matched += byte_class != IGNORED_CLASS
        # No part begins with an ignored byte. Without that test, a long run of them would be read from each of its bytes.
        if matched == 0 or names.depths[state] < matched:
            return False
        at += 1
    return False


@kernel()
def search_bytes(data, begin, end, names):
    """Return what `has_name` returns, by looking at one byte after the other."""
    state = np.int64(0)
    for at in range(begin, end):
        state = np.int64(names.states[state << CLASS_BITS | np.int64(names.classes[data[at]])])
    return state == names.end_state


@kernel()
def search_prefixes(data, begin, end, names):
    """Return what `has_name` returns, by looking only at places where a part may begin."""
    base, at, ignored = np.int64(data.ctypes.data), begin, np.int64(-1)
    rows, ignored_rows = np.int64(names.prefixes.ctypes.data), np.int64(names.ignored.ctypes.data)
    while at < end and at + PREFIX_READ_BYTES <= data.shape[0]:
        places = prefix_places(base + at, rows)
        # A part whose second or third byte is ignored does not look like its prefix. Bit i is for the byte two places
        # later. The byte one place after `at` was the last one of the previous round; at first it may be ignored.
        one_later = ignored >> (WIDTH - 1) & 1
        ignored = bytes_in_set(base + at + PREFIX_BYTES - 1, ignored_rows)
        places |= ignored | (ignored << 1 & _MASK) | one_later
        while places != 0:
            # Bytes after `end` may look like a name, too, but no part begins there.
            if _begins_part(data, at + trailing_zeros(places), end, names):
                return True
            places &= places - 1
        at += WIDTH
    return search_bytes(data, at, end, names)


has_name = search_prefixes if HAS_NIBBLES else search_bytes
"""Return whether data[begin:end] contains a part of the name of a secret, or an escape that may hide one."""
