"""An order-free digest of a JSON text in one pass, piece by piece.

Theory of operation
-------------------

The digest is the sum of one hash for each **leaf**: a string, a number, true, false, null, or an empty object or array.
The hash of a leaf covers its JSON Pointer and its value. A sum does not depend on the order of its terms, so neither
white space nor the order of members counts. Elements of an array count by their index.

Equal values have equal hashes, however they are written: `"\\u0041"` is `"A"`, and 1, 1.0, 10e-1 are one number. Of
members with one name each counts. Strings are compared by their bytes in UTF-8; half a surrogate pair is three bytes.

The pointer is never a text: the hash of a child's pointer is made of its parent's and of the child's name or index. The
parents are on a stack, so a text is at most DEPTH_MAX levels deep. What is deeper is not JSON for this module; nor is what
breaks the grammar of RFC 8259.

`tests/naive_digest.py` is the same in plain Python.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype, int64, uint8, uint64

from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i64, peek_u32, trailing_zeros

DEPTH_MAX = 64
"""Levels of a text at most."""

STACK_WORDS = 2 * DEPTH_MAX
"""uint64: for each level the pointer's hash, and the index of the present element (OBJECT: it is no array)."""

JSON_FIELDS = [
    ("json_state", "i8"), ("depth", "i8"), ("pointer", "u8"), ("sum", "u8"), ("is_key", "i8"), ("letters", "i8"),
    ("container", "i8"),
    ("hash", "u8"), ("word", "u8"), ("size", "i8"), ("unit", "i8"), ("unit_digits", "i8"), ("surrogate", "i8"),
    ("negative", "i8"), ("digits", "u8"), ("digit_count", "i8"), ("significant", "u8"), ("significant_count", "i8"),
    ("point", "i8"), ("exponent", "i8"), ("exponent_sign", "i8"),
]  # fmt: skip
"""What is kept between two pieces. `container`: it holds an object or array. `letters` of true, false or
null have come. A string: its `hash` so far, the `word` of its last bytes, its `size`, and an escape
(`unit`, a `surrogate` that waits for its other half). A number: the hash and count of its digits from the first that is
not 0 (`digits`), the same up to the last that is not 0 (`significant`), the digits after its `point`, its exponent.
"""

JSON = np.dtype(JSON_FIELDS)

# json_state
VALUE, VALUE_OR_END, KEY_OR_END, KEY, COLON, AFTER, ENDED, FAILED = range(8)
TRUE, FALSE, NULL = 8, 9, 10
STRING, ESCAPE, UNICODE, STRING_ENDS = range(11, 15)
MINUS, ZERO, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, EXPONENT_DIGIT, NUMBER_ENDS = range(15, 24)
WORD_ENDS = 24

OBJECT = np.uint64(0xFFFFFFFFFFFFFFFF)
EXPONENT_MAX = 1_000_000_000
"""A larger exponent counts as this one."""

P1, P2, P3 = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
ROOT, TEXT, INDEX = np.uint64(0x8F3C1B5D2A49E670), np.uint64(0x6A09E667F3BCC909), np.uint64(0xBB67AE8584CAA73B)
"""Where the hashes of the whole text, of a string, and of an element's place begin."""

NO_TAG = np.uint64(0)
(TAG_STRING, TAG_NUMBER, TAG_TRUE, TAG_FALSE, TAG_NULL, TAG_OBJECT, TAG_ARRAY) = (
    np.uint64(tag) for tag in range(1, 8)
)

_QUOTE, _BACKSLASH, _COMMA, _COLON, _MINUS, _PLUS, _POINT = 34, 92, 44, 58, 45, 43, 46
_BRACE, _BRACE_END, _BRACKET, _BRACKET_END = 123, 125, 91, 93
_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_QUOTES, _BACKSLASHES = np.uint64(0x2222222222222222), np.uint64(0x5C5C5C5C5C5C5C5C)
_SPACES = np.uint64(0x2020202020202020)
_ZERO, _NINE = 48, 57
_IS_SPACE = np.array([byte in b" \t\n\r" for byte in range(256)], np.bool_)
_ENDS_NUMBER = np.array([byte in b" \t\n\r,]}" for byte in range(256)], np.bool_)

_WORDS = np.zeros((3, 8), np.uint8)
for _row, _text in enumerate((b"true", b"false", b"null")):
    _WORDS[_row, : len(_text)] = np.frombuffer(_text, np.uint8)
