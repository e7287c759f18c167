"""Lines of pairs cut into fields: logfmt (`method=GET path="/a b"`) and LTSV (`req:GET /a`).

Spaces separate the pairs of logfmt, and tabs those of LTSV.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.simd import find_byte

from .field_spec import AT, DELIMITER
from .json_cut import child_of, string_end
from .scan_table import ACCEPTED, OTHER_FORMAT

_TAB, _QUOTE, _COLON, _EQUALS, _OPENING, _CLOSING = 9, 34, 58, 61, 91, 93


@kernel(inlined=True)
def cut_pairs(data, begin, end, spec, spans):
    """Cut a line of pairs by a FieldSpec into `spans`, and return ACCEPTED or OTHER_FORMAT.

    The keys are those of node 0. Pairs that tabs separate have a colon, and values without quotes. Pairs that
    spaces separate have an `=`, and their values may be quoted. Words that are not a pair are skipped. Of several pairs
    with the same role, the first counts. A stamp in brackets is read without them.
    """
    delimiter = spec.options[DELIMITER]
    tabbed = delimiter == _TAB
    sign = _COLON if tabbed else _EQUALS
    at, pairs = begin, np.int64(0)
    while at < end:
        first = at
        while at < end and data[at] != sign and data[at] != delimiter:
            at += 1
        if at in (end, first) or data[at] == delimiter:
            at += 1
            continue
        child = child_of(data, first, at, spec, np.int64(0))
        at += 1
        if not tabbed and at < end and data[at] == _QUOTE:
            first = at + 1
            last = string_end(data, first, end)
            if last >= end:
                return OTHER_FORMAT
            at = last + 1
        else:
            first = at
            at = last = find_byte(data, at, end, np.uint8(delimiter))
        pairs += 1
        role = spec.child_role[child] if child >= 0 else np.int64(-1)
        if role >= 0 and spans[role, 0] < 0:
            if role == AT and last - first > 2 and data[first] == _OPENING and data[last - 1] == _CLOSING:
                first += 1
                last -= 1
            spans[role, 0], spans[role, 1] = first, last
    return ACCEPTED if pairs > 0 else OTHER_FORMAT
