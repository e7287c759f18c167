"""Kernels that find the request targets that Python must clean.

These targets may contain a secret or identify a person. A check that matches too often costs time; one that matches
too rarely leaves a secret in a trace. So each check here matches more than `secrets.redacted` and `people.marked`
replace; `tests/oracles/log_oracle.py` verifies that.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.simd import bytes_equal, bytes_outside, find_byte

from .scan_table import ABSOLUTE, LOOK, NUMBERS, PARAMETERS, REWRITE
from .text import hex_value, lowered

_QUOTE, _PERCENT, _APOSTROPHE, _PLUS, _DASH, _SLASH, _COLON, _SEMICOLON = 34, 37, 39, 43, 45, 47, 58, 59
_EQUALS, _AT, _BACKSLASH = 61, 64, 92
PARAMETER_BYTES_MAX = 192
"""Number of bytes of a parameter's name, counted from its end, that are compared with the names of secrets."""

FIRST_KEYS = 257
"""Index in `key_ends` at which the list of keys begins (see `is_secret_name`)."""

_STRIDE = 7
"""Distance between the bytes that are examined. It is less than PHONE_DIGITS, so that no number is missed."""

PHONE_DIGITS, CARD_DIGITS, IBAN_BYTES = 8, 13, 15
"""Minimum lengths: of a phone number with a `+` or a bracket, of a card number, and of an account number."""

NESTS = np.zeros(256, dtype=np.uint8)
NESTS[[0x22, 0x25, 0x26, 0x27, 0x3A, 0x3B, 0x3D, 0x3F, 0x40, 0x5C, 0x7B]] = 1
"""Bytes that separate or nest values, for which the checks search in percent-encoded form.

They are `"`, `%`, `&`, `'`, `:`, `;`, `=`, `?`, `@`, backslash and `{`.
"""

IN_NUMBER = np.zeros(256, dtype=np.uint8)
IN_NUMBER[48:58] = IN_NUMBER[65:91] = 1
IN_NUMBER[[40, 41, 46, _PERCENT, _PLUS, _DASH]] = 1
"""Bytes of phone, card and account numbers: digits, capitals, `(`, `)`, `.`, `+`, `-`, and the `%` of `%20`."""

_SCHEMES = (b"bearer", b"basic", b"digest", b"negotiate", b"ntlm", b"token", b"apikey", b"aws4-hmac-sha256")
_SCHEME_BYTES = np.frombuffer(b"".join(_SCHEMES), dtype=np.uint8)
_SCHEME_ENDS = np.cumsum([0, *map(len, _SCHEMES)]).astype(np.int64)
"""The names of authorization schemes. Credentials follow them."""

_PAIR_WORDS = (
    b"value",
    b"values",
    b"val",
    b"v",
    b"name",
    b"header",
    b"field",
    b"param",
    b"parameter",
    b"k",
)
_PAIR_BYTES = np.frombuffer(b"".join(_PAIR_WORDS), dtype=np.uint8)
_PAIR_ENDS = np.cumsum([0, *map(len, _PAIR_WORDS)]).astype(np.int64)
_VALUE_WORDS = 4
"""Names of the two parameters of a pair such as `name=token&value=abc`.

The first _VALUE_WORDS are names of the parameter for the value, the others of that for the name.
"""


@bundle
class Secrets(NamedTuple):
    """The names of the parameters that are secret."""

    keys: Annotated[Array, "uint8[::1]", "the names, sorted by their last byte"]
    key_ends: Annotated[Array, "int64[::1]", "where each name begins; see `is_secret_name`"]
    kept: Annotated[bool, "boolean", "secrets are kept"]
    name: Annotated[Array, "uint8[::1]", "scratch: the name of a parameter (PARAMETER_BYTES_MAX)"]


SECRETS_TYPE = numba_type(Secrets)


@kernel(inlined=True)
def _ends_name(byte):
    """Return whether a name may begin after this byte: it is neither a digit nor a lower-case ASCII letter."""
    return not (48 <= byte <= 57 or 97 <= byte <= 122)


