"""What a lane reads from responses and inserts into requests: captures, cookie jars, checks, and patches.

A client has one value of limited length per slot. Memory for a value is allocated when the client gets its first one.
Slot 0 is the cookie jar. In the feed, the bytes of a request are followed by its patches, which say where the lane
inserts which values (`docs/lane-contract.md`).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import from_dtype, types

from replay_native.ground import libc
from replay_native.ground.bundle import Array, Int, bundle, numba_type, value
from replay_native.ground.jit import kernel
from replay_native.ground.memory import release, with_capacity
from replay_native.ground.regex import search
from replay_native.ground.sha256 import is_digest
from replay_native.ground.shared import peek_i32, peek_u8, poke_u8

from .answers import cookie_parts, find_body, find_bytes, find_head, find_header, unfold
from .cookies import NO_ROOM, put_cookie
from .json_pointer import ABSENT, LITERAL, STRING, find_pointer, put_string

_memcpy = libc.memcpy

PATCH_BYTES = 8
"""Bytes of a patch: int32 position in the request, int32 slot | encoding << 16."""

LENGTH_SLOT = 0xFFFF
"""In place of a slot: the length of the body as a decimal number. The body begins four bytes after the patch."""

JAR_SLOT = 0
"""The slot of the client's cookies. They are written as a complete header line, or not at all if there are none."""

VALUE_BYTES = 48
"""The smallest capacity of a value's memory, in bytes."""

RAW, JSON_TEXT, TARGET, FORM, SEGMENT, JSON_VALUE, IN_COOKIE = range(7)
"""How a value is encoded in a request.

- RAW: unchanged.
- JSON_TEXT: as part of a JSON string.
- TARGET: as a link. Only bytes that are not allowed in a request line, and `#`, are percent-encoded.
- FORM: percent-encoded, except for RFC 3986's unreserved characters.
- SEGMENT: as FORM, for a path. Here `.` and `..` are encoded too.
- JSON_VALUE: numbers, true, false and null unchanged, other values as JSON strings.
- IN_COOKIE: unchanged, except that `;` is percent-encoded, because it would begin another cookie.
"""

CAPTURE, CHECK = range(2)
STATUS, RECORDED_STATUS, SIZE, HEADER, COOKIE, POINTER, REGEX, CONTAINS, DIGEST = range(9)
"""What a rule reads. The sources from POINTER on read the body.

For a check of a value, the value must exist. If the rule has a text, the value must equal it.
"""

RULE = np.dtype([
    (name, "i8") for name in (
        "kind", "source", "slot", "name", "name_end", "text", "text_end", "low", "high", "program", "is_link",
    )
])  # fmt: skip
"""A rule. `name` and `text` are ranges of `texts`.

The name is that of a cookie or a header (in lower case), or the tokens of a pointer. The text is what a value must
equal (-1: anything), the bytes that the body must contain, the digest of the body, or for STATUS a byte for each of
600 statuses. For SIZE, `low` and `high` are the limits of the body's size. A capture whose `is_link` is 1 accepts only
a path on this target (`link_length`).
"""

rule_type = from_dtype(RULE)


@bundle
class Sessions(NamedTuple):
    """The rules of a run, and the values of a lane's clients.

    Tables by client have a row per client and a column per slot.
    """

    values: Annotated[Array, "uint64[:, ::1]", "by client: the address of a value"]
    capacities: Annotated[Array, "int32[:, ::1]", "by client: the bytes allocated for a value"]
    lengths: Annotated[Array, "int32[:, ::1]", "by client: the length of a value plus 1, 0 for none"]
    bounds: Annotated[Array, "int64[::1]", "per slot: the largest length of a value"]
    route_rules: Annotated[Array, "int32[:, ::1]", "per route: the numbers of its rules, terminated by -1"]
    rules: Annotated[Array, rule_type[::1], "captures and checks"]
    texts: Annotated[Array, "uint8[::1]", "the texts of the rules"]
    program: Annotated[Array, "int32[:, ::1]", "the programs of the rules; see `ground/regex`"]
    sets: Annotated[Array, "uint8[:, ::1]", "the byte sets of these programs"]
    work: Annotated[Array, "int32[:, ::1]", "scratch memory of `ground/regex`"]
    words: Annotated[Array, "uint32[::1]", "scratch memory of `ground/sha256`"]
    found: Annotated[Array, "uint8[::1]", "the value that a rule has read"]
    jar: Annotated[Array, "uint8[::1]", "a cookie jar that is being changed"]
    kept: Annotated[Array, "uint8[:, ::1]", "per connection: a response that arrives in several reads"]
    lanes: Annotated[int, "int64", "lanes of the run; client c has row c // lanes"]
    refused: Annotated[Array, "int64[::1]", "per rule: links that a capture read and refused"]


