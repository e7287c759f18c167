"""Kernels that render due rows as records in a Kafka lane's feed, in the form in which a batch contains them.

A recorded record is a request `PRODUCE /TOPIC/PARTITION?key=KEY`. The key is percent-encoded, and null without
`?key=`. Its headers are a header set, and its value is a body (null if there is none). Any other request becomes an
event, whose key and value are templates filled with the fields of the request. An entry's `route` is that of the
topic and partition, its `state` is the record's CreateTime in ms.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.feed.ring import (
    FEED_END_TYPE,
    SHARE_TYPE,
    TOO_LARGE,
    WARM_UP,
    address_in_ring,
    has_entry,
    heads_of,
    place_in_ring,
    push_entry,
)
from replay_native.ground import libc
from replay_native.ground.bundle import Array, Int, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i32, peek_u8, poke_u8
from replay_native.plan.survey import DUE_ROWS_TYPE
from replay_native.templates.text import (
    CLIENT,
    EMAIL,
    EMAIL_BYTES,
    LITERAL,
    NUMBER,
    OWN_KINDS,
    UUID,
    UUID_BYTES,
    digits_of,
    put,
    put_email,
    put_number,
    put_uuid,
)
from replay_native.templates.trace_context import FIRST_ATTEMPT, TRACEPARENT_BYTES, put_traceparent
from replay_native.trace.columns import BODY, HEADERS, batch_of, body_at, entry_of, target_of
from replay_native.trace.columns import has_entry as has_set

from .recordbatch import partition_of, put_bytes, put_varint, tail_bytes, varint_bytes

_memcpy = libc.memcpy

STICKY_RECORDS = 1_000
"""Records without a key change their partition after this many records, even if all of them are due at once."""

METHOD, PATH, SEGMENT, AT_MS = range(OWN_KINDS, OWN_KINDS + 4)
"""Kinds of parts besides those of `templates/text`.

PATH is escaped for JSON. SEGMENT is segment number `begins` of the path.
"""


@bundle
class EventTable(NamedTuple):
    """The data that rendering needs besides the row.

    The key and value of an event are filled templates. A record has its recorded key and value.
    """

    recorded: Annotated[Array, "uint8[::1]", "per method: 1 where the request is a record"]
    topics: Annotated[Array, "uint8[::1]", "the names of the trace's topics"]
    topic_ends: Annotated[Array, "int64[::1]", "per topic and one more: where its name begins"]
    topic_target: Annotated[Array, "int64[::1]", "per topic: the target topic that its records go to"]
    default_target: Annotated[int, "int64", "the target topic of everything else"]
    first_route: Annotated[
        Array, "int64[::1]", "per target topic and one more: its first route; one per partition"
    ]
    keep_partition: Annotated[bool, "boolean", "recorded partitions stay"]
    kinds: Annotated[Array, "uint8[::1]", "per part: its kind; the parts of the key come first"]
    begins: Annotated[Array, "int64[::1]", "per part: where its literal begins; which segment it is"]
    ends: Annotated[Array, "int64[::1]", "per part: where its literal ends"]
    key_parts: Annotated[int, "int64", "how many parts the key has; -1: events have no key"]
    literals: Annotated[Array, "uint8[::1]", "the bytes of literals"]
    methods: Annotated[Array, "uint8[::1]", "the names of the methods"]
    method_ends: Annotated[Array, "int64[::1]", "per method and one more: where its name begins"]
    headers: Annotated[Array, "int64[:, ::1]", "recorded header sets; see `Requests.header_batches`"]
    bodies: Annotated[Array, "int64[:, ::1]", "recorded values; see `trace/columns`"]
    seed: Annotated[int, "uint64", "seed of the random parts"]
    wall_ns: Annotated[int, "int64", "wall clock less monotonic clock"]
    keep_time: Annotated[bool, "boolean", "CreateTime is the recorded one; else when the record is due"]
    mark: Annotated[
        Array,
        "uint8[::1]",
        "a numbered header: the length of its name, its name, the text before the number; or empty",
    ]
    mark_name_bytes: Annotated[int, "int64", "bytes of its name with the length"]
    trace_seed: Annotated[int, "uint64", "seed of the trace ids of records; 0: they have no traceparent"]


EVENT_TYPE = numba_type(EventTable)


class Event(NamedTuple):
    """The values for the templates of an event. `address` and `length` are those of the request's target."""

    seq: Int
    client: Int
    method: Int
    address: Int
    length: Int
    at_ms: Int


