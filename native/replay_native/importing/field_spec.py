"""The description of a log format: the roles of its fields, its escapes, and the columns that it fills."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from replay_native.ground.bundle import Array, bundle, numba_type

from .scan_table import AT_S, STATE_WORDS

AT, AT_MORE, REQUEST, METHOD_NAME, TARGET, QUERY, HOST, CLIENT_NAME = 0, 1, 2, 3, 4, 5, 6, 7
STATUS_CODE, SIZE, TOOK, TOOK_2, TOOK_3, AGENT = 8, 9, 10, 11, 12, 13
FORWARDED, CLIENT_OTHER = 14, 15
ROLES = 16
"""Roles of fields.

AT_MORE is the time of day when AT is only the date. Durations are added up. The client is the first address of
FORWARDED (`X-Forwarded-For`) if a line has one, else CLIENT_NAME, else CLIENT_OTHER.
"""

AT_NS = AT_S
TOOK_NS, HOST_BEGIN, HOST_END, QUERY_BEGIN, QUERY_END = 8, 9, 10, 11, 12
HOST_NUMBER = HOST_BEGIN
ZONED = 13
FIELD_COLUMNS = 14
"""The columns of `scan_table`, with the time in nanoseconds, and further columns.

BEGIN is -1 when the target is constant. ZONED is 1 when the stamp has a time zone or needs none.
"""

TEMPLATE, DELIMITED, JSON, PAIRS = 0, 1, 2, 3
PLAIN, LOG, DOUBLED, JSON_ESCAPES, HASHED, QUOTED = 0, 1, 2, 3, 4, 5
r"""How fields are escaped.

PLAIN: not at all. LOG: with backslashes. DOUBLED: quotes are doubled. JSON_ESCAPES: as in JSON, or as nginx escapes
in JSON (`\x22`). HASHED: as HAProxy escapes (`#22`). QUOTED: quotes are doubled, and a field whose quote does not
close is read verbatim (W3C).
"""

DIRECTIVE, UNCLOSED, BAD_ESCAPE = 11, 12, 13
"""Further codes of lines.

DIRECTIVE: the line begins with the format's comment sign. UNCLOSED: a quote does not close. BAD_ESCAPE: the target
has an escape that its format does not have.
"""

CUTTER, DELIMITER, ESCAPES, TOOK_UNIT_NS, AT_UNIT_NS, CONSTANT_METHOD, CONSTANT_TARGET = 0, 1, 2, 3, 4, 5, 6
PORTED, COMMENT, CONSTANT_STATUS, DECIMAL, PADDED, STAMP_MIN_NS = 7, 8, 9, 10, 11, 12
OPTIONS = 13
"""Options.

DECIMAL: a second decimal point besides `.`. PADDED: spaces around a field of a template do not belong to it.
STAMP_MIN_NS: a bare number below this time is not a stamp. TOOK_UNIT_NS: 0 means that durations must have a unit.
AT_UNIT_NS: 0 means that the size of a bare number decides its unit.
"""

FINEST_NS, LARGEST, ZONELESS = STATE_WORDS, STATE_WORDS + 1, STATE_WORDS + 2
DATE_CACHED, DATE_DAYS = STATE_WORDS + 3, STATE_WORDS + 5
UNCUT = STATE_WORDS + 6
UNKNOWN_STATUS, UNKNOWN_SIZE, UNKNOWN_TOOK = STATE_WORDS + 7, STATE_WORDS + 8, STATE_WORDS + 9
ZONELESS_ROWS = STATE_WORDS + 10
FIELD_STATE_WORDS = STATE_WORDS + 11
"""Further words of the scanner's state.

FINEST_NS is the finest resolution seen, LARGEST the largest bare number. ZONELESS is 1 if any stamp had no zone.
UNCUT is the start of the part of a delimited line that was not cut. DATE_* cache the last date. UNKNOWN_* count
values that are not a status, a size or a duration. ZONELESS_ROWS counts the rows whose stamp has no zone.
"""


@bundle
class FieldSpec(NamedTuple):
    """The description of a format.

    TEMPLATE: field i has roles[i] and is between the literals i and i + 1. DELIMITED: column i has roles[i]. JSON:
    keys lead from node to node, or to values. PAIRS: keys as in JSON, all of them in node 0.
    """

    options: Annotated[Array, "int64[::1]", "see OPTIONS"]
    literals: Annotated[Array, "uint8[::1]", "the literals between the fields of a template"]
    literal_ends: Annotated[Array, "int64[::1]", "per literal and one more: where it begins"]
    roles: Annotated[Array, "int64[::1]", "per field or column: its role, -1 for none"]
    keys: Annotated[Array, "uint8[::1]", "the keys of JSON and pairs"]
    key_ends: Annotated[Array, "int64[::1]", "per key and one more: where it begins"]
    child_first: Annotated[Array, "int64[::1]", "per node and one more: its first key"]
    child_node: Annotated[Array, "int64[::1]", "per key: the node that it leads to, -1 for none"]
    child_role: Annotated[Array, "int64[::1]", "per key: the role of its value, -1 for none"]
    parents: Annotated[Array, "int64[::1]", "per node: the node above, -1 for the root"]


@bundle
class Scratch(NamedTuple):
    """Working memory of a cutter.

    `gaps` and `gap_text` are kept from line to line. They must be zeroed when the spec changes.
    """

    spans: Annotated[Array, "int64[:, ::1]", "per role: where its field begins and ends, -1 for none"]
    gaps: Annotated[Array, "int64[:, ::1]", "the bytes between two values of JSON; see `json_cut`"]
    gap_text: Annotated[Array, "uint8[::1]", "the bytes of each gap"]
    number: Annotated[Array, "int64[::1]", "a decimal number that is being read: three words"]


SPEC_TYPE, SCRATCH_TYPE = numba_type(FieldSpec), numba_type(Scratch)
