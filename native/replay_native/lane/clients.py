"""The lane's clients, and the wait queue: requests that left the feed's ring to wait for their client or a connection.

Theory of operation
-------------------

Without clients, requests wait where they were rendered: in the feed's ring, which is first in, first out. That does
not do where clients matter (`order = "client"`, `connect = "per-client"`): the next request of one client may have to
wait for seconds, and must not hold up the ring, the feed, or anybody else. So a request leaves the ring as soon as it
is taken up. It goes onto a free connection, or into a row of the **wait queue** with a copy of its bytes. Retries wait
there too.

A row of the wait queue is in these lists (`ground/linked`):

- `free_rows`: it is not in use.
- `client_queues[key]`: it waits; the oldest of its client is first, but a retry goes to the front.
- `wait_order`: it waits; the oldest of all is first. `max_wait` and the limit of the queue take from its front.
- none of them: it backs off, and is in the heap of `retry`.

A client is in these:

- `ready_clients`: it has a row that needs nothing but a connection. Free connections are given to the first.
- `dial_clients`: it needs another connection of its own. One connection per turn is made for the first.

A row is **ready** from the moment at which it could be sent if there were a connection: at once, or with `order` when
its client has no request in flight. `startable` counts the ready rows, per client and for the lane.
"""

from __future__ import annotations

import numpy as np
from numba import from_dtype

from replay_native.ground import libc
from replay_native.ground.jit import kernel
from replay_native.ground.linked import NONE, drop, first_of, is_in_list, pop_front, push_back, push_front
from replay_native.ground.memory import release, with_capacity

_memcpy = libc.memcpy

CLIENT = np.dtype([
    ("tls_session", "u8"), ("in_flight", "i4"), ("startable", "i4"), ("open", "i4"), ("connecting", "i4"),
])  # fmt: skip
"""One client. `tls_session` is the address of the TLS session that its next connection resumes, 0 for none.
`in_flight` counts its requests that were attempted and have not ended; `startable` its rows that wait for a connection
only; `open` its connections, and `connecting` those that are being made for no request in particular.
"""

WAITING = np.dtype([
    ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"), ("since_ns", "i8"), ("ready_ns", "i8"), ("flags", "i8"),
    ("tries", "i8"), ("retry_ns", "i8"), ("first_ready_ns", "i8"), ("sent_ns", "i8"), ("outcome", "i8"), ("status", "i8"),
    ("received_bytes", "i8"), ("reason", "i8"), ("own_ns", "i8"),
    ("request", "u8"), ("capacity", "i8"), ("length", "i8"), ("client", "u4"), ("route", "u4"), ("key", "i8"),
])  # fmt: skip
"""One row of the wait queue. `since_ns`: when it began to wait; `ready_ns`: when it could have been sent, had there
been a connection (-1: not yet). `key` is its client's row; `request` the address of its copy of the request. The rest
is known only of a request that was tried before: `tries` so far, when it is tried again (`retry_ns`), when it was
first ready and first sent, and how its last try ended (`reason`: why its response was malformed). `own_ns`: see
`CONNECTION`.
"""

client_type, waiting_type = from_dtype(CLIENT), from_dtype(WAITING)

REQUEST_BYTES = 256
"""Least capacity of a copy of a request."""

KEPT_BYTES = 16_384
"""A copy's memory of at most this size stays with its row. Larger memory is given back."""


@kernel(inlined=True)
def key_of(lane, client):
    """The row of a client in the lane's table: a lane has every `lanes`-th client."""
    return np.int64(client) // lane.settings.lanes


@kernel(inlined=True)
def copy_to_row(lane, address, length):
    """Copy a request into a free row, and return the row. There is one."""
    row = pop_front(lane.free_rows, 0)
    w = lane.wait_queue[row]
    w.request, w.capacity = with_capacity(w.request, w.capacity, max(length, np.int64(REQUEST_BYTES)))
    _memcpy(w.request, address, np.uint64(length))
    w.length = length
    w.ready_ns = -1
    w.tries = 0
    w.sent_ns = -1
    return row


@kernel(inlined=True)
def free_row(lane, row):
    """Give a row back."""
    w = lane.wait_queue[row]
    if w.capacity > KEPT_BYTES:
        release(w.request)
        w.request = np.uint64(0)
        w.capacity = 0
    push_front(lane.free_rows, 0, row)


@kernel(inlined=True)
def join_wait_order(lane, row):
    """The row waits from now on, as the youngest."""
    push_back(lane.wait_order, 0, row)
    lane.state[0].waiting_bytes += lane.wait_queue[row].length


@kernel(inlined=True)
def leave_wait_order(lane, row):
    """The row no longer waits."""
    drop(lane.wait_order, row)
    lane.state[0].waiting_bytes -= lane.wait_queue[row].length


@kernel(inlined=True)
def swap_requests(c, w):
    """Exchange the connection's copy of a request and the row's, so that neither is copied again."""
    request, capacity = c.request, c.capacity
    c.request, c.capacity = w.request, w.capacity
    w.request, w.capacity = request, capacity


@kernel(inlined=True)
def join_client_queue(lane, row):
    """Append the row to its client's queue. A retry goes to the front: its client's later requests come after it."""
    w = lane.wait_queue[row]
    if w.tries:
        push_front(lane.client_queues, w.key, row)
    else:
        push_back(lane.client_queues, w.key, row)


@kernel(inlined=True)
def leave_client_queue(lane, row):
    """Take the row out of its client's queue, wherever it stands."""
    w = lane.wait_queue[row]
    drop(lane.client_queues, row)
    if w.ready_ns >= 0:
        lane.clients[w.key].startable -= 1
        lane.state[0].startable -= 1


@kernel(inlined=True)
def first_waiting(lane, key):
    """The first row of a client's queue, or NONE."""
    return first_of(lane.client_queues, key)


@kernel(inlined=True)
def set_ready(lane, row, now):
    """From now on the row waits for a connection only."""
    w = lane.wait_queue[row]
    w.ready_ns = now
    lane.clients[w.key].startable += 1
    lane.state[0].startable += 1
    push_ready(lane, w.key)


@kernel(inlined=True)
def settle_client(lane, key, now):
    """Make the first row of a client ready if it is its turn: none of the client's requests is in flight."""
    row = first_waiting(lane, key)
    if row != NONE and lane.clients[key].in_flight == 0 and lane.wait_queue[row].ready_ns < 0:
        set_ready(lane, row, now)


@kernel(inlined=True)
def push_ready(lane, key):
    """Append the client to the ready ones, unless it is among them."""
    if not is_in_list(lane.ready_clients, key):
        push_back(lane.ready_clients, 0, key)


@kernel(inlined=True)
def pop_ready(lane):
    """The first ready client. There is one."""
    return pop_front(lane.ready_clients, 0)


@kernel(inlined=True)
def push_dial(lane, key):
    """Append the client to those that need another connection, unless it is among them."""
    if not is_in_list(lane.dial_clients, key):
        push_back(lane.dial_clients, 0, key)


@kernel(inlined=True)
def pop_dial(lane):
    """The first client that needs another connection. There is one."""
    return pop_front(lane.dial_clients, 0)


@kernel(inlined=True)
def wants_connection(lane, key):
    """Whether the client has ready rows with no connection of its own on the way, and may have one more."""
    client = lane.clients[key]
    return client.startable > client.connecting and client.open < lane.settings.client_connections
