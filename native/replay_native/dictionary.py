"""Byte strings to ids: an open-addressing table with full comparison, and the copying around it.

A table is plain arrays, owned by Python (`replay.trace.dictionary.StringTable`): `slots` (a power of two; the
upper hash bits and id + 1, 0 is empty), `store` (the strings' bytes), `starts` (entries + 1 offsets into the
store), `extra` (two words compared together with the string), and `state` (the words named below).
"""

from __future__ import annotations

import numpy as np

from .jit import kernel
from .shared import peek_i64, poke_i64

ENTRIES, STORED_BYTES, CLOSED, NEXT_ID, SEED, TOUCHED = 0, 1, 2, 3, 4, 5
STATE_WORDS = 6

HASHED_AHEAD = 64
"""Strings that are hashed, and their slots read, before the first of them is looked up (a power of two)."""

_MULTIPLIER = np.int64(-7046029254386353131)
_FINAL = np.int64(-4417276706812531889)
_UPPER = np.int64(-4294967296)
_LOWER = np.int64(4294967295)


@kernel(inlined=True)
def mix(hashed, word):
    """Fold one word into a hash."""
    hashed = (hashed ^ word) * _MULTIPLIER
    return hashed ^ (hashed >> np.int64(32))


@kernel(inlined=True)
def hash_bytes(data, begin, end, seed):
    """A 64-bit hash of `data[begin:end]`, eight bytes at a time; `seed` makes collisions unpredictable."""
    hashed = seed ^ ((end - begin) * _FINAL)
    address = np.int64(data.ctypes.data)
    at = begin
    while at + 8 <= end:
        hashed = mix(hashed, peek_i64(np.uint64(address + at)))
        at += 8
    tail = np.int64(0)
    while at < end:
        tail = (tail << np.int64(8)) | np.int64(data[at])
        at += 1
    hashed = mix(hashed, tail) * _FINAL
    return hashed ^ (hashed >> np.int64(29))


@kernel(inlined=True)
def same_bytes(left, left_at, right, right_at, length):
    """Whether two stretches of bytes are equal."""
    left_address = np.int64(left.ctypes.data) + left_at
    right_address = np.int64(right.ctypes.data) + right_at
    at = np.int64(0)
    while at + 8 <= length:
        if peek_i64(np.uint64(left_address + at)) != peek_i64(np.uint64(right_address + at)):
            return False
        at += 8
    while at < length:
        if left[left_at + at] != right[right_at + at]:
            return False
        at += 1
    return True


@kernel(inlined=True)
def copy_bytes(source, begin, end, target, at):
    """Copy `source[begin:end]` to `target` at `at`; the offset after it."""
    source_address = np.int64(source.ctypes.data)
    target_address = np.int64(target.ctypes.data)
    while begin + 8 <= end:
        poke_i64(np.uint64(target_address + at), peek_i64(np.uint64(source_address + begin)))
        begin += 8
        at += 8
    while begin < end:
        target[at] = source[begin]
        begin += 1
        at += 1
    return at


@kernel(inlined=True)
def _slot_of(hashed, mask):
    return (hashed ^ (hashed >> np.int64(17))) & mask


@kernel()
def find_or_add(data, begin, end, word0, word1, slots, store, starts, extra, state):
    """The id of a string (with its two extra words), or -1 - id where it is new.

    While the table is open a new string is inserted. At the first that does not fit the table closes for
    good, and every unknown string gets a fresh id without being remembered: ids are then no longer unique by
    content.
    """
    hashed = mix(mix(hash_bytes(data, begin, end, state[SEED]), word0), word1)
    return find_or_add_hashed(hashed, data, begin, end, word0, word1, slots, store, starts, extra, state)


@kernel()
def find_or_add_hashed(hashed, data, begin, end, word0, word1, slots, store, starts, extra, state):
    """`find_or_add` of a string whose hash is known."""
    mask = np.int64(slots.shape[0] - 1)
    slot = _slot_of(hashed, mask)
    tag = hashed & _UPPER
    length = end - begin
    while slots[slot] != 0:
        if slots[slot] & _UPPER == tag:
            entry = (slots[slot] & _LOWER) - 1
            if (
                starts[entry + 1] - starts[entry] == length
                and extra[entry, 0] == word0
                and extra[entry, 1] == word1
                and same_bytes(store, starts[entry], data, begin, length)
            ):
                return entry
        slot = (slot + 1) & mask
    number = state[NEXT_ID]
    state[NEXT_ID] = number + 1
    entries, used = state[ENTRIES], state[STORED_BYTES]
    if state[CLOSED] != 0 or entries + 2 > starts.shape[0] or used + length > store.shape[0]:
        state[CLOSED] = 1
        return -1 - number
    state[STORED_BYTES] = copy_bytes(data, begin, end, store, used)
    starts[entries + 1] = state[STORED_BYTES]
    extra[entries, 0] = word0
    extra[entries, 1] = word1
    slots[slot] = tag | (entries + 1)
    state[ENTRIES] = entries + 1
    return -1 - number


