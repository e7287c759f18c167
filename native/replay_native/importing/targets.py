"""Request targets rewritten so that they can be sent.

Escapes of logs are undone, bytes that may not stand in a request line percent-encoded, and absolute targets split into
host and path. Targets that may hold a secret, or say who asked, are named: Python puts pseudonyms into them.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.trace.dictionary import copy_bytes

from .common_log import (
    ABSOLUTE,
    BEGIN,
    END,
    LOOK,
    NEEDS,
    PARAMETERS,
    REWRITE,
    SUSPECT,
    lowered,
    scheme_end,
    word_at,
    zero_bytes,
)

_QUOTE, _BACKSLASH, _DASH, _SLASH, _SEMICOLON, _QUESTION = 34, 92, 45, 47, 59, 63
PARAMETER_BYTES_MAX = 64
"""Bytes of a parameter's name that are compared with those of secrets."""

FIRST_KEYS = 257
"""Where the keys begin in `key_ends` (see `is_secret_name`)."""

_HEX_DIGITS = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)
_ONES = np.int64(0x0101010101010101)
_EQUALS = _ONES * 61
_STRIDE = 7
"""Of any number with this many digits at least one is looked at."""
PHONE_DIGITS, CARD_DIGITS, IBAN_BYTES = 8, 13, 15
"""The fewest of a phone number behind its `+`, of a card number, of an account number."""
_NESTS = np.zeros(256, dtype=np.uint8)
_NESTS[[0x22, 0x25, 0x26, 0x27, 0x3A, 0x3B, 0x3D, 0x3F, 0x40, 0x5C, 0x7B]] = 1
"""Bytes that separate or nest values, looked for where they are percent-encoded: `"`, `%`, `&`, `'`, `:`, `;`, `=`,
`?`, `@`, backslash, `{`.
"""


@bundle
class Secrets(NamedTuple):
    """Which parameters are secret."""

    keys: Annotated[Array, "uint8[::1]", "the names, sorted by their last byte"]
    key_ends: Annotated[Array, "int64[::1]", "where each name begins; see `is_secret_name`"]
    kept: Annotated[bool, "boolean", "secrets are kept"]
    name: Annotated[Array, "uint8[::1]", "scratch: the name of a parameter (PARAMETER_BYTES_MAX)"]


@bundle
class TargetsOut(NamedTuple):
    """Where targets and hosts are written."""

    scratch: Annotated[Array, "uint8[::1]", "scratch: four times the longest line"]
    targets: Annotated[Array, "uint8[::1]", "the targets as they are to be sent; four times the block"]
    target_ends: Annotated[Array, "int64[::1]", "per target and one more: where it begins"]
    hosts: Annotated[Array, "uint8[::1]", "the hosts of absolute targets"]
    host_ends: Annotated[Array, "int64[::1]", "per host and one more: where it begins"]


SECRETS_TYPE, OUT_TYPE = numba_type(Secrets), numba_type(TargetsOut)


@kernel(inlined=True)
def hex_value(byte):
    """The value of a hexadecimal digit, or -1."""
    if 48 <= byte <= 57:
        return np.int64(byte) - 48
    byte = lowered(byte)
    return np.int64(byte) - 87 if 97 <= byte <= 102 else np.int64(-1)


@kernel(inlined=True)
def encode(byte, out, at):
    """Write one byte of a target, percent-encoded unless it is printable ASCII; the offset after it."""
    if 33 <= byte <= 126:
        out[at] = byte
        return at + 1
    out[at] = 37
    out[at + 1] = _HEX_DIGITS[byte >> 4]
    out[at + 2] = _HEX_DIGITS[byte & 15]
    return at + 3


