"""The parts that a lane keeps of each response: notes on its headers, digests of its body, and the body itself.

Each connection has one slot. `begin` starts a response, `take_head` and `take_body` receive it in pieces of any
size, and `hand_over` writes the kept parts to the ring when the response is complete. A slot's memory (`buffer`)
holds the header section as received until that is complete, then the notes, and after them the body.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import from_dtype, int64, uint8, uint64, void

from replay_native.ground import libc, xxh64
from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.memory import release
from replay_native.http1.answers import find_head, line_ends, lower, same_word, trimmed

from . import json_digest
from .json_state import ENDED, JSON_FIELDS, P1, spread
from .ring import (
    ENCODING,
    HAS_BODY,
    HEADERS_CUT,
    IS_CONTAINER,
    IS_CUT,
    IS_JSON,
    IS_PACKED,
    IS_WANTED,
    NOTE_BYTES,
    ROW_TYPE,
    AnswerRing,
    Content,
    push,
)

_malloc, _memcpy = libc.malloc, libc.memcpy

NONE, DIGEST, SAMPLE, ALL = range(4)
"""What to keep: nothing; digests and headers; these and the bodies of a sample; these and all bodies."""

VALUE_BYTES_MAX = 1_024
"""Maximum number of bytes of a header's value that are kept."""

NOTES_MAX = 8_192
"""Maximum number of bytes of all notes on one response."""

BUFFER_BYTES = 512
KEPT_BYTES = 16_384
"""Memory of at most this size stays with its slot. Larger memory is freed."""

SLOT = np.dtype([
    ("buffer", "u8"), ("capacity", "i8"), ("head", "i8"), ("notes", "i8"), ("body", "i8"), ("flags", "i8"),
    ("has_head", "i8"), *JSON_FIELDS,
])  # fmt: skip
"""One response that is being received. `head`, `notes` and `body` are the numbers of their bytes in `buffer`."""

_IDENTITY = np.frombuffer(b"identity", np.uint8)
_COLON, _BLANKS, _ONE = 58, (32, 9), 49
_CODE_AT = 9
"""Offset at which the status begins in a status line."""
_MILLION = np.uint64(1_000_000)

slot_type = from_dtype(SLOT)


@bundle
class Keeping(NamedTuple):
    """The tables for the kept parts of one lane's responses. If nothing is kept, every table has one row."""

    mode: Annotated[int, "int64", "NONE, DIGEST, SAMPLE or ALL"]
    sample_ppm: Annotated[
        int, "int64", "share of the requests whose body is kept (SAMPLE), parts per million"
    ]
    body_limit: Annotated[int, "int64", "bytes of a body that are kept at most"]
    packed_limit: Annotated[
        int, "int64", "bytes of a body with a content coding that are handed over at most"
    ]
    names: Annotated[Array, "uint8[::1]", "names of headers in lower case, one after another; see TYPE"]
    name_ends: Annotated[Array, "int64[::1]", "per name and one more: where it begins"]
    initials: Annotated[Array, "boolean[::1]", "per byte: whether one of the names begins with it"]
    slots: Annotated[Array, slot_type[::1], "per connection: the response that is being received"]
    stacks: Annotated[Array, "uint64[:, ::1]", "per connection: the stack of its JSON text"]
    hashes: Annotated[Array, "uint64[:, ::1]", "per connection: the state of XXH64"]
    tails: Annotated[Array, "uint8[:, ::1]", "per connection: bytes that XXH64 has not processed yet"]
    head: Annotated[Array, "uint8[::1]", "scratch: a header section that arrived in several pieces"]
    notes: Annotated[Array, "uint8[::1]", "scratch: the notes that are being written"]
    ring: Annotated[AnswerRing, AnswerRing, "the ring to which all of it is written"]


KEEPING_TYPE = numba_type(Keeping)


@kernel(inlined=True)
def is_sampled(seq, sample_ppm):
    """Return whether the body of this request is in the sample, which consists of the same requests in every run."""
    return spread(np.uint64(seq) + P1) % _MILLION < np.uint64(sample_ppm)


@kernel()
def _grow(k, used, size):
    """Make the slot's memory at least `size` bytes, and keep the first `used` of them."""
    if size <= k.capacity:
        return
    capacity = max(np.int64(BUFFER_BYTES), size, 2 * k.capacity)
    memory = np.uint64(_malloc(np.uint64(capacity)))
    if k.buffer:
        _memcpy(memory, k.buffer, np.uint64(used))
        release(k.buffer)
    k.buffer = memory
    k.capacity = capacity