@kernel()
def is_secret_name(data, begin, end, secrets):
    """Return whether a parameter's name may be a key, or end with one. Python then decides where a name begins.

    Names are compared in lower case, percent-decoded, without the marks `- _ . [ ]`, and without digits, blanks and
    signs at the end. The keys are sorted by their last byte: key_ends[byte] is the first key that ends with the
    byte. After these, key_ends[FIRST_KEYS + key] is twice the index at which the key begins in `keys`, plus 1 if
    other bytes may precede it.
    """
    keys, key_ends, name = secrets.keys, secrets.key_ends, secrets.name
    length = 0
    at = max(begin, end - name.shape[0])
    while at < end:
        byte = data[at]
        if byte == _PERCENT and at + 2 < end:
            high, low = hex_value(data[at + 1]), hex_value(data[at + 2])
            if high >= 0 and low >= 0:
                byte = np.uint8(high * 16 + low)
                at += 2
        at += 1
        if byte not in (_DASH, 95, 46, 91, 93):
            name[length] = lowered(byte)
            length += 1
    while length > 0 and not 97 <= name[length - 1] <= 122:
        length -= 1
    if length == 0:
        return False
    last = np.int64(name[length - 1])
    for key in range(key_ends[last], key_ends[last + 1]):
        first = key_ends[FIRST_KEYS + key] >> 1
        size = (key_ends[FIRST_KEYS + key + 1] >> 1) - first
        if size == length or (
            size < length and (key_ends[FIRST_KEYS + key] & 1 or _ends_name(name[length - size - 1]))
        ):
            same = True
            for index in range(size - 1):
                if keys[first + index] != name[length - size + index]:
                    same = False
                    break
            if same:
                return True
    return False


@kernel(inlined=True)
def _begins_token(data, at, begin):
    """Return whether `at` is the end of `eyJ`, which begins a JSON Web Token."""
    return data[at] == 74 and at > begin + 1 and data[at - 1] == 121 and data[at - 2] == 101


@kernel()
def _word_before(data, begin, end, words, ends):
    """Return the number of the word that data[begin:end] ends with, in any case, or -1."""
    for number in range(ends.shape[0] - 1):
        first, size = ends[number], ends[number + 1] - ends[number]
        if end - begin < size:
            continue
        same = True
        for index in range(size):
            if lowered(data[end - size + index]) != words[first + index]:
                same = False
                break
        if same and (end - size == begin or not 97 <= lowered(data[end - size - 1]) <= 122):
            return number
    return -1


@kernel(inlined=True)
def _name_begins(data, at, begin):
    """Return where the name before a `=` or `:` begins: after one of `/ ? & ; # =`."""
    while at > begin:
        byte = data[at - 1]
        if byte in (_SLASH, 63, 38, _SEMICOLON, 35, _EQUALS):
            break
        at -= 1
    return at


@kernel()
def _names_secret(data, begin, colon, secrets):
    """Return whether the text before a colon may be the name of a secret, such as a JSON key or a header.

    Any text that ends in a letter may be one.
    """
    if 97 <= lowered(data[colon - 1]) <= 122:
        return True
    # Without a limit, a target such as `/1:1:1:1:` would be read again from its beginning for each colon.
    first = _name_begins(data, colon, max(begin, colon - PARAMETER_BYTES_MAX))
    for at in range(first, colon - 1):
        if lowered(data[at]) == 120 and data[at + 1] in (_DASH, _PERCENT):
            return True
    return is_secret_name(data, first, colon, secrets)


@kernel(inlined=True)
def _ends_entity(data, begin, end):
    """Return whether data[begin:end] ends with `&quot` or `&#34`, which stand for a quote if a semicolon follows.

    Only two of their characters are compared.
    """
    if end - begin < 4:
        return False
    return (data[end - 1] == 116 and data[end - 2] == 111) or (data[end - 2] == 51 and data[end - 3] == 35)


@kernel()
def is_suspect(data, begin, end, secrets):
    """Return whether a target may hold a value inside a value, credentials, an e-mail address or a JSON Web Token."""
    for at in range(begin, end):
        byte = np.int64(data[at])
        if byte in (_AT, _QUOTE, _BACKSLASH) or _begins_token(data, at, begin):
            return True
        if byte == _PERCENT and at + 2 < end:
            high, low = hex_value(data[at + 1]), hex_value(data[at + 2])
            if high >= 0 and low >= 0 and NESTS[high * 16 + low]:
                return True
            if high == 2 and low == 0 and _word_before(data, begin, at, _SCHEME_BYTES, _SCHEME_ENDS) >= 0:
                return True
        elif byte == _PLUS:
            if _word_before(data, begin, at, _SCHEME_BYTES, _SCHEME_ENDS) >= 0:
                return True
        elif byte == _COLON and at > begin:
            scheme = data[at - 1] == 54 and _word_before(data, begin, at, _SCHEME_BYTES, _SCHEME_ENDS) >= 0
            if scheme or _names_secret(data, begin, at, secrets):
                return True
        elif byte == _SEMICOLON and _ends_entity(data, begin, at):
            return True
    return False


