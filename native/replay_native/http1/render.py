"""Renders due rows to request bytes in a lane's feed, ready to be sent.

A request is `METHOD SP base-path target SP HTTP/1.1 CRLF headers [X-Replay: RUN-SEQ CRLF] [traceparent CRLF] [body
headers] CRLF body`. Whatever is the same for every row is rendered once, in a RenderTable. Targets are read from the
trace's dictionary by raw address. Bytes of a target that are not allowed in a request line are percent-encoded
(RFC 9112, 3.2).

Each part has two kernels: `..._length` counts its bytes, and `put_...` writes them. The length of a whole request is
known before it is written, so that it is written only if the ring has space for all of it.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.feed.ring import (
    FEED_END_TYPE,
    HEAD,
    IDEMPOTENT,
    PATCHES_SHIFT,
    SHARE_TYPE,
    STATUS_SHIFT,
    TOO_LARGE,
    WARM_UP,
    address_in_ring,
    first_row,
    has_entry,
    heads_of,
    is_mine,
    place_in_ring,
    push_entry,
    row_step,
)
from replay_native.ground import libc
from replay_native.ground.bundle import Array, Int, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.randoms import random_of
from replay_native.ground.shared import peek_i64, peek_u8, poke_u8, poke_u32
from replay_native.plan.survey import DUE_ROWS_TYPE
from replay_native.templates.text import (
    CLIENT,
    EMAIL,
    LITERAL,
    NUMBER,
    OWN_KINDS,
    UUID,
    digits_of,
    put,
    put_email,
    put_hex,
    put_number,
    put_uuid,
    put_word,
)
from replay_native.templates.trace_context import LINE_BYTES as TRACE_LINE_BYTES
from replay_native.templates.trace_context import put_trace_line
from replay_native.trace.columns import BODY as BODY_COLUMN
from replay_native.trace.columns import HEADERS, HOST, body_at, entry_of, target_of

from .sessions import LENGTH_SLOT, PATCH_BYTES

_memcpy = libc.memcpy


@bundle
class RenderTable(NamedTuple):
    """The data that rendering needs besides the row.

    Texts and templates are ranges of one array: text t is [ends[t], ends[t + 1]).
    """

    prefix: Annotated[Array, "uint8[::1]", "`METHOD SP base-path` of every method"]
    prefix_ends: Annotated[Array, "int64[::1]", "per method and one more: the offset of its prefix"]
    bare_ends: Annotated[Array, "int64[::1]", "per method: the offset at which its `METHOD SP` ends"]
    flags: Annotated[Array, "int64[::1]", "per method: flags of the feed, and BODY"]
    headers: Annotated[Array, "uint8[::1]", "the constant bytes from the space after the target on"]
    numbered: Annotated[
        bool, "boolean", "`headers` ends with `X-Replay: RUN-`, and the number of the request follows"
    ]
    trace_seed: Annotated[int, "uint64", "seed of the trace ids; 0: requests have no traceparent"]
    route_flags: Annotated[Array, "int64[::1]", "per route: flags of the feed"]
    route_template: Annotated[Array, "int32[::1]", "per route: the template of its body, or -1"]
    route_path: Annotated[
        Array, "int32[::1]", "per route: the template of its path, or -1 for the recorded one"
    ]
    route_head: Annotated[Array, "int32[::1]", "per route: the template that replaces `headers`, or -1"]
    path_whole: Annotated[
        Array, "uint8[::1]", "per template: 1 if, as a path, it also replaces the recorded query"
    ]
    template_patches: Annotated[Array, "int64[::1]", "per template: how many of its parts are CAPTURED"]
    template_parts: Annotated[Array, "int64[::1]", "per template and one more: its first part"]
    template_fixed: Annotated[Array, "int64[::1]", "per template: bytes of all parts whose length is fixed"]
    template_heads: Annotated[
        Array, "int64[:, ::1]", "per template: its body's headers, a range of `literals`"
    ]
    kinds: Annotated[Array, "uint8[::1]", "per part: its kind"]
    begins: Annotated[
        Array,
        "int64[::1]",
        "per part: the offset of its literal, its column, or the second word of its patch",
    ]
    ends: Annotated[Array, "int64[::1]", "per part: the offset at which its literal ends"]
    salts: Annotated[Array, "uint64[::1]", "per part: a constant that changes the seed of its random values"]
    request_template: Annotated[
        Array, "int32[::1]", "per request: the template of its body, or -1; may be empty"
    ]
    request_path: Annotated[Array, "int32[::1]", "per request: the template of its path, or -1; may be empty"]
    request_head: Annotated[
        Array, "int32[::1]", "per request: the template that replaces `headers`, or -1; may be empty"
    ]
    literals: Annotated[Array, "uint8[::1]", "the bytes of literals and headers"]
    seed: Annotated[int, "uint64", "seed of the random values in templates"]
    type_heads: Annotated[
        Array,
        "int64[:, ::1]",
        "per content type, and first for none: headers of a recorded body, a range of `literals`",
    ]
    type_of_headers: Annotated[Array, "int32[::1]", "per recorded header set: its content type, or -1"]
    bodies: Annotated[Array, "int64[:, ::1]", "recorded bodies; see `trace/columns`"]
    column_rows: Annotated[Array, "int64[::1]", "per variable and one more: its first cell"]
    cell_ends: Annotated[Array, "int64[::1]", "per cell and one more: the offset of its bytes"]
    cells: Annotated[Array, "uint8[::1]", "the bytes of all cells"]
    of_host: Annotated[
        Array, "int32[::1]", "per recorded host, and first for none: the text of its Host line"
    ]
    of_headers: Annotated[
        Array, "int32[::1]", "per recorded header set, and first for none: the text of its lines"
    ]
    recorded_ends: Annotated[Array, "int64[::1]", "per text and one more: the offset of its bytes"]
    recorded: Annotated[
        Array, "uint8[::1]", "the bytes of these texts; empty if no recorded headers are sent"
    ]
    client_network: Annotated[int, "uint32", "the network of clients' IPv4 addresses"]
    client_hosts: Annotated[int, "uint32", "mask of the host bits in that network"]


RENDER_TYPE = numba_type(RenderTable)


class Row(NamedTuple):
    """The values for templates: the request's number, its client, and two texts of recorded header lines.

    `host` is the text of its Host line, `lines` that of the other lines.
    """

    seq: Int
    client: Int
    host: Int
    lines: Int


class Line(NamedTuple):
    """The parts of a request line. `escaped` is how many bytes of the target must be percent-encoded.

    If the scenario gives the path (`path` is not negative), `address` and `length` are those of the recorded query,
    which may be empty.
    """

    method: Int
    path: Int
    address: Int
    length: Int
    escaped: Int


BODY = 1 << 8
"""A flag beside those of the feed: requests of this method have a body, or `Content-Length: 0`."""

(
    WORD, CLIENT_UUID, CLIENT_EMAIL, CLIENT_WORD, CLIENT_LIKE, CLIENT_IPV4, CLIENT_IPV6, RECORDED_HOST, RECORDED_LINES,
    COLUMN_BY_CLIENT, COLUMN_BY_REQUEST, CAPTURED,
) = range(OWN_KINDS, OWN_KINDS + 12)  # fmt: skip
"""Kinds of parts beside those of `templates/text`.