_WORD_SIZES = np.array([4, 5, 4], np.int64)
_TRUE, _ALSE, _NULL = (np.uint32(int.from_bytes(text, "little")) for text in (b"true", b"alse", b"null"))


@kernel(inlined=True)
def mix(hashed, word):
    """Add a word to a hash."""
    hashed += word * P2
    return ((hashed << np.uint64(31)) | (hashed >> np.uint64(33))) * P1


@kernel(inlined=True)
def spread(hashed):
    """Spread every bit of a hash over all of it."""
    hashed = (hashed ^ (hashed >> np.uint64(33))) * P2
    hashed = (hashed ^ (hashed >> np.uint64(29))) * P3
    return hashed ^ (hashed >> np.uint64(32))


@kernel(inlined=True)
def begin(j):
    """Expect a new text."""
    j.json_state = VALUE
    j.depth = 0
    j.pointer = ROOT
    j.sum = np.uint64(0)
    j.container = 0


@kernel(inlined=True)
def _leaf(pointer, tag, hashed):
    """The hash of a leaf."""
    return spread(mix(mix(pointer, hashed), tag))


# Strings.


@kernel(inlined=True)
def _begin_string(j, is_key):
    j.is_key = is_key
    j.hash = TEXT
    j.word = np.uint64(0)
    j.size = 0
    j.surrogate = 0


@kernel(inlined=True)
def _appended(hashed, held, size, word, count):
    """(hash, word that is not full yet) of a string of `size` bytes after 1 to 8 more: the low bytes of a word whose
    other bytes are 0.
    """
    place = size & 7
    merged = held | (word << np.uint64(8 * place))
    if place + count < 8:
        return hashed, merged
    return mix(hashed, merged), word >> np.uint64(64 - 8 * place) if place else np.uint64(0)


@kernel()
def _append(j, word, count):
    """Append 1 to 8 bytes to the string."""
    j.hash, j.word = _appended(j.hash, j.word, j.size, word, np.int64(count))
    j.size += count


@kernel()
def _append_code(j, code):
    """Append a character as UTF-8."""
    if code < 0x80:
        _append(j, np.uint64(code), 1)
    elif code < 0x800:
        _append(j, np.uint64(0xC0 | code >> 6 | (0x80 | code & 63) << 8), 2)
    elif code < 0x10000:
        _append(
            j, np.uint64(0xE0 | code >> 12 | (0x80 | code >> 6 & 63) << 8 | (0x80 | code & 63) << 16), 3
        )
    else:
        low = (0x80 | code >> 6 & 63) << 16 | (0x80 | code & 63) << 24
        _append(j, np.uint64(0xF0 | code >> 18 | (0x80 | code >> 12 & 63) << 8 | low), 4)


@kernel(inlined=True)
def _append_surrogate(j):
    """Append the half of a surrogate pair whose other half did not come."""
    if j.surrogate:
        _append_code(j, j.surrogate)
        j.surrogate = 0


@kernel(inlined=True)
def _zeros(word):
    """The high bit of each byte that is 0. Bits after the first may be wrong."""
    return (word - _ONES) & ~word & _HIGHS


@kernel(inlined=True)
def _plain_bytes(word):
    """How many bytes of a word come before the first that a string may not hold as it is."""
    special = _zeros(word ^ _QUOTES) | _zeros(word ^ _BACKSLASHES) | ((word - _SPACES) & ~word & _HIGHS)
    return trailing_zeros(np.int64(special)) >> 3


@kernel(inlined=True)
def _string(j, data, at, end):
    """Take in plain characters of a string, eight at a time, and what ends them: (where to go on, state). Where the
    string ends, its `hash` is whole.
    """
    base, limit = data.ctypes.data, data.shape[0] - 8
    if j.surrogate and data[at] != _BACKSLASH:
        _append_surrogate(j)
    hashed, held, size = j.hash, j.word, j.size
    state = np.int64(STRING)
    while at < end:
        if at <= limit:
            word = np.uint64(peek_i64(base + np.uint64(at)))
            count = min(_plain_bytes(word), end - at)
            if count < 8:
                word &= (np.uint64(1) << np.uint64(8 * count)) - np.uint64(1)
        else:
            word = np.uint64(data[at])
            count = np.int64(1 if word >= 32 and word not in (_QUOTE, _BACKSLASH) else 0)
        if count:
            hashed, held = _appended(hashed, held, size, word, count)
            size += count
            at += count
            if count == 8 or at >= end:
                continue
        byte = data[at]
        if byte == _QUOTE:
            hashed = mix(hashed, held) ^ np.uint64(size)
            state = np.int64(STRING_ENDS)
        elif byte == _BACKSLASH:
            state = np.int64(ESCAPE)
        elif byte < 32:
            state = np.int64(FAILED)
        else:
            continue
        at += 1
        break
    j.hash, j.word, j.size = hashed, held, size
    return at, state


