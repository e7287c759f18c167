"""JSON lines cut into fields: kernels that find the values of the wanted keys in an object.

Lines of one producer have the same keys, and many of the same values, in the same few orders. So the bytes between
two wanted values are remembered as a gap, together with the value that follows them. When a line continues with the
bytes of a known gap, the bytes are compared, which is faster than parsing them. A gap is looked up by its place:
the value after which it begins. The place only speeds up the search: a gap holds wherever its bytes appear in the
same node.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import trailing_zeros
from replay_native.ground.simd import alike, find_byte
from replay_native.trace.dictionary import copy_bytes

from .scan_table import ACCEPTED, OTHER_FORMAT
from .text import word_at

GAP_TAG, GAP_LENGTH, GAP_NODE, GAP_CHILD = 0, 1, 2, 3
GAP_WORDS, GAP_BYTES_MAX = 4, 256
"""Words of a gap.

GAP_TAG identifies its place and the node in which it begins. GAP_NODE is the node of the value after it, GAP_CHILD
which child of that node the value is (-1: none).
"""

GAP_SETS, GAP_WAYS = 64, 4
GAPS_MAX = GAP_SETS * GAP_WAYS
"""GAP_WAYS gaps are remembered per set. Several places share a set."""

_NOTHING = np.int64(-1)
_SPACE, _QUOTE, _BACKSLASH, _DASH, _COLON, _COMMA = 32, 34, 92, 45, 58, 44
_OPENING, _CLOSING, _OPENING_LIST, _CLOSING_LIST = 123, 125, 91, 93
_ONES, _HIGHS = np.int64(0x0101010101010101), np.int64(-0x7F7F7F7F7F7F7F80)
_MINUSES, _ABOVE_NINES = _ONES * _DASH, _ONES * (0x7F - 0x39)
_VALUE_ENDS = 1
_VALUE, _NESTING = np.zeros((2, 256), dtype=np.uint8)
_VALUE[[_COMMA, _CLOSING, _CLOSING_LIST, _SPACE, 9, 10, 13]] = _VALUE_ENDS
_VALUE[[_QUOTE, _OPENING, _OPENING_LIST, _COLON]] = 2
_NESTING[[_QUOTE, _OPENING, _OPENING_LIST, _CLOSING, _CLOSING_LIST]] = 1
"""Classes of bytes.

