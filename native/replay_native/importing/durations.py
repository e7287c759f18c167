"""Kernels that read the durations in log fields, in the notations and units that logs use."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel

from .field_spec import DECIMAL, TOOK, TOOK_3, TOOK_NS, TOOK_UNIT_NS, UNKNOWN_TOOK
from .numbers import is_none, number_at, scaled

_SPACE, _DASH, _PLUS = 32, 45, 43
_NS = np.int64(1_000_000_000)
_TOOK_NS_MAX = 1e18


@kernel(inlined=True)
def _is_escaped_micro(data, at, end):
    r"""Return whether `\u00b5s` or `\u03bcs` is at `at`, which is the unit µs with JSON escapes."""
    if end - at < 7 or data[at] != 92 or data[at + 1] != 117 or data[at + 2] != 48 or data[at + 6] != 115:
        return False
    last = data[at + 5] | 32
    if data[at + 3] == 48:
        return (data[at + 4] | 32) == 98 and last == 53
    return data[at + 3] == 51 and (data[at + 4] | 32) == 98 and last == 99


@kernel()
def _unit(data, at, end, unit_ns):
    """Read a unit (`s`, `ms`, `us`, `µs`, `ns`, `m`, `h`), and return its length in ns and where it ends.

    The length is `unit_ns` at the end of the field, and 0 for an unknown unit.
    """
    if at == end:
        return unit_ns, at
    first = data[at]
    following = data[at + 1] if at + 1 < end else np.uint8(0)
    if first == 115:
        return _NS, at + 1
    if first == 109:
        return (np.int64(1_000_000), at + 2) if following == 115 else (60 * _NS, at + 1)
    if first == 104:
        return 3600 * _NS, at + 1
    if first == 117 and following == 115:
        return np.int64(1_000), at + 2
    if first == 110 and following == 115:
        return np.int64(1), at + 2
    if first in (0xC2, 0xCE) and at + 2 < end and data[at + 2] == 115:
        return np.int64(1_000), at + 3
    if _is_escaped_micro(data, at, end):
        return np.int64(1_000), at + 7
    return np.int64(0), at


@kernel()
def _took_in_full(data, begin, end, unit_ns, point, number):
    """Read a duration (`1.5`, `12ms`, `1m30s`), and return it in ns.

    -1 means that the log has no duration here (an empty field, `-`, `-1`), -2 that the value is not a duration.
    `unit_ns` is the unit of a number without one.
    """
    if is_none(data, begin, end):
        return np.int64(-1)
    if data[begin] == _PLUS:
        begin += 1
    negative = begin < end and data[begin] == _DASH
    at, total = begin + negative, np.int64(0)
    while True:
        first = at
        at = number_at(data, at, end, point, number)
        if 0 <= at < end and (data[at] | 32) == 101:
            at = scaled(data, at, end, number)
        if at < 0:
            return np.int64(-2)
        if negative:
            return np.int64(-1) if at == end and number[0] == 1 and number[1] == 0 else np.int64(-2)
        while at < end and data[at] == _SPACE:
            at += 1
        part_ns, at = _unit(data, at, end, unit_ns if first <= begin else np.int64(0))
        if part_ns == 0 or np.float64(number[0]) * np.float64(part_ns) > _TOOK_NS_MAX:
            return np.int64(-2)
        total += number[0] * part_ns + number[1] * part_ns // _NS
        if total > np.int64(_TOOK_NS_MAX):
            return np.int64(-2)
        if at == end:
            return total


@kernel(inlined=True)
def _took(data, begin, end, unit_ns, point, number):
    """Read a duration as `_took_in_full` does, with a fast path for plain numbers, which most durations are."""
    plain = end > begin and number_at(data, begin, end, point, number) == end
    if plain and unit_ns > 0 and np.float64(number[0]) * np.float64(unit_ns) <= _TOOK_NS_MAX:
        return number[0] * unit_ns + number[1] * unit_ns // _NS
    return _took_in_full(data, begin, end, unit_ns, point, number)


@kernel(inlined=True)
def read_took(data, spec, spans, state, rows, row, number):
    """Write the sum of a line's durations to rows[TOOK_NS, row], or -1 if it has none or one is unknown.

    state[UNKNOWN_TOOK] counts the values that are no durations.
    """
    total = np.int64(-1)
    for role in range(TOOK, TOOK_3 + 1):
        if spans[role, 0] < 0:
            continue
        part = _took(
            data, spans[role, 0], spans[role, 1], spec.options[TOOK_UNIT_NS], spec.options[DECIMAL], number
        )
        if part < 0:
            total = np.int64(-1)
            state[UNKNOWN_TOOK] += part == -2
            break
        total = max(total, np.int64(0)) + part
    rows[TOOK_NS, row] = total
