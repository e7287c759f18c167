"""Kernels that copy the ring's requests without secrets into batches of columns, and leave the others to Python.

Every check errs on the safe side: `replay.trace.importing.cleaning.Cleaner` would not change a request that passes.
Header lines are looked up, since most requests repeat them: Python decides once how each line is cleaned. A line
that is new passes if its name is known to be harmless and its value is a plain word.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground import libc
from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64
from replay_native.importing.suspects import Secrets, has_secret, holds_number, is_suspect
from replay_native.trace.dictionary import (
    LENGTH_BITS,
    PLACE,
    SEED,
    Table,
    copy_bytes,
    hash_bytes,
    mix,
    same_bytes,
)

from .memory import RING_TYPE, RecordWords
from .name_search import Names, has_name
from .number_search import has_number
from .request import is_text
from .ring import RECORD_BYTES, next_record

_memchr, _memcpy = libc.memchr, libc.memcpy

LF, SPACE, COLON, TAB, SLASH = 10, 32, 58, 9, 47
PERCENT, BACKSLASH = 37, 92
VERSION_BYTES = len(" HTTP/1.1\r\n")
WORD_BYTES_MIN = 8
"""Minimum length of a known secret. Shorter words are not compared."""

LINES_MAX = 256
UNSURE = -2
"""KEPT_AS of a line that is left to Python."""

NAME_BYTES_MAX = 200
_Facts = namedtuple("_Facts", "KEPT_AS HOST CLIENT RANK FLAG WORDS")
Facts = _Facts(*range(6))
"""What Python has decided about a string. Each fact is -1 for none.

For a header line, KEPT_AS is the number of the clean line that is kept. HOST and CLIENT are the host or client in
it. RANK is the rank of that client (the lowest wins). FLAG is 1 if the line is a content coding. For a method,
KEPT_AS is its number. For a peer, CLIENT is its own number, and FLAG is 1 for a proxy whose headers may contain
another client.
"""

_Columns = namedtuple("_Columns", "AT_NS METHOD HOST CLIENT LINES_END TARGET_END END WORDS")
Columns = _Columns(*range(8))
"""Columns of a row: its time, the numbers of method, host and client, and where its lines, target and body end."""

_Used = namedtuple("_Used", "ROWS LINES NEW TEXT REST SEEN TAKEN WORDS")
Used = _Used(*range(8))
"""How much of the memory of a batch is used.

