"""Kernels that cut a line into fields, by a template of literals (`log_format` strings) or at a delimiter."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.simd import find_byte

from .field_spec import AT, DELIMITER, DOUBLED, ESCAPES, PADDED, QUOTED, UNCLOSED, UNCUT
from .scan_table import ACCEPTED, OTHER_FORMAT
from .text import digits

_SPACE, _QUOTE, _BACKSLASH, _DASH, _COLON, _PLUS = 32, 34, 92, 45, 58, 43


@kernel(inlined=True)
def _is_at(data, at, end, literals, first, last):
    """Return whether literals[first:last] is at `at`."""
    if end - at < last - first:
        return False
    same = True
    for index in range(last - first):
        same = same and data[at + index] == literals[first + index]
    return same


@kernel()
def _field_end(data, at, end, literals, first, last, quoted):
    """Return where the literal after a field begins, or -1 if the literal is missing.

    An empty literal means that the field is the last one, and the result is `end`. An escaped quote does not end a
    quoted field.
    """
    if first == last:
        return end
    while True:
        at = find_byte(data, at, end, literals[first])
        if at >= end:
            return np.int64(-1)
        if _is_at(data, at, end, literals, first, last):
            slashes = np.int64(0)
            while quoted and data[at - 1 - slashes] == _BACKSLASH:
                slashes += 1
            if slashes & 1 == 0:
                return at
        at += 1


@kernel(inlined=True)
def _stamp_goes_on(data, begin, last, end):
    """Return whether a stamp continues after the space at `last`, with a zone or with the time of day after a date."""
    if end - last < 6 or data[last] != _SPACE:
        return False
    zoned = data[last + 1] in (_PLUS, _DASH) and digits(data, last + 2, 4) >= 0
    return zoned or (last - begin == 10 and data[begin + 4] == _DASH and data[last + 3] == _COLON)


@kernel(inlined=True)
def cut_template(data, begin, end, spec, spans):
    """Cut a line by a template into `spans`, and return ACCEPTED or OTHER_FORMAT."""
    ends, literals = spec.literal_ends, spec.literals
    if not _is_at(data, begin, end, literals, ends[0], ends[1]):
        return OTHER_FORMAT
    at = begin + ends[1] - ends[0]
    padded = spec.options[PADDED] != 0
    for field in range(spec.roles.shape[0]):
        quoted = ends[field + 1] > ends[field] and literals[ends[field + 1] - 1] == _QUOTE
        while padded and not quoted and at < end and data[at] == _SPACE:
            at += 1
        last = _field_end(data, at, end, literals, ends[field + 1], ends[field + 2], quoted)
        if last < 0:
            return OTHER_FORMAT
        role = spec.roles[field]
        if role == AT and _stamp_goes_on(data, at, last, end):
            last = _field_end(data, last + 1, end, literals, ends[field + 1], ends[field + 2], quoted)
            if last < 0:
                return OTHER_FORMAT
        if role >= 0:
            until = last
            while padded and not quoted and until > at and data[until - 1] == _SPACE:
                until -= 1
            spans[role, 0], spans[role, 1] = at, until
        at = last + ends[field + 2] - ends[field + 1]
    return ACCEPTED


@kernel(inlined=True)
def cut_delimited(data, begin, end, spec, state, spans):
    """Cut a line at its delimiters into `spans`, and return ACCEPTED, OTHER_FORMAT or UNCLOSED.

    With DOUBLED or QUOTED escapes, fields may be quoted, and then contain delimiters and doubled quotes. With DOUBLED
    escapes, spaces around a field do not belong to it. Unless the result is OTHER_FORMAT, state[UNCUT] is set to the
    start of the part that was not cut.
    """
    delimiter = spec.options[DELIMITER]
    lenient = spec.options[ESCAPES] == QUOTED
    trims = spec.options[ESCAPES] == DOUBLED
    quotes = trims or lenient
    at = begin
    for column in range(spec.roles.shape[0]):
        if at > end:
            return OTHER_FORMAT
        while trims and at < end and data[at] == _SPACE:
            at += 1
        first = at
        last = np.int64(-1)
        if quotes and at < end and data[at] == _QUOTE:
            first = at + 1
            last = find_byte(data, first, end, np.uint8(_QUOTE))
            while last + 1 < end and data[last + 1] == _QUOTE:
                last = find_byte(data, last + 2, end, np.uint8(_QUOTE))
            at = last + 1
            while trims and at < end and data[at] == _SPACE:
                at += 1
            if lenient and (last >= end or (at < end and data[at] != delimiter)):
                first -= 1
                last = np.int64(-1)
            elif last >= end:
                state[UNCUT] = first - 1
                return UNCLOSED
            elif at < end and data[at] != delimiter:
                return OTHER_FORMAT
        if last < 0:
            at = first
            at = last = find_byte(data, at, end, np.uint8(delimiter))
            while trims and last > first and data[last - 1] == _SPACE:
                last -= 1
        role = spec.roles[column]
        if role >= 0:
            spans[role, 0], spans[role, 1] = first, last
        at += 1
    state[UNCUT] = at
    return ACCEPTED