@kernel()
def unescape(data, begin, end, out):
    r"""Write data[begin:end] to `out` with a log's escapes (\" \\ \xHH \n ...) undone; the bytes written.

    Spaces, control characters and bytes beyond ASCII are percent-encoded.
    """
    at = np.int64(0)
    while begin < end:
        byte = np.int64(data[begin])
        if byte == _BACKSLASH and begin + 1 < end:
            escape = data[begin + 1]
            begin += 2
            if escape == 120 and begin + 1 < end:
                high, low = hex_value(data[begin]), hex_value(data[begin + 1])
                if high >= 0 and low >= 0:
                    at = encode(high * 16 + low, out, at)
                    begin += 2
                    continue
            if escape in (_QUOTE, _BACKSLASH):
                out[at] = escape
                at += 1
                continue
            control = 0
            if escape == 110:
                control = 10
            elif escape == 116:
                control = 9
            elif escape == 114:
                control = 13
            elif escape == 98:
                control = 8
            elif escape == 118:
                control = 11
            elif escape == 102:
                control = 12
            if control:
                at = encode(control, out, at)
                continue
            out[at] = _BACKSLASH
            at += 1
            byte = np.int64(escape)
            begin -= 1
        begin += 1
        at = encode(byte, out, at)
    return at


@kernel(inlined=True)
def _ends_name(byte):
    """Whether a name may begin behind this byte: a control character, a space, a sign, or no ASCII."""
    return not (48 <= byte <= 57 or 97 <= byte <= 122)


@kernel()
def is_secret_name(data, begin, end, secrets):
    """Whether a parameter's name may be a key, or end with one. Python then decides where a name begins.

    Names are compared in lower case, percent-decoded, without the marks `- _ . [ ]` and without digits, blanks and
    signs at the end. The keys are sorted by their last byte: key_ends[byte] is the first that ends with it. After
    these, key_ends[FIRST_KEYS + key] is twice the place where a key begins in `keys`, plus 1 where something may come
    before it.
    """
    keys, key_ends, name = secrets.keys, secrets.key_ends, secrets.name
    length = 0
    at = begin
    while at < end and length < name.shape[0]:
        byte = data[at]
        if byte == 37 and at + 2 < end:
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
    """Whether `eyJ`, the beginning of a JSON Web Token, ends at `at`."""
    return data[at] == 74 and at > begin + 1 and data[at - 1] == 121 and data[at - 2] == 101


@kernel()
def is_suspect(data, begin, end):
    """Whether a target may hold a value inside a value, an e-mail address or a JSON Web Token. Python then checks it."""
    for at in range(begin, end):
        byte = np.int64(data[at])
        if byte in (64, _QUOTE) or _begins_token(data, at, begin):
            return True
        if byte == 37 and at + 2 < end:
            high, low = hex_value(data[at + 1]), hex_value(data[at + 2])
            if high >= 0 and low >= 0 and _NESTS[high * 16 + low]:
                return True
        elif byte == 58 and at > begin and 97 <= lowered(data[at - 1]) <= 122:
            return True
    return False


@kernel(inlined=True)
def _in_number(byte):
    """Whether a byte may stand in a card or account number: a digit, a capital or a dash."""
    return 48 <= byte <= 57 or 65 <= byte <= 90 or byte == _DASH


@kernel()
def _is_number(data, place, begin, end):
    """Whether the number around `place` may be that of a phone, a card or an account."""
    first, last, digits = place, place, np.int64(0)
    while first > begin and _in_number(data[first - 1]):
        first -= 1
    while last < end and _in_number(data[last]):
        last += 1
    for at in range(first, last):
        digits += 48 <= data[at] <= 57
    if digits >= PHONE_DIGITS and first > begin and data[first - 1] in (43, 37):
        return True
    if digits >= CARD_DIGITS and 50 <= data[first] <= 54:
        return True
    return last - first >= IBAN_BYTES and data[first] >= 65 and data[first + 1] >= 65