_VALUE: 1 ends a bare value, 2 may not occur in one. _NESTING: 1 matters inside an object or array.
"""


@kernel(inlined=True)
def string_end(data, at, end):
    """Return the offset of the quote that closes a string, or `end`. `at` is the offset after the opening quote."""
    while True:
        at = find_byte(data, at, end, np.uint8(_QUOTE))
        if at >= end or data[at - 1] != _BACKSLASH:
            return at
        slashes = np.int64(1)
        while data[at - 1 - slashes] == _BACKSLASH:
            slashes += 1
        if slashes & 1 == 0:
            return at
        at += 1


@kernel(inlined=True)
def _is_blank(byte):
    return byte in (_SPACE, 9, 10, 13)


@kernel(inlined=True)
def _skip_blanks(data, at, end):
    while at < end and data[at] <= _SPACE and _is_blank(data[at]):
        at += 1
    return at


@kernel()
def _nested_end(data, at, end, depth):
    """Return where the object or array around `at` ends, or -1 if it does not end before `end`.

    `depth` is the number of brackets that are open at `at`; with 0, the opening bracket is at `at`. Brackets are
    counted, but their kinds are not matched.
    """
    while at < end:
        while at < end and _NESTING[data[at]] == 0:
            at += 1
        if at == end:
            break
        byte = data[at]
        if byte == _QUOTE:
            at = string_end(data, at + 1, end)
        elif byte in (_OPENING, _OPENING_LIST):
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return _NOTHING


@kernel(inlined=True)
def _no_digits(word):
    """Return a mask with the high bit of each byte outside the range from `-` to `9` (minus, point, `/` and digits).

    Only the lowest bit is reliable: bits above it may be wrong.
    """
    return ((word + _ABOVE_NINES) | word | ~((word | _HIGHS) - _MINUSES)) & _HIGHS


@kernel(inlined=True)
def _bare_end(data, at, end):
    """Return where a number or a literal that begins at `at` ends, or -1 if there is none."""
    first = at
    while at + 8 <= end:
        others = _no_digits(word_at(data, at))
        if others != 0:
            at += trailing_zeros(others) >> 3
            break
        at += 8
    while at < end and _VALUE[data[at]] == 0:
        at += 1
    return at if at > first and (at == end or _VALUE[data[at]] == _VALUE_ENDS) else _NOTHING


@kernel()
def _value_end(data, at, end):
    """Return where the value that begins at `at` ends, or -1 if it does not end before `end`."""
    if data[at] == _QUOTE:
        last = string_end(data, at + 1, end)
        return last + 1 if last < end else _NOTHING
    if data[at] == _OPENING_LIST and at + 1 < end and data[at + 1] == _QUOTE:
        last = string_end(data, at + 2, end)
        if last + 1 < end and data[last + 1] == _CLOSING_LIST:
            return last + 2
    if data[at] in (_OPENING, _OPENING_LIST):
        return _nested_end(data, at, end, np.int64(0))
    return _bare_end(data, at, end)


@kernel(inlined=True)
def child_of(data, first, last, spec, node):
    """Return the index of the key of `node` that equals data[first:last], or -1."""
    for child in range(spec.child_first[node], spec.child_first[node + 1]):
        begin, length = spec.key_ends[child], spec.key_ends[child + 1] - spec.key_ends[child]
        if length == last - first and alike(spec.keys, begin, data, first, length) == length:
            return child
    return _NOTHING


@kernel(inlined=True)
def _note(data, first, last, role, spans):
    """Write the span of a role's value to `spans`: a string without its quotes.

    `null`, objects and arrays are not written. The first value of a role is kept.
    """
    if data[first] == _QUOTE:
        first += 1
        last -= 1
    elif data[first] == 110 or data[first] in (_OPENING, _OPENING_LIST):
        return
    if spans[role, 0] < 0:
        spans[role, 0], spans[role, 1] = first, last


@kernel(inlined=True)
def _read_key(data, at, end, spec, node):
    """Read a key and its colon, and return where its value begins and which child of `node` the key is.

    The child is -1 when `node` does not have the key. (-1, -1) means that there is no key with a value.
    """
    last = string_end(data, at + 1, end)
    child = child_of(data, at + 1, last, spec, node)
    at = _skip_blanks(data, last + 1, end)
    if at >= end or data[at] != _COLON:
        return _NOTHING, _NOTHING
    at = _skip_blanks(data, at + 1, end)
    return (at, child) if at < end else (_NOTHING, _NOTHING)


@kernel(inlined=True)
def _take_value(data, at, end, role, spans):
    """Write the span of the value at `at` for a role, and return where the value ends, or -1.

    The span of an array is that of its first element.
    """
    if data[at] != _OPENING_LIST:
        last = _value_end(data, at, end)
        if last > 0:
            _note(data, at, last, role, spans)
        return last
    first = _skip_blanks(data, at + 1, end)
    last = _value_end(data, first, end) if first < end else _NOTHING
    if last < 0:
        return _nested_end(data, first, end, np.int64(1))
    _note(data, first, last, role, spans)
    if last < end and data[last] == _CLOSING_LIST:
        return last + 1
    return _nested_end(data, last, end, np.int64(1))


@kernel(inlined=True)
def _most_alike(data, at, end, tag, first, scratch):
    """Return the gap of a set that is most like the bytes at `at` (-1: none), and how many leading bytes both share."""
    gaps, gap_text = scratch.gaps, scratch.gap_text
    found, most = _NOTHING, np.int64(0)
    for gap in range(first, first + GAP_WAYS):
        if gaps[gap, GAP_TAG] == tag:
            length = gaps[gap, GAP_LENGTH]
            same = alike(gap_text, gap * GAP_BYTES_MAX, data, at, min(length, end - at))
            if same == length:
                return np.int64(gap), same
            if same >= most:
                found, most = np.int64(gap), same
    return found, most


@kernel(inlined=True)
def _room_for(at, first, gaps):
    """Return a gap of a set that may be replaced: an empty one, or else any."""
    for gap in range(first, first + GAP_WAYS):
        if gaps[gap, GAP_TAG] == 0:
            return np.int64(gap)
    return first + (at & (GAP_WAYS - 1))


@kernel(inlined=True)
def _remember(data, begin, at, tag, node, child, gap, scratch):
    """Store data[begin:at] as the gap `gap`, which `child` of `node` follows.

    More than GAP_BYTES_MAX bytes are not stored, and the gap becomes empty.
    """
    gaps = scratch.gaps
    gaps[gap, GAP_TAG] = 0
    if at - begin <= GAP_BYTES_MAX:
        copy_bytes(data, begin, at, scratch.gap_text, gap * GAP_BYTES_MAX)
        gaps[gap, GAP_TAG], gaps[gap, GAP_LENGTH] = tag, at - begin
        gaps[gap, GAP_NODE], gaps[gap, GAP_CHILD] = node, child


@kernel()
def _next_value(data, at, end, spec, node, changed):
    """Find the next value at which a gap ends, and return its place, its node, and which child of the node it is.

    A gap ends at a value with a role, or at the value that contains `changed`, the place where the line differs
    from an earlier one. It also ends before a value that would make it too long. After the last value, the results
    are the end of the line and node -1. The first result is -1 if the line is not an object.
    """
    begin = at
    while True:
        at = _skip_blanks(data, at, end)
        if at >= end:
            return _NOTHING, node, _NOTHING
        if data[at] == _COMMA:
            at += 1
            continue
        if data[at] == _CLOSING:
            at += 1
            node = spec.parents[node]
            if node < 0:
                whole = _skip_blanks(data, at, end) == end
                return (end if whole else _NOTHING), node, _NOTHING
            continue
        if data[at] != _QUOTE:
            return _NOTHING, node, _NOTHING
        at, child = _read_key(data, at, end, spec, node)
        if at < 0:
            return at, node, _NOTHING
        if child >= 0 and data[at] == _OPENING and spec.child_node[child] >= 0:
            node = spec.child_node[child]
            at += 1
            continue
        if child >= 0 and spec.child_role[child] >= 0:
            return at, node, child
        last = _value_end(data, at, end)
        if last < 0:
            return _NOTHING, node, _NOTHING
        if at <= changed <= last or last - begin > GAP_BYTES_MAX:
            return at, node, child
        at = last


@kernel(inlined=True)
def _pass_gap(data, at, end, spec, place, node, scratch):
    """Skip the bytes before the next value, and return where the value begins, its node, its child, and the gap.

    The first result is -1 if the line is not an object.
    """
    gaps = scratch.gaps
    tag = ((place << 16) | node) + 1
    first = (place & (GAP_SETS - 1)) * GAP_WAYS
    gap, same = _most_alike(data, at, end, tag, first, scratch)
    if gap >= 0 and same == gaps[gap, GAP_LENGTH]:
        return _skip_blanks(data, at + same, end), gaps[gap, GAP_NODE], gaps[gap, GAP_CHILD], gap
    changed = at + same if gap >= 0 else end
    value, node, child = _next_value(data, at, end, spec, node, changed)
    if value >= 0:
        if gap < 0 or value > changed or child >= 0:
            gap = _room_for(at, first, gaps)
        _remember(data, at, value, tag, node, child, gap, scratch)
    return value, node, child, gap


@kernel(inlined=True)
def cut_json(data, begin, end, spec, scratch):
    """Cut a JSON object by a FieldSpec into scratch.spans, and return ACCEPTED or OTHER_FORMAT.

    The first element of an array is read in place of the array. `scratch.gaps` is int64[GAPS_MAX, GAP_WORDS],
    `scratch.gap_text` is uint8[GAPS_MAX * GAP_BYTES_MAX].
    """
    spans = scratch.spans
    at = _skip_blanks(data, begin, end)
    if at >= end or data[at] != _OPENING:
        return OTHER_FORMAT
    at += 1
    node, place = np.int64(0), np.int64(0)
    while True:
        at, node, child, gap = _pass_gap(data, at, end, spec, place, node, scratch)
        if at < 0:
            return OTHER_FORMAT
        if node < 0:
            return ACCEPTED if _skip_blanks(data, at, end) == end else OTHER_FORMAT
        if at >= end:
            return OTHER_FORMAT
        place = 1 + child if child >= 0 else 1 + spec.child_role.shape[0] + gap
        if child >= 0 and data[at] == _OPENING and spec.child_node[child] >= 0:
            node = spec.child_node[child]
            at += 1
            continue
        role = spec.child_role[child] if child >= 0 else _NOTHING
        at = _take_value(data, at, end, role, spans) if role >= 0 else _value_end(data, at, end)
        if at < 0:
            return OTHER_FORMAT