_SLASH, _QUERY, _PERCENT, _QUOTE, _BACKSLASH = 47, 63, 37, 34, 92
_TRACEPARENT = np.frombuffer(b"traceparent", dtype=np.uint8)
_TRACESTATE = np.frombuffer(b"tracestate", dtype=np.uint8)
_TRACE_HEADER = np.frombuffer(b"\x16traceparent\x6e", dtype=np.uint8)
"""The length of the name, the name, and the length of the value, as a record contains them.

The lengths, 11 and 55, are zigzag varints.
"""

_KEY_MARK = 5
"""Distance from the `?` of `?key=` to the key."""


@kernel(inlined=True)
def _pair(headers, batch, pair, column):
    """Return the address and length of the name (column 2) or value (column 4) of a header.

    A length of -1 means that the value is null.
    """
    if column == 4 and headers[batch, 6]:
        bits = peek_u8(np.uint64(headers[batch, 6] + (pair >> 3)))
        if np.int64(bits) >> (pair & 7) & 1 == 0:
            return headers[batch, 5], np.int64(-1)
    begin = np.int64(peek_i32(np.uint64(headers[batch, column] + 4 * pair)))
    end = np.int64(peek_i32(np.uint64(headers[batch, column] + 4 * pair + 4)))
    return headers[batch, column + 1] + begin, end - begin


@kernel(inlined=True)
def _mark(table, seq, at):
    """Return the length of the numbered header, 0 if there is none, and write it to `at` unless the address is 0."""
    name, size = table.mark_name_bytes, np.int64(table.mark.shape[0])
    if size == 0:
        return np.int64(0)
    length = size - name + digits_of(seq)
    if at:
        at = put(at, table.mark, np.int64(0), name)
        at = put_varint(at, length)
        at = put(at, table.mark, name, size)
        put_number(at, seq, digits_of(seq))
    return name + varint_bytes(length) + length


@kernel(inlined=True)
def _trace(table, seq, at):
    """Return the length of the traceparent header, 0 if there is none, and write it to `at` unless the address is 0."""
    if table.trace_seed == np.uint64(0):
        return np.int64(0)
    if at:
        at = put(at, _TRACE_HEADER, 0, _TRACE_HEADER.shape[0])
        put_traceparent(at, table.trace_seed, seq, np.int64(FIRST_ATTEMPT))
    return np.int64(_TRACE_HEADER.shape[0] + TRACEPARENT_BYTES)


@kernel(inlined=True)
def _is_named(address, length, name):
    if length != name.shape[0]:
        return False
    same = np.int64(0)
    while same < length and peek_u8(np.uint64(address + same)) == name[same]:
        same += 1
    return same == length


@kernel(inlined=True)
def _is_replaced(table, batch, pair):
    """Return whether a recorded header belongs to the recorded trace, which the trace of the new record replaces."""
    if table.trace_seed == np.uint64(0):
        return False
    address, length = _pair(table.headers, batch, pair, 2)
    return _is_named(address, length, _TRACEPARENT) or _is_named(address, length, _TRACESTATE)


@kernel()
def _headers(table, number, seq, at):
    """Return the length of a header set with its count, and write it to `at` unless the address is 0.

    The headers that `replay` adds come first.
    """
    first, last, batch = np.int64(0), np.int64(0), np.int64(0)
    if has_set(table.headers, number):
        batch = batch_of(table.headers, number)
        place = table.headers[batch, 1] + 4 * (number - table.headers[batch, 0])
        first, last = np.int64(peek_i32(np.uint64(place))), np.int64(peek_i32(np.uint64(place + 4)))
    count = np.int64(table.mark.shape[0] > 0) + np.int64(table.trace_seed != np.uint64(0))
    for pair in range(first, last):
        count += not _is_replaced(table, batch, pair)
    total = varint_bytes(count)
    if at:
        at = put_varint(at, count)
    size = _mark(table, seq, at)
    size += _trace(table, seq, at + size if at else at)
    total += size
    if at:
        at += size
    for pair in range(first, last):
        if _is_replaced(table, batch, pair):
            continue
        for column in (2, 4):
            address, length = _pair(table.headers, batch, pair, column)
            total += varint_bytes(length) + max(length, np.int64(0))
            if at:
                at = put_bytes(at, address, length)
    return total


