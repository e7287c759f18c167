"""Route templates: variable segments of a path become {id}, {uuid}, {hash}, {date}, {email} or {slug}.

The template of a request is `METHOD SPACE PATH` without the query. The user's own templates are tried first. A path
that matches one of them gets that template as the user wrote it.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel

from .dictionary import STRINGS_TYPE, TABLE_TYPE, copy_bytes, find_or_add, hash_bytes

SEGMENTS_MAX = 16
"""The largest number of segments in a template. Deeper segments become `/*`."""

LITERAL_BYTES_MAX = 48
"""A literal segment that is longer becomes {slug}."""

EXTENSION_BYTES_MAX = 5

TEMPLATE_BYTES_MAX = 1024
"""The largest size of a template: a method name, and SEGMENTS_MAX segments with their slashes."""

FULL, DEPTH = 0, 1
"""Depths of templates. FULL: whole paths. DEPTH: the first segment. 2: only the method."""

_LITERAL, _ID, _UUID, _HASH, _DATE, _EMAIL, _SLUG = 0, 1, 2, 3, 4, 5, 6

_NAMES = b"{id}{uuid}{hash}{date}{email}{slug}"
_PLACEHOLDERS = np.frombuffer(_NAMES, dtype=np.uint8)
_BEGINS = np.array([0, 0, 4, 10, 16, 22, 29, 35], dtype=np.int64)

LENGTH_MAX = 1000
"""A longer segment is taken for a literal without being examined, so that it becomes {slug}."""

_HEXES, _UPPERS, _LOWERS, _SEPARATORS, _EMAILS = 10, 20, 30, 40, 50
_COUNT = np.int64(1023)


def _counted() -> np.ndarray:
    """Return a table that has, for each byte, a 1 in each ten-bit counter that counts the byte (digits lowest)."""
    table = np.zeros(256, dtype=np.int64)
    table[ord("0") : ord("9") + 1] = 1 | 1 << _HEXES
    table[ord("a") : ord("z") + 1] = 1 << _LOWERS
    table[ord("A") : ord("Z") + 1] = 1 << _UPPERS
    table[ord("a") : ord("f") + 1] |= 1 << _HEXES
    table[ord("A") : ord("F") + 1] |= 1 << _HEXES
    table[[ord("-"), ord("_")]] = 1 << _SEPARATORS
    table[ord("@")] = 1 << _EMAILS
    return table


@bundle
class TemplateRules(NamedTuple):
    """How requests become templates."""

    depth: Annotated[int, "int64", "FULL, DEPTH, or 2 for only the method"]
    names: Annotated[Array, "uint8[::1]", "the names of the methods"]
    name_ends: Annotated[Array, "int64[::1]", "per method and one more: the offset of its name"]
    slugs: Annotated[Array, "int64[::1]", "sorted hashes of the prefixes whose children become {slug}"]
    kept: Annotated[
        Array, "int64[::1]", "sorted hashes of children that keep their names in spite of `slugs`"
    ]
    own: Annotated[Array, "uint8[::1]", "the user's own templates"]
    own_ends: Annotated[Array, "int64[::1]", "per own template and one more: the offset of its text"]
    own_methods: Annotated[Array, "int64[::1]", "per own template: its method, below 0 for any"]


RULES_TYPE = numba_type(TemplateRules)
_COUNTED = _counted()
HASH_SEED = np.int64(7_046_029_254_386_353)
"""Seed of the hashes of template prefixes in `slugs` and `kept`."""


@kernel(inlined=True)
def _is_digit(byte):
    return 48 <= byte <= 57


@kernel(inlined=True)
def _is_hex(byte):
    return 48 <= byte <= 57 or 97 <= byte <= 102 or 65 <= byte <= 70


@kernel()
def _is_uuid(data, begin, end):
    """Return whether a segment has the form 8-4-4-4-12 of hexadecimal digits."""
    if end - begin != 36:
        return False
    for index in range(36):
        byte = data[begin + index]
        if index in (8, 13, 18, 23):
            if byte != 45:
                return False
        elif not _is_hex(byte):
            return False
    return True


@kernel()
def _is_date(data, begin, end):
    """Return whether a segment is yyyy-mm, yyyy-mm-dd, or the latter followed by `T` (and a time)."""
    length = end - begin
    if length < 7 or data[begin + 4] != 45:
        return False
    for index in (0, 1, 2, 3, 5, 6):
        if not _is_digit(data[begin + index]):
            return False
    month = (data[begin + 5] - 48) * 10 + data[begin + 6] - 48
    if not 1 <= month <= 12:
        return False
    if length == 7:
        return True
    if (
        length < 10
        or data[begin + 7] != 45
        or not _is_digit(data[begin + 8])
        or not _is_digit(data[begin + 9])
    ):
        return False
    return length == 10 or data[begin + 10] == 84 or data[begin + 10] == 116


@kernel()
def _segment_class(data, begin, end):
    """Return the class of a path segment without its extension."""
    counts = np.int64(0)
    length = end - begin
    if length > LENGTH_MAX:
        return _LITERAL
    for index in range(begin, end):
        counts += _COUNTED[data[index]]
    if counts >> np.int64(_EMAILS):
        return _EMAIL
    digits = counts & _COUNT
    if digits == 0:
        return _LITERAL
    if digits == length or (digits == length - 1 and data[begin] == 45):
        return _ID
    if _is_uuid(data, begin, end):
        return _UUID
    if _is_date(data, begin, end):
        return _DATE
    hexes = (counts >> np.int64(_HEXES)) & _COUNT
    if hexes == length and length >= 16:
        return _HASH
    upper, lower = (counts >> np.int64(_UPPERS)) & _COUNT, (counts >> np.int64(_LOWERS)) & _COUNT
    separators = (counts >> np.int64(_SEPARATORS)) & _COUNT
    token = digits + upper + lower + separators == length and length >= 20 and digits >= 3
    if token and separators * 8 <= length and ((upper > 0 and lower > 0) or separators == 0):
        return _HASH
    return _LITERAL


@kernel()
def _stem(data, begin, end):
    """Return where the extension of a segment begins (its dot), or the segment's end if it has none.

    An extension is at most five letters or digits, which are not all digits.
    """
    dot = end - 1
    while dot > begin and end - dot <= EXTENSION_BYTES_MAX and data[dot] != 46:
        byte = data[dot]
        if not (_is_digit(byte) or 97 <= byte <= 122 or 65 <= byte <= 90):
            return end
        dot -= 1
    if dot <= begin or data[dot] != 46 or dot + 1 == end:
        return end
    for index in range(dot + 1, end):
        if not _is_digit(data[index]):
            return dot
    return end


@kernel()
def _contains(hashes, value):
    """Return whether a sorted array contains `value`."""
    low, high = 0, hashes.shape[0]
    while low < high:
        middle = (low + high) >> 1
        if hashes[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low < hashes.shape[0] and hashes[low] == value


@kernel()
def _write_segment(data, begin, end, out, at, slugs, kept):
    """Write the template of a segment after out[:at], which ends with a slash; return the offset after it.

    A segment that begins with `{` is taken for a placeholder and copied, up to LITERAL_BYTES_MAX.
    """
    if begin < end and data[begin] == 123:
        return copy_bytes(data, begin, min(end, begin + LITERAL_BYTES_MAX), out, at)
    stem = _stem(data, begin, end)
    found = _segment_class(data, begin, stem)
    if found == _LITERAL and end - begin > LITERAL_BYTES_MAX:
        found = _SLUG
    if found in (_EMAIL, _SLUG):
        stem = end
    if found == _LITERAL:
        last = copy_bytes(data, begin, end, out, at)
        if begin == end or not slugs.shape[0] or not _contains(slugs, hash_bytes(out, 0, at, HASH_SEED)):
            return last
        if _contains(kept, hash_bytes(out, 0, last, HASH_SEED)):
            return last
        return copy_bytes(_PLACEHOLDERS, _BEGINS[_SLUG], _BEGINS[_SLUG + 1], out, at)
    at = copy_bytes(_PLACEHOLDERS, _BEGINS[found], _BEGINS[found + 1], out, at)
    return copy_bytes(data, stem, end, out, at)


@kernel()
def _write_template(data, begin, end, out, at, depth, slugs, kept):
    """Write the template of the path in data[begin:end] after out[:at], and return the offset after it."""
    if depth > DEPTH or begin == end or data[begin] != 47:
        out[at] = 42
        return at + 1
    segments = 0
    while begin < end:
        out[at] = 47
        at += 1
        begin += 1
        last = begin
        while last < end and data[last] != 47:
            last += 1
        if segments == SEGMENTS_MAX or (depth == DEPTH and segments == 1):
            out[at] = 42
            return at + 1
        at = _write_segment(data, begin, last, out, at, slugs, kept)
        segments += 1
        begin = last
    return at


@kernel(inlined=True)
def _path_end(data, begin, end):
    """Return where the path of a target ends: before its query, parameters or fragment."""
    for index in range(begin, end):
        if data[index] == 63 or data[index] == 35 or data[index] == 59:
            return index
    return end


@kernel(inlined=True)
def _until(data, at, end, byte):
    """Return where a byte first is in data[at:end], or `end`."""
    while at < end and data[at] != byte:
        at += 1
    return at


@kernel()
def matches(data, begin, end, pattern, at, last):
    """Return whether pattern[at:last] matches the path in data[begin:end].

    `{name}` matches a segment, or the part of a segment before the literal that follows. `*` after the last slash
    matches everything.
    """
    first = at
    while at < last:
        byte = pattern[at]
        if byte == 42 and at + 1 == last and at > first and pattern[at - 1] == 47:
            return True
        if byte == 123:
            ending = _until(pattern, at, last, 125) + 1
            at = _until(pattern, ending, last, 47)
            stop = _until(data, begin, end, 47)
            begin = max(begin + 1, stop - (at - ending))
            if stop - begin != at - ending:
                return False
            for index in range(ending, at):
                if data[begin + index - ending] != pattern[index]:
                    return False
            begin = stop
        elif begin < end and data[begin] == byte:
            begin += 1
            at += 1
        else:
            return False
    return begin == end


@kernel("boolean(uint8[::1], uint8[::1])")
def matches_one(path, pattern):
    """Call `matches` for a whole path and a whole pattern."""
    return matches(path, 0, path.shape[0], pattern, 0, pattern.shape[0])


@kernel()
def _own(data, begin, end, kind, rules):
    """Return the first of the user's own templates that a request of method `kind` matches, or -1."""
    for index in range(rules.own_methods.shape[0]):
        fits = rules.own_methods[index] < 0 or rules.own_methods[index] == kind
        if fits and matches(data, begin, end, rules.own, rules.own_ends[index], rules.own_ends[index + 1]):
            return index
    return -1


