"""What a lane keeps of each client, and the waiting room: requests that left the feed's ring to wait for their client.

A row of the room is in its client's line (oldest first), and in the age list of all that wait. A client with a row that
needs nothing but a connection is in the ready list; where clients have connections of their own, one that needs another
is in the dial list. All are linked by index, so that each step is a few words, however many clients there are.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype

from replay_native.ground import libc
from replay_native.ground.jit import kernel
from replay_native.ground.memory import release, with_room

_memcpy = libc.memcpy

NONE = -1
OUT = -2
"""Of a client's links: it is not in that list."""

CLIENT = np.dtype([
    ("tls_session", "u8"), ("first", "i4"), ("last", "i4"), ("in_flight", "i4"), ("startable", "i4"), ("ready_next", "i4"),
    ("dial_next", "i4"), ("idle", "i4"), ("open", "i4"), ("connecting", "i4"),
])  # fmt: skip
"""One client: its line in the room, its requests in flight (attempted and not ended), rows of its line that wait for a
connection alone, and the next in the ready and the dial list. Of its own connections: the idle one that it used last,
how many there are, and how many of those are being made for no request in particular; and the address of the TLS
session that its next one resumes, 0 for none."""

WAITING = np.dtype([
    ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"), ("since_ns", "i8"), ("ready_ns", "i8"), ("flags", "i8"),
    ("tries", "i8"), ("retry_ns", "i8"), ("first_ready_ns", "i8"), ("sent_ns", "i8"), ("outcome", "i8"), ("status", "i8"),
    ("received_bytes", "i8"), ("reason", "i8"), ("own_ns", "i8"),
    ("request", "u8"), ("capacity", "i8"), ("length", "i8"), ("client", "u4"), ("route", "u4"), ("key", "i4"),
    ("next", "i4"), ("previous", "i4"), ("newer", "i4"), ("older", "i4"),
])  # fmt: skip
"""One row of the room. It waits since `since_ns`; `ready_ns` is when it could have been sent, had there been a connection
(-1: not yet). Of a request that was tried before: how often, when it is tried again, when it was first ready and first
sent, and what its last try came to (`reason`: why its answer was malformed). `own_ns`: see `connections`.
`key` is its client's row in the lane's table; `request` the address of its own copy of the request."""

client_type, waiting_type = from_dtype(CLIENT), from_dtype(WAITING)

REQUEST_BYTES = 256
"""Least room of a copy of a request."""

KEPT_BYTES = 16_384
"""A copy's room that stays with its row; a larger one is given back."""


def make_clients(count):
    """The table of `count` clients, CLIENT[count], every page of it resident."""
    clients = np.zeros(count, CLIENT)
    clients["first"] = clients["last"] = clients["idle"] = NONE
    clients["ready_next"] = clients["dial_next"] = OUT
    return clients


def make_room(rows):
    """An empty room, WAITING[rows], its rows in the stack of free ones."""
    room = np.zeros(rows, WAITING)
    room["next"] = np.arange(1, rows + 1)
    room["next"][-1:] = NONE
    return room


@kernel(inlined=True)
def key_of(lane, client):
    """The row of a client in the lane's table: a lane has every `lanes`-th client."""
    return np.int64(client) // lane.state[0].lanes


# The room.


@kernel(inlined=True)
def hold(lane, row, address, length):
    """Copy a request into a free row's own buffer; the row is in use from now on."""
    st, w = lane.state[0], lane.room[row]
    st.room_free = w.next
    w.request, w.capacity = with_room(w.request, w.capacity, max(length, np.int64(REQUEST_BYTES)))
    _memcpy(w.request, address, np.uint64(length))
    w.length = length
    w.ready_ns = -1
    w.tries = 0
    w.sent_ns = -1


@kernel(inlined=True)
def push_age(lane, row):
    """The row waits from now on: it is the youngest that does."""
    st, w = lane.state[0], lane.room[row]
    w.newer = NONE
    w.older = np.int32(st.age_last)
    if st.age_last == NONE:
        st.age_first = row
    else:
        lane.room[st.age_last].newer = np.int32(row)
    st.age_last = row
    st.waiting += 1
    st.waiting_bytes += w.length


