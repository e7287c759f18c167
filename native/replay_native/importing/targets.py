"""Kernels that rewrite request targets so that they can be sent.

They undo the escapes of logs, percent-encode bytes that are not allowed in a request line, and split absolute targets
into host and path. They mark targets that may contain a secret or identify a person, so that Python cleans them.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.trace.dictionary import copy_bytes

from .request_line import scheme_end
from .scan_table import ABSOLUTE, BEGIN, END, NEEDS, REWRITE, SUSPECT
from .suspects import SECRETS_TYPE, must_be_cleaned
from .text import hex_value, lowered

_QUOTE, _BACKSLASH, _SLASH = 34, 92, 47
_HEX_DIGITS = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)


@bundle
class TargetsOut(NamedTuple):
    """Memory to which targets and hosts are written."""

    scratch: Annotated[Array, "uint8[::1]", "scratch: four times the longest line"]
    targets: Annotated[Array, "uint8[::1]", "the targets as they are to be sent; four times the block"]
    target_ends: Annotated[Array, "int64[::1]", "per target and one more: where it begins"]
    hosts: Annotated[Array, "uint8[::1]", "the hosts of absolute targets"]
    host_ends: Annotated[Array, "int64[::1]", "per host and one more: where it begins"]


OUT_TYPE = numba_type(TargetsOut)


@kernel(inlined=True)
def encode(byte, out, at):
    """Write one byte of a target, percent-encoded unless it is printable ASCII, and return the offset after it."""
    if 33 <= byte <= 126:
        out[at] = byte
        return at + 1
    out[at] = 37
    out[at + 1] = _HEX_DIGITS[byte >> 4]
    out[at + 2] = _HEX_DIGITS[byte & 15]
    return at + 3


@kernel()
def unescape(data, begin, end, out):
    r"""Write data[begin:end] to `out` without a log's escapes (\" \\ \xHH \n ...), and return the number of bytes.

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


@kernel()
def split_absolute(data, length, hosts, host_at):
    """Append the host of an absolute target to `hosts`, in lower case, with its port and without user info.

    The results are the offset at which its path begins, and the end of `hosts`.
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
    """Write target[:length], whose escapes are undone, and the host of an absolute target.

    A path of an absolute target that does not begin with a slash gets one. The results are the offsets after both.
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
    """Write the targets of `count` scanned rows as they are to be sent, and return how many have a host.

    host_rows[i] is the row of host i. rows[NEEDS] gets SUSPECT if a target must be cleaned.
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
