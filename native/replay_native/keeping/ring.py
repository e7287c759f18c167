"""The ring through which a lane hands over the kept parts of responses.

One producer (the lane) and one consumer (a thread of the control plane) share a ring of bytes. Positions only grow;
their lower bits are the offset in the ring, whose size is a power of two. A record never wraps: if it would, the
producer writes a skip mark and continues at the ring's start. The lane never waits: if there is no space, it drops
the body, or else the whole row, and counts it.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np
from numba import int64

from replay_native.ground import libc, shared
from replay_native.ground.bundle import Array, Int, bundle, numba_type, value
from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire, peek_i64, peek_u8, poke_i64, store_release

_memcpy = libc.memcpy

HEAD, TAIL, ROWS_LOST, BODIES_LOST, HEADERS_CUT = 0, 8, 16, 24, 32
RING_WORDS = 40
"""Words of a ring, a cache line apart. The consumer writes HEAD, the lane the others.

The last three count rows that were dropped, bodies that were dropped although their rows may have been kept, and
header values that were cut or dropped.
"""

RECORD_WORDS = 10
RECORD_BYTES = 8 * RECORD_WORDS
NOTE_BYTES = 4
"""Length of the fields before the value of a header.

They are its index, whether the value was cut, and the value's length (two bytes, little-endian).
"""

IS_JSON, IS_CONTAINER, IS_PACKED, IS_CUT, HAS_BODY, IS_WANTED = 1, 2, 4, 8, 16, 32
"""Flags of a record.

