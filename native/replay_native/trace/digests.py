"""A hash table that gives ids to digests of 128 bits.

When all slots that may contain a new digest are in use, it replaces the oldest digest in them.
"""

from __future__ import annotations

from replay_native.ground.jit import kernel

LOW, HIGH, ID = 0, 1, 2
"""Columns of a table int64[power of two, COLUMNS]: both halves of a digest, and its id + 1 (0: the slot is free)."""

COLUMNS = 3

WINDOW = 32
"""How many slots may contain a digest, from the one that its lower bits select."""


@kernel("int64(int64[:,::1], int64, int64, int64)")
def find_or_put(table, low, high, index):
    """Return the id of a digest. A new one gets the id `index`.

    If none of its slots is free, the oldest digest in them is replaced.
    """
    mask = table.shape[0] - 1
    chosen = low & mask
    for step in range(WINDOW):
        slot = (low + step) & mask
        if table[slot, ID] == 0:
            chosen = slot
            break
        if table[slot, LOW] == low and table[slot, HIGH] == high:
            return table[slot, ID] - 1
        if table[slot, ID] < table[chosen, ID]:
            chosen = slot
    table[chosen, LOW], table[chosen, HIGH], table[chosen, ID] = low, high, index + 1
    return index


@kernel("void(int64[:,::1], int64[:,::1])")
def move(old, new):
    """Move every digest of a table into a larger, empty one."""
    for slot in range(old.shape[0]):
        if old[slot, ID] != 0:
            find_or_put(new, old[slot, LOW], old[slot, HIGH], old[slot, ID] - 1)