@kernel(inlined=True)
def _begins_number(data, at, begin):
    """Return whether a number may begin at `at`: outside a word, or after a percent-encoded byte."""
    if at == begin or (at - 3 >= begin and data[at - 3] == _PERCENT):
        return True
    before = data[at - 1]
    in_word = 48 <= before <= 57 or 97 <= lowered(before) <= 122
    return not in_word and before not in (_PERCENT, _DASH, 95)


@kernel()
def _is_number(data, first, last, begin):
    """Return whether data[first:last], whose bytes are all in IN_NUMBER, may hold a phone, card or account number."""
    digits, lead = np.int64(0), first > begin + 1 and data[first - 1] == 98 and data[first - 2] == 50
    for at in range(first, last):
        byte = data[at]
        digits += 48 <= byte <= 57
        lead = lead or byte in (_PLUS, 40) or (byte == 66 and at > first and data[at - 1] == 50)
    if digits >= PHONE_DIGITS and lead:
        return True
    if last - first < CARD_DIGITS or digits < 2:
        return False
    for at in range(first, last - CARD_DIGITS + 1):
        if not _begins_number(data, at, begin):
            continue
        if 50 <= data[at] <= 54 and digits >= CARD_DIGITS:
            return True
        capitals = 65 <= data[at] <= 90 and 65 <= data[at + 1] <= 90
        if capitals and last - at >= IBAN_BYTES and 48 <= data[at + 2] <= 57 and 48 <= data[at + 3] <= 57:
            return True
    return False


@kernel(inlined=True)
def number_bytes(address):
    """Return a mask of the bytes at an address: bit i is set if byte i may stand in a number.

    The mask excludes `%`. It includes `*` and `,`, which are rare.
    """
    found = ~bytes_outside(address, np.uint8(40), np.uint8(57)) & ~bytes_equal(address, np.uint8(_SLASH))
    return found | ~bytes_outside(address, np.uint8(65), np.uint8(90))


@kernel(inlined=True)
def long_runs(bits):
    """Return a number that is not 0 if PHONE_DIGITS bits in a row are set."""
    bits &= bits >> 1
    bits &= bits >> 2
    return bits & (bits >> (PHONE_DIGITS - 4))


@kernel()
def holds_number(data, begin, end):
    """Return whether a target may hold a phone, card or account number."""
    place = begin + _STRIDE - 1
    while place < end:
        if IN_NUMBER[data[place]]:
            first = last = place
            while first > begin and IN_NUMBER[data[first - 1]]:
                first -= 1
            while last < end and IN_NUMBER[data[last]]:
                last += 1
            if last - first >= PHONE_DIGITS and _is_number(data, first, last, begin):
                return True
            place = last
        place += _STRIDE
    return False


@kernel()
def _pair_part(data, begin, end):
    """Return 1 for a parameter that may be the value of a pair, 2 for one that may be its name, or 0."""
    while end > begin:
        if data[end - 1] in (_PLUS, _APOSTROPHE):
            end -= 1
        elif end - 3 >= begin and data[end - 3] == _PERCENT and data[end - 2] == 50 and data[end - 1] == 48:
            end -= 3
        else:
            break
    word = _word_before(data, begin, end, _PAIR_BYTES, _PAIR_ENDS)
    if word < 0:
        return 0
    return 1 if word < _VALUE_WORDS else 2


@kernel()
def has_secret(data, begin, end, secrets):
    """Return whether a target has a secret name before a `=`, or a pair of parameters for a name and its value.

    The `=` may be in the path, in the query or inside a value.
    """
    at = find_byte(data, begin, end, np.uint8(_EQUALS))
    parts = 0
    while at + 1 < end:
        first = _name_begins(data, at, begin)
        if is_secret_name(data, first, at, secrets):
            return True
        parts |= _pair_part(data, first, at)
        at = find_byte(data, at + 1, end, np.uint8(_EQUALS))
    return parts == 3


@kernel(inlined=True)
def must_be_cleaned(data, begin, end, needs, secrets):
    """Return whether Python must clean a target that was written: it may hold a secret or identify a person.

    `needs` selects the checks. The result is always False if secrets are kept.
    """
    if needs & (REWRITE | ABSOLUTE):
        needs |= PARAMETERS | NUMBERS
    if needs & (LOOK | PARAMETERS | NUMBERS) == 0 or secrets.kept:
        return False
    if needs & LOOK and is_suspect(data, begin, end, secrets):
        return True
    if needs & PARAMETERS and has_secret(data, begin, end, secrets):
        return True
    return needs & NUMBERS != 0 and holds_number(data, begin, end)