@kernel()
def begin(keeping, slot, seq):
    """Start the response to request `seq`."""
    k = keeping.slots[slot]
    k.head = k.notes = k.body = k.flags = k.has_head = 0
    mode = keeping.mode
    if mode == ALL or (mode == SAMPLE and is_sampled(seq, keeping.sample_ppm)):
        k.flags = IS_WANTED
    json_digest.begin(k)
    xxh64.begin(keeping.hashes[slot])


@kernel()
def _chosen(keeping, data, begin, end):
    """Return the index of the name that equals data[begin:end], or -1."""
    ends = keeping.name_ends
    for index in range(ends.size - 1):
        if same_word(data, begin, end, keeping.names, ends[index], ends[index + 1]):
            return np.int64(index)
    return np.int64(-1)


@kernel()
def _add_value(keeping, note, at, data, begin, end):
    """Append data[begin:end] to the value of the note that begins at `note`, and return where the notes end.

    A value that is too long, or for which the notes have no space, is cut, and counted once.
    """
    notes = keeping.notes
    held = at - note - NOTE_BYTES
    fits = min(end - begin, VALUE_BYTES_MAX - held, np.int64(notes.size) - at)
    if fits < end - begin:
        if notes[note + 1] == 0:
            keeping.ring.words[HEADERS_CUT] += 1
        notes[note + 1] = 1
    for i in range(fits):
        notes[at + i] = data[begin + i]
    notes[note + 2] = (held + fits) & 0xFF
    notes[note + 3] = (held + fits) >> 8
    return at + fits


@kernel()
def _begin_note(keeping, at, index):
    """Begin a note, and return the offset of its value. If there is no space for it, count it and return -1."""
    notes = keeping.notes
    if at + NOTE_BYTES > notes.size:
        keeping.ring.words[HEADERS_CUT] += 1
        return np.int64(-1)
    notes[at] = index
    notes[at + 1] = notes[at + 2] = notes[at + 3] = 0
    return at + NOTE_BYTES


@kernel()
def _note_headers(keeping, k, data, begin, end):
    """Write the notes on a header section, and return their length."""
    _, at = line_ends(data, begin, end)
    size, note = np.int64(0), np.int64(-1)
    while at < end:
        line = at
        text_end, at = line_ends(data, line, end)
        if line < text_end and data[line] in _BLANKS:
            if note >= 0:
                value, value_end = trimmed(data, line, text_end)
                size = _add_value(keeping, note, size, data, value - 1, value_end)
            continue
        note = np.int64(-1)
        if not keeping.initials[lower(data[line])]:
            continue
        name_end = line
        while name_end < text_end and data[name_end] != _COLON:
            name_end += 1
        index = _chosen(keeping, data, line, name_end)
        if index < 0:
            continue
        value, value_end = trimmed(data, name_end + 1, text_end)
        is_coding = index == ENCODING and value < value_end
        if is_coding and not same_word(data, value, value_end, _IDENTITY, 0, _IDENTITY.size):
            k.flags |= IS_PACKED
        place = _begin_note(keeping, size, index)
        if place >= 0:
            note, size = size, _add_value(keeping, size, place, data, value, value_end)
    return size


@kernel()
def take_head(keeping, slot, data, begin, end, is_complete):
    """Receive a piece of the header section, or of the informational responses before it.

    With `is_complete`, it is the last piece, and the notes are written. A section that arrives in several pieces is
    cut at the length of `keeping.head`.
    """
    k = keeping.slots[slot]
    if k.head or not is_complete:
        size = min(end - begin, np.int64(keeping.head.size) - k.head)
        _grow(k, k.head, k.head + size)
        _memcpy(k.buffer + np.uint64(k.head), np.uint64(data.ctypes.data) + np.uint64(begin), np.uint64(size))
        k.head += size
        if not is_complete:
            return
        _memcpy(np.uint64(keeping.head.ctypes.data), k.buffer, np.uint64(k.head))
        data, begin, end = keeping.head, np.int64(0), k.head
    if begin + _CODE_AT < end and data[begin + _CODE_AT] == _ONE:
        begin, end = find_head(data, begin, end)
    k.notes = _note_headers(keeping, k, data, begin, end)
    _grow(k, np.int64(0), k.notes)
    _memcpy(k.buffer, np.uint64(keeping.notes.ctypes.data), np.uint64(k.notes))
    k.has_head = 1


