"""Log lines of every format but the common one, read into columns: cut a line into fields, then read the fields.

There are four cutters: for a template of literals and fields (`log_format` strings), for a delimiter with quotes
(CSV, W3C), for pairs of keys and values (logfmt, LTSV), and for JSON objects. Each finds where the fields of a line
are, by role. One reader, the same for all cutters, makes a row of the fields.
"""

from __future__ import annotations

import numpy as np
from numba import types

from replay_native.ground.jit import kernel
from replay_native.ground.simd import find_byte
from replay_native.trace.dictionary import hash_bytes

from .clients import client_end, first_address, is_health_check
from .csv_record import UNDECIDED, line_end, record_end
from .cutters import cut_delimited, cut_template
from .durations import read_took
from .field_spec import (
    AGENT,
    BAD_ESCAPE,
    CLIENT_NAME,
    CLIENT_OTHER,
    COMMENT,
    CONSTANT_METHOD,
    CONSTANT_STATUS,
    CONSTANT_TARGET,
    CUTTER,
    DELIMITED,
    DELIMITER,
    DIRECTIVE,
    DOUBLED,
    ESCAPES,
    FORWARDED,
    HASHED,
    HOST,
    HOST_BEGIN,
    JSON_ESCAPES,
    METHOD_NAME,
    PAIRS,
    PORTED,
    QUERY,
    QUERY_BEGIN,
    REQUEST,
    SCRATCH_TYPE,
    SIZE,
    SPEC_TYPE,
    STATUS_CODE,
    TARGET,
    TEMPLATE,
    UNCUT,
    UNKNOWN_SIZE,
    UNKNOWN_STATUS,
    ZONED,
    ZONELESS_ROWS,
)
from .json_cut import cut_json
from .numbers import is_none, is_nothing
from .pairs_cut import cut_pairs
from .request_line import method_number, target, without_version
from .scan_table import (
    ACCEPTED,
    ALL_THERE,
    BAD_TIME,
    BEGIN,
    BLANK,
    BREAKS,
    BYTES,
    CLIENT,
    END,
    GOES_ON,
    HEALTH_CHECK,
    LINE_BYTES_MAX,
    LINES,
    LOOK,
    METHOD,
    NEEDS,
    NO_METHOD,
    OTHER_FORMAT,
    POSITION,
    REJECTS,
    REWRITE,
    ROWS,
    SCAN_TYPE,
    STATUS,
    TOO_LONG,
    reject_line,
)
from .text import behind_zeros, digits, hex_value
from .times import read_time

_SPACE, _QUOTE, _BACKSLASH, _DASH, _SLASH, _COMMA, _HASH, _PLUS, _NEWLINE, _RETURN = (
    32,
    34,
    92,
    45,
    47,
    44,
    35,
    43,
    10,
    13,
)


@kernel()
def _whole(data, at, end):
    """Return whether nothing but a fraction of zeros (`.0`) follows the integer that ends at `at`.

    Programs that have no integers write such a fraction.
    """
    if at < end and data[at] in (46, _COMMA):
        at += 1
        while at < end and data[at] == 48:
            at += 1
    return at == end


@kernel()
def _status(data, begin, end):
    """Read a status (`200`, `200.0`, `200 OK`).

    0 means that the server sent no status, -1 that the value is not a status.
    """
    if end - begin < 3:
        return np.int64(0) if end - begin == 1 and data[begin] == 48 else np.int64(-1)
    status = digits(data, begin, 3)
    if 0 < status < 100:
        return np.int64(-1)
    behind = begin + 3
    if behind < end and data[behind] != _SPACE and not _whole(data, behind, end):
        return np.int64(-1)
    return status


@kernel()
def _size(data, begin, end):
    """Read a number of bytes (`12`, `12.0`), and return it, or -1 if the value is not one."""
    begin += data[begin] == _PLUS
    at = begin
    while at < end and at - begin < 19 and 48 <= data[at] <= 57:
        at += 1
    if not 0 < at - begin <= 18 or not _whole(data, at, end):
        return np.int64(-1)
    return digits(data, begin, at - begin)


@kernel(inlined=True)
def _read_answer(data, spec, spans, state, rows, row):
    """Read the status and the size of the response into column `row`.

    An invalid value counts as unknown, because a replay does not need it.
    """
    begin, end = spans[STATUS_CODE, 0], spans[STATUS_CODE, 1]
    status = spec.options[CONSTANT_STATUS] if begin < 0 else np.int64(-1)
    if not is_none(data, begin, end) and data[begin] != _DASH:
        status = digits(data, begin, 3) if end - begin == 3 else np.int64(-1)
        if status < 100:
            status = _status(data, begin, end)
        state[UNKNOWN_STATUS] += status < 0
        if status == 0:
            status = np.int64(-1)
    begin, end = spans[SIZE, 0], spans[SIZE, 1]
    size = np.int64(-1)
    if not is_none(data, begin, end) and data[begin] != _DASH:
        size = digits(data, begin, end - begin) if end - begin <= 18 else np.int64(-1)
        if size < 0:
            size = _size(data, begin, end)
        state[UNKNOWN_SIZE] += size < 0
    rows[STATUS, row] = status
    rows[BYTES, row] = size


