r"""A digest of a JSON text that does not depend on the order of members, computed in one pass, piece by piece.

Theory of operation
-------------------

The digest is the sum of one hash for each **leaf**: a string, a number, true, false, null, or an empty object or
array. The hash of a leaf covers its JSON Pointer and its value. A sum does not depend on the order of its terms, so
neither white space nor the order of members counts. Elements of an array count by their index.

Equal values have equal hashes, in whatever notation: `"\u0041"` is `"A"`, and 1, 1.0, 10e-1 are one number. If
several members have the same name, each of them counts. Strings are compared by their bytes in UTF-8. Half a
surrogate pair is encoded in three bytes.

The pointer is never written out as text: the hash of a child's pointer is made from the hash of the parent's pointer
and from the child's name or index. The parents are on a stack, so that a text may have at most DEPTH_MAX levels. A
deeper text, and one that breaks the grammar of RFC 8259, is not JSON for this module.

`tests/naive_digest.py` computes the same in plain Python.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype, int64, uint8, uint64

from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_u32

from .json_number import begin_number, end_number, take_integer, take_number
from .json_state import (
    AFTER,
    COLON,
    DIGIT_0,
    DIGIT_9,
    ENDED,
    ESCAPE,
    FAILED,
    FALSE,
    INDEX,
    JSON,
    KEY,
    KEY_OR_END,
    MINUS,
    MINUS_SIGN,
    NO_TAG,
    NULL,
    NUMBER_ENDS,
    QUOTE,
    ROOT,
    STRING,
    STRING_ENDS,
    TAG_ARRAY,
    TAG_FALSE,
    TAG_NULL,
    TAG_NUMBER,
    TAG_OBJECT,
    TAG_STRING,
    TAG_TRUE,
    TRUE,
    UNICODE,
    VALUE,
    VALUE_OR_END,
    WORD_ENDS,
    mix,
    spread,
)
from .json_string import begin_string, take_escape, take_string, take_unicode, take_whole_string

DEPTH_MAX = 64
"""Maximum number of levels of a text."""

STACK_WORDS = 2 * DEPTH_MAX
"""Size of the stack in uint64. Each level has the hash of its pointer, and the index of its current element.

