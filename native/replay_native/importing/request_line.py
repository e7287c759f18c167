"""Kernels that read methods and targets in request lines, and find out how a target must be changed or checked."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import trailing_zeros
from replay_native.ground.simd import WIDTH, bytes_equal, bytes_outside

from .scan_table import (
    ABSOLUTE,
    ACCEPTED,
    BEGIN,
    END,
    LOOK,
    METHOD_BYTES_MAX,
    METHODS,
    METHODS_MAX,
    NEEDS,
    NO_PATH,
    NUMBERS,
    PARAMETERS,
    REWRITE,
)
from .suspects import IN_NUMBER, NESTS, PHONE_DIGITS, long_runs, number_bytes
from .text import lowered, word_at

_SPACE, _QUOTE, _PERCENT, _PLUS, _DASH, _SLASH, _COLON, _SEMICOLON = 32, 34, 37, 43, 45, 47, 58, 59
_EQUALS, _AT, _LETTER_J, _BACKSLASH = 61, 64, 74, 92
_PROTOCOL_BYTES = 9
_SPECIAL = np.zeros(256, dtype=np.uint8)
_SPECIAL[:33] = 1
_SPECIAL[127:] = 1
_SPECIAL[[_QUOTE, _BACKSLASH, _PLUS, _SEMICOLON, _PERCENT, _AT, _COLON, _LETTER_J]] = 1
_LOOKED_FOR = np.zeros((256, 256), dtype=np.uint8)
for _code in (*np.flatnonzero(NESTS).tolist(), 0x20):
    for _text in (b"%02X" % _code, b"%02x" % _code):
        _LOOKED_FOR[_text[0], _text[1]] = 1
"""Hexadecimal codes that, after a `%`, may stand for a byte that separates or nests values, or for a space."""


@kernel(inlined=True)
def _marked_bytes(data, at, end):
    """Return three masks of the next WIDTH bytes before `end`, one bit per byte.

    The bits show which bytes are in _SPECIAL, which are `=`, and which may stand in a number.
    """
    if at + WIDTH <= data.shape[0]:
        address = np.int64(data.ctypes.data) + at
        percents = bytes_equal(address, np.uint8(_PERCENT))
        found = bytes_outside(address, np.uint8(33), np.uint8(126)) | percents
        found |= bytes_equal(address, np.uint8(_QUOTE)) | bytes_equal(address, np.uint8(_BACKSLASH))
        found |= bytes_equal(address, np.uint8(_PLUS)) | bytes_equal(address, np.uint8(_SEMICOLON))
        found |= bytes_equal(address, np.uint8(_COLON)) | bytes_equal(address, np.uint8(_AT))
        found |= bytes_equal(address, np.uint8(_LETTER_J))
        equals = bytes_equal(address, np.uint8(_EQUALS))
        inside = (np.int64(1) << min(end - at, np.int64(WIDTH))) - 1
        return found & inside, equals & inside, (number_bytes(address) | percents) & inside
    found = equals = numbers = np.int64(0)
    for index in range(min(end - at, np.int64(WIDTH))):
        byte = data[at + index]
        found |= np.int64(_SPECIAL[byte]) << index
        equals |= np.int64(byte == _EQUALS) << index
        numbers |= np.int64(IN_NUMBER[byte]) << index
    return found, equals, numbers


@kernel(inlined=True)
def method_number(data, begin, end, methods, state, add):
    """Return the number of the method in data[begin:end], or -1 if the text is not a method.

    With `add`, an unknown method is added to `methods`, unless the table is full (-1). Without `add`, the result
    for an unknown method is -2.
    """
    word0 = word1 = np.int64(0)
    if end == begin or end - begin > METHOD_BYTES_MAX:
        return -1
    if end - begin < 8 and begin + 8 <= data.shape[0] and data[end - 1] != 0:
        word0 = word_at(data, begin) & ((np.int64(1) << np.int64(8 * (end - begin))) - 1)
        for number in range(state[METHODS]):
            if methods[number, 0] == word0 and methods[number, 1] == 0:
                return number
        word0 = np.int64(0)
    for index in range(begin, end):
        byte = np.int64(data[index])
        if not (65 <= byte <= 90 or 97 <= byte <= 122 or byte in (_DASH, 95)):
            return -1
        if index - begin < 8:
            word0 |= byte << np.int64(8 * (index - begin))
        else:
            word1 |= byte << np.int64(8 * (index - begin - 8))
    if data[begin] == _DASH:
        return -1
    for number in range(state[METHODS]):
        if methods[number, 0] == word0 and methods[number, 1] == word1:
            return number
    if not add:
        return -2
    number = state[METHODS]
    if number == METHODS_MAX:
        return -1
    methods[number, 0] = word0
    methods[number, 1] = word1
    state[METHODS] = number + 1
    return number


@kernel()
def scheme_end(data, begin, end):
    """Return where the authority of an absolute `http://` or `https://` target begins, or -1."""
    if end - begin < 8 or lowered(data[begin]) != 104 or lowered(data[begin + 1]) != 116:
        return -1
    if lowered(data[begin + 2]) != 116 or lowered(data[begin + 3]) != 112:
        return -1
    at = begin + 4 + (lowered(data[begin + 4]) == 115)
    if data[at] == _COLON and data[at + 1] == _SLASH and data[at + 2] == _SLASH:
        return at + 3
    return -1


@kernel(inlined=True)
def is_protocol(data, at, end):
    """Return whether `HTTP/` is at `at`."""
    if end - at < 5 or data[at] != 72 or data[at + 1] != 84:
        return False
    return data[at + 2] == 84 and data[at + 3] == 80 and data[at + 4] == _SLASH


@kernel(inlined=True)
def without_version(data, begin, end):
    """Return where a request line ends without a bare version (`GET /a 1.1`, `GET /a 2`), as hypercorn writes it."""
    if end - begin < 3 or not 48 <= data[end - 1] <= 51:
        return end
    last = np.int64(data[end - 1])
    if data[end - 2] == _SPACE:
        return end - 2 if last >= 50 else end
    if end - begin < 5 or data[end - 2] != 46 or data[end - 4] != _SPACE:
        return end
    first = data[end - 3]
    known = (first == 49 and last in (48, 49)) or (first in (50, 51) and last == 48)
    return end - 4 if known else end


@kernel(inlined=True)
def _ends_in_protocol(data, begin, end):
    """Return whether data[begin:end] ends in a space and a protocol of the usual length, such as `HTTP/1.1`."""
    at = end - _PROTOCOL_BYTES
    if at < begin or data[at] != _SPACE or not is_protocol(data, at + 1, end):
        return False
    return data[end - 1] != _SPACE and data[end - 2] != _SPACE and data[end - 3] != _SPACE


@kernel(inlined=True)
def target(data, begin, end, rows, row):
    """Write the span of the target in data[begin:end] and its NEEDS to column `row`, and return ACCEPTED or NO_PATH.

    The span excludes spaces and the protocol.
    """
    needs = spaces = 0
    whole = _ends_in_protocol(data, begin, end)
    if whole:
        end -= _PROTOCOL_BYTES
    last_space = begin - 1
    parameters = runs = carried = np.int64(0)
    at = begin
    while at < end:
        special, equals, numbers = _marked_bytes(data, at, end)
        parameters |= equals
        numbers = (numbers << (PHONE_DIGITS - 1)) | carried
        carried = numbers >> WIDTH
        runs |= long_runs(numbers)
        while special != 0:
            place = at + trailing_zeros(special)
            special &= special - 1
            byte = data[place]
            if byte == _SPACE:
                last_space = place
                spaces += 1
            elif byte == _PERCENT:
                if place + 2 < end and _LOOKED_FOR[data[place + 1], data[place + 2]]:
                    needs |= LOOK
            elif byte in (_COLON, _SEMICOLON, _AT, _PLUS):
                needs |= LOOK
            elif byte == _LETTER_J:
                # A JSON Web Token begins with `eyJ`.
                if place > begin + 1 and data[place - 1] == 121 and data[place - 2] == 101:
                    needs |= LOOK
            else:
                needs |= REWRITE | LOOK
        at += WIDTH
    if not whole and last_space >= begin and is_protocol(data, last_space + 1, end):
        end = last_space
    while begin < end and data[begin] == _SPACE:
        begin += 1
    while begin < end and data[end - 1] == _SPACE:
        end -= 1
    if begin == end:
        return NO_PATH
    if spaces:
        for at in range(begin, end):
            if data[at] == _SPACE:
                needs |= REWRITE | LOOK
    if data[begin] != _SLASH and not (data[begin] == 42 and end == begin + 1):
        if scheme_end(data, begin, end) < 0:
            return NO_PATH
        needs |= ABSOLUTE
    rows[BEGIN, row] = begin
    rows[END, row] = end
    rows[NEEDS, row] = needs | PARAMETERS * (parameters != 0) | NUMBERS * (runs != 0)
    return ACCEPTED