@kernel(inlined=True)
def drop_age(lane, row):
    """The row waits no more."""
    st, w = lane.state[0], lane.room[row]
    if w.older == NONE:
        st.age_first = w.newer
    else:
        lane.room[w.older].newer = w.newer
    if w.newer == NONE:
        st.age_last = w.older
    else:
        lane.room[w.newer].older = w.older
    st.waiting -= 1
    st.waiting_bytes -= w.length


@kernel(inlined=True)
def leave_room(lane, row):
    """The row is free again."""
    st, w = lane.state[0], lane.room[row]
    if w.capacity > KEPT_BYTES:
        release(w.request)
        w.request = np.uint64(0)
        w.capacity = 0
    w.next = np.int32(st.room_free)
    st.room_free = row


@kernel(inlined=True)
def swap_requests(c, w):
    """The row's copy of its request becomes the connection's, and the other way round."""
    request, capacity = c.request, c.capacity
    c.request, c.capacity = w.request, w.capacity
    w.request, w.capacity = request, capacity


# A client's line.


@kernel(inlined=True)
def join_line(lane, row):
    """To the end of its client's line; to its front where it was tried before."""
    w = lane.room[row]
    client = lane.clients[w.key]
    if w.tries and client.first != NONE:
        w.previous = NONE
        w.next = client.first
        lane.room[client.first].previous = np.int32(row)
        client.first = np.int32(row)
        return
    w.next = NONE
    w.previous = client.last
    if client.last == NONE:
        client.first = np.int32(row)
    else:
        lane.room[client.last].next = np.int32(row)
    client.last = np.int32(row)


@kernel(inlined=True)
def leave_line(lane, row):
    """Out of its client's line, from wherever it stands."""
    st, w = lane.state[0], lane.room[row]
    client = lane.clients[w.key]
    if w.previous == NONE:
        client.first = w.next
    else:
        lane.room[w.previous].next = w.next
    if w.next == NONE:
        client.last = w.previous
    else:
        lane.room[w.next].previous = w.previous
    if w.ready_ns >= 0:
        client.startable -= 1
        st.startable -= 1


@kernel(inlined=True)
def set_ready(lane, row, now):
    """From now on the row waits for a connection alone."""
    st, w = lane.state[0], lane.room[row]
    w.ready_ns = now
    lane.clients[w.key].startable += 1
    st.startable += 1
    push_ready(lane, w.key)


@kernel(inlined=True)
def settle_line(lane, key, now):
    """Whether the first of a client's line may go: in order, only once none of its requests is in flight."""
    client = lane.clients[key]
    if client.first != NONE and client.in_flight == 0 and lane.room[client.first].ready_ns < 0:
        set_ready(lane, client.first, now)


# Lists of clients.


@kernel(inlined=True)
def push_ready(lane, key):
    """To the end of the ready list, where it is not in it."""
    st = lane.state[0]
    if lane.clients[key].ready_next != OUT:
        return
    lane.clients[key].ready_next = NONE
    if st.ready_last == NONE:
        st.ready_first = key
    else:
        lane.clients[st.ready_last].ready_next = np.int32(key)
    st.ready_last = key


@kernel(inlined=True)
def pop_ready(lane):
    """The first of the ready list, which is not empty."""
    st = lane.state[0]
    key = st.ready_first
    st.ready_first = lane.clients[key].ready_next
    if st.ready_first == NONE:
        st.ready_last = NONE
    lane.clients[key].ready_next = OUT
    return key


@kernel(inlined=True)
def wants_connection(lane, key):
    """Whether rows of a client wait for which no connection of its own is on its way, and it may have one more."""
    client = lane.clients[key]
    return client.startable > client.connecting and client.open < lane.state[0].client_connections


@kernel(inlined=True)
def push_dial(lane, key):
    """To the end of the dial list, where it is not in it."""
    st = lane.state[0]
    if lane.clients[key].dial_next != OUT:
        return
    lane.clients[key].dial_next = NONE
    if st.dial_last == NONE:
        st.dial_first = key
    else:
        lane.clients[st.dial_last].dial_next = np.int32(key)
    st.dial_last = key


@kernel(inlined=True)
def pop_dial(lane):
    """The first of the dial list, which is not empty."""
    st = lane.state[0]
    key = st.dial_first
    st.dial_first = lane.clients[key].dial_next
    if st.dial_first == NONE:
        st.dial_last = NONE
    lane.clients[key].dial_next = OUT
    return key