- CLIENT_...: generated for the client, and the same in each of its requests.
- CLIENT_LIKE: its literal with other letters and digits.
- RECORDED_...: complete header lines.
- COLUMN_...: a cell of a CSV file, selected by the client's or the request's number.
- CAPTURED: becomes a patch, because only the lane knows the value.
"""

_NO_BODY = np.frombuffer(b"Content-Length: 0\r\n", dtype=np.uint8)
_HEX_UPPER = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)

_LOW = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_OF_CLIENT = np.uint64(0x5BD1E9955BD1E995)
"""Changes the seed for values that are generated per client."""

_IPV6_NETWORK = np.frombuffer(b"2001:db8::", dtype=np.uint8)
"""The network for documentation (RFC 3849)."""

_QUESTION, _COLON, _DOT, _MINUS = 63, 58, 46, 45
_STAR, _SLASH, _PERCENT = 42, 47, 37


@kernel(inlined=True)
def _unsafe(byte):
    return byte <= 32 or byte >= 127


@kernel(inlined=True)
def escapes(address, length):
    """Return how many bytes are not allowed in a request line: controls, space, DEL, and all that are not ASCII."""
    found, at = np.int64(0), np.int64(0)
    while at + 8 <= length:
        word = np.uint64(peek_i64(np.uint64(address + at)))
        # A byte's high bit is set if the byte is above 126 or below 33. A borrow or carry may also set that of the next
        # byte, so that the bytes are then checked one by one.
        odd = (word | (word + _LOW) | ((word - _LOW * np.uint64(33)) & ~word)) & _HIGH
        if odd != 0:
            for place in range(at, at + 8):
                found += _unsafe(peek_u8(np.uint64(address + place)))
        at += 8
    while at < length:
        found += _unsafe(peek_u8(np.uint64(address + at)))
        at += 1
    return found


@kernel()
def put_escaped(at, address, length):
    """Copy a target, and percent-encode the bytes that are not allowed in a request line."""
    for place in range(length):
        byte = peek_u8(np.uint64(address + place))
        if _unsafe(byte):
            poke_u8(np.uint64(at), np.uint8(_PERCENT))
            poke_u8(np.uint64(at + 1), _HEX_UPPER[byte >> 4])
            poke_u8(np.uint64(at + 2), _HEX_UPPER[byte & 15])
            at += 3
        else:
            poke_u8(np.uint64(at), byte)
            at += 1
    return at


@kernel(inlined=True)
def _ipv4_of(table, client):
    """Return a client's IPv4 address.

    Its host part is the client's number plus 1, because 0 is the network itself. It begins again at 0 if the network
    has too few addresses.
    """
    return table.client_network | (np.uint32(client + 1) & table.client_hosts)


@kernel()
def put_ipv4(at, address):
    """Write an IPv4 address in decimal notation."""
    for place in range(4):
        byte = np.int64(address >> np.uint32(24 - 8 * place)) & 255
        at = put_number(at, byte, digits_of(byte))
        if place < 3:
            poke_u8(np.uint64(at), np.uint8(_DOT))
            at += 1
    return at


@kernel(inlined=True)
def ipv4_length(address):
    """Return how many bytes an IPv4 address takes in decimal notation."""
    length = np.int64(3)
    for place in range(4):
        length += digits_of(np.int64(address >> np.uint32(24 - 8 * place)) & 255)
    return length


@kernel(inlined=True)
def _hex_digits(number):
    count = np.int64(1)
    while number >= 16:
        number >>= 4
        count += 1
    return count


@kernel()
def ipv6_length(client):
    """Return how many bytes the IPv6 address of a client takes."""
    number = np.int64(np.uint32(client + 1))
    high, low = number >> 16, number & 0xFFFF
    length = _IPV6_NETWORK.shape[0] + _hex_digits(low)
    return length + _hex_digits(high) + 1 if high else length


@kernel()
def put_ipv6(at, client):
    """Write the IPv6 address of a client, in the form of RFC 5952."""
    number = np.int64(np.uint32(client + 1))
    high, low = number >> 16, number & 0xFFFF
    at = put(at, _IPV6_NETWORK, 0, _IPV6_NETWORK.shape[0])
    if high:
        at = put_hex(at, np.uint64(high), _hex_digits(high))
        poke_u8(np.uint64(at), np.uint8(_COLON))
        at += 1
    return put_hex(at, np.uint64(low), _hex_digits(low))


@kernel(inlined=True)
def _recorded_texts(requests, table, number):
    """Return the texts of a request's recorded Host line and of its other lines; 0 if none are sent."""
    if table.of_headers.shape[0] == 0:
        return np.int64(0), np.int64(0)
    host, headers = entry_of(requests, number, HOST), entry_of(requests, number, HEADERS)
    return np.int64(table.of_host[host + 1]), np.int64(table.of_headers[headers + 1])


