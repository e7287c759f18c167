"""Due rows to request bytes in a lane's feed, ready to be sent.

A request is `METHOD SP base-path target SP HTTP/1.1 CRLF headers [X-Replay: RUN-SEQ CRLF] [body headers] CRLF
body`. All that does not change from row to row is rendered once, in a RenderTable. Targets are read from the
trace's dictionary by raw address; bytes that may not stand in a request line are percent-encoded (RFC 9112,
3.2).
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import types

from replay_native.feed.ring import (
    FEED_TYPE,
    HEAD,
    IDEMPOTENT,
    PATCHES_SHIFT,
    STATUS_SHIFT,
    WARM_UP,
)
from replay_native.ground import libc
from replay_native.ground.bundle import bundle_type
from replay_native.ground.jit import kernel
from replay_native.ground.randoms import random_of
from replay_native.ground.shared import (
    load_acquire,
    peek_i32,
    peek_i64,
    peek_u8,
    poke_u8,
    poke_u32,
)
from replay_native.ledger.lane_metrics import Control
from replay_native.plan.survey import (
    BATCH_BITS,
    BATCH_MASK,
    BODY_ID,
    DATA,
    HEADERS_ID,
    HOST,
    OFFSETS,
)

from .sessions import LENGTH_SLOT, PATCH_BYTES

_memcpy = libc.memcpy

RenderTable = namedtuple(
    "RenderTable",
    "prefix prefix_ends bare_ends flags headers numbered route_flags route_template route_path route_head path_whole"
    " template_patches template_parts template_fixed template_heads kinds begins ends literals seed type_heads"
    " type_of_headers bodies column_rows cell_ends cells of_host of_headers recorded_ends recorded client_network",
)
"""What rendering needs besides the row.

prefix uint8[] holds `METHOD SP base-path` of every method, prefix_ends int64[methods + 1] where each ends,
bare_ends int64[methods] where its `METHOD SP` ends; flags int64[methods] (feed flags and BODY); headers
uint8[]: from the space behind the target to the last constant byte, with `X-Replay: RUN-` at its end if
numbered[0]. By route: route_flags int64[routes], the feed's; int32[routes] the templates of its body (-1: none), of
its path (-1: as recorded; path_whole uint8[templates]: without the recorded query) and of what is else in `headers` (-1).

Template t has the parts template_parts[t] to [t + 1] of (kinds uint8, begins, ends int64 in literals uint8[], or begins is
a column, or of CAPTURED what the patch says), template_patches[t] of them CAPTURED, template_fixed[t] bytes of fixed
length, and, of a body, its Content-Type and Content-Length headers up to the number in
literals[template_heads[t, 0]:template_heads[t, 1]]. Column c of the variables has the cells column_rows[c] to [c + 1],
cell i is cells[cell_ends[i]:cell_ends[i + 1]]. seed uint64[1].

Recorded bodies: bodies int64[n + 1, 3] has of each batch of their dictionary the id of its first, and the raw
addresses of its offsets (int64) and data; the last row is the id past the end. type_of_headers int32[header sets]
is the content type of each set, or -1; type t has its headers up to the number of Content-Length in
literals[type_heads[t + 1, 0]:type_heads[t + 1, 1]], type_heads[0] those without a type.

Recorded headers: of_host int32[hosts + 1] and of_headers int32[header sets + 1] are the texts of a request's Host line and
of its other lines, the first of each for requests without; text t is recorded[recorded_ends[t]:recorded_ends[t + 1]]. Both
are empty where nothing of the kind is sent. client_network uint32[2]: the network of IPv4 clients, and the host's bits.
"""

RENDER_TYPE = bundle_type(
    RenderTable,
    [
        types.uint8[::1], types.int64[::1], types.int64[::1], types.int64[::1], types.uint8[::1],
        types.uint8[::1], types.int64[::1], types.int32[::1], types.int32[::1], types.int32[::1], types.uint8[::1],
        types.int64[::1], types.int64[::1],
        types.int64[::1], types.int64[:, ::1], types.uint8[::1], types.int64[::1], types.int64[::1], types.uint8[::1],
        types.uint64[::1], types.int64[:, ::1], types.int32[::1], types.int64[:, ::1], types.int64[::1], types.int64[::1],
        types.uint8[::1], types.int32[::1], types.int32[::1], types.int64[::1], types.uint8[::1], types.uint32[::1],
    ],
)  # fmt: skip

BODY = 1 << 8
"""Beside the feed's flags: a method whose request says Content-Length: 0 where it has no body."""

