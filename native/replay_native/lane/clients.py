"""The lane's clients, and the wait queue of requests that wait outside of the feed's ring.

Theory of operation
-------------------

Without clients, requests wait where they were rendered: in the feed's ring, which is first in, first out. This does
not work where clients matter (`order = "client"`, `connect = "per-client"`): the next request of one client may have
to wait for seconds, and must not block the ring, the feed, or other clients. So a request leaves the ring as soon as
it is taken up. It is sent on a free connection, or its bytes are copied to a row of the **wait queue**. Retries wait
there too.

A row of the wait queue is in these lists (`ground/linked`):

- `free_rows`: the row is not in use.
- `client_queues[key]`: the row waits. The oldest of a client is first, except that a retry is put at the front.
- `wait_order`: the row waits. The oldest of all is first. `max_wait` and the limit of the queue remove rows from the
  front.
- none of them: the row backs off, and is in the heap of `retry`.

A client is in these lists:

- `ready_clients`: it has a row that only needs a connection. Free connections are given to the first client.
- `dial_clients`: it needs another connection of its own. In each turn at most one connection is opened, for the first
  client.

A row is **ready** from the time at which it could be sent if there were a connection. This is at once, or with
`order` as soon as its client has no request in flight. `startable` counts the ready rows, per client and for the
lane.
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
"""One client.

`tls_session` is the address of the TLS session that its next connection resumes, or 0. `in_flight` counts the
requests that were attempted and have not ended. `startable` counts the rows that only wait for a connection. `open`
counts the client's connections. `connecting` counts those that are being opened for no particular request.
"""

WAITING = np.dtype([
    ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"), ("since_ns", "i8"), ("ready_ns", "i8"), ("flags", "i8"),
    ("tries", "i8"), ("retry_ns", "i8"), ("first_ready_ns", "i8"), ("sent_ns", "i8"), ("outcome", "i8"), ("status", "i8"),
    ("received_bytes", "i8"), ("reason", "i8"), ("own_ns", "i8"),
    ("request", "u8"), ("capacity", "i8"), ("length", "i8"), ("client", "u4"), ("route", "u4"), ("key", "i8"),
])  # fmt: skip
"""One row of the wait queue.

`since_ns`: when it began to wait. `ready_ns`: when it could have been sent if there had been a connection (-1: not
yet). `key`: its client's row. `request`: the address of the copy of its bytes. `own_ns`: see `CONNECTION`. `tries`:
the number of tries so far. `sent_ns`: when it was first sent (-1: not yet). `seq`, `due_ns`, `taken_ns`, `flags`,
`client` and `route` are those of its entry in the feed.

The other fields are set only for a request that was tried before. `retry_ns`: when it is tried again.
`first_ready_ns`: when it was first ready. `outcome`, `status` and `received_bytes`: how its last try ended. `reason`:
why its response was malformed.
"""

client_type, waiting_type = from_dtype(CLIENT), from_dtype(WAITING)

REQUEST_BYTES = 256
"""The smallest capacity of a copy of a request, in bytes."""

KEPT_BYTES = 16_384
"""A free row, or a connection's `spare`, keeps memory up to this size for later use. Larger memory is freed."""


@kernel(inlined=True)
def key_of(lane, client):
    """Return the row of a client in the lane's table. A lane has every `lanes`-th client."""
    return np.int64(client) // lane.settings.lanes


@kernel(inlined=True)
def copy_to_row(lane, address, length):
    """Copy a request into a free row, and return the row. There must be a free row."""
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
    """Return a row to the free rows, and free its memory if it is large."""
    w = lane.wait_queue[row]
    if w.capacity > KEPT_BYTES:
        release(w.request)
        w.request = np.uint64(0)
        w.capacity = 0
    push_front(lane.free_rows, 0, row)


@kernel(inlined=True)
def join_wait_order(lane, row):
    """Append a row to the wait order, and count its bytes as waiting."""
    push_back(lane.wait_order, 0, row)
    lane.state[0].waiting_bytes += lane.wait_queue[row].length


@kernel(inlined=True)
def leave_wait_order(lane, row):
    """Remove a row from the wait order, and subtract its bytes from those that wait."""
    drop(lane.wait_order, row)
    lane.state[0].waiting_bytes -= lane.wait_queue[row].length


@kernel(inlined=True)
def swap_requests(c, w):
    """Exchange the memory of the connection's request and the row's, so that no bytes are copied."""
    request, capacity = c.request, c.capacity
    c.request, c.capacity = w.request, w.capacity
    w.request, w.capacity = request, capacity


@kernel(inlined=True)
def join_client_queue(lane, row):
    """Append a row to its client's queue. A retry goes to the front, before later requests of its client."""
    w = lane.wait_queue[row]
    if w.tries:
        push_front(lane.client_queues, w.key, row)
    else:
        push_back(lane.client_queues, w.key, row)


@kernel(inlined=True)
def leave_client_queue(lane, row):
    """Remove a row from its client's queue, at any position."""
    w = lane.wait_queue[row]
    drop(lane.client_queues, row)
    if w.ready_ns >= 0:
        lane.clients[w.key].startable -= 1
        lane.state[0].startable -= 1


@kernel(inlined=True)
def first_waiting(lane, key):
    """Return the first row of a client's queue, or NONE."""
    return first_of(lane.client_queues, key)


@kernel(inlined=True)
def set_ready(lane, row, now):
    """Mark a row as ready: from now on it only waits for a connection."""
    w = lane.wait_queue[row]
    w.ready_ns = now
    lane.clients[w.key].startable += 1
    lane.state[0].startable += 1
    push_ready(lane, w.key)


@kernel(inlined=True)
def settle_client(lane, key, now):
    """Make the first row of a client ready if none of the client's requests is in flight."""
    row = first_waiting(lane, key)
    if row != NONE and lane.clients[key].in_flight == 0 and lane.wait_queue[row].ready_ns < 0:
        set_ready(lane, row, now)


@kernel(inlined=True)
def push_ready(lane, key):
    """Append a client to the ready clients, unless it is already one."""
    if not is_in_list(lane.ready_clients, key):
        push_back(lane.ready_clients, 0, key)


@kernel(inlined=True)
def pop_ready(lane):
    """Remove and return the first ready client. There must be one."""
    return pop_front(lane.ready_clients, 0)


@kernel(inlined=True)
def push_dial(lane, key):
    """Append a client to those that need another connection, unless it is already one of them."""
    if not is_in_list(lane.dial_clients, key):
        push_back(lane.dial_clients, 0, key)


@kernel(inlined=True)
def pop_dial(lane):
    """Remove and return the first client that needs another connection. There must be one."""
    return pop_front(lane.dial_clients, 0)


@kernel(inlined=True)
def wants_connection(lane, key):
    """Return whether a client needs another connection and may open one.

    It needs one if it has more ready rows than connections that are being opened.
    """
    client = lane.clients[key]
    return client.startable > client.connecting and client.open < lane.settings.client_connections
