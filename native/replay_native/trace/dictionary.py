"""A hash table that gives ids to byte strings, by open addressing and with full comparison.

Python owns the arrays of a table (`replay.trace.dictionary.StringTable`). An entry is a row with its place (where the
string begins in the store, and its length) and two words that are compared together with the string.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64, peek_u8, peek_u32, poke_i64

ENTRIES, STORED_BYTES, CLOSED, NEXT_ID, SEED, TOUCHED = 0, 1, 2, 3, 4, 5
STATE_WORDS = 6

PLACE, WORD_0, WORD_1 = 0, 1, 2
ENTRY_WORDS = 3

LENGTH_BITS = 24
"""The lower bits of a place, which contain the length. A string whose length needs more bits does not fit."""

HASHED_AHEAD = 64
"""How many strings are hashed, and their slots read, before the first of them is looked up (a power of two)."""

_MULTIPLIER = np.int64(-7046029254386353131)
_OTHER_MULTIPLIER = np.int64(-4658895280553007687)
_FINAL = np.int64(-4417276706812531889)
_UPPER = np.int64(-4294967296)
_LOWER = np.int64(4294967295)
_LENGTHS = np.int64((1 << LENGTH_BITS) - 1)


@bundle
class Strings(NamedTuple):
    """Byte strings, one after another."""

    data: Annotated[Array, "uint8[::1]", "the bytes of all strings"]
    offsets: Annotated[Array, "int64[::1]", "per string and one more: the offset of its bytes"]


@bundle
class Table(NamedTuple):
    """The arrays of a table of strings."""

    slots: Annotated[
        Array,
        "int64[::1]",
        "upper half of the hash, and id + 1; 0 if empty. A power of two, at least twice the entries",
    ]
    store: Annotated[Array, "uint8[::1]", "the bytes of the strings"]
    entries: Annotated[Array, "int64[:, ::1]", "per entry: PLACE, WORD_0, WORD_1"]
    state: Annotated[Array, "int64[::1]", "ENTRIES, STORED_BYTES, CLOSED, NEXT_ID, SEED, TOUCHED"]


STRINGS_TYPE, TABLE_TYPE = numba_type(Strings), numba_type(Table)


@kernel(inlined=True)
def mix(hashed, word):
    """Mix one word into a hash."""
    hashed = (hashed ^ word) * _MULTIPLIER
    return hashed ^ (hashed >> np.int64(32))


@kernel(inlined=True)
def _mix_other(hashed, word):
    """Mix one word into a hash with another multiplier, so that the same word in both halves does not cancel out."""
    hashed = (hashed ^ word) * _OTHER_MULTIPLIER
    return hashed ^ (hashed >> np.int64(29))


@kernel(inlined=True)
def _short_word(address, length):
    """Return up to seven bytes as one word, which is unique among strings of the same length."""
    if length >= 4:
        low, high = np.int64(peek_u32(address)), np.int64(peek_u32(address + np.uint64(length - 4)))
        return low | (high << np.int64(32))
    if length == 0:
        return np.int64(0)
    first, last = np.int64(peek_u8(address)), np.int64(peek_u8(address + np.uint64(length - 1)))
    middle = np.int64(peek_u8(address + np.uint64(length >> 1)))
    return first | (middle << np.int64(8)) | (last << np.int64(16))


@kernel(inlined=True)
def hash_bytes(data, begin, end, seed):
    """Return a 64-bit hash of `data[begin:end]`. A secret `seed` makes collisions unpredictable.

    Words are mixed alternately into two halves, which the CPU computes in parallel. The last word overlaps the one
    before.
    """
    length = end - begin
    address = np.uint64(np.int64(data.ctypes.data) + begin)
    hashed, other = seed ^ (length * _FINAL), ~seed
    if length < 8:
        hashed = mix(hashed, _short_word(address, length))
    else:
        at = np.int64(0)
        while at + 16 <= length:
            hashed = mix(hashed, peek_i64(address + np.uint64(at)))
            other = _mix_other(other, peek_i64(address + np.uint64(at + 8)))
            at += 16
        if at + 8 <= length:
            hashed = mix(hashed, peek_i64(address + np.uint64(at)))
        other = _mix_other(other, peek_i64(address + np.uint64(length - 8)))
    hashed = mix(hashed, other) * _FINAL
    return hashed ^ (hashed >> np.int64(29))


@kernel(inlined=True)
def same_bytes(left, left_at, right, right_at, length):
    """Return whether two ranges of bytes are equal."""
    left_address = np.uint64(np.int64(left.ctypes.data) + left_at)
    right_address = np.uint64(np.int64(right.ctypes.data) + right_at)
    if length < 8:
        return _short_word(left_address, length) == _short_word(right_address, length)
    at = np.int64(0)
    while at + 8 <= length:
        if peek_i64(left_address + np.uint64(at)) != peek_i64(right_address + np.uint64(at)):
            return False
        at += 8
    last = np.uint64(length - 8)
    return peek_i64(left_address + last) == peek_i64(right_address + last)


@kernel(inlined=True)
def copy_bytes(source, begin, end, target, at):
    """Copy `source[begin:end]` to `target` at `at`, and return the offset after it. The two must not overlap."""
    length = end - begin
    source_address = np.uint64(np.int64(source.ctypes.data) + begin)
    target_address = np.uint64(np.int64(target.ctypes.data) + at)
    if length >= 8:
        done = np.int64(0)
        while done + 8 <= length:
            poke_i64(target_address + np.uint64(done), peek_i64(source_address + np.uint64(done)))
            done += 8
        last = np.uint64(length - 8)
        poke_i64(target_address + last, peek_i64(source_address + last))
    else:
        for index in range(length):
            target[at + index] = source[begin + index]
    return at + max(length, np.int64(0))


@kernel(inlined=True)
def _slot_of(hashed, mask):
    return (hashed >> np.int64(32)) & mask


@kernel(inlined=True)
def _is_entry(table, entry, data, begin, length, word0, word1):
    """Return whether a string with its two words equals this entry."""
    entries = table.entries
    place = entries[entry, PLACE]
    return (
        place & _LENGTHS == length
        and entries[entry, WORD_0] == word0
        and entries[entry, WORD_1] == word1
        and same_bytes(table.store, place >> LENGTH_BITS, data, begin, length)
    )


@kernel()
def find_or_add(data, begin, end, word0, word1, table):
    """Return the id of a string (with its two extra words), or -1 - id if the string is new.

    A new string is added while the table is open. The first one that does not fit closes the table for good. From
    then on every unknown string gets a new id and is not stored, so that equal strings can have several ids.
    """
    hashed = mix(mix(hash_bytes(data, begin, end, table.state[SEED]), word0), word1)
    return find_or_add_hashed(hashed, data, begin, end, word0, word1, table)


@kernel()
def find_or_add_hashed(hashed, data, begin, end, word0, word1, table):
    """Do what `find_or_add` does for a string whose hash is known."""
    slots, state = table.slots, table.state
    mask = np.int64(slots.shape[0] - 1)
    slot = _slot_of(hashed, mask)
    tag = hashed & _UPPER
    length = end - begin
    while slots[slot] != 0:
        if slots[slot] & _UPPER == tag:
            entry = (slots[slot] & _LOWER) - 1
            if _is_entry(table, entry, data, begin, length, word0, word1):
                return entry
        slot = (slot + 1) & mask
    number = state[NEXT_ID]
    state[NEXT_ID] = number + 1
    count, used = state[ENTRIES], state[STORED_BYTES]
    store, entries = table.store, table.entries
    full = count == entries.shape[0] or length > min(store.shape[0] - used, _LENGTHS)
    if state[CLOSED] != 0 or full:
        state[CLOSED] = 1
        return -1 - number
    state[STORED_BYTES] = copy_bytes(data, begin, end, store, used)
    entries[count, PLACE] = (used << LENGTH_BITS) | length
    entries[count, WORD_0], entries[count, WORD_1] = word0, word1
    slots[slot] = tag | (count + 1)
    state[ENTRIES] = count + 1
    return -1 - number


@kernel("void(uint8[::1], int64[::1], int64, int64[::1])")
def hash_all(data, offsets, seed, hashes):
    """Write the hash of each string of (data, offsets) to `hashes`."""
    for index in range(hashes.shape[0]):
        hashes[index] = hash_bytes(data, offsets[index], offsets[index + 1], seed)


@kernel("void(int64[::1], int64[::1])")
def move_slots(old, slots):
    """Move the slots of a table into a larger, empty array."""
    mask = np.int64(slots.shape[0] - 1)
    for index in range(old.shape[0]):
        if old[index] != 0:
            slot = _slot_of(old[index], mask)
            while slots[slot] != 0:
                slot = (slot + 1) & mask
            slots[slot] = old[index]


@kernel()
def _touch(strings, words, first, last, table, hashes):
    """Hash some strings, and read what their lookups will need, so that their cache misses overlap."""
    data, offsets, slots, store, entries = (
        strings.data,
        strings.offsets,
        table.slots,
        table.store,
        table.entries,
    )
    state = table.state
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
            seen ^= entries[entry - 1, PLACE]
    for index in range(last - first):
        entry = slots[_slot_of(hashes[index], mask)] & _LOWER
        if entry != 0 and entries[entry - 1, PLACE] & _LENGTHS > 0:
            seen ^= np.int64(store[entries[entry - 1, PLACE] >> LENGTH_BITS])
    state[TOUCHED] = seen


@kernel(
    types.int64(
        STRINGS_TYPE, types.int64[:, ::1], types.int64, types.int64, TABLE_TYPE, types.int64[::1], types.uint32[::1],
        types.int64[::1],
    )
)  # fmt: skip
def intern(strings, words, first, last, table, hashes, ids, fresh):
    """Look up the strings from `first` to before `last`, add those that are unknown, and return how many were new.

    ids[i - first] is the id of string i. fresh[:returned] has the indexes of the new strings, whose ids are
    consecutive. Scratch memory: hashes int64[HASHED_AHEAD].
    """
    found = np.int64(0)
    data, offsets = strings.data, strings.offsets
    for index in range(first, last):
        ahead = (index - first) & (HASHED_AHEAD - 1)
        if ahead == 0:
            _touch(strings, words, index, min(index + HASHED_AHEAD, last), table, hashes)
        begin, end = offsets[index], offsets[index + 1]
        number = find_or_add_hashed(hashes[ahead], data, begin, end, words[index, 0], words[index, 1], table)
        if number < 0:
            number = -1 - number
            fresh[found] = index
            found += 1
        ids[index - first] = number
    return found


@kernel("int64(uint8[::1], int64[::1], int64[::1], int64, uint8[::1], int64[::1], int64)")
def gather(data, offsets, chosen, count, target, ends, row):
    """Append the strings `chosen[:count]` to (target, ends), after its first `row` rows; return the bytes used."""
    at = ends[row]
    for index in range(count):
        begin, end = offsets[chosen[index]], offsets[chosen[index] + 1]
        at = copy_bytes(data, begin, end, target, at)
        row += 1
        ends[row] = at
    return at


@kernel("void(int64[::1], int64[::1], uint32[::1], int64[::1], uint32[::1])")
def dense_ids(hashes, slots, slot_ids, state, ids):
    """Give 64-bit hashes consecutive ids, in the order in which they first appear. state[0] counts the ids.

    `slots` (0 is empty) is a power of two, at least twice state[0] + len(hashes). To limit the memory, at most
    state[1] hashes get their own id. Any further hash gets its remainder modulo state[1], an id that others have, too.
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
    """Move the entries of a `dense_ids` table into a larger, empty one."""
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
    """Count each id in `weights`. Ids beyond its end are ignored."""
    for index in range(ids.shape[0]):
        if ids[index] < weights.shape[0]:
            weights[ids[index]] += 1
