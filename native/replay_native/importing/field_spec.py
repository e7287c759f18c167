"""What a format of cut fields looks like: the roles of fields, how they are escaped, the columns that are filled."""

from __future__ import annotations

from collections import namedtuple

from numba import types

from replay_native.ground.bundle import bundle_type

from .common_log import AT_S, STATE_WORDS

AT, AT_MORE, REQUEST, METHOD_NAME, TARGET, QUERY, HOST, CLIENT_NAME = 0, 1, 2, 3, 4, 5, 6, 7
STATUS_CODE, SIZE, TOOK, TOOK_2, TOOK_3, AGENT = 8, 9, 10, 11, 12, 13
FORWARDED, CLIENT_OTHER = 14, 15
ROLES = 16
"""What a field is. AT_MORE is the time of day where AT is the date alone; durations are added up. The client is the first
address of FORWARDED (`X-Forwarded-For`) where a line has one, or CLIENT_NAME, or CLIENT_OTHER.
"""

AT_NS = AT_S
TOOK_NS, HOST_BEGIN, HOST_END, QUERY_BEGIN, QUERY_END = 8, 9, 10, 11, 12
HOST_NUMBER = HOST_BEGIN
ZONED = 13
FIELD_COLUMNS = 14
"""The columns of `scan`, their time in nanoseconds, and some more. BEGIN is -1 where the target is constant. ZONED: the
stamp names its zone, or needs none.
"""

TEMPLATE, DELIMITED, JSON, PAIRS = 0, 1, 2, 3
PLAIN, LOG, DOUBLED, JSON_ESCAPES, HASHED, QUOTED = 0, 1, 2, 3, 4, 5
"""How a field is escaped: not at all; as logs do; quotes doubled; as JSON does, or as nginx does in JSON (`\\x22`); as
HAProxy does (`#22`); quotes doubled, and a field whose quote does not close is taken as it is (W3C).
"""

DIRECTIVE, UNCLOSED, BAD_ESCAPE = 11, 12, 13
"""More of what may become of a line; DIRECTIVE is a line that begins with the format's comment sign, UNCLOSED one with
a quote that does not close, BAD_ESCAPE one whose target has an escape that its format does not know.
"""

CUTTER, DELIMITER, ESCAPES, TOOK_UNIT_NS, AT_UNIT_NS, CONSTANT_METHOD, CONSTANT_TARGET = 0, 1, 2, 3, 4, 5, 6
PORTED, COMMENT, CONSTANT_STATUS, DECIMAL, PADDED, STAMP_MIN_NS = 7, 8, 9, 10, 11, 12
OPTIONS = 13
"""DECIMAL is the mark that is a decimal point beside `.`; PADDED: spaces before a field of a template are no part of it;
STAMP_MIN_NS: a bare number that is an earlier moment is no stamp. A TOOK_UNIT_NS of 0: durations must name their unit.
"""

FINEST_NS, LARGEST, ZONELESS = STATE_WORDS, STATE_WORDS + 1, STATE_WORDS + 2
DATE_CACHED, DATE_DAYS = STATE_WORDS + 3, STATE_WORDS + 5
UNCUT = STATE_WORDS + 6
UNKNOWN_STATUS, UNKNOWN_SIZE, UNKNOWN_TOOK = STATE_WORDS + 7, STATE_WORDS + 8, STATE_WORDS + 9
ZONELESS_ROWS = STATE_WORDS + 10
FIELD_STATE_WORDS = STATE_WORDS + 11
"""Beside the scanner's state: the finest resolution seen, the largest bare number, whether a stamp had no zone,
the date parsed last, where the column begins from which on a delimited line was not cut. UNKNOWN_* count the values of
rows that are no status, size or duration, ZONELESS_ROWS the rows whose stamp names no zone.
"""

FieldSpec = namedtuple(
    "FieldSpec",
    "options literals literal_ends roles keys key_ends child_first child_node child_role parents agents agent_ends",
)
"""What a format looks like. options int64[OPTIONS].

TEMPLATE: field i has roles[i] and stands between literals i and i + 1, literals[literal_ends[i]:literal_ends[i +
1]]. DELIMITED: column i has roles[i]. JSON: the keys of node n are child_first[n] to child_first[n + 1]; key k is
keys[key_ends[k]:key_ends[k + 1]] and leads to node child_node[k] or is a value of child_role[k] (-1: neither);
parents[n] is the node above n, -1 for the root. PAIRS: keys as JSON has them, all of node 0.
"""

SPEC_TYPE = bundle_type(
    FieldSpec,
    [
        types.int64[::1], types.uint8[::1], types.int64[::1], types.int64[::1], types.uint8[::1], types.int64[::1],
        types.int64[::1], types.int64[::1], types.int64[::1], types.int64[::1], types.uint8[::1], types.int64[::1],
    ],
)  # fmt: skip