@kernel(inlined=True)
def _cell_of(table, part, row):
    """Return the cell of a column for a request or its client. Numbers beyond the last row begin again at the first."""
    column = table.begins[part]
    first = table.column_rows[column]
    number = row.client if table.kinds[part] == COLUMN_BY_CLIENT else row.seq
    return first + number % (table.column_rows[column + 1] - first)


@kernel()
def template_length(table, template, row):
    """Return how many bytes a filled template has. Captured values count as 0."""
    seq, client = row.seq, row.client
    length = table.template_fixed[template]
    for part in range(table.template_parts[template], table.template_parts[template + 1]):
        kind = table.kinds[part]
        if kind == CLIENT:
            length += digits_of(client)
        elif kind == NUMBER:
            length += digits_of(seq)
        elif kind == CLIENT_IPV4:
            length += ipv4_length(_ipv4_of(table, client))
        elif kind == CLIENT_IPV6:
            length += ipv6_length(client)
        elif kind in (RECORDED_HOST, RECORDED_LINES):
            text = row.host if kind == RECORDED_HOST else row.lines
            length += table.recorded_ends[text + 1] - table.recorded_ends[text]
        elif kind in (COLUMN_BY_CLIENT, COLUMN_BY_REQUEST):
            cell = _cell_of(table, part, row)
            length += table.cell_ends[cell + 1] - table.cell_ends[cell]
    return length