(
    LITERAL, UUID, EMAIL, CLIENT, NUMBER, CLIENT_UUID, CLIENT_EMAIL, CLIENT_IPV4, CLIENT_IPV6, RECORDED_HOST,
    RECORDED_LINES, COLUMN_BY_CLIENT, COLUMN_BY_REQUEST, CAPTURED,
) = range(14)  # fmt: skip
"""Kinds of a template's parts. CLIENT and NUMBER are decimal; UUID and EMAIL are the request's, CLIENT_... the client's own
at every request, as its address is; RECORDED_... are whole lines; columns are those of CSV files, by the client's or the
request's number; CAPTURED becomes a patch, for the lane alone knows the value.
"""

UUID_BYTES = 36
EMAIL_BYTES = 29

_NO_BODY = np.frombuffer(b"Content-Length: 0\r\n", dtype=np.uint8)
_EMAIL_TAIL = np.frombuffer(b"@example.com", dtype=np.uint8)
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
_HEX_UPPER = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)

_LOW = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_SALT_EMAIL, _SALT_UUID = np.uint64(0xA5A5A5A5A5A5A5A5), np.uint64(0xC3C3C3C3C3C3C3C3)
_OF_CLIENT = np.uint64(0x5BD1E9955BD1E995)
"""Makes another seed for what a client keeps."""

_IPV6_NETWORK = np.frombuffer(b"2001:db8::", dtype=np.uint8)
"""What is for documentation (RFC 3849)."""

_QUESTION, _COLON, _DOT = 63, 58, 46
_STAR, _SLASH, _PERCENT, _DASH = 42, 47, 37, 45


@kernel(inlined=True)
def digits_of(number):
    """How many decimal digits a number of at least 0 has."""
    count = np.int64(1)
    while number >= 10:
        number //= 10
        count += 1
    return count


@kernel(inlined=True)
def put_number(at, number, digits):
    """Write a decimal number at an address; the address behind it."""
    place = at + digits
    for _ in range(digits):
        place -= 1
        rest = number // 10
        poke_u8(np.uint64(place), np.uint8(48 + number - 10 * rest))
        number = rest
    return at + digits


@kernel(inlined=True)
def put(at, source, begin, end):
    """Copy `source[begin:end]` to an address; the address behind it."""
    _memcpy(np.uint64(at), np.uint64(source.ctypes.data + begin), np.uint64(end - begin))
    return at + end - begin


@kernel(inlined=True)
def _unsafe(byte):
    return byte <= 32 or byte >= 127


@kernel(inlined=True)
def escapes(address, length):
    """How many bytes may not stand in a request line: controls, space, DEL and what is not ASCII."""
    found, at = np.int64(0), np.int64(0)
    while at + 8 <= length:
        word = np.uint64(peek_i64(np.uint64(address + at)))
        # Per byte: the high bit of word itself, of word + 1 (DEL), or of a borrow when 33 is taken away.
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
    """Copy a target byte by byte, percent-encoding what may not stand in a request line."""
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
def _put_hex(at, word, digits):
    for place in range(digits):
        shift = np.uint64(4 * (digits - 1 - place))
        poke_u8(np.uint64(at + place), _HEX[(word >> shift) & np.uint64(15)])
    return at + digits


