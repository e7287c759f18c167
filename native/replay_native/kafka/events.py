"""Due rows to records in a Kafka lane's feed: key, value and headers behind each other, ready to be put in a batch.

A record that was recorded is a request `PRODUCE /TOPIC/PARTITION?key=KEY` (the key percent-encoded; without `?key=` it
is null), its headers a header set, its value a body (none: null). Any other request becomes an event: key and value
are templates filled with what the request was. An entry's `route` is that of the topic and partition, its `state` the
record's CreateTime in ms.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import types

from replay_native.feed.ring import FEED_TYPE, WARM_UP
from replay_native.ground import libc
from replay_native.ground.bundle import bundle_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import (
    load_acquire,
    peek_i32,
    peek_i64,
    peek_u8,
    poke_u8,
)
from replay_native.http1.render import (
    CLIENT,
    EMAIL,
    EMAIL_BYTES,
    LITERAL,
    NUMBER,
    UUID,
    UUID_BYTES,
    digits_of,
    put,
    put_email,
    put_number,
    put_uuid,
)
from replay_native.ledger.lane_metrics import Control
from replay_native.plan.survey import (
    BATCH_BITS,
    BATCH_MASK,
    BODY_ID,
    DATA,
    HEADERS_ID,
    OFFSETS,
)

from .recordbatch import (
    partition_of,
    put_bytes,
    put_varint,
    tail_bytes,
    varint_bytes,
)

_memcpy = libc.memcpy

STICKY_RECORDS = 1_000
"""Where all is due at once, records without a key change their partition after so many."""

METHOD, PATH, SEGMENT, AT_MS = 5, 6, 7, 8
"""Kinds of a template's parts beside those of requests. PATH is escaped for JSON; SEGMENT is part `begins` of the path."""

EventTable = namedtuple(
    "EventTable",
    "recorded topics topic_ends topic_target default_target first_route keep_partition kinds begins ends key_parts"
    " literals methods method_ends headers bodies seed wall mark mark_name_bytes",
)
"""What rendering needs besides the row.

recorded uint8[methods]: 1 where the request is a record. Topic i of the trace, topics[topic_ends[i]:topic_ends[i + 1]],
goes to target topic_target[i]; what is of no topic to default_target[0]. Target t has the routes first_route[t] to
first_route[t + 1], one a partition. keep_partition[0]: recorded partitions stay. Parts 0 to key_parts[0] (-1: no key)
are the key of an event, those behind them its value. headers int64[n + 1, 7] and bodies int64[n + 1, 3] are those of
`Requests.header_batches` and `body_batches`. wall int64[2]: wall clock less monotonic in ns, and whether CreateTime is
the recorded one. mark: one more header, whose value is numbered: its name behind the name's length (mark_name_bytes[0]
bytes), then what comes before the number; empty: none.
"""

EVENT_TYPE = bundle_type(
    EventTable,
    [
        types.uint8[::1], types.uint8[::1], types.int64[::1], types.int64[::1], types.int64[::1], types.int64[::1],
        types.int64[::1], types.uint8[::1], types.int64[::1], types.int64[::1], types.int64[::1], types.uint8[::1],
        types.uint8[::1], types.int64[::1], types.int64[:, ::1], types.int64[:, ::1], types.uint64[::1],
        types.int64[::1], types.uint8[::1], types.int64[::1],
    ],
)  # fmt: skip

_SLASH, _QUERY, _PERCENT, _QUOTE, _BACKSLASH = 47, 63, 37, 34, 92
_KEY_MARK = 5
"""Bytes of `?key=` but one."""