@kernel()
def put_like(at, text, begin, end, seed, client):
    """Write a text with random ASCII letters and digits in place of its own.

    Lower case stays lower case, and upper case stays upper case. A digit at the beginning, or after a minus sign
    there, never becomes 0, so that a number in JSON stays one.
    """
    first = begin + (begin < end and text[begin] == _MINUS)
    for place in range(begin, end):
        byte = np.int64(text[place])
        bits = np.int64(random_of(seed, client, np.uint64(place - begin)) >> np.uint64(33))
        if 48 <= byte <= 57:
            byte = 49 + bits % 9 if place == first else 48 + bits % 10
        elif 97 <= byte <= 122:
            byte = 97 + bits % 26
        elif 65 <= byte <= 90:
            byte = 65 + bits % 26
        poke_u8(np.uint64(at + place - begin), np.uint8(byte))
    return at + end - begin


@kernel(inlined=True)
def _put_patch(patches, place, what):
    """Write a patch (see `sessions`), and return the address after it."""
    poke_u32(np.uint64(patches), np.uint32(place))
    poke_u32(np.uint64(patches + 4), np.uint32(what))
    return patches + PATCH_BYTES


@kernel()
def put_template(at, request, patches, table, template, row):
    """Write a filled template at `at`, and its patches to `patches`; return the address after the template.

    `request` is the address at which the request begins.
    """
    seq, client = row.seq, row.client
    for part in range(table.template_parts[template], table.template_parts[template + 1]):
        kind, seed = table.kinds[part], table.seed ^ table.salts[part]
        if kind == LITERAL:
            at = put(at, table.literals, table.begins[part], table.ends[part])
        elif kind == UUID:
            at = put_uuid(at, seed, seq)
        elif kind == EMAIL:
            at = put_email(at, seed, seq)
        elif kind == CLIENT_UUID:
            at = put_uuid(at, seed ^ _OF_CLIENT, client)
        elif kind == CLIENT_EMAIL:
            at = put_email(at, seed ^ _OF_CLIENT, client)
        elif kind == WORD:
            at = put_word(at, seed, seq)
        elif kind == CLIENT_WORD:
            at = put_word(at, seed ^ _OF_CLIENT, client)
        elif kind == CLIENT_LIKE:
            at = put_like(at, table.literals, table.begins[part], table.ends[part], seed, client)
        elif kind == CLIENT:
            at = put_number(at, client, digits_of(client))
        elif kind == NUMBER:
            at = put_number(at, seq, digits_of(seq))
        elif kind == CLIENT_IPV4:
            at = put_ipv4(at, _ipv4_of(table, client))
        elif kind == CLIENT_IPV6:
            at = put_ipv6(at, client)
        elif kind in (RECORDED_HOST, RECORDED_LINES):
            text = row.host if kind == RECORDED_HOST else row.lines
            at = put(at, table.recorded, table.recorded_ends[text], table.recorded_ends[text + 1])
        elif kind == CAPTURED:
            patches = _put_patch(patches, at - request, table.begins[part])
        else:
            cell = _cell_of(table, part, row)
            at = put(at, table.cells, table.cell_ends[cell], table.cell_ends[cell + 1])
    return at


@kernel(inlined=True)
def _put_end_of_line(at):
    poke_u8(np.uint64(at), np.uint8(13))
    poke_u8(np.uint64(at + 1), np.uint8(10))
    return at + 2


@kernel(inlined=True)
def _prefix_end(table, method, address, length):
    """Return where the method's prefix ends for this target. The target `*` is sent without the base path."""
    if length == 1 and peek_u8(np.uint64(address)) == _STAR:
        return table.bare_ends[method]
    return table.prefix_ends[method + 1]


@kernel(inlined=True)
def _lacks_slash(address, length):
    """Return whether a target needs a leading slash, so that it is a path below the base path."""
    if length == 0:
        return True
    first = peek_u8(np.uint64(address))
    return first != _SLASH and not (length == 1 and first == _STAR)


@kernel()
def _query_of(address, length):
    """Return the address and length of a target's query, with its question mark; a length of 0 if it has none."""
    for place in range(length):
        if peek_u8(np.uint64(address + place)) == _QUESTION:
            return address + place, length - place
    return address + length, np.int64(0)