@value
class Answer(NamedTuple):
    """Facts about a response besides its bytes."""

    status: Annotated[Int, "int64", "the status"]
    recorded: Annotated[Int, "int64", "the recorded status, 0 if it is not known"]
    size: Annotated[Int, "int64", "bytes of the body"]
    whole: Annotated[Int, "int64", "0 if only the beginning of the response was kept"]


SESSIONS_TYPE, ANSWER_TYPE = numba_type(Sessions), numba_type(Answer)

_PERCENT, _QUOTE, _BACKSLASH, _SLASH, _DOT, _HASH, _SEMICOLON = 37, 34, 92, 47, 46, 35, 59
_HEX = np.frombuffer(b"0123456789ABCDEF", np.uint8)
_COOKIE = np.frombuffer(b"Cookie: ", np.uint8)
_SET_COOKIE = np.frombuffer(b"set-cookie", np.uint8)


_NULL, _TRUE, _FALSE = (np.frombuffer(word, np.uint8) for word in (b"null", b"true", b"false"))
_ENDS_SEGMENT = np.zeros(256, np.uint8)
_ENDS_SEGMENT[list(b"/\\?&=#")] = 1
"""By byte: 1 if it ends a segment of a link."""


def _encoded_bytes() -> np.ndarray:
    """Return how many bytes each byte becomes, by encoding: uint8[7, 256]."""
    sizes = np.ones((7, 256), np.uint8)
    sizes[JSON_TEXT, [_QUOTE, _BACKSLASH]] = sizes[JSON_VALUE, [_QUOTE, _BACKSLASH]] = 2
    sizes[IN_COOKIE, _SEMICOLON] = 3
    sizes[TARGET, [byte for byte in range(256) if not 33 <= byte <= 126 or byte == 35]] = 3
    unreserved = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    sizes[FORM, [byte for byte in range(256) if byte not in unreserved]] = 3
    sizes[SEGMENT] = sizes[FORM]
    return sizes


ENCODED_BYTES = _encoded_bytes()


@kernel(inlined=True)
def _keep(sessions, row, slot, source, length):
    """Store source[:length] as a client's value."""
    address, capacity = with_capacity(
        sessions.values[row, slot],
        np.int64(sessions.capacities[row, slot]),
        max(length, np.int64(VALUE_BYTES)),
    )
    sessions.values[row, slot], sessions.capacities[row, slot] = address, np.int32(capacity)
    _memcpy(address, source.ctypes.data, np.uint64(length))
    sessions.lengths[row, slot] = np.int32(length + 1)


@kernel()
def forget_values(sessions):
    """Free all values of all clients."""
    for row in range(sessions.values.shape[0]):
        for slot in range(sessions.values.shape[1]):
            release(sessions.values[row, slot])
            sessions.values[row, slot] = np.uint64(0)
            sessions.capacities[row, slot] = sessions.lengths[row, slot] = np.int32(0)


@kernel(inlined=True)
def _row_of(sessions, client):
    return client // sessions.lanes


@kernel(inlined=True)
def _digits_of(number):
    count = np.int64(1)
    while number >= 10:
        number //= 10
        count += 1
    return count


@kernel()
def _skip_digits(value, at, length):
    """Return where the decimal digits from `at` on end."""
    while at < length and 48 <= peek_u8(value + np.uint64(at)) <= 57:
        at += 1
    return at