@kernel(inlined=True)
def _batch_of(batches, number):
    """The batch of a dictionary that holds an id."""
    low, high = np.int64(0), np.int64(batches.shape[0] - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if batches[middle, 0] <= number:
            low = middle
        else:
            high = middle
    return low


@kernel()
def _value_of(table, number):
    """Address and length of a recorded value; -1 bytes for none."""
    if number < 0 or number >= table.bodies[table.bodies.shape[0] - 1, 0]:
        return np.int64(0), np.int64(-1)
    batch = _batch_of(table.bodies, number)
    offsets = table.bodies[batch, 1] + 8 * (number - table.bodies[batch, 0])
    begin = peek_i64(np.uint64(offsets))
    return table.bodies[batch, 2] + begin, peek_i64(np.uint64(offsets + 8)) - begin


@kernel(inlined=True)
def _pair(headers, batch, pair, column):
    """Address and length of the name (column 2) or value (column 4) of a header; a value of -1 bytes is null."""
    if column == 4 and headers[batch, 6]:
        bits = peek_u8(np.uint64(headers[batch, 6] + (pair >> 3)))
        if np.int64(bits) >> (pair & 7) & 1 == 0:
            return headers[batch, 5], np.int64(-1)
    begin = np.int64(peek_i32(np.uint64(headers[batch, column] + 4 * pair)))
    end = np.int64(peek_i32(np.uint64(headers[batch, column] + 4 * pair + 4)))
    return headers[batch, column + 1] + begin, end - begin


@kernel(inlined=True)
def _mark(table, seq, at):
    """Bytes of the numbered header, 0 where there is none; written at an address unless that is 0."""
    name, size = table.mark_name_bytes[0], np.int64(table.mark.shape[0])
    if size == 0:
        return np.int64(0)
    length = size - name + digits_of(seq)
    if at:
        at = put(at, table.mark, np.int64(0), name)
        at = put_varint(at, length)
        at = put(at, table.mark, name, size)
        put_number(at, seq, digits_of(seq))
    return name + varint_bytes(length) + length


@kernel()
def _headers(table, number, seq, at):
    """Bytes of a header set with its count, and the numbered header in front; written at an address unless that is 0."""
    first, last, batch = np.int64(0), np.int64(0), np.int64(0)
    if 0 <= number < table.headers[table.headers.shape[0] - 1, 0]:
        batch = _batch_of(table.headers, number)
        place = table.headers[batch, 1] + 4 * (number - table.headers[batch, 0])
        first, last = np.int64(peek_i32(np.uint64(place))), np.int64(peek_i32(np.uint64(place + 4)))
    count = last - first + (table.mark.shape[0] > 0)
    total = varint_bytes(count)
    if at:
        at = put_varint(at, count)
    size = _mark(table, seq, at)
    total += size
    if at:
        at += size
    for pair in range(first, last):
        for column in (2, 4):
            address, length = _pair(table.headers, batch, pair, column)
            total += varint_bytes(length) + max(length, np.int64(0))
            if at:
                at = put_bytes(at, address, length)
    return total


@kernel(inlined=True)
def _topic_of(table, address, length):
    """Index of a name among the trace's topics, or -1."""
    for topic in range(table.topic_ends.shape[0] - 1):
        begin = table.topic_ends[topic]
        if table.topic_ends[topic + 1] - begin == length:
            same = True
            for place in range(length):
                if peek_u8(np.uint64(address + place)) != table.topics[begin + place]:
                    same = False
                    break
            if same:
                return topic
    return -1


@kernel()
def _parsed(table, address, length):
    """Of a recorded target: its topic (-1: not one of the trace's), partition, and where its key begins (-1: null)."""
    at = np.int64(1)
    while at < length and peek_u8(np.uint64(address + at)) != _SLASH:
        at += 1
    topic = _topic_of(table, address + 1, at - 1)
    partition = np.int64(0)
    at += 1
    while at < length and peek_u8(np.uint64(address + at)) != _QUERY and partition < 1 << 31:
        partition = 10 * partition + np.int64(peek_u8(np.uint64(address + at))) - 48
        at += 1
    return topic, partition, (at + _KEY_MARK if at + _KEY_MARK <= length else np.int64(-1))


@kernel(inlined=True)
def _decoded_bytes(address, length):
    """Bytes of a percent-encoded text when it is decoded."""
    count, at = np.int64(0), np.int64(0)
    while at < length:
        at += 3 if peek_u8(np.uint64(address + at)) == _PERCENT and at + 2 < length else 1
        count += 1
    return count


@kernel(inlined=True)
def _nibble(byte):
    if byte >= 97:
        return byte - 87
    return byte - 55 if byte >= 65 else byte - 48


@kernel()
def _put_decoded(at, address, length):
    """Write a percent-encoded text decoded; the address behind it."""
    place = np.int64(0)
    while place < length:
        byte = np.int64(peek_u8(np.uint64(address + place)))
        if byte == _PERCENT and place + 2 < length:
            high = _nibble(np.int64(peek_u8(np.uint64(address + place + 1))))
            byte = (16 * high + _nibble(np.int64(peek_u8(np.uint64(address + place + 2))))) & 255
            place += 2
        poke_u8(np.uint64(at), np.uint8(byte))
        at += 1
        place += 1
    return at


@kernel()
def _segment(address, length, number):
    """Where segment `number` of a path (from 1) begins, and its length: 0 where there is none."""
    begin, seen = np.int64(0), np.int64(0)
    for at in range(length + 1):
        byte = peek_u8(np.uint64(address + at)) if at < length else np.uint8(_QUERY)
        if byte in (_SLASH, _QUERY):
            if seen == number:
                return begin, at - begin
            if byte == _QUERY:
                break
            seen += 1
            begin = np.int64(at + 1)
    return np.int64(0), np.int64(0)


@kernel(inlined=True)
def _quoted(byte):
    return byte in (_QUOTE, _BACKSLASH)


@kernel()
def _filled_bytes(table, first, last, seq, client, method, address, length, at_ms):
    """Bytes of the parts `first` to `last` when they are filled in."""
    total = np.int64(0)
    for part in range(first, last):
        kind = table.kinds[part]
        if kind == LITERAL:
            total += table.ends[part] - table.begins[part]
        elif kind == UUID:
            total += UUID_BYTES
        elif kind == EMAIL:
            total += EMAIL_BYTES
        elif kind == CLIENT:
            total += digits_of(client)
        elif kind == NUMBER:
            total += digits_of(seq)
        elif kind == METHOD:
            total += table.method_ends[method + 1] - table.method_ends[method]
        elif kind == AT_MS:
            total += digits_of(max(at_ms, 0))
        elif kind == SEGMENT:
            total += _segment(address, length, table.begins[part])[1]
        else:
            total += length
            for place in range(length):
                total += _quoted(peek_u8(np.uint64(address + place)))
    return total


@kernel()
def _put_filled(at, table, first, last, seq, client, method, address, length, at_ms):
    """Write what `_filled_bytes` counts; the address behind it."""
    for part in range(first, last):
        kind = table.kinds[part]
        if kind == LITERAL:
            at = put(at, table.literals, table.begins[part], table.ends[part])
        elif kind == UUID:
            at = put_uuid(at, table.seed[0], seq)
        elif kind == EMAIL:
            at = put_email(at, table.seed[0], seq)
        elif kind == CLIENT:
            at = put_number(at, client, digits_of(client))
        elif kind == NUMBER:
            at = put_number(at, seq, digits_of(seq))
        elif kind == METHOD:
            at = put(at, table.methods, table.method_ends[method], table.method_ends[method + 1])
        elif kind == AT_MS:
            at = put_number(at, max(at_ms, 0), digits_of(max(at_ms, 0)))
        elif kind == SEGMENT:
            begin, size = _segment(address, length, table.begins[part])
            _memcpy(np.uint64(at), np.uint64(address + begin), np.uint64(size))
            at += size
        else:
            for place in range(length):
                byte = peek_u8(np.uint64(address + place))
                if _quoted(byte):
                    poke_u8(np.uint64(at), np.uint8(_BACKSLASH))
                    at += 1
                poke_u8(np.uint64(at), byte)
                at += 1
    return at


@kernel(inlined=True)
def _route_of(table, target, partition, key, key_bytes, due_ms, seq):
    """The route of a record: its own partition (-1: none), that of its key, or one that those of its millisecond share.

    As Java's clients (KIP-480), which stay with a partition for a batch: records that go round one by one would make as
    many batches as there are partitions. The millisecond is mixed (by the golden ratio), so that no rate falls in step.
    """
    first = table.first_route[target]
    partitions = table.first_route[target + 1] - first
    if partition >= 0 and table.keep_partition[0]:
        return first + partition % partitions
    if key_bytes >= 0:
        return first + partition_of(key, key_bytes, partitions)
    mixed = np.uint64(due_ms + seq // STICKY_RECORDS) * np.uint64(0x9E3779B97F4A7C15)
    return first + np.int64(mixed >> np.uint64(33)) % partitions


@kernel(
    types.int64(
        types.int64[::1], types.uint32[::1], types.uint32[::1], types.uint8[::1], types.int64[::1],
        types.int64, types.int64, types.int64, types.int64, types.int64, types.int64, types.int64,
        types.int64[:, ::1], EVENT_TYPE, types.int64[::1], FEED_TYPE, types.int64[::1],
    )
)  # fmt: skip
def render_events(
    due_ns, request, client, method, at_ns, first_seq, begin, lane, lanes, start_ns, warm_up_ns, horizon_ns,
    requests, table, control, feed, state,
):  # fmt: skip
    """Render a lane's share of due rows (seq % lanes == lane) from row `begin` on into its feed.

    As `replay_native.render.render_rows`: the row to go on with, or -1 - row where a record is larger than the ring.
    """
    entries, ring = feed.entries, feed.ring
    head, ring_head = load_acquire(control, Control.FEED_HEAD), load_acquire(control, Control.RING_HEAD)
    base, size = np.int64(ring.ctypes.data), np.int64(ring.shape[0])
    parts = table.kinds.shape[0]
    row = begin + (lane - (first_seq + begin) % lanes + lanes) % lanes
    while row < due_ns.shape[0]:
        due, seq = due_ns[row] + start_ns, first_seq + row
        if due > horizon_ns or state[0] - head >= entries.shape[0]:
            break
        number, kind, client_id = np.int64(request[row]), np.int64(method[row]), np.int64(client[row])
        batch, place = number >> BATCH_BITS, number & BATCH_MASK
        offsets = requests[batch, OFFSETS] + 8 * place
        first = peek_i64(np.uint64(offsets))
        address, length = requests[batch, DATA] + first, peek_i64(np.uint64(offsets + 8)) - first
        at_ms = at_ns[row] // 1_000_000
        target, partition, key_at, headers = table.default_target[0], np.int64(-1), np.int64(-1), np.int64(-1)
        value, value_bytes, key_bytes = np.int64(0), np.int64(-1), np.int64(-1)
        recorded = table.recorded[kind] != 0
        if recorded:
            topic, partition, key_at = _parsed(table, address, length)
            if topic >= 0:
                target = table.topic_target[topic]
            if key_at >= 0:
                key_bytes = _decoded_bytes(address + key_at, length - key_at)
            headers = np.int64(peek_i32(np.uint64(requests[batch, HEADERS_ID] + 4 * place)))
            value, value_bytes = _value_of(
                table, np.int64(peek_i32(np.uint64(requests[batch, BODY_ID] + 4 * place)))
            )
        else:
            key_parts = max(table.key_parts[0], 0)
            if table.key_parts[0] >= 0:
                key_bytes = _filled_bytes(table, 0, key_parts, seq, client_id, kind, address, length, at_ms)
            value_bytes = _filled_bytes(table, key_parts, parts, seq, client_id, kind, address, length, at_ms)
        total = tail_bytes(key_bytes, value_bytes, _headers(table, headers, seq, np.int64(0)))
        left = size - (state[1] & (size - 1))
        offset = state[1] if total <= left else state[1] + left
        if total > size:
            return -1 - row
        if offset + total - ring_head > size:
            break

        at = put_varint(base + (offset & (size - 1)), key_bytes)
        key = at
        if recorded:
            if key_bytes > 0:
                at = _put_decoded(at, address + key_at, length - key_at)
            at = put_bytes(at, value, value_bytes)
        else:
            if key_bytes > 0:
                at = _put_filled(at, table, 0, key_parts, seq, client_id, kind, address, length, at_ms)
            at = put_varint(at, value_bytes)
            at = _put_filled(at, table, key_parts, parts, seq, client_id, kind, address, length, at_ms)
        _headers(table, headers, seq, at)

        entry = entries[state[0] & (entries.shape[0] - 1)]
        entry.due_ns, entry.seq, entry.offset, entry.length = due, seq, offset, total
        entry.client = client[row]
        due_ms = (due + table.wall[0]) // 1_000_000
        entry.route = np.uint32(_route_of(table, target, partition, key, key_bytes, due_ms, seq))
        entry.flags = WARM_UP if due_ns[row] < warm_up_ns else 0
        entry.taken_ns = 0
        entry.state = at_ms if table.wall[1] else due_ms
        state[0] += 1
        state[1] = offset + total
        row += lanes
    return min(row, due_ns.shape[0])