@kernel(
    types.int64(
        STRINGS_TYPE,
        types.uint8[::1],
        types.int64,
        RULES_TYPE,
        types.int64,
        types.uint8[::1],
        TABLE_TYPE,
        types.uint32[::1],
    )
)
def templates(targets, method, first, rules, entries_max, out, table, ids):
    """Write the ids of the templates of the requests from `first` on to `ids`.

    It stops when the table has `entries_max` templates. Returns the index of the request where it stopped, or the
    number of requests. Scratch memory: `out` uint8[TEMPLATE_BYTES_MAX].
    """
    data, offsets = targets.data, targets.offsets
    for index in range(first, method.shape[0]):
        if table.state[0] >= entries_max:
            return index
        kind = np.int64(method[index])
        at = copy_bytes(rules.names, rules.name_ends[kind], rules.name_ends[kind + 1], out, 0)
        out[at] = 32
        begin, end = offsets[index], _path_end(data, offsets[index], offsets[index + 1])
        chosen = _own(data, begin, end, kind, rules)
        if chosen >= 0:
            at = copy_bytes(rules.own, rules.own_ends[chosen], rules.own_ends[chosen + 1], out, at + 1)
        else:
            at = _write_template(data, begin, end, out, at + 1, rules.depth, rules.slugs, rules.kept)
        number = find_or_add(out, 0, at, 0, 0, table)
        ids[index] = number if number >= 0 else -1 - number
    return method.shape[0]