@kernel()
def _bad_escape(data, begin, end):
    r"""Return whether data[begin:end] has an escape that neither JSON nor nginx (`\xHH`) has."""
    at = find_byte(data, begin, end, np.uint8(_BACKSLASH))
    while at < end:
        if at + 1 >= end:
            return True
        escape = data[at + 1]
        digits_behind = 4 if escape == 117 else (2 if escape == 120 else 0)
        if digits_behind == 0 and escape not in (_QUOTE, _BACKSLASH, _SLASH, 98, 102, 110, 114, 116):
            return True
        if at + 2 + digits_behind > end:
            return True
        for index in range(at + 2, at + 2 + digits_behind):
            if hex_value(data[index]) < 0:
                return True
        at = find_byte(data, at + 2 + digits_behind, end, np.uint8(_BACKSLASH))
    return False


@kernel(inlined=True)
def _wrong_escape(data, value, begin, end, spec):
    """Return whether data[begin:end], a part of the value that begins at `value`, has an unknown escape.

    A logfmt value without quotes has no escapes, so that any backslash in it is ambiguous and counts as unknown.
    """
    if spec.options[CUTTER] == PAIRS and value > 0 and data[value - 1] != _QUOTE:
        return find_byte(data, begin, end, np.uint8(_BACKSLASH)) < end
    return _bad_escape(data, begin, end)


@kernel(inlined=True)
def _read_request(data, spec, spans, methods, state, rows, row):
    """Read the method and the target into column `row`, and return the line's code."""
    begin, end = spans[REQUEST, 0], spans[REQUEST, 1]
    if begin >= 0:
        at = find_byte(data, begin, end, np.uint8(_SPACE))
        first = min(at + 1, end)
        code = target(data, first, without_version(data, first, end), rows, row)
        if code == ACCEPTED and spec.options[ESCAPES] == HASHED:
            rows[NEEDS, row] |= (REWRITE | LOOK) * (find_byte(data, at, end, np.uint8(_HASH)) < end)
        method = method_number(data, begin, at, methods, state, code == ACCEPTED)
    else:
        code = ACCEPTED
        if spans[TARGET, 0] >= 0:
            first, last = spans[TARGET, 0], spans[TARGET, 1]
            if spec.options[ESCAPES] == JSON_ESCAPES and last - first > 1 and data[first] == _BACKSLASH:
                first += data[first + 1] == _SLASH
            code = target(data, first, last, rows, row)
        elif spec.options[CONSTANT_TARGET] == 0:
            return OTHER_FORMAT
        else:
            rows[BEGIN, row] = rows[END, row] = -1
            rows[NEEDS, row] = 0
        if spans[METHOD_NAME, 0] >= 0:
            first, last = spans[METHOD_NAME, 0], spans[METHOD_NAME, 1]
            method = method_number(data, first, last, methods, state, code == ACCEPTED)
        else:
            method = spec.options[CONSTANT_METHOD]
    rows[METHOD, row] = method
    if code == ACCEPTED and spec.options[ESCAPES] == JSON_ESCAPES:
        whole = spans[REQUEST, 0] if begin >= 0 else spans[TARGET, 0]
        if rows[NEEDS, row] & REWRITE != 0 and _wrong_escape(
            data, whole, rows[BEGIN, row], rows[END, row], spec
        ):
            return BAD_ESCAPE
        if spans[QUERY, 0] >= 0 and _wrong_escape(
            data, spans[QUERY, 0], spans[QUERY, 0], spans[QUERY, 1], spec
        ):
            return BAD_ESCAPE
    return NO_METHOD if method == -1 else code


@kernel(inlined=True)
def _keep_span(data, begin, end, rows, begin_column, row):
    """Write a field's span to two columns of a row, or -1 if the field has no value."""
    nothing = is_nothing(data, begin, end)
    rows[begin_column, row] = np.int64(-1) if nothing else begin
    rows[begin_column + 1, row] = np.int64(-1) if nothing else end


@kernel(inlined=True)
def _read_client(data, spec, spans, key, rows, row):
    """Write the hash of the client to column `row`.

    The client is the first forwarded address, or else CLIENT_NAME, or else CLIENT_OTHER. The hash is 0 when the
    line has none of them.
    """
    rows[CLIENT, row] = 0
    begin, end = spans[FORWARDED, 0], spans[FORWARDED, 1]
    if not is_none(data, begin, end):
        first, last = first_address(data, begin, end)
        if last > first:
            rows[CLIENT, row] = hash_bytes(data, first, last, key)
            return
    begin, end = spans[CLIENT_NAME, 0], spans[CLIENT_NAME, 1]
    if is_nothing(data, begin, end):
        begin, end = spans[CLIENT_OTHER, 0], spans[CLIENT_OTHER, 1]
    if not is_nothing(data, begin, end):
        rows[CLIENT, row] = hash_bytes(data, begin, client_end(data, begin, end, spec.options[PORTED]), key)