@kernel()
def _is_word(value, length, word):
    """Return whether the bytes at the address `value` equal a word."""
    same = length == word.size
    if same:
        for at in range(length):
            same = same and peek_u8(value + np.uint64(at)) == word[at]
    return same


@kernel()
def _is_json_number(value, length):
    """Return whether the bytes at the address `value` are a JSON number (RFC 8259, 6)."""
    at = np.int64(length > 0 and peek_u8(value) == 45)
    first, at = at, _skip_digits(value, at, length)
    if at == first or (at > first + 1 and peek_u8(value + np.uint64(first)) == 48):
        return False
    if at < length and peek_u8(value + np.uint64(at)) == _DOT:
        first, at = at + 1, _skip_digits(value, at + 1, length)
        if at == first:
            return False
    if at < length and peek_u8(value + np.uint64(at)) | 32 == 101:
        at += 1
        at += np.int64(at < length and peek_u8(value + np.uint64(at)) in (43, 45))
        first, at = at, _skip_digits(value, at, length)
        if at == first:
            return False
    return at == length


@kernel()
def _is_json_literal(value, length):
    """Return whether the bytes at the address `value` are a number, true, false or null."""
    words = (
        _is_word(value, length, _NULL) or _is_word(value, length, _TRUE) or _is_word(value, length, _FALSE)
    )
    return words or _is_json_number(value, length)


@kernel(inlined=True)
def _is_dots(value, length):
    """Return whether the bytes at the address `value` are `.` or `..`, which would change the path as a segment."""
    if length not in (1, 2):
        return False
    return peek_u8(value) == _DOT and peek_u8(value + np.uint64(length - 1)) == _DOT


@kernel()
def _value_size(sessions, row, what):
    """Return how many bytes a slot's value takes in a request, or -1 if there is none. An empty cookie jar takes 0."""
    slot, encoding = what & 0xFFFF, what >> 16
    length = np.int64(sessions.lengths[row, slot]) - 1
    if slot == JAR_SLOT:
        return _COOKIE.size + length + 2 if length > 0 else np.int64(0)
    if length < 0 or encoding == RAW:
        return length
    size, value = np.int64(0), sessions.values[row, slot]
    if encoding == SEGMENT and _is_dots(value, length):
        return 3 * length
    if encoding == JSON_VALUE:
        if _is_json_literal(value, length):
            return length
        size = np.int64(2)
    for at in range(length):
        size += ENCODED_BYTES[encoding, peek_u8(value + np.uint64(at))]
    return size


@kernel()
def patched_bytes(sessions, client, request, length, patches):
    """Return how many bytes a request of `length` bytes has with its values inserted, or -1 if a value is missing."""
    row = _row_of(sessions, client)
    if row >= sessions.values.shape[0]:
        return np.int64(-1)
    total, body, in_body = length, np.int64(-1), np.int64(0)
    for i in range(patches):
        patch = request + np.uint64(length + PATCH_BYTES * i)
        at, what = np.int64(peek_i32(patch)), np.int64(peek_i32(patch + np.uint64(4)))
        if what == LENGTH_SLOT:
            body, in_body = at + 4, length - at - 4
            continue
        size = _value_size(sessions, row, what)
        if size < 0:
            return np.int64(-1)
        total += size
        in_body += size if body >= 0 else 0
    return total + _digits_of(in_body) if body >= 0 else total