@kernel()
def _escape(j, byte):
    """Take the byte after a backslash. Returns the state."""
    if byte == 117:
        j.unit = 0
        j.unit_digits = 0
        return UNICODE
    _append_surrogate(j)
    if byte in (_QUOTE, _BACKSLASH, 47):
        _append(j, np.uint64(byte), 1)
    elif byte == 98:
        _append(j, np.uint64(8), 1)
    elif byte == 102:
        _append(j, np.uint64(12), 1)
    elif byte == 110:
        _append(j, np.uint64(10), 1)
    elif byte == 114:
        _append(j, np.uint64(13), 1)
    elif byte == 116:
        _append(j, np.uint64(9), 1)
    else:
        return FAILED
    return STRING


@kernel()
def _unicode(j, byte):
    """Take a digit of `\\uXXXX`. Returns the state."""
    if _ZERO <= byte <= _NINE:
        digit = np.int64(byte) - 48
    elif 97 <= byte | 32 <= 102:
        digit = np.int64(byte | 32) - 87
    else:
        return FAILED
    j.unit = j.unit * 16 + digit
    j.unit_digits += 1
    if j.unit_digits < 4:
        return UNICODE
    if 0xDC00 <= j.unit < 0xE000 and j.surrogate:
        _append_code(j, 0x10000 + ((j.surrogate - 0xD800) << 10) + j.unit - 0xDC00)
        j.surrogate = 0
        return STRING
    _append_surrogate(j)
    if 0xD800 <= j.unit < 0xDC00:
        j.surrogate = j.unit
    else:
        _append_code(j, j.unit)
    return STRING


# Numbers.


@kernel(inlined=True)
def _number_hash(significant, count, exponent, negative):
    """The hash of a number: `count` significant digits, times ten to the exponent."""
    if count == 0:
        return np.uint64(0)
    return mix(mix(significant, np.uint64(count)), np.uint64(2 * exponent + np.int64(negative)))


@kernel(inlined=True)
def _integer(data, at, end):
    """A whole number without sign or exponent that ends in data[at:end]: (where, its hash). Elsewhere the place is -1."""
    digits = significant = np.uint64(0)
    begin, significant_end = at, at
    while at < end and _ZERO <= data[at] <= _NINE:
        digits = (digits + np.uint64(data[at])) * P3
        if data[at] != _ZERO:
            significant, significant_end = digits, at + 1
        at += 1
    if at == end or not _ENDS_NUMBER[data[at]] or (data[begin] == _ZERO and at > begin + 1):
        return np.int64(-1), np.uint64(0)
    return at, _number_hash(significant, significant_end - begin, at - significant_end, False)


@kernel(inlined=True)
def _digit(j, byte):
    """Take a digit before the exponent. Zeros before the first other digit do not count."""
    if byte == _ZERO and j.digit_count == 0:
        return
    j.digits = (j.digits + np.uint64(byte)) * P3
    j.digit_count += 1
    if byte != _ZERO:
        j.significant = j.digits
        j.significant_count = j.digit_count


@kernel(inlined=True)
def _begin_number(j, byte):
    """Take the first byte of a number. Returns the state."""
    j.digits = j.significant = np.uint64(0)
    j.digit_count = j.significant_count = j.point = j.exponent = 0
    j.exponent_sign = 1
    j.negative = byte == _MINUS
    if byte == _MINUS:
        return MINUS
    _digit(j, byte)
    return INTEGER if j.digit_count else ZERO