@kernel(inlined=True)
def _read_fields(data, spec, scan, row, scratch):
    """Make column `row` from the fields of a line, and return the line's code."""
    state, rows, spans, number = scan.state, scan.rows, scratch.spans, scratch.number
    if not read_time(data, spans, spec.options, state, rows, row, number):
        return BAD_TIME
    agent = spans[AGENT, 0]
    if agent >= 0 and is_health_check(data, agent, spans[AGENT, 1], scan.agents, scan.agent_ends):
        return HEALTH_CHECK
    code = _read_request(data, spec, spans, scan.methods, state, rows, row)
    if code != ACCEPTED:
        return code
    _read_answer(data, spec, spans, state, rows, row)
    read_took(data, spec, spans, state, rows, row, number)
    _read_client(data, spec, spans, scan.key, rows, row)
    state[ZONELESS_ROWS] += rows[ZONED, row] == 0
    _keep_span(data, spans[HOST, 0], spans[HOST, 1], rows, HOST_BEGIN, row)
    _keep_span(data, spans[QUERY, 0], spans[QUERY, 1], rows, QUERY_BEGIN, row)
    return ACCEPTED


@kernel(inlined=True)
def _scan_line(data, begin, end, spec, scan, row, scratch):
    """Read one line into column `row`, and return the line's code."""
    spans = scratch.spans
    if begin == end:
        return BLANK
    if end - begin > LINE_BYTES_MAX:
        return TOO_LONG
    if data[begin] == spec.options[COMMENT]:
        return DIRECTIVE
    spans[:] = -1
    cutter = spec.options[CUTTER]
    if cutter == TEMPLATE:
        code = cut_template(data, begin, end, spec, spans)
    elif cutter == DELIMITED:
        code = cut_delimited(data, begin, end, spec, scan.state, spans)
    elif cutter == PAIRS:
        code = cut_pairs(data, begin, end, spec, spans)
    else:
        code = cut_json(data, begin, end, spec, scratch)
    if code != ACCEPTED:
        return code
    return _read_fields(data, spec, scan, row, scratch)


@kernel(inlined=True)
def _record_end(data, begin, first_end, end, spec, state):
    """Return the offset of the newline that ends the record of a line that was just cut.

    This is the end of the line, unless the part that was not cut has a quoted field that continues on the next
    line. The result is UNDECIDED if the record may continue after the data.
    """
    at = state[UNCUT]
    if spec.options[ESCAPES] != DOUBLED or find_byte(data, at, first_end, np.uint8(_QUOTE)) >= first_end:
        return first_end
    limit = begin + LINE_BYTES_MAX + 1
    if state[ALL_THERE] != 0:
        limit = min(limit, end)
    return record_end(data, at, first_end, end, limit, spec.options[DELIMITER])


@kernel(inlined=True)
def _without_return(data, begin, end):
    """Return where a line ends without its carriage return."""
    return end - 1 if end > begin and data[end - 1] == _RETURN else end


@kernel(inlined=True)
def _breaks(data, begin, end):
    """Return the number of newlines in data[begin:end]."""
    count = np.int64(0)
    for at in range(begin, end):
        count += data[at] == _NEWLINE
    return count


@kernel(types.void(types.uint8[::1], types.int64, SPEC_TYPE, SCAN_TYPE, SCRATCH_TYPE))
def scan_fields(data, end, spec, scan, scratch):
    """Read lines as `common_log.scan_common` does, in the format of a FieldSpec.

    The call also stops after a directive, which is then the last reject. A record of a table may span several
    lines. If the record as a whole does not have the format, only its first line is rejected, and reading continues
    on the second.
    """
    state, rows, rejects = scan.state, scan.rows, scan.rejects
    row = reject = np.int64(0)
    state[GOES_ON] = 0
    while row < rows.shape[1] and reject < rejects.shape[1]:
        begin = state[POSITION]
        last = first_end = line_end(data, begin, end)
        if first_end < 0:
            break
        while True:
            state[UNCUT] = first_end
            bare = _without_return(data, begin, last)
            code = _scan_line(data, behind_zeros(data, begin, bare), bare, spec, scan, row, scratch)
            if last > first_end:
                break
            last = _record_end(data, begin, first_end, end, spec, state)
            if last <= first_end:
                break
        if last == UNDECIDED:
            state[GOES_ON] = 1
            break
        state[LINES] += 1
        if code == OTHER_FORMAT and last > first_end:
            last = first_end
            bare = _without_return(data, begin, last)
        state[POSITION] = last + 1
        if code == ACCEPTED:
            row += 1
        else:
            reject_line(rejects, reject, state[LINES] + state[BREAKS], code, begin, bare)
            reject += 1
            if code == DIRECTIVE:
                break
        if last > first_end:
            state[BREAKS] += _breaks(data, begin, last)
    state[ROWS] = row
    state[REJECTS] = reject
