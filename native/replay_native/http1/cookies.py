"""A client's cookie jar: the value of its Cookie header (`a=1; b=2`), of limited length, changed in place.

Domains, paths, `Secure` and lifetimes (RFC 6265) are ignored, because a jar belongs to one client and one target.
Only the deletion of a cookie is recognized: a Max-Age of 0 or less, or an Expires before the year 2000.
`replay/portable/cookies.py` does the same in plain Python.
"""

from __future__ import annotations

import numpy as np
from numba import int64, uint8

from replay_native.ground.jit import kernel

from .answers import cookie_parts, same_word, trimmed
from .parser import SEMICOLON

NO_ROOM = -1
YEAR_OF_ENDS = 2000

_EQUALS, _SPACE, _MINUS, _ZERO = 61, 32, 45, 48
_MAX_AGE = np.frombuffer(b"max-age", np.uint8)
_EXPIRES = np.frombuffer(b"expires", np.uint8)


@kernel()
def _year_of(data, begin, end):
    """Return the first run of exactly four digits as a number, or -1."""
    at = begin
    while at < end:
        digits, number = np.int64(0), np.int64(0)
        while at < end and _ZERO <= data[at] <= 57:
            number = number * 10 + np.int64(data[at]) - _ZERO if digits < 5 else number
            digits += 1
            at += 1
        if digits == 4:
            return number
        at += 1
    return np.int64(-1)


@kernel()
def _ends_at_once(data, begin, end):
    """Return whether the value of a Max-Age attribute is 0 or less."""
    if begin >= end:
        return False
    if data[begin] == _MINUS:
        return True
    zeros = True
    for at in range(begin, end):
        zeros = zeros and data[at] == _ZERO
    return zeros


@kernel()
def is_ended(data, at, end):
    """Return whether the attributes of a Set-Cookie delete the cookie. Max-Age takes precedence over Expires."""
    ended = False
    while at < end:
        stop = at + 1
        while stop < end and data[stop] != SEMICOLON:
            stop += 1
        equals = at + 1
        while equals < stop and data[equals] != _EQUALS:
            equals += 1
        name, name_end = trimmed(data, at + 1, equals)
        value, value_end = trimmed(data, min(equals + 1, stop), stop)
        if same_word(data, name, name_end, _MAX_AGE, 0, _MAX_AGE.size):
            return _ends_at_once(data, value, value_end)
        if same_word(data, name, name_end, _EXPIRES, 0, _EXPIRES.size):
            year = _year_of(data, value, value_end)
            ended = 0 <= year < YEAR_OF_ENDS
        at = stop
    return ended


@kernel()
def _place_of(jar, length, data, name, name_end):
    """Return (begin, end) of the cookie of this name in the jar, with the `; ` after it, or (-1, -1)."""
    at = np.int64(0)
    while at < length:
        end = at
        while end < length and jar[end] != SEMICOLON:
            end += 1
        following = min(end + 2, length)
        size = name_end - name
        if at + size < end and jar[at + size] == _EQUALS:
            same = True
            for i in range(size):
                same = same and jar[at + i] == data[name + i]
            if same:
                return at, following
        at = following
    return np.int64(-1), np.int64(-1)


@kernel()
def put_cookie(jar, length, most, data, begin, end):
    """Apply a Set-Cookie value to the jar, and return the jar's new length.

    If the length would exceed `most`, the jar is not changed, and NO_ROOM is returned. A value that is not a valid
    cookie changes nothing. A cookie that is already in the jar is replaced, and moves to the end. A Set-Cookie that
    deletes the cookie removes it from the jar.
    """
    name, name_end, value, value_end, attributes = cookie_parts(data, begin, end)
    if name_end < 0:
        return length
    ended = is_ended(data, attributes, end)
    place, place_end = _place_of(jar, length, data, name, name_end)
    kept = length if place < 0 else length - (place_end - place)
    if place >= 0 and place_end == length and kept:
        kept -= 2
    size = name_end - name + 1 + value_end - value
    if not ended and kept + size + (2 if kept else 0) > most:
        return np.int64(NO_ROOM)
    if place >= 0:
        for i in range(place_end, length):
            jar[place + i - place_end] = jar[i]
    if ended:
        return kept
    at = kept
    if kept:
        jar[at], jar[at + 1] = SEMICOLON, _SPACE
        at += 2
    for i in range(name, name_end):
        jar[at] = data[i]
        at += 1
    jar[at] = _EQUALS
    at += 1
    for i in range(value, value_end):
        jar[at] = data[i]
        at += 1
    return at


@kernel(int64(uint8[::1], int64, uint8[::1]))
def jar_with(jar, length, data):
    """Call `put_cookie` for all of `data` (for tests)."""
    return put_cookie(jar, length, jar.size, data, 0, data.size)