@kernel()
def _put_value(at, sessions, row, what):
    """Write the value that `_value_size` measures, and return the address after it."""
    slot, encoding = what & 0xFFFF, what >> 16
    length = np.int64(sessions.lengths[row, slot]) - 1
    value = sessions.values[row, slot]
    if slot == JAR_SLOT:
        if length <= 0:
            return at
        _memcpy(at, _COOKIE.ctypes.data, np.uint64(_COOKIE.size))
        at += np.uint64(_COOKIE.size)
        _memcpy(at, value, np.uint64(length))
        at += np.uint64(length)
        poke_u8(at, np.uint8(13))
        poke_u8(at + np.uint64(1), np.uint8(10))
        return at + np.uint64(2)
    if encoding == RAW or (encoding == JSON_VALUE and _is_json_literal(value, length)):
        _memcpy(at, value, np.uint64(length))
        return at + np.uint64(length)
    dots = encoding == SEGMENT and _is_dots(value, length)
    if encoding == JSON_VALUE:
        poke_u8(at, np.uint8(_QUOTE))
        at += np.uint64(1)
    for i in range(length):
        byte = peek_u8(value + np.uint64(i))
        size = np.uint8(3) if dots else ENCODED_BYTES[encoding, byte]
        if size == 3:
            poke_u8(at, np.uint8(_PERCENT))
            poke_u8(at + np.uint64(1), _HEX[byte >> 4])
            poke_u8(at + np.uint64(2), _HEX[byte & 15])
        elif size == 2:
            poke_u8(at, np.uint8(_BACKSLASH))
            poke_u8(at + np.uint64(1), byte)
        else:
            poke_u8(at, byte)
        at += np.uint64(size)
    if encoding == JSON_VALUE:
        poke_u8(at, np.uint8(_QUOTE))
        at += np.uint64(1)
    return at


@kernel()
def _put_number(at, number):
    digits = _digits_of(number)
    for place in range(digits):
        poke_u8(at + np.uint64(digits - 1 - place), np.uint8(48 + number % 10))
        number //= 10
    return at + np.uint64(digits)


@kernel()
def put_patched(out, sessions, client, request, length, patches):
    """Write the request with its values inserted to the address `out`, and return the address after it.

    `patched_bytes` must have returned its size, so that no value is missing.
    """
    row, copied = _row_of(sessions, client), np.int64(0)
    for i in range(patches):
        patch = request + np.uint64(length + PATCH_BYTES * i)
        at, what = np.int64(peek_i32(patch)), np.int64(peek_i32(patch + np.uint64(4)))
        _memcpy(out, request + np.uint64(copied), np.uint64(at - copied))
        out += np.uint64(at - copied)
        copied = at
        if what != LENGTH_SLOT:
            out = _put_value(out, sessions, row, what)
            continue
        in_body = length - at - 4
        for j in range(i + 1, patches):
            in_body += _value_size(
                sessions, row, np.int64(peek_i32(request + np.uint64(length + PATCH_BYTES * j + 4)))
            )
        out = _put_number(out, in_body)
    _memcpy(out, request + np.uint64(copied), np.uint64(length - copied))
    return out + np.uint64(length - copied)


@kernel(inlined=True)
def _copy_found(sessions, data, begin, end):
    """Copy a part of the response to `found`, and return its length, or -1 if it is missing or too long."""
    if begin < 0 or end - begin > sessions.found.size:
        return np.int64(-1)
    for i in range(end - begin):
        sessions.found[i] = data[begin + i]
    return end - begin


@kernel()
def _find_cookie(sessions, rule, data, head, head_end):
    """Copy to `found` the value of the last cookie with the rule's name that the response sets.

    Return its length; -1 if there is none, or if it is too long.
    """
    length, at = np.int64(-1), head
    while True:
        value, value_end, at = find_header(data, at, head_end, _SET_COOKIE, 0, _SET_COOKIE.size)
        if value < 0:
            return length
        name, name_end, begin, end, _ = cookie_parts(data, value, value_end)
        if name_end < 0 or name_end - name != rule.name_end - rule.name:
            continue
        same = True
        for i in range(name_end - name):
            same = same and data[name + i] == sessions.texts[rule.name + i]
        if same:
            length = _copy_found(sessions, data, begin, end)