@kernel()
def _touch(data, offsets, words, first, last, slots, store, starts, extra, state, hashes):
    """Hash some strings, and read what their lookups will need, so that the cache misses of all of them overlap."""
    mask = np.int64(slots.shape[0] - 1)
    seen = np.int64(0)
    for index in range(first, last):
        hashed = hash_bytes(data, offsets[index], offsets[index + 1], state[SEED])
        hashed = mix(mix(hashed, words[index, 0]), words[index, 1])
        hashes[index - first] = hashed
        seen ^= slots[_slot_of(hashed, mask)]
    for index in range(last - first):
        entry = slots[_slot_of(hashes[index], mask)] & _LOWER
        if entry != 0:
            seen ^= starts[entry - 1] ^ extra[entry - 1, 0]
    for index in range(last - first):
        entry = slots[_slot_of(hashes[index], mask)] & _LOWER
        if entry != 0 and starts[entry] > starts[entry - 1]:
            seen ^= np.int64(store[starts[entry - 1]])
    state[TOUCHED] = seen


@kernel(
    "int64(uint8[::1], int64[::1], int64[:,::1], int64, int64, int64[::1], uint8[::1], int64[::1],"
    " int64[:,::1], int64[::1], int64[::1], uint32[::1], int64[::1])"
)
def intern(data, offsets, words, first, last, slots, store, starts, extra, state, hashes, ids, fresh):
    """Look up strings `first` to `last` of (data, offsets), adding unknown ones; how many were new.

    ids[i - first] is the id of string i; fresh[:returned] are the indexes of the new strings, whose ids count
    up. Room: hashes int64[HASHED_AHEAD].
    """
    found = np.int64(0)
    for index in range(first, last):
        ahead = (index - first) & (HASHED_AHEAD - 1)
        if ahead == 0:
            until = min(index + HASHED_AHEAD, last)
            _touch(data, offsets, words, index, until, slots, store, starts, extra, state, hashes)
        number = find_or_add_hashed(
            hashes[ahead],
            data,
            offsets[index],
            offsets[index + 1],
            words[index, 0],
            words[index, 1],
            slots,
            store,
            starts,
            extra,
            state,
        )
        if number < 0:
            number = -1 - number
            fresh[found] = index
            found += 1
        ids[index - first] = number
    return found


@kernel("int64(uint8[::1], int64[::1], int64[::1], int64, uint8[::1], int64[::1], int64)")
def gather(data, offsets, chosen, count, target, ends, row):
    """Append strings `chosen[:count]` to (target, ends) behind its first `row` rows; the bytes used then."""
    at = ends[row]
    for index in range(count):
        begin, end = offsets[chosen[index]], offsets[chosen[index] + 1]
        at = copy_bytes(data, begin, end, target, at)
        row += 1
        ends[row] = at
    return at


@kernel("void(int64[::1], int64[::1], uint32[::1], int64[::1], uint32[::1])")
def dense_ids(hashes, slots, slot_ids, state, ids):
    """Number 64-bit hashes densely by first appearance; state[0] counts them.

    `slots` (a power of two, 0 is empty) holds at least twice state[0] + len(hashes) entries. Past state[1]
    distinct hashes an unknown one shares the id that its remainder names, which bounds memory.
    """
    mask = np.int64(slots.shape[0] - 1)
    for index in range(hashes.shape[0]):
        hashed = hashes[index]
        if hashed == 0:
            hashed = np.int64(1)
        slot = (hashed ^ (hashed >> np.int64(31))) & mask
        while slots[slot] != 0 and slots[slot] != hashed:
            slot = (slot + 1) & mask
        if slots[slot] == hashed:
            ids[index] = slot_ids[slot]
        elif state[0] < state[1]:
            slots[slot] = hashed
            slot_ids[slot] = state[0]
            ids[index] = state[0]
            state[0] += 1
        else:
            ids[index] = (hashed & np.int64(0x7FFFFFFF)) % state[1]


@kernel("void(int64[::1], uint32[::1], int64[::1], uint32[::1])")
def rehash(old_slots, old_ids, slots, slot_ids):
    """Move the entries of one `dense_ids` table into a larger, empty one."""
    mask = np.int64(slots.shape[0] - 1)
    for old in range(old_slots.shape[0]):
        hashed = old_slots[old]
        if hashed != 0:
            slot = (hashed ^ (hashed >> np.int64(31))) & mask
            while slots[slot] != 0:
                slot = (slot + 1) & mask
            slots[slot] = hashed
            slot_ids[slot] = old_ids[old]


@kernel("void(uint32[::1], int64[::1])")
def tally(ids, weights):
    """Count each id that is inside `weights`."""
    for index in range(ids.shape[0]):
        if ids[index] < weights.shape[0]:
            weights[ids[index]] += 1