@kernel(inlined=True)
def _line_length(table, line, row):
    """Return how many bytes a request's method and target take."""
    begin, rest = table.prefix_ends[line.method], line.length + 2 * line.escaped
    if line.path >= 0:
        return table.prefix_ends[line.method + 1] - begin + template_length(table, line.path, row) + rest
    fixed = _prefix_end(table, line.method, line.address, line.length) - begin
    return fixed + np.int64(_lacks_slash(line.address, line.length)) + rest


@kernel(inlined=True)
def _put_line(at, patches, table, line, row):
    """Write the method and target that `_line_length` measures."""
    method, address, length = line.method, line.address, line.length
    if line.path >= 0:
        request = at
        at = put(at, table.prefix, table.prefix_ends[method], table.prefix_ends[method + 1])
        at = put_template(at, request, patches, table, line.path, row)
    else:
        at = put(at, table.prefix, table.prefix_ends[method], _prefix_end(table, method, address, length))
        if _lacks_slash(address, length):
            poke_u8(np.uint64(at), np.uint8(_SLASH))
            at += 1
    if line.escaped:
        return put_escaped(at, address, length)
    _memcpy(np.uint64(at), np.uint64(address), np.uint64(length))
    return at + length


@kernel(inlined=True)
def _headers_length(table, head, row):
    """Return how many bytes follow the target up to the last header, without the headers of a body."""
    total = table.headers.shape[0] if head < 0 else template_length(table, head, row)
    if table.numbered:
        total += digits_of(row.seq) + 2
    return total + TRACE_LINE_BYTES if table.trace_seed else total


@kernel(inlined=True)
def _put_headers(at, request, patches, table, head, row):
    """Write the bytes that `_headers_length` counts."""
    if head < 0:
        at = put(at, table.headers, 0, table.headers.shape[0])
    else:
        at = put_template(at, request, patches, table, head, row)
    if table.numbered:
        at = _put_end_of_line(put_number(at, row.seq, digits_of(row.seq)))
    return put_trace_line(at, table.trace_seed, row.seq) if table.trace_seed else at


@kernel()
def _recorded_body(requests, table, number):
    """Return the address, length and content type of a request's recorded body; a length of -1 if it has none."""
    address, length = body_at(table.bodies, entry_of(requests, number, BODY_COLUMN))
    kind = np.int64(-1)
    if length >= 0:
        headers = entry_of(requests, number, HEADERS)
        if 0 <= headers < table.type_of_headers.shape[0]:
            kind = np.int64(table.type_of_headers[headers])
    return address, length, kind


@kernel(inlined=True)
def _recorded_head_length(table, kind, length):
    """Return how many bytes the headers of a recorded body take."""
    return table.type_heads[kind + 1, 1] - table.type_heads[kind + 1, 0] + digits_of(length) + 2


@kernel(inlined=True)
def _put_recorded_head(at, table, kind, length):
    """Write the headers that `_recorded_head_length` measures."""
    at = put(at, table.literals, table.type_heads[kind + 1, 0], table.type_heads[kind + 1, 1])
    return _put_end_of_line(put_number(at, length, digits_of(length)))


@kernel(inlined=True)
def _body_head_length(table, template, filled):
    """Return how many bytes the headers of a body of `filled` bytes take, without a number that the lane inserts.

    If the body has patches, only the lane knows its length. Without a template (-1), the body is empty.
    """
    if template < 0:
        return np.int64(_NO_BODY.shape[0])
    digits = np.int64(0) if table.template_patches[template] else digits_of(filled)
    return table.template_heads[template, 1] - table.template_heads[template, 0] + digits + 2


@kernel(inlined=True)
def _put_body_head(at, table, template, filled):
    """Write the headers that `_body_head_length` measures."""
    if template < 0:
        return put(at, _NO_BODY, 0, _NO_BODY.shape[0])
    at = put(at, table.literals, table.template_heads[template, 0], table.template_heads[template, 1])
    if table.template_patches[template]:
        return _put_end_of_line(at)
    return _put_end_of_line(put_number(at, filled, digits_of(filled)))


@kernel(inlined=True)
def _patches_of(table, path, own, template):
    """Return how many patches a request has. A body with patches needs one more, for its length."""
    count = np.int64(0)
    if path >= 0:
        count += table.template_patches[path]
    if own >= 0:
        count += table.template_patches[own]
    if template >= 0 and table.template_patches[template]:
        count += table.template_patches[template] + 1
    return count