@kernel(inlined=True)
def _topic_of(table, address, length):
    """Return the index of a name among the trace's topics, or -1."""
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
    """Parse a recorded target, and return its topic, its partition, and where its key begins.

    A topic of -1 is not one of the trace's. A key that begins at -1 is null.
    """
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
    """Return the length of a percent-encoded text after decoding."""
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
    """Write a percent-encoded text decoded, and return the address after it."""
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
    """Return where segment `number` of a path (from 1) begins, and its length (0: there is no such segment)."""
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
def _filled_bytes(table, first, last, event):
    """Return the length of the parts [first, last) after their values are filled in."""
    method, address, length, at_ms = event.method, event.address, event.length, event.at_ms
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
            total += digits_of(event.client)
        elif kind == NUMBER:
            total += digits_of(event.seq)
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
def _put_filled(at, table, first, last, event):
    """Write the parts [first, last) with their values filled in, and return the address after them."""
    seq, method, address, length, at_ms = event.seq, event.method, event.address, event.length, event.at_ms
    for part in range(first, last):
        kind = table.kinds[part]
        if kind == LITERAL:
            at = put(at, table.literals, table.begins[part], table.ends[part])
        elif kind == UUID:
            at = put_uuid(at, table.seed, seq)
        elif kind == EMAIL:
            at = put_email(at, table.seed, seq)
        elif kind == CLIENT:
            at = put_number(at, event.client, digits_of(event.client))
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
    """Return the route of a record: its recorded partition, that of its key, or one that depends on when it is due.

    Java's clients also keep one partition for a whole batch (KIP-480): if records took turns, there would be as
    many batches as partitions. So the partition changes with the millisecond, and after STICKY_RECORDS records. The
    millisecond counts from the start of the run, so that all agents of a run choose the same partition. It is mixed
    (by the golden ratio), so that no request rate falls into step with the partitions.
    """
    first = table.first_route[target]
    partitions = table.first_route[target + 1] - first
    if partition >= 0 and table.keep_partition:
        return first + partition % partitions
    if key_bytes >= 0:
        return first + partition_of(key, key_bytes, partitions)
    mixed = np.uint64(due_ms + seq // STICKY_RECORDS) * np.uint64(0x9E3779B97F4A7C15)
    return first + np.int64(mixed >> np.uint64(33)) % partitions


@kernel(inlined=True)
def _record_at(table, address, length):
    """Parse a recorded target, and return the target topic, the partition, and the start and decoded length of the key.

    If the key is null, the last two are -1.
    """
    topic, partition, key_at = _parsed(table, address, length)
    target = table.topic_target[topic] if topic >= 0 else table.default_target
    key_bytes = _decoded_bytes(address + key_at, length - key_at) if key_at >= 0 else np.int64(-1)
    return target, partition, key_at, key_bytes


@kernel(
    types.int64(
        DUE_ROWS_TYPE,
        types.int64,
        types.int64,
        types.int64[:, ::1],
        EVENT_TYPE,
        types.uint8[::1],
        types.int64[::1],
    )
)
def route_events(rows, first_seq, begin, requests, table, space, routes):
    """Find the routes of the rows from `begin` on, as `render_events` does, and return the row to continue with.

    `space` is scratch for one key. The result is a row whose key needs more space, or the number of rows.
    """
    key = np.int64(space.ctypes.data)
    key_parts, row = max(table.key_parts, np.int64(0)), begin
    while row < rows.due_ns.shape[0]:
        kind, seq = np.int64(rows.method[row]), first_seq + row
        address, length = target_of(requests, np.int64(rows.request[row]))
        event = Event(seq, np.int64(rows.client[row]), kind, address, length, rows.at_ns[row] // 1_000_000)
        target, partition, key_at, key_bytes = table.default_target, np.int64(-1), np.int64(-1), np.int64(-1)
        if table.recorded[kind] != 0:
            target, partition, key_at, key_bytes = _record_at(table, address, length)
        elif table.key_parts >= 0:
            key_bytes = _filled_bytes(table, 0, key_parts, event)
        if key_bytes > space.shape[0]:
            return row
        if key_bytes > 0 and not (partition >= 0 and table.keep_partition):
            if key_at >= 0:
                _put_decoded(key, address + key_at, length - key_at)
            else:
                _put_filled(key, table, 0, key_parts, event)
        due_ms = rows.due_ns[row] // 1_000_000
        routes[row] = _route_of(table, target, partition, key, key_bytes, due_ms, seq)
        row += 1
    return row


@kernel(
    types.int64(
        DUE_ROWS_TYPE,
        types.int64,
        types.int64,
        SHARE_TYPE,
        types.int64[:, ::1],
        EVENT_TYPE,
        FEED_END_TYPE,
        types.int64[::1],
    )
)
def render_events(rows, first_seq, begin, share, requests, table, end, routes):
    """Render a lane's share of due rows into its feed as records, as `http1.render.render_rows` does for requests.

    The lane gets the rows whose route modulo the number of lanes is the lane's number. `routes` are those of
    `route_events`. They are not read if there is only one lane. The result is the row to continue with, or -1 - row
    if the record of a row is larger than the ring.
    """
    head, ring_head = heads_of(end)
    parts, key_parts = table.kinds.shape[0], max(table.key_parts, np.int64(0))
    due_ns, count, row = rows.due_ns, rows.due_ns.shape[0], begin
    while row < count:
        if share.lanes > 1 and routes[row] % share.lanes != share.lane:
            row += 1
            continue
        due, seq = due_ns[row] + share.start_ns, first_seq + row
        if due > share.horizon_ns or not has_entry(end, head):
            break
        number, kind = np.int64(rows.request[row]), np.int64(rows.method[row])
        address, length = target_of(requests, number)
        at_ms = rows.at_ns[row] // 1_000_000
        event = Event(seq, np.int64(rows.client[row]), kind, address, length, at_ms)
        target, partition, key_at, headers = table.default_target, np.int64(-1), np.int64(-1), np.int64(-1)
        value, value_bytes, key_bytes = np.int64(0), np.int64(-1), np.int64(-1)
        recorded = table.recorded[kind] != 0
        if recorded:
            target, partition, key_at, key_bytes = _record_at(table, address, length)
            headers = entry_of(requests, number, HEADERS)
            value, value_bytes = body_at(table.bodies, entry_of(requests, number, BODY))
        else:
            if table.key_parts >= 0:
                key_bytes = _filled_bytes(table, 0, key_parts, event)
            value_bytes = _filled_bytes(table, key_parts, parts, event)
        total = tail_bytes(key_bytes, value_bytes, _headers(table, headers, seq, np.int64(0)))
        offset = place_in_ring(end, total, ring_head)
        if offset == TOO_LARGE:
            return -1 - row
        if offset < 0:
            break

        at = put_varint(address_in_ring(end, offset), key_bytes)
        key = at
        if recorded:
            if key_bytes > 0:
                at = _put_decoded(at, address + key_at, length - key_at)
            at = put_bytes(at, value, value_bytes)
        else:
            if key_bytes > 0:
                at = _put_filled(at, table, 0, key_parts, event)
            at = put_varint(at, value_bytes)
            at = _put_filled(at, table, key_parts, parts, event)
        _headers(table, headers, seq, at)

        entry = push_entry(end, due, seq, offset, total, rows.client[row])
        due_ms = due_ns[row] // 1_000_000
        entry.route = np.uint32(_route_of(table, target, partition, key, key_bytes, due_ms, seq))
        entry.flags = WARM_UP if due_ns[row] < share.warm_up_ns else 0
        entry.state = at_ms if table.keep_time else (due + table.wall_ns) // 1_000_000
        row += 1
    return min(row, count)