@kernel()
def _find(sessions, rule, data, head, head_end, body_end):
    """Copy the value that a rule reads to `found`, and return (its length or -1, whether it exists).

    An existing value has the length -1 if it is too long, invalid, or not a string, number or boolean. A cookie that
    is too long does not count as existing. `body_end` is -1 if the body is not complete.
    """
    if rule.source == HEADER:
        begin, end, _ = find_header(data, head, head_end, sessions.texts, rule.name, rule.name_end)
        return _copy_found(sessions, data, begin, end), begin >= 0
    if rule.source == COOKIE:
        length = _find_cookie(sessions, rule, data, head, head_end)
        return length, length >= 0
    if body_end < 0:
        return np.int64(-1), False
    if rule.source == REGEX:
        begin, end = search(
            data, head_end, body_end, sessions.program, rule.program, sessions.sets, sessions.work
        )
        return _copy_found(sessions, data, begin, end), begin >= 0
    kind, begin, end = find_pointer(data, head_end, body_end, sessions.texts, rule.name, rule.name_end)
    if kind == STRING:
        return put_string(data, begin, end, sessions.found, sessions.found.size), True
    if kind == LITERAL:
        return _copy_found(sessions, data, begin, end), True
    return np.int64(-1), kind != ABSENT


@kernel(inlined=True)
def _hex_digit(data, at, length):
    """Return the value of the hexadecimal digit at `at`, or -1."""
    if at >= length:
        return np.int64(-1)
    byte = np.int64(data[at])
    if 48 <= byte <= 57:
        return byte - 48
    return (byte | 32) - 87 if 97 <= byte | 32 <= 102 else np.int64(-1)


@kernel()
def _decoded_at(data, at, length):
    """Return the byte at `at` and where the next one begins. All levels of percent-encoding are decoded."""
    if data[at] != _PERCENT:
        return np.int64(data[at]), at + 1
    place = at + 1
    while place + 1 < length and data[place] == 50 and data[place + 1] == 53:
        place += 2
    high, low = _hex_digit(data, place, length), _hex_digit(data, place + 1, length)
    if high < 0 or low < 0:
        return np.int64(_PERCENT), at + 1
    return high * 16 + low, place + 2


@kernel()
def link_length(data, length):
    """Return the length of the link in data[:length], without its fragment (`#`); -1 if it could leave this target.

    A link begins with exactly one slash. It has no `//`, no backslash and no segment `..`, encoded or not.
    """
    if length == 0 or data[0] != _SLASH:
        return np.int64(-1)
    at, dots, others, after_slash, in_parameter = np.int64(0), 0, False, False, False
    while at < length and data[at] != _HASH:
        byte, at = _decoded_at(data, at, length)
        if byte == _BACKSLASH or (byte == _SLASH and after_slash):
            return np.int64(-1)
        after_slash = byte == _SLASH
        if _ENDS_SEGMENT[byte]:
            if dots == 2 and not others:
                return np.int64(-1)
            dots, others, in_parameter = 0, False, False
        elif byte == _SEMICOLON or in_parameter:
            in_parameter = True
        elif byte == _DOT:
            dots += 1
        else:
            others = True
    return np.int64(-1) if dots == 2 and not others else at


@kernel()
def _capture(sessions, rule, number, row, length):
    """Store `length` bytes of `found` as a value of the client.

    False if they are missing (`length` is -1), too long, or must not be in a request.
    """
    if length < 0 or length > sessions.bounds[rule.slot]:
        return False
    for i in range(length):
        if sessions.found[i] < 32 or sessions.found[i] == 127:
            return False
    if rule.is_link:
        length = link_length(sessions.found, length)
        if length < 0:
            sessions.refused[number] += 1
            return False
    _keep(sessions, row, rule.slot, sessions.found, length)
    return True


@kernel()
def _equals(sessions, rule, length):
    if length != rule.text_end - rule.text:
        return False
    same = True
    for i in range(length):
        same = same and sessions.found[i] == sessions.texts[rule.text + i]
    return same


@kernel()
def _holds(sessions, rule, data, head, head_end, body_end, answer):
    """Return whether a check holds for a response."""
    if rule.source == STATUS:
        return sessions.texts[rule.text + answer.status] != 0
    if rule.source == RECORDED_STATUS:
        return answer.recorded in (0, answer.status)
    if rule.source == SIZE:
        return rule.low <= answer.size <= rule.high
    if rule.source in (CONTAINS, DIGEST):
        if body_end < 0:
            return False
        if rule.source == CONTAINS:
            return find_bytes(data, head_end, body_end, sessions.texts, rule.text, rule.text_end) >= 0
        return is_digest(data, head_end, body_end, sessions.words, sessions.texts, rule.text)
    length, there = _find(sessions, rule, data, head, head_end, body_end)
    return there if rule.text < 0 else length >= 0 and _equals(sessions, rule, length)