@kernel(inlined=True)
def _template_of(of_request, number, of_route):
    """Return the template of a request: its own, or else that of its route, which may be -1."""
    if of_request.shape[0] and of_request[number] >= 0:
        return np.int64(of_request[number])
    return np.int64(of_route)


@kernel(inlined=True)
def _fill_entry(entry, table, rows, row, flags):
    """Set the route of an entry, and its flags, which contain the recorded status."""
    route = rows.route[row]
    entry.route = route
    recorded_status = np.int64(max(rows.status[row], 0))
    own = table.flags[rows.method[row]] & (HEAD | IDEMPOTENT)
    entry.flags = own | flags | table.route_flags[route] | recorded_status << STATUS_SHIFT
    entry.state = 0


@kernel(
    types.int64(
        DUE_ROWS_TYPE, types.int64, types.int64, SHARE_TYPE, types.int64[:, ::1], RENDER_TYPE, FEED_END_TYPE
    )
)
def render_rows(rows, first_seq, begin, share, requests, table, end):
    """Render a lane's share of due rows, from row `begin` on, into its feed. Row i has the number `first_seq` + i.

    It stops at the first row that is due after the horizon, or for which the rings have no space now. It returns the
    row to continue with (the number of rows if all are rendered), or -1 - row if a request is larger than the ring.
    Nothing is published. `requests` is the dictionary (`trace/columns`).
    """
    head, ring_head = heads_of(end)
    due_ns, step, count = rows.due_ns, row_step(share), rows.due_ns.shape[0]
    row = first_row(share, first_seq, begin)
    while row < count:
        if not is_mine(share, rows.client[row]):
            row += 1
            continue
        due, seq = due_ns[row] + share.start_ns, first_seq + row
        if due > share.horizon_ns or not has_entry(end, head):
            break
        number, method, route = np.int64(rows.request[row]), np.int64(rows.method[row]), rows.route[row]
        address, length = target_of(requests, number)
        path = _template_of(table.request_path, number, table.route_path[route])
        own = _template_of(table.request_head, number, table.route_head[route])
        host, lines = _recorded_texts(requests, table, number)
        client, nothing = np.int64(rows.client[row]), np.int64(0)
        fill, bare = Row(seq, client, host, lines), Row(seq, client, nothing, nothing)
        if path >= 0:
            address, length = _query_of(address, length)
            length = np.int64(0) if table.path_whole[path] else length
        line = Line(method, path, address, length, escapes(address, length))
        total = _line_length(table, line, bare) + _headers_length(table, own, fill) + 2
        has_body = table.flags[method] & BODY != 0
        template, filled = np.int64(-1), np.int64(0)
        recorded, recorded_length, recorded_type = np.int64(0), np.int64(-1), np.int64(-1)
        if has_body:
            template = _template_of(table.request_template, number, table.route_template[route])
            if template >= 0:
                filled = template_length(table, template, bare)
            else:
                recorded, recorded_length, recorded_type = _recorded_body(requests, table, number)
            if recorded_length >= 0:
                total += _recorded_head_length(table, recorded_type, recorded_length) + recorded_length
            else:
                total += _body_head_length(table, template, filled) + filled
        patched = _patches_of(table, path, own, template)
        in_feed = total + PATCH_BYTES * patched
        offset = place_in_ring(end, in_feed, ring_head)
        if offset == TOO_LARGE:
            return -1 - row
        if offset < 0:
            break

        start = address_in_ring(end, offset)
        patches = start + total
        at = _put_line(start, patches, table, line, bare)
        patches += PATCH_BYTES * table.template_patches[path] if path >= 0 else 0
        at = _put_headers(at, start, patches, table, own, fill)
        patches += PATCH_BYTES * table.template_patches[own] if own >= 0 else 0
        if recorded_length >= 0:
            at = _put_end_of_line(_put_recorded_head(at, table, recorded_type, recorded_length))
            _memcpy(np.uint64(at), np.uint64(recorded), np.uint64(recorded_length))
        elif has_body:
            at = _put_end_of_line(_put_body_head(at, table, template, filled))
            if template >= 0:
                if table.template_patches[template]:
                    patches = _put_patch(patches, at - 4 - start, LENGTH_SLOT)
                put_template(at, start, patches, table, template, bare)
        else:
            at = _put_end_of_line(at)

        entry = push_entry(end, due, seq, offset, in_feed, rows.client[row])
        warm_up = WARM_UP if due_ns[row] < share.warm_up_ns else 0
        _fill_entry(entry, table, rows, row, warm_up | patched << PATCHES_SHIFT)
        row += step
    return min(row, count)