IS_JSON: the body is one JSON text. IS_CONTAINER: that is an object or array. IS_PACKED: the body has a content
coding. IS_CUT: only the beginning of the body was kept. HAS_BODY: some of the body was kept. IS_WANTED: the
scenario wants the body, not only its digest.
"""

TYPE, ENCODING, FIRST_CHOSEN = 0, 1, 2
"""Indices of headers in a record: Content-Type, Content-Encoding, and those that the scenario chooses."""

_SKIP = -1


@bundle
class AnswerRing(NamedTuple):
    """The ring of one lane."""

    data: Annotated[Array, "uint8[::1]", "records; a power of two bytes"]
    words: Annotated[Array, "int64[::1]", "positions and counts; see `RING_WORDS`"]


@value
class Row(NamedTuple):
    """What a lane knows about a complete response, besides its content."""

    seq: Annotated[Int, "int64", "the request's number in the run"]
    client: Annotated[Int, "int64", "the client"]
    route: Annotated[Int, "int64", "the route"]
    due_ns: Annotated[Int, "int64", "when the request was due"]
    status: Annotated[Int, "int64", "the response's status"]
    length: Annotated[Int, "int64", "bytes of its body, without transfer coding"]


@value
class Content(NamedTuple):
    """The kept content of a response. Its notes on headers and its body are contiguous in memory."""

    address: Annotated[int, "uint64", "where the notes are, and after them the body"]
    notes: Annotated[Int, "int64", "bytes of notes"]
    body: Annotated[Int, "int64", "bytes of the body"]
    flags: Annotated[Int, "int64", "see IS_JSON"]
    of_json: Annotated[Any, "uint64", "digest of the body as JSON; only valid with IS_JSON"]
    of_bytes: Annotated[Any, "uint64", "XXH64 of the body; 0 where that is a JSON object or array"]


@bundle
class Drained(NamedTuple):
    """The content of rings, as columns. Text i has the bytes from ends[i] to ends[i + 1]."""

    seq: Annotated[Array, "int64[::1]", "the request's number in the run"]
    client: Annotated[Array, "uint32[::1]", "the client"]
    route: Annotated[Array, "uint32[::1]", "the route"]
    due_ns: Annotated[Array, "int64[::1]", "when the request was due"]
    status: Annotated[Array, "int16[::1]", "the status"]
    length: Annotated[Array, "int64[::1]", "bytes of the body, as received"]
    flags: Annotated[Array, "uint32[::1]", "see IS_JSON"]
    of_json: Annotated[Array, "uint64[::1]", "digest of the body as JSON; only valid with IS_JSON"]
    of_bytes: Annotated[Array, "uint64[::1]", "XXH64 of the body; 0 where that is a JSON object or array"]
    type_ends: Annotated[Array, "int32[::1]", "per row: where its Content-Type ends"]
    types: Annotated[Array, "uint8[::1]", "values of Content-Type"]
    encoding_ends: Annotated[Array, "int32[::1]", "per row: where its Content-Encoding ends"]
    encodings: Annotated[Array, "uint8[::1]", "values of Content-Encoding"]
    row_headers: Annotated[Array, "int32[::1]", "per row: where its headers end"]
    names: Annotated[Array, "int8[::1]", "per header: which of the chosen ones it is"]
    header_ends: Annotated[Array, "int32[::1]", "per header: where its value ends"]
    headers: Annotated[Array, "uint8[::1]", "values of headers"]
    body_ends: Annotated[Array, "int32[::1]", "per row: where its body ends"]
    bodies: Annotated[Array, "uint8[::1]", "bodies"]


RING_TYPE, DRAINED_TYPE = numba_type(AnswerRing), numba_type(Drained)
ROW_TYPE = numba_type(Row)


def make_ring(size: int) -> AnswerRing:
    """Return an empty ring of `size` bytes, a power of two, with every page resident."""
    data = np.empty(size, np.uint8)
    data[:] = 0
    return AnswerRing(data, np.zeros(RING_WORDS, np.int64))


def make_drained(rows: int, note_bytes: int, body_bytes: int) -> Drained:
    """Return columns for that many rows, bytes of header values, and bytes of bodies."""
    headers = note_bytes // NOTE_BYTES
    return Drained(
        seq=np.empty(rows, np.int64),
        client=np.empty(rows, np.uint32),
        route=np.empty(rows, np.uint32),
        due_ns=np.empty(rows, np.int64),
        status=np.empty(rows, np.int16),
        length=np.empty(rows, np.int64),
        flags=np.empty(rows, np.uint32),
        of_json=np.empty(rows, np.uint64),
        of_bytes=np.empty(rows, np.uint64),
        type_ends=np.zeros(rows + 1, np.int32),
        types=np.empty(note_bytes, np.uint8),
        encoding_ends=np.zeros(rows + 1, np.int32),
        encodings=np.empty(note_bytes, np.uint8),
        row_headers=np.zeros(rows + 1, np.int32),
        names=np.empty(headers, np.int8),
        header_ends=np.zeros(headers + 1, np.int32),
        headers=np.empty(note_bytes, np.uint8),
        body_ends=np.zeros(rows + 1, np.int32),
        bodies=np.empty(body_bytes, np.uint8),
    )


def is_empty(ring: AnswerRing) -> bool:
    """Return whether the consumer has read all records that were published so far."""
    return shared.read_word(ring.words, HEAD) == shared.read_word(ring.words, TAIL)  # type: ignore[no-any-return]


@kernel(inlined=True)
def _aligned(size):
    return (size + 7) & ~np.int64(7)


@kernel(inlined=True)
def _place(ring, size):
    """Return the ring position for a record of this size, or -1 if there is no space."""
    capacity, tail = np.int64(ring.data.shape[0]), ring.words[TAIL]
    left = capacity - (tail & (capacity - 1))
    offset = tail if size <= left else tail + left
    return offset if offset + size - load_acquire(ring.words, HEAD) <= capacity else np.int64(-1)


@kernel()
def push(ring, row, content):
    """Append a record. If there is no space, drop its body or the whole record, and count it."""
    words, capacity = ring.words, np.int64(ring.data.shape[0])
    flags, body = content.flags, content.body
    size = RECORD_BYTES + _aligned(content.notes) + _aligned(body)
    offset = _place(ring, size)
    if offset < 0 and body > 0:
        words[BODIES_LOST] += 1
        flags &= ~HAS_BODY
        body = np.int64(0)
        size = RECORD_BYTES + _aligned(content.notes)
        offset = _place(ring, size)
    if offset < 0:
        words[ROWS_LOST] += 1
        return
    base = np.uint64(ring.data.ctypes.data)
    if offset != words[TAIL]:
        poke_i64(base + np.uint64(words[TAIL] & (capacity - 1)), np.int64(_SKIP))
    place = base + np.uint64(offset & (capacity - 1))
    poke_i64(place, size)
    poke_i64(place + np.uint64(8), content.notes << 32 | body)
    poke_i64(place + np.uint64(16), row.seq)
    poke_i64(place + np.uint64(24), row.route << 32 | row.client)
    poke_i64(place + np.uint64(32), row.due_ns)
    poke_i64(place + np.uint64(40), flags << 32 | row.status)
    poke_i64(place + np.uint64(48), row.length)
    poke_i64(place + np.uint64(56), np.int64(content.of_json))
    poke_i64(place + np.uint64(64), np.int64(content.of_bytes))
    place += np.uint64(RECORD_BYTES)
    _memcpy(place, content.address, np.uint64(content.notes))
    if body:
        place += np.uint64(_aligned(content.notes))
        _memcpy(place, content.address + np.uint64(content.notes), np.uint64(body))
    store_release(words, TAIL, offset + size)


@kernel(inlined=True)
def _take_row(place, out, row):
    """Copy the numbers of a record to the columns."""
    out.seq[row] = peek_i64(place + np.uint64(16))
    ids = peek_i64(place + np.uint64(24))
    out.client[row] = np.uint32(ids & 0xFFFFFFFF)
    out.route[row] = np.uint32(ids >> 32)
    out.due_ns[row] = peek_i64(place + np.uint64(32))
    state = peek_i64(place + np.uint64(40))
    out.status[row] = np.int16(state & 0xFFFF)
    out.flags[row] = np.uint32(state >> 32)
    out.length[row] = peek_i64(place + np.uint64(48))
    out.of_json[row] = np.uint64(peek_i64(place + np.uint64(56)))
    out.of_bytes[row] = np.uint64(peek_i64(place + np.uint64(64)))


@kernel(inlined=True)
def _take_text(address, size, texts, at):
    """Append a text to a column, and return where it ends."""
    _memcpy(np.uint64(texts.ctypes.data) + np.uint64(at), address, np.uint64(size))
    return np.int32(at + size)


@kernel()
def _take_notes(at, end, out, row):
    """Copy the headers of a record into their columns.

    Of several Content-Types, and of several Content-Encodings, only the first that is not empty is copied.
    """
    type_end, encoding_end = out.type_ends[row], out.encoding_ends[row]
    header = np.int64(out.row_headers[row])
    while at < end:
        index, size = (
            peek_u8(at),
            np.int64(peek_u8(at + np.uint64(2))) | np.int64(peek_u8(at + np.uint64(3))) << 8,
        )
        at += np.uint64(NOTE_BYTES)
        if index == TYPE:
            if type_end == out.type_ends[row]:
                type_end = _take_text(at, size, out.types, type_end)
        elif index == ENCODING:
            if encoding_end == out.encoding_ends[row]:
                encoding_end = _take_text(at, size, out.encodings, encoding_end)
        else:
            out.names[header] = np.int8(np.int64(index) - FIRST_CHOSEN)
            out.header_ends[header + 1] = _take_text(at, size, out.headers, out.header_ends[header])
            header += 1
        at += np.uint64(size)
    out.type_ends[row + 1], out.encoding_ends[row + 1] = type_end, encoding_end
    out.row_headers[row + 1] = np.int32(header)


@kernel(int64(RING_TYPE, DRAINED_TYPE, int64))
def drain(ring, out, row):
    """Move records into the columns from `row` on, while these have space, and return the row to continue with."""
    words, capacity = ring.words, np.int64(ring.data.shape[0])
    base = np.uint64(ring.data.ctypes.data)
    at, tail = words[HEAD], load_acquire(words, TAIL)
    while at < tail and row < out.seq.shape[0]:
        place = base + np.uint64(at & (capacity - 1))
        size = peek_i64(place)
        if size == _SKIP:
            at += capacity - (at & (capacity - 1))
            continue
        sizes = peek_i64(place + np.uint64(8))
        notes, body = sizes >> 32, sizes & 0xFFFFFFFF
        note_end = max(out.header_ends[out.row_headers[row]], out.type_ends[row], out.encoding_ends[row])
        headers_left = np.int64(out.names.shape[0]) - out.row_headers[row]
        if (
            note_end + notes > out.headers.shape[0]
            or headers_left * NOTE_BYTES < notes
            or out.body_ends[row] + body > out.bodies.shape[0]
        ):
            break
        _take_row(place, out, row)
        place += np.uint64(RECORD_BYTES)
        _take_notes(place, place + np.uint64(notes), out, row)
        place += np.uint64(_aligned(notes))
        out.body_ends[row + 1] = _take_text(place, body, out.bodies, out.body_ends[row])
        row += 1
        at += size
    store_release(words, HEAD, at)
    return row
