"""Log lines to columns for every format but the common one: cut a line into fields, then read the fields.

There are four cutters: for a template of literals and fields (`log_format` strings), for a delimiter with quotes (CSV,
W3C), for pairs of keys and values (logfmt, LTSV), and for JSON objects. Each finds where the fields of a line are, by
role. One reader makes a row of them.
"""

from __future__ import annotations

import numpy as np
from numba import types

from replay_native.ground.jit import kernel
from replay_native.ground.simd import find_byte
from replay_native.trace.dictionary import hash_bytes

from .common_log import (
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
    digits,
    first_address,
    is_health_check,
    method_number,
    reject_line,
    target,
    word_at,
    zero_bytes,
)
from .csv_record import UNDECIDED, line_end, record_end
from .field_spec import (
    AGENT,
    AT,
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
    PADDED,
    PAIRS,
    PORTED,
    QUERY,
    QUERY_BEGIN,
    QUOTED,
    REQUEST,
    SCRATCH_TYPE,
    SIZE,
    SPEC_TYPE,
    STATUS_CODE,
    TARGET,
    TEMPLATE,
    UNCLOSED,
    UNCUT,
    UNKNOWN_SIZE,
    UNKNOWN_STATUS,
    ZONED,
    ZONELESS_ROWS,
)
from .json_cut import cut_json
from .pairs_cut import cut_pairs
from .targets import hex_value
from .times import (
    is_none,
    is_nothing,
    read_time,
    read_took,
)

_SPACE, _QUOTE, _HASH, _BACKSLASH, _DASH, _SLASH, _COLON, _COMMA, _PLUS = 32, 34, 35, 92, 45, 47, 58, 44, 43
_NEWLINE, _RETURN = 10, 13
_ONES = np.int64(0x0101010101010101)
_COLONS, _COMMAS = _ONES * _COLON, _ONES * _COMMA


@kernel(inlined=True)
def _is_at(data, at, end, literals, first, last):
    """Whether a literal is at `at`."""
    if end - at < last - first:
        return False
    same = True
    for index in range(last - first):
        same = same and data[at + index] == literals[first + index]
    return same


@kernel()
def _field_end(data, at, end, literals, first, last, quoted):
    """Where the literal after a field begins; `end` where the field is the last, -1 where the literal is missing.

    An escaped quote does not end a quoted field.
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
    """Whether a stamp goes on after a space: with a zone, or a date with its time of day."""
    if end - last < 6 or data[last] != _SPACE:
        return False
    zoned = data[last + 1] in (_PLUS, _DASH) and digits(data, last + 2, 4) >= 0
    return zoned or (last - begin == 10 and data[begin + 4] == _DASH and data[last + 3] == _COLON)


@kernel(inlined=True)
def _cut_template(data, begin, end, spec, spans):
    """Cut a line by a template; a code."""
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
def _cut_delimited(data, begin, end, spec, state, spans):
    """Cut a line at its delimiters; a code. A quoted field may contain them, and doubled quotes. Spaces around fields
    that may be quoted do not belong to them.
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


@kernel()
def _whole(data, at, end):
    """Whether nothing but `.0` follows an integer: programs without integers write it so."""
    if at < end and data[at] in (46, _COMMA):
        at += 1
        while at < end and data[at] == 48:
            at += 1
    return at == end


@kernel()
def _status(data, begin, end):
    """Read a status (`200`, `200.0`, `200 OK`); 0 where the server had none, -1 where it is no status."""
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
    """Read a number of bytes (`12`, `12.0`), or -1."""
    begin += data[begin] == _PLUS
    at = begin
    while at < end and at - begin < 19 and 48 <= data[at] <= 57:
        at += 1
    if not 0 < at - begin <= 18 or not _whole(data, at, end):
        return np.int64(-1)
    return digits(data, begin, at - begin)


@kernel(inlined=True)
def _read_answer(data, spec, spans, state, rows, row):
    """Read status and size. A value that is neither counts as unknown: a replay does not need it."""
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