@kernel()
def put_uuid(at, seed, seq):
    """Write a version 4 UUID (RFC 9562, 5.4)."""
    high, low = random_of(seed, seq, _SALT_UUID), random_of(seed, seq, ~_SALT_UUID)
    high = (high & ~np.uint64(0xF000)) | np.uint64(0x4000)
    low = (low & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    at = _put_hex(at, high >> np.uint64(32), 8)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    at = _put_hex(at + 1, high >> np.uint64(16), 4)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    at = _put_hex(at + 1, high, 4)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    at = _put_hex(at + 1, low >> np.uint64(48), 4)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    return _put_hex(at + 1, low, 12)


@kernel()
def put_email(at, seed, seq):
    """Write an address that no other row of this seed has."""
    poke_u8(np.uint64(at), np.uint8(117))
    at = _put_hex(at + 1, random_of(seed, seq, _SALT_EMAIL), 16)
    return put(at, _EMAIL_TAIL, 0, _EMAIL_TAIL.shape[0])


@kernel(inlined=True)
def _ipv4_of(table, client):
    """A client's address: its number plus 1 in the network, so that the first is not the network's own."""
    return table.client_network[0] | (np.uint32(client + 1) & table.client_network[1])


@kernel()
def put_ipv4(at, address):
    """Write an IPv4 address."""
    for place in range(4):
        byte = np.int64(address >> np.uint32(24 - 8 * place)) & 255
        at = put_number(at, byte, digits_of(byte))
        if place < 3:
            poke_u8(np.uint64(at), np.uint8(_DOT))
            at += 1
    return at


@kernel(inlined=True)
def ipv4_length(address):
    """Bytes of an IPv4 address."""
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
    """Bytes of the IPv6 address of a client."""
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
        at = _put_hex(at, np.uint64(high), _hex_digits(high))
        poke_u8(np.uint64(at), np.uint8(_COLON))
        at += 1
    return _put_hex(at, np.uint64(low), _hex_digits(low))


@kernel(inlined=True)
def _recorded_texts(requests, table, number):
    """The texts of a request's recorded Host line and of its other lines; 0 where none are sent."""
    if table.of_headers.shape[0] == 0:
        return np.int64(0), np.int64(0)
    batch, place = number >> BATCH_BITS, number & BATCH_MASK
    host = np.int64(peek_i32(np.uint64(requests[batch, HOST] + 4 * place)))
    headers = np.int64(peek_i32(np.uint64(requests[batch, HEADERS_ID] + 4 * place)))
    return np.int64(table.of_host[host + 1]), np.int64(table.of_headers[headers + 1])


@kernel(inlined=True)
def _cell_of(table, part, seq, client):
    """The cell of a column that a request or its client takes: the rows in turn."""
    column = table.begins[part]
    first = table.column_rows[column]
    number = client if table.kinds[part] == COLUMN_BY_CLIENT else seq
    return first + number % (table.column_rows[column + 1] - first)


@kernel()
def template_length(table, template, seq, client, host, lines):
    """Bytes of a filled template; `host` and `lines` are texts of `recorded`."""
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
            text = host if kind == RECORDED_HOST else lines
            length += table.recorded_ends[text + 1] - table.recorded_ends[text]
        elif kind in (COLUMN_BY_CLIENT, COLUMN_BY_REQUEST):
            cell = _cell_of(table, part, seq, client)
            length += table.cell_ends[cell + 1] - table.cell_ends[cell]
    return length


@kernel(inlined=True)
def _put_patch(patches, place, what):
    """Write a patch (see `sessions`) to an address; the address behind it."""
    poke_u32(np.uint64(patches), np.uint32(place))
    poke_u32(np.uint64(patches + 4), np.uint32(what))
    return patches + PATCH_BYTES


@kernel()
def put_template(at, request, patches, table, template, seq, client, host, lines):
    """Write a filled template into the request that begins at `request`, and its patches to `patches`."""
    seed = table.seed[0]
    for part in range(table.template_parts[template], table.template_parts[template + 1]):
        kind = table.kinds[part]
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
        elif kind == CLIENT:
            at = put_number(at, client, digits_of(client))
        elif kind == NUMBER:
            at = put_number(at, seq, digits_of(seq))
        elif kind == CLIENT_IPV4:
            at = put_ipv4(at, _ipv4_of(table, client))
        elif kind == CLIENT_IPV6:
            at = put_ipv6(at, client)
        elif kind in (RECORDED_HOST, RECORDED_LINES):
            text = host if kind == RECORDED_HOST else lines
            at = put(at, table.recorded, table.recorded_ends[text], table.recorded_ends[text + 1])
        elif kind == CAPTURED:
            patches = _put_patch(patches, at - request, table.begins[part])
        else:
            cell = _cell_of(table, part, seq, client)
            at = put(at, table.cells, table.cell_ends[cell], table.cell_ends[cell + 1])
    return at


@kernel(inlined=True)
def _put_end_of_line(at):
    poke_u8(np.uint64(at), np.uint8(13))
    poke_u8(np.uint64(at + 1), np.uint8(10))
    return at + 2


@kernel(inlined=True)
def _prefix_end(table, method, address, length):
    """Where the method's prefix ends for this target: `*` goes without the base path."""
    if length == 1 and peek_u8(np.uint64(address)) == _STAR:
        return table.bare_ends[method]
    return table.prefix_ends[method + 1]


@kernel(inlined=True)
def _lacks_slash(address, length):
    """Whether a target needs a slash in front, so that it stays a path of this target alone."""
    if length == 0:
        return True
    first = peek_u8(np.uint64(address))
    return first != _SLASH and not (length == 1 and first == _STAR)


@kernel(inlined=True)
def _target_of(requests, number):
    """Address and length of a request's target."""
    batch, place = number >> BATCH_BITS, number & BATCH_MASK
    offsets = requests[batch, OFFSETS] + 8 * place
    begin = peek_i64(np.uint64(offsets))
    return requests[batch, DATA] + begin, peek_i64(np.uint64(offsets + 8)) - begin


@kernel()
def _query_of(address, length):
    """The query of a target, with its question mark; nothing where it has none."""
    for place in range(length):
        if peek_u8(np.uint64(address + place)) == _QUESTION:
            return address + place, length - place
    return address + length, np.int64(0)


@kernel(inlined=True)
def _line_length(table, method, path, seq, client, address, length, escaped):
    """Bytes of a request's method and target; of a path of the scenario's what is left of the target is its query."""
    if path >= 0:
        fixed = table.prefix_ends[method + 1] - table.prefix_ends[method]
        return fixed + template_length(table, path, seq, client, 0, 0) + length + 2 * escaped
    fixed = _prefix_end(table, method, address, length) - table.prefix_ends[method]
    return fixed + np.int64(_lacks_slash(address, length)) + length + 2 * escaped


@kernel(inlined=True)
def _put_line(at, patches, table, method, path, seq, client, address, length, escaped):
    """Write what `_line_length` counts."""
    if path >= 0:
        request = at
        at = put(at, table.prefix, table.prefix_ends[method], table.prefix_ends[method + 1])
        at = put_template(at, request, patches, table, path, seq, client, 0, 0)
    else:
        at = put(at, table.prefix, table.prefix_ends[method], _prefix_end(table, method, address, length))
        if _lacks_slash(address, length):
            poke_u8(np.uint64(at), np.uint8(_SLASH))
            at += 1
    if escaped:
        return put_escaped(at, address, length)
    _memcpy(np.uint64(at), np.uint64(address), np.uint64(length))
    return at + length


@kernel(inlined=True)
def _headers_length(table, head, seq, client, host, lines):
    """Bytes from behind the target to the last header, without those of a body."""
    total = table.headers.shape[0] if head < 0 else template_length(table, head, seq, client, host, lines)
    return total + digits_of(seq) + 2 if table.numbered[0] else total


@kernel(inlined=True)
def _put_headers(at, request, patches, table, head, seq, client, host, lines):
    """Write what `_headers_length` counts."""
    if head < 0:
        at = put(at, table.headers, 0, table.headers.shape[0])
    else:
        at = put_template(at, request, patches, table, head, seq, client, host, lines)
    if table.numbered[0]:
        at = _put_end_of_line(put_number(at, seq, digits_of(seq)))
    return at


@kernel()
def _recorded_body(requests, table, number):
    """Address and length of a request's recorded body, and its content type; a length of -1 where it has none."""
    batch, place = number >> BATCH_BITS, number & BATCH_MASK
    body = np.int64(peek_i32(np.uint64(requests[batch, BODY_ID] + 4 * place)))
    if body < 0 or body >= table.bodies[table.bodies.shape[0] - 1, 0]:
        return np.int64(0), np.int64(-1), np.int64(-1)
    low, high = np.int64(0), np.int64(table.bodies.shape[0] - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if table.bodies[middle, 0] <= body:
            low = middle
        else:
            high = middle
    offsets = table.bodies[low, 1] + 8 * (body - table.bodies[low, 0])
    begin = peek_i64(np.uint64(offsets))
    headers = np.int64(peek_i32(np.uint64(requests[batch, HEADERS_ID] + 4 * place)))
    kind = np.int64(-1)
    if 0 <= headers < table.type_of_headers.shape[0]:
        kind = np.int64(table.type_of_headers[headers])
    return table.bodies[low, 2] + begin, peek_i64(np.uint64(offsets + 8)) - begin, kind


@kernel(inlined=True)
def _recorded_head_length(table, kind, length):
    """Bytes of the headers of a recorded body."""
    return table.type_heads[kind + 1, 1] - table.type_heads[kind + 1, 0] + digits_of(length) + 2


@kernel(inlined=True)
def _put_recorded_head(at, table, kind, length):
    """Write what `_recorded_head_length` counts."""
    at = put(at, table.literals, table.type_heads[kind + 1, 0], table.type_heads[kind + 1, 1])
    return _put_end_of_line(put_number(at, length, digits_of(length)))


@kernel(inlined=True)
def _body_head_length(table, template, filled):
    """Bytes of the headers of a body of `filled` bytes; with patches the lane writes how many they are."""
    if template < 0:
        return np.int64(_NO_BODY.shape[0])
    digits = np.int64(0) if table.template_patches[template] else digits_of(filled)
    return table.template_heads[template, 1] - table.template_heads[template, 0] + digits + 2


@kernel(inlined=True)
def _put_body_head(at, table, template, filled):
    """Write what `_body_head_length` counts."""
    if template < 0:
        return put(at, _NO_BODY, 0, _NO_BODY.shape[0])
    at = put(at, table.literals, table.template_heads[template, 0], table.template_heads[template, 1])
    if table.template_patches[template]:
        return _put_end_of_line(at)
    return _put_end_of_line(put_number(at, filled, digits_of(filled)))


@kernel(inlined=True)
def _patches_of(table, path, own, template):
    """How many patches a request has; one more for the length of a body that has some."""
    count = np.int64(0)
    if path >= 0:
        count += table.template_patches[path]
    if own >= 0:
        count += table.template_patches[own]
    if template >= 0 and table.template_patches[template]:
        count += table.template_patches[template] + 1
    return count


@kernel(inlined=True)
def _place_of(ring_tail, total, size):
    """Where in the stream of ring bytes a request goes: it never wraps."""
    left = size - (ring_tail & (size - 1))
    return ring_tail if total <= left else ring_tail + left


@kernel(
    types.int64(
        types.int64[::1], types.uint32[::1], types.uint32[::1], types.uint32[::1], types.uint8[::1],
        types.int16[::1], types.int64, types.int64, types.int64, types.int64, types.boolean, types.int64, types.int64,
        types.int64,
        types.int64[:, ::1], RENDER_TYPE, types.int64[::1], FEED_TYPE, types.int64[::1],
    )
)  # fmt: skip
def render_rows(
    due_ns, request, client, route, method, status, first_seq, begin, lane, lanes, by_client, start_ns, warm_up_ns,
    horizon_ns,
    requests, table, control, feed, state,
):  # fmt: skip
    """Render a lane's share of due rows from row `begin` on into its feed: every row whose sequence number, or
    whose client with `by_client`, is `lane` modulo `lanes`.

    Stops at the first row that is due after `horizon_ns` (CLOCK_MONOTONIC, as `start_ns`), or that the rings
    have no room for now; the row to go on with, len(due_ns) at the end, or -1 - row where a request is larger
    than the ring. `state` int64[2] is the feed's tail and ring tail; nothing is published. Other columns are
    those of a DueBatch; `requests` is the raw table of the dictionary.
    """
    entries, ring = feed.entries, feed.ring
    head, ring_head = load_acquire(control, Control.FEED_HEAD), load_acquire(control, Control.RING_HEAD)
    base, size = np.int64(ring.ctypes.data), np.int64(ring.shape[0])
    step = 1 if by_client else lanes
    row = begin if by_client else begin + (lane - (first_seq + begin) % lanes + lanes) % lanes
    while row < due_ns.shape[0]:
        if by_client and np.int64(client[row]) % lanes != lane:
            row += 1
            continue
        due, seq = due_ns[row] + start_ns, first_seq + row
        if due > horizon_ns or state[0] - head >= entries.shape[0]:
            break
        kind, client_id = np.int64(method[row]), np.int64(client[row])
        address, length = _target_of(requests, np.int64(request[row]))
        path, own = np.int64(table.route_path[route[row]]), np.int64(table.route_head[route[row]])
        host, lines = _recorded_texts(requests, table, np.int64(request[row]))
        if path >= 0:
            address, length = _query_of(address, length)
            length = np.int64(0) if table.path_whole[path] else length
        escaped = escapes(address, length)
        total = _line_length(table, kind, path, seq, client_id, address, length, escaped)
        total += _headers_length(table, own, seq, client_id, host, lines) + 2
        has_body = table.flags[kind] & BODY != 0
        template, filled = np.int64(-1), np.int64(0)
        recorded, recorded_length, recorded_type = np.int64(0), np.int64(-1), np.int64(-1)
        if has_body:
            template = np.int64(table.route_template[route[row]])
            if template >= 0:
                filled = template_length(table, template, seq, client_id, 0, 0)
            else:
                recorded, recorded_length, recorded_type = _recorded_body(
                    requests, table, np.int64(request[row])
                )
            if recorded_length >= 0:
                total += _recorded_head_length(table, recorded_type, recorded_length) + recorded_length
            else:
                total += _body_head_length(table, template, filled) + filled
        patched = _patches_of(table, path, own, template)
        in_feed = total + PATCH_BYTES * patched
        offset = _place_of(state[1], in_feed, size)
        if in_feed > size:
            return -1 - row
        if offset + in_feed - ring_head > size:
            break

        start = base + (offset & (size - 1))
        patches = start + total
        at = _put_line(start, patches, table, kind, path, seq, client_id, address, length, escaped)
        patches += PATCH_BYTES * table.template_patches[path] if path >= 0 else 0
        at = _put_headers(at, start, patches, table, own, seq, client_id, host, lines)
        patches += PATCH_BYTES * table.template_patches[own] if own >= 0 else 0
        if recorded_length >= 0:
            at = _put_end_of_line(_put_recorded_head(at, table, recorded_type, recorded_length))
            _memcpy(np.uint64(at), np.uint64(recorded), np.uint64(recorded_length))
        elif has_body:
            at = _put_end_of_line(_put_body_head(at, table, template, filled))
            if template >= 0:
                if table.template_patches[template]:
                    patches = _put_patch(patches, at - 4 - start, LENGTH_SLOT)
                put_template(at, start, patches, table, template, seq, client_id, 0, 0)
        else:
            at = _put_end_of_line(at)

        entry = entries[state[0] & (entries.shape[0] - 1)]
        entry.due_ns, entry.seq, entry.offset, entry.length = due, seq, offset, in_feed
        entry.client, entry.route = client[row], route[row]
        warm_up = WARM_UP if due_ns[row] < warm_up_ns else 0
        flags = table.route_flags[route[row]]
        recorded_status = np.int64(max(status[row], 0))
        entry.flags = (table.flags[kind] & (HEAD | IDEMPOTENT)) | warm_up | flags
        entry.flags |= patched << PATCHES_SHIFT | recorded_status << STATUS_SHIFT
        entry.taken_ns, entry.state = 0, 0
        state[0] += 1
        state[1] = offset + in_feed
        row += step
    return min(row, due_ns.shape[0])