@kernel()
def _end_number(j, state):
    """The number ends here: its `hash` is whole. Returns the state."""
    if state not in (ZERO, INTEGER, FRACTION, EXPONENT_DIGIT):
        return FAILED
    exponent = j.exponent_sign * j.exponent - j.point + j.digit_count - j.significant_count
    j.hash = _number_hash(j.significant, j.significant_count, exponent, j.negative)
    return NUMBER_ENDS


@kernel()
def _number(j, data, at, end, state):
    """Take in a number: (where it ends, or `end`; state)."""
    while at < end:
        byte = data[at]
        if _ZERO <= byte <= _NINE:
            if state == ZERO:
                return at, FAILED
            if state > FRACTION:
                j.exponent = min(j.exponent * 10 + np.int64(byte) - 48, np.int64(EXPONENT_MAX))
                state = EXPONENT_DIGIT
            else:
                _digit(j, byte)
                j.point += state >= POINT
                state = FRACTION if state >= POINT else INTEGER if j.digit_count else ZERO
        elif byte == _POINT and state in (ZERO, INTEGER):
            state = POINT
        elif byte | 32 == 101 and state in (ZERO, INTEGER, FRACTION):
            state = EXPONENT
        elif byte in (_PLUS, _MINUS) and state == EXPONENT:
            j.exponent_sign = -1 if byte == _MINUS else 1
            state = EXPONENT_SIGN
        else:
            return at, _end_number(j, state)
        at += 1
    return at, state


# Structure.


@kernel()
def _word(j, byte, state):
    """Take a letter of true, false or null. Returns the state."""
    row = state - TRUE
    if byte != _WORDS[row, j.letters]:
        return np.int64(FAILED)
    j.letters += 1
    return np.int64(WORD_ENDS) if j.letters == _WORD_SIZES[row] else state


@kernel()
def _letter(j, byte, state):
    """Take a byte of an escape, or of true, false or null: (tag of the value that ends with it, state)."""
    if state == ESCAPE:
        return NO_TAG, np.int64(_escape(j, byte))
    if state == UNICODE:
        return NO_TAG, np.int64(_unicode(j, byte))
    ends = _word(j, byte, state)
    if ends != WORD_ENDS:
        return NO_TAG, ends
    j.hash = np.uint64(0)
    return TAG_TRUE + np.uint64(state - TRUE), ends


@kernel(inlined=True)
def _short_value(j, data, at, end):
    """A whole number, true, false or null that ends in data[at:end]: (tag, where it ends). Elsewhere the tag is 0."""
    byte = data[at]
    if _ZERO <= byte <= _NINE:
        number_end, j.hash = _integer(data, at, end)
        return (TAG_NUMBER, number_end) if number_end >= 0 else (NO_TAG, at)
    j.hash = np.uint64(0)
    if at + 5 <= end and byte in (116, 102, 110):
        word = peek_u32(data.ctypes.data + np.uint64(at + (byte == 102)))
        if byte == 102 and word == _ALSE:
            return TAG_FALSE, at + 5
        if word == _TRUE:
            return TAG_TRUE, at + 4
        if word == _NULL:
            return TAG_NULL, at + 4
    return NO_TAG, at


@kernel(inlined=True)
def _open(j, stack, is_array, pointer):
    """An object or array begins: (state, pointer of its first element)."""
    if j.depth == DEPTH_MAX:
        return FAILED, pointer
    j.container = 1
    stack[2 * j.depth] = pointer
    stack[2 * j.depth + 1] = np.uint64(0) if is_array else OBJECT
    j.depth += 1
    if is_array:
        return VALUE_OR_END, mix(pointer ^ INDEX, np.uint64(0))
    return KEY_OR_END, pointer


@kernel(inlined=True)
def _value(j, stack, byte, pointer):
    """Take the first byte of a value that is no string: (state, pointer)."""
    if byte in (_BRACE, _BRACKET):
        return _open(j, stack, byte == _BRACKET, pointer)
    if byte == _MINUS or _ZERO <= byte <= _NINE:
        return _begin_number(j, byte), pointer
    j.letters = 1
    if byte == 116:
        return TRUE, pointer
    if byte == 102:
        return FALSE, pointer
    return NULL if byte == 110 else FAILED, pointer