@kernel()
def take_body(keeping, slot, data, begin, end, is_all):
    """Receive a piece of the body.

    With `is_all`, the piece is the whole body, so that a JSON object or array needs no second digest.
    """
    k = keeping.slots[slot]
    is_packed = k.flags & IS_PACKED != 0
    if not is_packed:
        json_digest.update(k, keeping.stacks[slot], data, begin, end)
    if not (is_all and k.json_state == ENDED and k.container):
        xxh64.update(keeping.hashes[slot], keeping.tails[slot], data[begin:end])
    if not k.flags & (IS_PACKED | IS_WANTED):
        return
    limit = keeping.packed_limit if is_packed else keeping.body_limit
    size = min(end - begin, limit - k.body)
    if size < end - begin:
        k.flags |= IS_CUT
    if size <= 0:
        return
    used = k.notes + k.body
    _grow(k, used, used + size)
    _memcpy(k.buffer + np.uint64(used), np.uint64(data.ctypes.data) + np.uint64(begin), np.uint64(size))
    k.body += size
    k.flags |= HAS_BODY


@kernel()
def hand_over(keeping, slot, row):
    """Write the kept parts of a complete response to the ring, and free large memory.

    Nothing is written if its head was not received, or if it was already handed over.
    """
    k = keeping.slots[slot]
    if k.has_head == 0:
        return
    if json_digest.is_whole(k):
        k.flags |= IS_JSON | (IS_CONTAINER if k.container else 0)
    of_bytes = np.uint64(0)
    if k.flags & (IS_JSON | IS_CONTAINER) != IS_JSON | IS_CONTAINER:
        of_bytes = xxh64.digest(keeping.hashes[slot], keeping.tails[slot])
    push(keeping.ring, row, Content(k.buffer, k.notes, k.body, k.flags, k.sum, of_bytes))  # type: ignore[arg-type]
    k.has_head = 0
    if k.capacity > KEPT_BYTES:
        release(k.buffer)
        k.buffer = np.uint64(0)
        k.capacity = 0


@kernel((KEEPING_TYPE,))
def give_back(keeping):
    """Free the memory of all slots."""
    for slot in range(keeping.slots.shape[0]):
        k = keeping.slots[slot]
        release(k.buffer)
        k.buffer = np.uint64(0)
        k.capacity = 0


@kernel(void(KEEPING_TYPE, int64, int64), brief=True)
def begin_from_python(keeping, slot, seq):
    """Run `begin` for the portable engine."""
    begin(keeping, slot, seq)


@kernel(void(KEEPING_TYPE, int64, uint8[::1], int64), brief=True)
def head_from_python(keeping, slot, data, is_complete):
    """Run `take_head` for the portable engine, which passes a piece as a whole array."""
    take_head(keeping, slot, data, np.int64(0), np.int64(data.size), is_complete != 0)


@kernel(void(KEEPING_TYPE, int64, uint8[::1]))
def body_from_python(keeping, slot, data):
    """Run `take_body` for the portable engine, which passes a piece as a whole array."""
    take_body(keeping, slot, data, np.int64(0), np.int64(data.size), False)


@kernel(void(KEEPING_TYPE, uint8[::1], uint64[::1]))
def digest_whole(keeping, data, found):
    """Digest a whole body in slot 0, and write its flags, its digest as JSON and its XXH64 to `found`."""
    k = keeping.slots[0]
    begin(keeping, np.int64(0), np.int64(0))
    k.flags = 0
    take_body(keeping, np.int64(0), data, np.int64(0), np.int64(data.size), False)
    if json_digest.is_whole(k):
        k.flags |= IS_JSON | (IS_CONTAINER if k.container else 0)
    found[0], found[1] = np.uint64(k.flags), k.sum
    found[2] = xxh64.digest(keeping.hashes[0], keeping.tails[0])


@kernel(void(KEEPING_TYPE, int64, ROW_TYPE), brief=True)
def hand_over_from_python(keeping, slot, row):
    """Run `hand_over` for the portable engine."""
    hand_over(keeping, slot, row)