@kernel(inlined=True)
def _client_end(data, begin, end, ported):
    """Where the address of a client ends: before a second address, and before its port."""
    first_colon = last_colon = np.int64(-1)
    plain = begin
    while plain + 8 <= end:
        word = word_at(data, plain)
        if zero_bytes(word ^ _COLONS) | zero_bytes(word ^ _COMMAS) != 0:
            break
        plain += 8
    for at in range(plain, end):
        if data[at] == _COMMA:
            end = at
            break
        if data[at] == _COLON:
            if first_colon < 0:
                first_colon = np.int64(at)
            last_colon = np.int64(at)
    if last_colon > begin and (ported or first_colon == last_colon or data[last_colon - 1] == 93):
        return last_colon
    return end


@kernel()
def _bad_escape(data, begin, end):
    r"""Whether data[begin:end] has an escape that neither JSON nor nginx (`\xHH`) knows."""
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
    """Whether a part of the value that begins at `value` has an escape that its format does not know. A value of logfmt
    without quotes has no escapes: a backslash in it cannot be told from one.
    """
    if spec.options[CUTTER] == PAIRS and value > 0 and data[value - 1] != _QUOTE:
        return find_byte(data, begin, end, np.uint8(_BACKSLASH)) < end
    return _bad_escape(data, begin, end)


@kernel(inlined=True)
def _read_request(data, spec, spans, methods, state, rows, row):
    """Read method and target; a code."""
    begin, end = spans[REQUEST, 0], spans[REQUEST, 1]
    if begin >= 0:
        at = find_byte(data, begin, end, np.uint8(_SPACE))
        code = target(data, min(at + 1, end), end, rows, row)
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
    """Note where a field is, -1 where it says nothing."""
    nothing = is_nothing(data, begin, end)
    rows[begin_column, row] = np.int64(-1) if nothing else begin
    rows[begin_column + 1, row] = np.int64(-1) if nothing else end


@kernel(inlined=True)
def _read_client(data, spec, spans, key, rows, row):
    """Read the client: the first address that a proxy passed on, or else the peer."""
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
        rows[CLIENT, row] = hash_bytes(data, begin, _client_end(data, begin, end, spec.options[PORTED]), key)


@kernel(inlined=True)
def _read_fields(data, spec, scan, row, scratch):
    """Make a row of the fields of a line; a code."""
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
    """Read one line into column `row`; a code."""
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
        code = _cut_template(data, begin, end, spec, spans)
    elif cutter == DELIMITED:
        code = _cut_delimited(data, begin, end, spec, scan.state, spans)
    elif cutter == PAIRS:
        code = cut_pairs(data, begin, end, spec, spans)
    else:
        code = cut_json(data, begin, end, spec, scratch)
    if code != ACCEPTED:
        return code
    return _read_fields(data, spec, scan, row, scratch)


@kernel(inlined=True)
def _record_end(data, begin, first_end, end, spec, state):
    """Where the record of a line that was cut ends: with the line, unless the rest that was not cut has a quote that
    goes on.
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
    """Where a line ends without its carriage return."""
    return end - 1 if end > begin and data[end - 1] == _RETURN else end


@kernel(inlined=True)
def _breaks(data, begin, end):
    """How many newlines data[begin:end] has."""
    count = np.int64(0)
    for at in range(begin, end):
        count += data[at] == _NEWLINE
    return count


@kernel(types.void(types.uint8[::1], types.int64, SPEC_TYPE, SCAN_TYPE, SCRATCH_TYPE))
def scan_fields(data, end, spec, scan, scratch):
    """As `common_log.scan_common`, by a FieldSpec; also stops after a directive, which is then the last reject.

    A record of a table may go on over several lines. Where it is not of the format as a whole, its first line is
    judged alone.
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
            code = _scan_line(data, begin, bare, spec, scan, row, scratch)
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