ROWS, LINES, NEW (new lines), TEXT (bytes) and REST (requests left to Python) are lengths. SEEN is the number of
known lines of the last request. TAKEN is the position up to which the ring was read.
"""


@bundle
class Checks(NamedTuple):
    """The tables by which requests are checked."""

    known: Annotated[Table, numba_type(Table), "header lines, methods, peers; harmless names behind a byte 1"]
    facts: Annotated[Array, "int64[:, ::1]", "per known string: see Facts"]
    uses: Annotated[Array, "int64[::1]", "per known string: how many rows have used it"]
    words: Annotated[Table, numba_type(Table), "secrets of the recording: words wherever they stand"]
    word_bytes: Annotated[Array, "uint8[::1]", "per byte: whether it may stand in a word"]
    names: Annotated[Names, numba_type(Names), "parts of names that a body with secrets has"]
    secrets: Annotated[Secrets, numba_type(Secrets), "names of secret parameters"]
    keeps: Annotated[bool, "boolean", "secrets are kept"]
    leaves_targets: Annotated[bool, "boolean", "every target is left to Python"]
    leaves_bodies: Annotated[bool, "boolean", "every body is left to Python"]
    body_max: Annotated[int, "int64", "a longer body is left to Python"]
    name: Annotated[Array, "uint8[::1]", "scratch: the name of a header"]


@bundle
class Batch(NamedTuple):
    """Clean requests as rows, and the places of the requests that are left to Python."""

    rows: Annotated[Array, "int64[:, ::1]", "per row: see Columns"]
    lines: Annotated[Array, "int32[::1]", "numbers of clean lines; -1 - n is new line n"]
    new: Annotated[
        Array, "int64[:, ::1]", "per new line: where it begins in `text`, and the lengths of name and value"
    ]
    text: Annotated[Array, "uint8[::1]", "targets and bodies, and new lines between them"]
    rest: Annotated[Array, "int64[::1]", "requests left to Python: where they are in the ring"]
    seen: Annotated[Array, "int64[::1]", "scratch: the known lines of a request (LINES_MAX)"]
    used: Annotated[Array, "int64[::1]", "see Used"]


_LENGTH = np.frombuffer(b"content-length:", np.uint8).copy()

CHECKS_TYPE, BATCH_TYPE = numba_type(Checks), numba_type(Batch)


@kernel()
def find(table, data, begin, end):
    """Return the id of a string, or -1 if the table does not have it. Nothing is added."""
    hashed = mix(mix(hash_bytes(data, begin, end, table.state[SEED]), np.int64(0)), np.int64(0))
    slots, entries = table.slots, table.entries
    mask = np.int64(slots.shape[0] - 1)
    slot = (hashed >> np.int64(32)) & mask
    length = end - begin
    while slots[slot] != 0:
        if (slots[slot] ^ hashed) >> np.int64(32) == 0:
            entry = (slots[slot] & np.int64(0xFFFFFFFF)) - 1
            place = entries[entry, PLACE]
            if place & ((1 << LENGTH_BITS) - 1) == length and same_bytes(
                table.store, place >> LENGTH_BITS, data, begin, length
            ):
                return entry
        slot = (slot + 1) & mask
    return np.int64(-1)


@kernel()
def has_known_word(data, begin, end, checks):
    r"""Return whether a text contains a secret of the recording, or may hide one behind an escape (`%20`, `\n`)."""
    if checks.words.state[0] == 0:
        return False
    word_bytes = checks.word_bytes
    at = begin
    while at < end:
        first = at
        while at < end and word_bytes[data[at]]:
            at += 1
        if at - first >= WORD_BYTES_MIN:
            is_escape = first > begin and data[first - 1] in (PERCENT, BACKSLASH)
            if is_escape or find(checks.words, data, first, at) >= 0:
                return True
        at += 1
    return False


@kernel()
def is_clean_target(data, begin, end, checks):
    """Return whether a target can be sent unchanged, and holds no secret (or secrets are kept).

    With `leaves_targets`, every target that would have to be searched is left to Python.
    """
    for at in range(begin, end):
        if not 33 <= data[at] <= 126:
            return False
    if checks.keeps:
        return True
    return not (
        checks.leaves_targets
        or has_secret(data, begin, end, checks.secrets)
        or is_suspect(data, begin, end, checks.secrets)
        or holds_number(data, begin, end)
        or has_known_word(data, begin, end, checks)
    )


@kernel()
def is_clean_body(data, begin, end, checks):
    """Return whether a body holds no secret (or secrets are kept).

    A body that is longer than `body_max` is always left to Python. With `leaves_bodies`, so is every body that would have
    to be searched.
    """
    if end - begin > checks.body_max:
        return False
    if checks.keeps or begin == end:
        return True
    return not (
        checks.leaves_bodies
        or has_name(data, begin, end, checks.names)
        or has_number(data, begin, end)
        or has_known_word(data, begin, end, checks)
    )


@kernel()
def is_plain_value(data, begin, end, checks):
    """Return whether a header's value is one word that needs no search.

    Such a word consists of letters, digits and `-_.~/`, with at least one letter. It has neither `//` nor `eyJ`, and
    holds no number and no known secret.
    """
    letters = 0
    for at in range(begin, end):
        byte = data[at]
        is_letter = 65 <= byte <= 90 or 97 <= byte <= 122
        letters += is_letter
        if not (is_letter or 48 <= byte <= 57 or byte in (45, 46, 47, 95, 126)):
            return False
        if at > begin and byte == SLASH and data[at - 1] == SLASH:
            return False
        if at > begin + 1 and byte == 74 and data[at - 1] == 121 and data[at - 2] == 101:
            return False
    if letters == 0 or has_number(data, begin, end):
        return False
    return not has_known_word(data, begin, end, checks)


@kernel()
def _add_new_line(data, begin, end, checks, batch):
    """Add a header line that is not known, if it is harmless, and return whether it was added."""
    used, name, colon = batch.used, checks.name, begin
    while data[colon] != COLON:
        colon += 1
    if colon - begin > NAME_BYTES_MAX or used[Used.NEW] == batch.new.shape[0]:
        return False
    name[0] = 1
    for at in range(begin, colon):
        byte = data[at]
        name[1 + at - begin] = byte + 32 if 65 <= byte <= 90 else byte
    if find(checks.known, name, np.int64(0), colon - begin + 1) < 0:
        return False
    first = colon + 1
    while first < end and (data[first] == SPACE or data[first] == TAB):
        first += 1
    while end > first and (data[end - 1] == SPACE or data[end - 1] == TAB):
        end -= 1
    if not checks.keeps and not is_plain_value(data, first, end, checks):
        return False
    number, at = used[Used.NEW], used[Used.TEXT]
    batch.new[number, 0], batch.new[number, 1], batch.new[number, 2] = at, colon - begin, end - first
    at = copy_bytes(data, begin, colon, batch.text, at)
    used[Used.TEXT] = copy_bytes(data, first, end, batch.text, at)
    used[Used.NEW] = number + 1
    batch.lines[used[Used.LINES]] = np.int32(-1 - number)
    used[Used.LINES] += 1
    return True


@kernel(inlined=True)
def _is_length_line(data, begin, end):
    """Return whether a header line is Content-Length, which is not kept."""
    return end - begin >= _LENGTH.size and is_text(data, begin, begin + _LENGTH.size, _LENGTH)


@kernel()
def _take_lines(data, begin, end, row, checks, batch):
    """Look up the header lines data[begin:end], and add them to the batch.

    The result is 1 if the body has a content coding, 0 if not, and -1 if the request is left to Python.
    """
    facts, used, rank, coded, seen = checks.facts, batch.used, np.int64(4), np.int64(0), np.int64(0)
    base = data.ctypes.data
    while begin < end:
        feed = np.int64(_memchr(base + np.uint64(begin), LF, np.uint64(end - begin)) - base)
        last = feed - 1
        if seen == LINES_MAX or used[Used.LINES] == batch.lines.shape[0]:
            return np.int64(-1)
        line = find(checks.known, data, begin, last)
        if line >= 0 and facts[line, Facts.KEPT_AS] == UNSURE:
            return np.int64(-1)
        if line >= 0:
            batch.seen[seen] = line
            seen += 1
            if facts[line, Facts.KEPT_AS] >= 0:
                batch.lines[used[Used.LINES]] = np.int32(facts[line, Facts.KEPT_AS])
                used[Used.LINES] += 1
            if facts[line, Facts.HOST] >= 0:
                row[Columns.HOST] = facts[line, Facts.HOST]
            if 0 <= facts[line, Facts.RANK] < rank:
                rank, row[Columns.CLIENT] = facts[line, Facts.RANK], facts[line, Facts.CLIENT]
            coded |= max(facts[line, Facts.FLAG], np.int64(0))
        elif not _is_length_line(data, begin, last) and not _add_new_line(data, begin, last, checks, batch):
            return np.int64(-1)
        begin = feed + 1
    used[Used.SEEN] = seen
    return coded


@kernel()
def _take_one(data, begin, record, checks, batch):
    """Add one request to the batch, and return whether it was added. If not, Python must clean it."""
    row, used, facts = batch.rows[batch.used[Used.ROWS]], batch.used, checks.facts
    line_end = begin + peek_i64(record + np.uint64(8 * RecordWords.LINE_END))
    head_end = begin + peek_i64(record + np.uint64(8 * RecordWords.HEAD_END))
    end = begin + peek_i64(record + np.uint64(8 * RecordWords.END))
    target = begin
    while data[target] != SPACE:
        target += 1
    peer = find(checks.known, data, begin - RECORD_BYTES + 8 * RecordWords.FAMILY, begin)
    method = find(checks.known, data, begin, target)
    target_end = line_end - VERSION_BYTES
    if peer < 0 or method < 0 or not is_clean_target(data, target + 1, target_end, checks):
        return False
    row[Columns.METHOD], row[Columns.HOST] = facts[method, Facts.KEPT_AS], -1
    row[Columns.CLIENT] = -1
    coded = _take_lines(data, line_end, head_end - 2, row, checks, batch)
    if coded < 0 or (coded and end > head_end) or not is_clean_body(data, head_end, end, checks):
        return False
    if row[Columns.CLIENT] < 0 or facts[peer, Facts.FLAG] <= 0:
        row[Columns.CLIENT] = facts[peer, Facts.CLIENT]
    row[Columns.AT_NS] = peek_i64(record + np.uint64(8 * RecordWords.AT_NS))
    at = copy_bytes(data, target + 1, target_end, batch.text, used[Used.TEXT])
    row[Columns.TARGET_END] = at
    to, body = np.uint64(batch.text.ctypes.data), np.uint64(data.ctypes.data) + np.uint64(head_end)
    _memcpy(to + np.uint64(at), body, np.uint64(end - head_end))
    row[Columns.END] = used[Used.TEXT] = at + end - head_end
    row[Columns.LINES_END] = used[Used.LINES]
    used[Used.ROWS] += 1
    for place in range(used[Used.SEEN]):
        checks.uses[batch.seen[place]] += 1
    return True


@kernel(types.int64(RING_TYPE, types.int64, types.int64, CHECKS_TYPE, BATCH_TYPE))
def take(ring, taken, count, checks, batch):
    """Read up to `count` requests after position `taken` of the ring, and return how many.

    It stops earlier if the ring is empty or the batch is full.
    """
    used, data = batch.used, ring.data
    capacity, used[Used.TAKEN] = np.int64(data.shape[0]), taken
    for done in range(count):
        at = next_record(ring, taken)
        full = used[Used.ROWS] == batch.rows.shape[0] or used[Used.REST] == batch.rest.shape[0]
        if at < 0 or full or used[Used.LINES] + LINES_MAX > batch.lines.shape[0]:
            return done
        begin = (at & (capacity - 1)) + RECORD_BYTES
        record = np.uint64(data.ctypes.data) + np.uint64(begin - RECORD_BYTES)
        if used[Used.TEXT] + 2 * peek_i64(record) > batch.text.shape[0]:
            return done
        lines, new, text = used[Used.LINES], used[Used.NEW], used[Used.TEXT]
        if not _take_one(data, begin, record, checks, batch):
            used[Used.LINES], used[Used.NEW], used[Used.TEXT] = lines, new, text
            batch.rest[used[Used.REST]] = at
            used[Used.REST] += 1
        taken = at + peek_i64(record)
        used[Used.TAKEN] = taken
    return count
