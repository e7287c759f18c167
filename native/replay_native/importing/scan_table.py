"""The tables that the scanners of lines fill, their state, and the codes of lines."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel

ACCEPTED, BLANK, OTHER_FORMAT, BAD_TIME, NO_METHOD = 0, 1, 2, 3, 4
NO_PATH, BAD_STATUS, BAD_SIZE, TOO_LONG, HEALTH_CHECK = 5, 6, 7, 8, 9
"""What became of a line: its code."""

REWRITE, ABSOLUTE, LOOK, PARAMETERS, NUMBERS, SUSPECT = 1, 2, 4, 8, 16, 32
"""What a target needs. REWRITE: unescaping or encoding. ABSOLUTE: its scheme and host removed. LOOK: a check for values
inside values, credentials, e-mail addresses and tokens, because it has a byte that these have. PARAMETERS: a check of
the names before its `=`. NUMBERS: a check for numbers of phones, cards and accounts, because it has a run of bytes that
is long enough. SUSPECT: Python must clean it, as a check found.

The checks are for a target that is sent as it is in the log. One that is rewritten gets all of them but LOOK.
"""

POSITION, LINES, ROWS, REJECTS, ZONE_MIN, ZONES, USERS, METHODS = 0, 1, 2, 3, 4, 5, 6, 7
FIRST_ZONE_MIN, CACHED_S, CACHED = 8, 9, 10
BREAKS, ALL_THERE, GOES_ON, FORWARDED_LAST = 14, 15, 16, 17
STATE_WORDS = 18
"""Words of the scanner's state: where it is, what it counted, how many methods it knows, the last stamp it parsed.

LINES are records; BREAKS are the line breaks inside them. ALL_THERE: nothing follows the data. GOES_ON: the record at
POSITION may go on after the data. FORWARDED_LAST: lines have `X-Forwarded-For` in quotes after the user agent.
"""

AT_S, METHOD, BEGIN, END, NEEDS, STATUS, BYTES, CLIENT = 0, 1, 2, 3, 4, 5, 6, 7
ROW_COLUMNS = 8
"""Rows of the int64 table that `scan_common` fills, with one column per log line."""

LINE, CODE, LINE_BEGIN, LINE_END = 0, 1, 2, 3
REJECT_COLUMNS = 4
METHODS_MAX, METHOD_BYTES_MAX = 64, 16
LINE_BYTES_MAX = 64 << 10
"""A longer line is rejected."""


@bundle
class Scan(NamedTuple):
    """What a scanner of lines knows, and the tables that it fills."""

    key: Annotated[int, "int64", "key of the hashes of clients"]
    agents: Annotated[Array, "uint8[::1]", "beginnings of the user agents of health checks"]
    agent_ends: Annotated[Array, "int64[::1]", "per agent and one more: where it begins"]
    methods: Annotated[Array, "int64[:, ::1]", "the methods seen so far: their names, two words each"]
    state: Annotated[Array, "int64[::1]", "the scanner's state (STATE_WORDS)"]
    rows: Annotated[Array, "int64[:, ::1]", "one column per accepted line (ROW_COLUMNS)"]
    rejects: Annotated[Array, "int64[:, ::1]", "one column per rejected line (REJECT_COLUMNS)"]


SCAN_TYPE = numba_type(Scan)


@kernel(inlined=True)
def reject_line(rejects, reject, line, code, begin, end):
    """Note a line that is not accepted."""
    rejects[LINE, reject] = line
    rejects[CODE, reject] = code
    rejects[LINE_BEGIN, reject] = begin
    rejects[LINE_END, reject] = end
