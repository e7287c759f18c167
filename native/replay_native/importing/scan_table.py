"""The tables that the line scanners fill, their state, and the codes of lines."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel

ACCEPTED, BLANK, OTHER_FORMAT, BAD_TIME, NO_METHOD = 0, 1, 2, 3, 4
NO_PATH, BAD_STATUS, BAD_SIZE, TOO_LONG, HEALTH_CHECK = 5, 6, 7, 8, 9
"""The code of a line: whether it was accepted, or why it was rejected."""

REWRITE, ABSOLUTE, LOOK, PARAMETERS, NUMBERS, SUSPECT = 1, 2, 4, 8, 16, 32
"""What a target needs before it can be sent.

REWRITE: unescaping or encoding. ABSOLUTE: removal of its scheme and host. LOOK: a check for values inside values,
credentials, e-mail addresses and tokens, because it has a byte that these have. PARAMETERS: a check of the names
before its `=`. NUMBERS: a check for phone, card and account numbers, because it has a long enough run of bytes that
such numbers have. SUSPECT: a check matched, so that Python must clean the target.

LOOK, PARAMETERS and NUMBERS describe the target as it is in the log. A target that is rewritten gets the last two
checks in any case.
"""

POSITION, LINES, ROWS, REJECTS, ZONE_MIN, ZONES, USERS, METHODS = 0, 1, 2, 3, 4, 5, 6, 7
FIRST_ZONE_MIN, CACHED_S, CACHED = 8, 9, 10
BREAKS, ALL_THERE, GOES_ON, FORWARDED_LAST = 14, 15, 16, 17
STATE_WORDS = 18
"""Words of the scanner's state: its position, its counts, the number of known methods, and the last stamp.

LINES counts records, BREAKS the line breaks inside them. ALL_THERE is 1 when nothing follows the data. GOES_ON is 1
when the record at POSITION may continue after the data. FORWARDED_LAST is 1 when lines have `X-Forwarded-For` in
quotes after the user agent.
"""

AT_S, METHOD, BEGIN, END, NEEDS, STATUS, BYTES, CLIENT = 0, 1, 2, 3, 4, 5, 6, 7
ROW_COLUMNS = 8
"""Rows of the int64 table that `scan_common` fills. The table has one column per accepted line."""

LINE, CODE, LINE_BEGIN, LINE_END = 0, 1, 2, 3
REJECT_COLUMNS = 4
METHODS_MAX, METHOD_BYTES_MAX = 64, 16
LINE_BYTES_MAX = 64 << 10
"""Maximum length of a line. A longer line is rejected."""


@bundle
class Scan(NamedTuple):
    """Inputs of a line scanner, and the tables that it fills."""

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
    """Write a line that is not accepted, as column `reject`, to the table of rejects."""
    rejects[LINE, reject] = line
    rejects[CODE, reject] = code
    rejects[LINE_BEGIN, reject] = begin
    rejects[LINE_END, reject] = end