The index of a level that is an object is OBJECT.
"""

OBJECT = np.uint64(0xFFFFFFFFFFFFFFFF)

_COMMA, _COLON, _BRACE, _BRACE_END, _BRACKET, _BRACKET_END = 44, 58, 123, 125, 91, 93
_IS_SPACE = np.array([byte in b" \t\n\r" for byte in range(256)], np.bool_)

_WORDS = np.zeros((3, 8), np.uint8)
for _row, _text in enumerate((b"true", b"false", b"null")):
    _WORDS[_row, : len(_text)] = np.frombuffer(_text, np.uint8)
_WORD_SIZES = np.array([4, 5, 4], np.int64)
_TRUE, _ALSE, _NULL = (np.uint32(int.from_bytes(text, "little")) for text in (b"true", b"alse", b"null"))


@kernel(inlined=True)
def begin(j):
    """Start a new text."""
    j.json_state = VALUE
    j.depth = 0
    j.pointer = ROOT
    j.sum = np.uint64(0)
    j.container = 0


@kernel(inlined=True)
def _leaf(pointer, tag, hashed):
    """Return the hash of a leaf."""
    return spread(mix(pointer ^ tag, hashed))


@kernel()
def _word(j, byte, state):
    """Process a letter of true, false or null, and return the state."""
    row = state - TRUE
    if byte != _WORDS[row, j.letters]:
        return np.int64(FAILED)
    j.letters += 1
    return np.int64(WORD_ENDS) if j.letters == _WORD_SIZES[row] else state


@kernel()
def _letter(j, byte, state):
    """Process a byte of an escape, or of true, false or null.

    The results are the tag of the value that ends with the byte, or NO_TAG, and the state.
    """
    if state == ESCAPE:
        return NO_TAG, np.int64(take_escape(j, byte))
    if state == UNICODE:
        return NO_TAG, np.int64(take_unicode(j, byte))
    ends = _word(j, byte, state)
    if ends != WORD_ENDS:
        return NO_TAG, ends
    return TAG_TRUE if state == TRUE else TAG_FALSE if state == FALSE else TAG_NULL, ends


@kernel(inlined=True)
def _short_value(data, at, end):
    """Read a whole number, true, false or null that ends before `end`, and return its tag, its end, and its hash.

    The tag is NO_TAG for any other value.
    """
    byte = data[at]
    if DIGIT_0 <= byte <= DIGIT_9:
        number_end, hashed = take_integer(data, at, end)
        return (TAG_NUMBER, number_end, hashed) if number_end >= 0 else (NO_TAG, at, hashed)
    if at + 5 <= end and byte in (116, 102, 110):
        word = peek_u32(data.ctypes.data + np.uint64(at + (byte == 102)))
        if byte == 102 and word == _ALSE:
            return TAG_FALSE, at + 5, np.uint64(0)
        if word == _TRUE:
            return TAG_TRUE, at + 4, np.uint64(0)
        if word == _NULL:
            return TAG_NULL, at + 4, np.uint64(0)
    return NO_TAG, at, np.uint64(0)


@kernel(inlined=True)
def _open(j, stack, is_array, pointer):
    """Begin an object or array, and return the state and the pointer of its first element."""
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
    """Process the first byte of a value that is not a string, and return the state and the pointer."""
    if byte in (_BRACE, _BRACKET):
        return _open(j, stack, byte == _BRACKET, pointer)
    if byte == MINUS_SIGN or DIGIT_0 <= byte <= DIGIT_9:
        return begin_number(j, byte), pointer
    j.letters = 1
    if byte == 116:
        return TRUE, pointer
    if byte == 102:
        return FALSE, pointer
    return NULL if byte == 110 else FAILED, pointer


@kernel(inlined=True)
def _after(j, stack, byte, pointer):
    """Process the byte after a member or element, and return the state and the pointer."""
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
    """Process one byte outside strings, numbers and words, and return the state, the pointer and a tag.

    The tag is that of an empty object or array, or else NO_TAG.
    """
    if state == AFTER:
        state, pointer = _after(j, stack, byte, pointer)
        return state, pointer, NO_TAG
    if state == COLON:
        return VALUE if byte == _COLON else FAILED, pointer, NO_TAG
    is_empty = byte == (_BRACKET_END if state == VALUE_OR_END else _BRACE_END)
    if state in (VALUE_OR_END, KEY_OR_END) and is_empty:
        j.depth -= 1
        return AFTER, stack[2 * j.depth], TAG_ARRAY if state == VALUE_OR_END else TAG_OBJECT
    if state <= VALUE_OR_END:
        state, pointer = _value(j, stack, byte, pointer)
        return state, pointer, NO_TAG
    return FAILED, pointer, NO_TAG


@kernel(inlined=True)
def _space_ends(data, at, end):
    """Return where white space ends."""
    while at < end and _IS_SPACE[data[at]]:
        at += 1
    return at


@kernel(inlined=True)
def _colon(data, at, end):
    """Return the state after the name of a member, and where to continue.

    The colon usually follows at once. It is then skipped here.
    """
    if at < end and data[at] == _COLON:
        return np.int64(VALUE), _space_ends(data, at + 1, end)
    return np.int64(COLON), at


@kernel()
def update(j, stack, data, at, end):
    """Process the next piece of the text, data[at:end]. `stack` is uint64[STACK_WORDS]."""
    state, pointer, total = j.json_state, j.pointer, j.sum
    while at < end and state != FAILED:
        byte, tag, hashed, ends = data[at], NO_TAG, np.uint64(0), False
        if state < TRUE:
            if byte == QUOTE and state <= KEY:
                is_key = state >= KEY_OR_END
                at, hashed, ends = take_whole_string(data, at + 1, end)
                if not ends:
                    begin_string(j, np.int64(is_key))
                    state = np.int64(STRING)
            elif _IS_SPACE[byte]:
                at = _space_ends(data, at, end)
            else:
                if state <= VALUE_OR_END:
                    tag, at, hashed = _short_value(data, at, end)
                if tag == NO_TAG:
                    state, pointer, tag = _structure(j, stack, byte, state, pointer)
                    at = _space_ends(data, at + 1, end) if state < TRUE else at + 1
        elif state == STRING:
            at, state = take_string(j, data, at, end)
            is_key, ends, hashed = j.is_key != 0, state == STRING_ENDS, j.hash
        elif state >= MINUS:
            at, state = take_number(j, data, at, end, state)
            tag = TAG_NUMBER if state == NUMBER_ENDS else NO_TAG
            hashed = j.hash
        else:
            at += 1
            tag, state = _letter(j, byte, state)
        if ends and is_key:
            pointer = mix(stack[2 * (j.depth - 1)], hashed)
            state, at = _colon(data, at, end)
        elif ends:
            tag = TAG_STRING
        if tag != NO_TAG:
            total += _leaf(pointer, tag, hashed)
            state = np.int64(AFTER if j.depth else ENDED)
    j.json_state, j.pointer, j.sum = state, pointer, total


@kernel(inlined=True)
def is_whole(j):
    """Return whether the bytes so far are one complete JSON text, whose digest is then `sum`.

    This completes a number at the end of the text, so no more bytes may follow.
    """
    if j.json_state >= MINUS and j.depth == 0:
        j.json_state = end_number(j, j.json_state)
        if j.json_state == NUMBER_ENDS:
            j.sum += _leaf(j.pointer, TAG_NUMBER, j.hash)
            j.json_state = ENDED
    return j.json_state == ENDED


@kernel((from_dtype(JSON)[::1], uint64[::1], uint8[::1], int64[::1]))
def digest_pieces(states, stack, data, cuts):
    """Digest `data` in pieces that end at `cuts`, and return whether it is one JSON text. Only tests call it.

    The digest is in `states[0].sum`.
    """
    j, at = states[0], np.int64(0)
    begin(j)
    for i in range(cuts.size):
        update(j, stack, data, at, cuts[i])
        at = cuts[i]
    return is_whole(j)