@kernel()
def holds_number(data, begin, end):
    """Whether a target may hold the number of a phone, a card or an account."""
    for place in range(begin + _STRIDE - 1, end, _STRIDE):
        if 48 <= data[place] <= 57 and _is_number(data, place, begin, end):
            return True
    return False


@kernel(inlined=True)
def _next_equals(data, at, end):
    """Where the next `=` is; `end` where there is none."""
    while at + 8 <= end and zero_bytes(word_at(data, at) ^ _EQUALS) == 0:
        at += 8
    while at < end and data[at] != 61:
        at += 1
    return at


@kernel(inlined=True)
def _name_begins(data, at, begin):
    """Where the name before a `=` begins: behind `/ ? & ; # =`."""
    while at > begin:
        byte = data[at - 1]
        if byte in (_SLASH, 63, 38, 59, 35, 61):
            break
        at -= 1
    return at


@kernel()
def has_secret(data, begin, end, secrets):
    """Whether a target has a secret name before a `=`, in its path, its query or inside a value."""
    at = _next_equals(data, begin, end)
    while at + 1 < end:
        if is_secret_name(data, _name_begins(data, at, begin), at, secrets):
            return True
        at = _next_equals(data, at + 1, end)
    return False


@kernel(inlined=True)
def must_be_cleaned(data, begin, end, needs, secrets):
    """Whether Python must look at a written target: it may hold a secret, or say who asked."""
    if secrets.kept:
        return False
    if needs & (PARAMETERS | REWRITE | ABSOLUTE) and has_secret(data, begin, end, secrets):
        return True
    return (needs & LOOK and is_suspect(data, begin, end)) or holds_number(data, begin, end)


@kernel()
def split_absolute(data, length, hosts, host_at):
    """Append the host of an absolute target, without user info, to `hosts`. Returns where its path begins, and the end
    of `hosts`.
    """
    begin = scheme_end(data, 0, length)
    at = begin
    while at < length and data[at] != _SLASH and data[at] != 63 and data[at] != 35:
        if data[at] == 64:
            begin = at + 1
        at += 1
    for index in range(begin, at):
        hosts[host_at] = lowered(data[index])
        host_at += 1
    return at, host_at


@kernel()
def put_unescaped(target, length, needs, out, at, host_at):
    """Write target[:length], whose escapes are undone, and the host of an absolute one. Returns the offsets after
    both.
    """
    begin = np.int64(0)
    if needs & ABSOLUTE:
        begin, host_at = split_absolute(target, length, out.hosts, host_at)
        if begin == length or target[begin] != _SLASH:
            out.targets[at] = _SLASH
            at += 1
    return copy_bytes(target, begin, length, out.targets, at), host_at


@kernel(
    types.int64(types.uint8[::1], types.int64[:, ::1], types.int64, SECRETS_TYPE, OUT_TYPE, types.int64[::1])
)
def write_targets(data, rows, count, secrets, out, host_rows):
    """Write the targets of `count` scanned rows as they are to be sent. Returns how many named a host; `host_rows`
    says which.

    rows[NEEDS] gets SUSPECT where a target must be cleaned.
    """
    at, named = np.int64(0), np.int64(0)
    targets, target_ends, host_ends = out.targets, out.target_ends, out.host_ends
    target_ends[0] = 0
    host_ends[0] = 0
    for row in range(count):
        begin, end, needs = rows[BEGIN, row], rows[END, row], rows[NEEDS, row]
        first = at
        if needs & (REWRITE | ABSOLUTE) == 0:
            at = copy_bytes(data, begin, end, targets, at)
        else:
            length = unescape(data, begin, end, out.scratch)
            at, host_end = put_unescaped(out.scratch, length, needs, out, at, host_ends[named])
            if needs & ABSOLUTE:
                host_ends[named + 1] = host_end
                host_rows[named] = row
                named += 1
        if must_be_cleaned(targets, first, at, needs, secrets):
            rows[NEEDS, row] = needs | SUSPECT
        target_ends[row + 1] = at
    return named