@kernel()
def take_cookies(sessions, client, data, head, head_end):
    """Put every Set-Cookie of a response into the client's jar, and return how many did not fit."""
    row = _row_of(sessions, client)
    cut, at = np.int64(0), head
    if row >= sessions.values.shape[0]:
        return cut
    while True:
        value, value_end, at = find_header(data, at, head_end, _SET_COOKIE, 0, _SET_COOKIE.size)
        if value < 0:
            return cut
        length = max(np.int64(sessions.lengths[row, JAR_SLOT]) - 1, np.int64(0))
        _memcpy(sessions.jar.ctypes.data, sessions.values[row, JAR_SLOT], np.uint64(length))
        length = put_cookie(sessions.jar, length, sessions.bounds[JAR_SLOT], data, value, value_end)
        if length == NO_ROOM:
            cut += 1
        else:
            _keep(sessions, row, JAR_SLOT, sessions.jar, length)


@kernel()
def evaluate(sessions, client, route, data, end, answer, counts, is_measured):
    """Apply the rules of a route to data[:end], a response.

    Returns how many checks were made, the rule of the first check that failed or -1, and how many cookies did not fit.
    counts int64[rules, 2] has for each rule how often it succeeded, and how often not. Checks are made only if
    `is_measured`.
    """
    head, head_end = find_head(data, 0, end)
    unfold(data, head, head_end)
    cut = np.int64(0)
    if sessions.bounds[JAR_SLOT] > 0:
        cut = take_cookies(sessions, client, data, head, head_end)
    body_end, has_body = np.int64(-1), answer.whole != 0
    row, checks, failed = _row_of(sessions, client), np.int64(0), np.int64(-1)
    for place in range(sessions.route_rules.shape[1]):
        number = np.int64(sessions.route_rules[route, place])
        if number < 0:
            break
        rule = sessions.rules[number]
        if has_body and rule.source >= POINTER:
            body_end, has_body = find_body(data, head, head_end, end), False
        if rule.kind == CAPTURE:
            length, _ = _find(sessions, rule, data, head, head_end, body_end)
            missed = row >= sessions.values.shape[0] or not _capture(sessions, rule, number, row, length)
            counts[number, np.int64(missed)] += 1
        elif is_measured:
            missed = not _holds(sessions, rule, data, head, head_end, body_end, answer)
            counts[number, np.int64(missed)] += 1
            checks += 1
            if missed and failed < 0:
                failed = number
    return checks, failed, cut


@kernel(
    types.UniTuple(types.int64, 3)(
        SESSIONS_TYPE, types.int64, types.int64, types.uint8[::1], ANSWER_TYPE, types.int64[:, ::1]
    )
)
def evaluate_all(sessions, client, route, data, answer, counts):
    """Call `evaluate` for all of `data` (for tests)."""
    return evaluate(sessions, client, route, data, data.size, answer, counts, True)


@kernel(types.int64(SESSIONS_TYPE, types.int64, types.uint8[::1], types.int64, types.int64, types.uint8[::1]))
def patched(sessions, client, entry, length, patches, out):
    """Write a request of `length` bytes, followed by its patches, as it is sent; return its length or -1 (for tests).

    Nothing is written if it is longer than `out`.
    """
    total = patched_bytes(sessions, client, entry.ctypes.data, length, patches)
    if total < 0 or total > out.size:
        return total
    end = put_patched(out.ctypes.data, sessions, client, entry.ctypes.data, length, patches)
    return np.int64(end - out.ctypes.data)


@kernel(types.int64(types.uint8[::1], types.int64))
def measured_link(data, length):
    """Call `link_length` from Python."""
    return link_length(data, length)