@kernel(inlined=True)
def _after(j, stack, byte, pointer):
    """Take what follows a member or element: (state, pointer)."""
    place = 2 * (j.depth - 1)
    index = stack[place + 1]
    if byte == _COMMA:
        if index == OBJECT:
            return KEY, pointer
        index += np.uint64(1)
        stack[place + 1] = index
        return VALUE, mix(stack[place] ^ INDEX, index)
    if byte != (_BRACE_END if index == OBJECT else _BRACKET_END):
        return FAILED, pointer
    j.depth -= 1
    return AFTER if j.depth else ENDED, pointer


@kernel(inlined=True)
def _structure(j, stack, byte, state, pointer):
    """Take one byte outside strings, numbers and words: (state, pointer, tag of an object or array that is empty)."""
    if state == AFTER:
        state, pointer = _after(j, stack, byte, pointer)
        return state, pointer, NO_TAG
    if state == COLON:
        return VALUE if byte == _COLON else FAILED, pointer, NO_TAG
    is_empty = byte == (_BRACKET_END if state == VALUE_OR_END else _BRACE_END)
    if state in (VALUE_OR_END, KEY_OR_END) and is_empty:
        j.depth -= 1
        j.hash = np.uint64(0)
        return AFTER, stack[2 * j.depth], TAG_ARRAY if state == VALUE_OR_END else TAG_OBJECT
    if state <= VALUE_OR_END:
        state, pointer = _value(j, stack, byte, pointer)
        return state, pointer, NO_TAG
    return FAILED, pointer, NO_TAG


@kernel(inlined=True)
def _space_ends(data, at, end):
    """Where white space ends."""
    while at < end and _IS_SPACE[data[at]]:
        at += 1
    return at


@kernel(inlined=True)
def _colon(data, at, end):
    """A member's name has ended: (state, where to go on). The colon is usually there."""
    if at < end and data[at] == _COLON:
        return np.int64(VALUE), _space_ends(data, at + 1, end)
    return np.int64(COLON), at


@kernel()
def update(j, stack, data, at, end):
    """Take in the next piece of the text, data[at:end]. `stack` is uint64[STACK_WORDS]."""
    state, pointer, total = j.json_state, j.pointer, j.sum
    while at < end and state != FAILED:
        byte, tag = data[at], NO_TAG
        if state < TRUE:
            if byte == _QUOTE and state <= KEY:
                _begin_string(j, np.int64(state >= KEY_OR_END))
                at += 1
                state = np.int64(STRING)
            elif _IS_SPACE[byte]:
                at = _space_ends(data, at, end)
            else:
                if state <= VALUE_OR_END:
                    tag, at = _short_value(j, data, at, end)
                if tag == NO_TAG:
                    state, pointer, tag = _structure(j, stack, byte, state, pointer)
                    at = _space_ends(data, at + 1, end) if state < TRUE else at + 1
        elif state >= MINUS:
            at, state = _number(j, data, at, end, state)
            tag = TAG_NUMBER if state == NUMBER_ENDS else NO_TAG
        elif state != STRING:
            at += 1
            tag, state = _letter(j, byte, state)
        if state == STRING and at < end:
            at, state = _string(j, data, at, end)
            if state == STRING_ENDS and j.is_key:
                pointer = mix(stack[2 * (j.depth - 1)], j.hash)
                state, at = _colon(data, at, end)
            elif state == STRING_ENDS:
                tag = TAG_STRING
        if tag != NO_TAG:
            total += _leaf(pointer, tag, j.hash)
            state = np.int64(AFTER if j.depth else ENDED)
    j.json_state, j.pointer, j.sum = state, pointer, total


@kernel(inlined=True)
def is_whole(j):
    """Whether what came was one JSON text; the digest is then `sum`."""
    if j.json_state >= MINUS and j.depth == 0:
        j.json_state = _end_number(j, j.json_state)
        if j.json_state == NUMBER_ENDS:
            j.sum += _leaf(j.pointer, TAG_NUMBER, j.hash)
            j.json_state = ENDED
    return j.json_state == ENDED


@kernel((from_dtype(JSON)[::1], uint64[::1], uint8[::1], int64[::1]))
def digest_pieces(states, stack, data, cuts):
    """For tests: the digest of `data`, as if it came in pieces that end at `cuts`, in `states[0].sum`. Returns whether
    it is one JSON text.
    """
    j, at = states[0], np.int64(0)
    begin(j)
    for i in range(cuts.size):
        update(j, stack, data, at, cuts[i])
        at = cuts[i]
    return is_whole(j)
