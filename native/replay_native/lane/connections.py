"""The lane's memory: its connection table, its settings, and its state between turns.

Theory of operation
-------------------

A connection is a row (a slot) of `connections`. `states` lists its states and transitions. Each slot is in one list
of `slots_by_state`, which depends on its state:

- TIMED: CONNECTING and BUSY slots, by deadline. All deadlines are now + `timeout`, so appending keeps the order, and
  the first slot is always the next to expire. `hasten` breaks that order on purpose: it moves a slot whose send
  failed to the front, so that `_expire` ends it next. The socket is read before that, because a response may have
  arrived (such as an early 413).
- FREE: IDLE slots, last in, first out. The connection that was used last is used next, and the last in the list has
  been idle for longest.
- UNUSED: CLOSED slots. This is a stack as well, so that a small pool uses few rows.

If clients have connections of their own, an IDLE slot is also in `idle_of_client`, a list per client.

epoll identifies a slot by a token: the slot and its generation. The generation grows with every close. So an event
that was delivered for a closed socket no longer matches and is dropped. The same applies to replies to old resolve
requests.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import from_dtype

from replay_native.feed.resolve import ResolveRings
from replay_native.feed.ring import HEAD, Feed
from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.linked import NONE, Lists, drop, first_of, last_of, pop_front, push_back, push_front
from replay_native.ground.shared import clears
from replay_native.http1.parser import PARSER_FIELDS
from replay_native.http1.sessions import Sessions
from replay_native.keeping.responses import Keeping
from replay_native.ledger.lane_metrics import LaneMetrics

from .clients import client_type, push_ready, waiting_type
from .states import CLOSED, IDLE

TIMED, FREE, UNUSED = range(3)
"""The lists of `slots_by_state`."""

SLOT_LISTS = 3

ATTEMPT_FIELDS = [
    ("sent_bytes", "i8"), ("received_bytes", "i8"), ("kept_bytes", "i8"), ("send_error", "i8"), ("beginning_bytes", "i8"),
    *PARSER_FIELDS,
]  # fmt: skip
"""The fields of one attempt to send a request, and of its response. `begin_attempt` clears them as one range."""

CONNECTION = np.dtype([
    ("fd", "i8"), ("ssl", "u8"), ("generation", "i8"), ("state", "i8"), ("deadline_ns", "i8"), ("connected_ns", "i8"),
    ("fresh", "i8"), ("bound", "i8"), ("resent", "i8"), ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"),
    ("ready_ns", "i8"), ("sent_ns", "i8"), ("first_byte_ns", "i8"), ("client", "i8"), ("key", "i8"), ("route", "i8"),
    ("flags", "i8"), ("address", "i8"), ("tries", "i8"),
    ("request", "u8"), ("capacity", "i8"), ("request_bytes", "i8"), ("spare", "u8"), ("spare_capacity", "i8"),
    ("own_ns", "i8"), *ATTEMPT_FIELDS,
])  # fmt: skip
"""One slot, with the request that uses it.

The connection: `ssl` is the address of OpenSSL's object, 0 if the connection is plain. A CONNECTING slot that has one
is in its handshake, which began at `connected_ns`. `fresh`: no request has been answered on it yet. `bound`: it is
being opened for a particular request, which is sent again. `address` is its row of the address table.

The request: `key` is its client's row. `tries` counts its tries. `resent` is 1 if its try was repeated on a new
connection (`_send_again`). `request` is the address of its copy. `spare` is the address of memory into which a request
with its values is written; then the two are exchanged. `own_ns` is the lane's own part of the time until the request
was first sent: its generator lag, and the time that the lane lost while the request waited. Until it is sent, the
lane's `lost_ns` must still be added.

The attempt: `send_error` is the errno of a failed send. `kept_bytes` counts the bytes of a response that arrives in
several reads and is needed for captures and checks, including those that did not fit into memory. It is 0 if one read
returned the whole response. `beginning_bytes` counts those in `beginnings`.
"""


@bundle
class LaneSettings(NamedTuple):
    """The settings of a lane, which do not change after its start. Shares are in parts per million."""

    wake_fd: Annotated[int, "int64", "eventfd that wakes the lane from its sleep"]
    resolve_fd: Annotated[int, "int64", "eventfd that wakes the control plane for resolve requests"]
    connections: Annotated[int, "int64", "the largest number of connections"]
    timeout_ns: Annotated[int, "int64", "time limit for connecting, and for a complete response"]
    max_wait_ns: Annotated[int, "int64", "how long a request may wait before it counts as unsent"]
    spin_ns: Annotated[int, "int64", "how long before a due time the lane stays awake"]
    header_limit: Annotated[int, "int64", "the largest size of a response's head"]
    entries_limit: Annotated[int, "int64", "how many requests may wait in the feed's ring"]
    ring_limit: Annotated[int, "int64", "how many bytes may wait in the ring, or in the wait queue"]
    lanes: Annotated[int, "int64", "lanes of the run; each has every `lanes`-th client"]
    client_connections: Annotated[int, "int64", "the largest number of connections of one client"]
    idle_timeout_ns: Annotated[int, "int64", "how long a client's connection may be idle"]
    closed_loop: Annotated[bool, "boolean", "due times are ignored: a free connection takes the next request"]
    ordered: Annotated[bool, "boolean", "a client has at most one request in flight"]
    by_client: Annotated[bool, "boolean", "the lane keeps track of its clients"]
    per_client: Annotated[bool, "boolean", "each client has connections of its own"]
    single_use: Annotated[bool, "boolean", "each connection is used for one request only"]
    retry_attempts: Annotated[int, "int64", "the largest number of tries of one request; 0 and 1: no retries"]
    retry_backoff_ns: Annotated[int, "int64", "back-off before the second try"]
    retry_backoff_max_ns: Annotated[int, "int64", "the longest back-off"]
    retry_jitter_ppm: Annotated[int, "int64", "the part of a back-off that is random"]
    retry_budget_ppm: Annotated[int, "int64", "retries that each request adds to the budget; -1: no budget"]
    retry_burst_ppm: Annotated[int, "int64", "the largest budget"]
    retry_all_methods: Annotated[bool, "boolean", "requests that are not idempotent are also tried again"]
    seed: Annotated[int, "int64", "seed of the random parts of back-offs"]
    trace_seed: Annotated[int, "uint64", "seed of the trace ids; 0: requests have no traceparent"]
    tls_context: Annotated[int, "uint64", "address of the SSL_CTX of all connections; 0: they are plain"]
    tls_name: Annotated[int, "uint64", "address of the server's name for SNI; 0: none is sent"]
    tls_resume: Annotated[bool, "boolean", "sessions are kept and resumed"]


STATE = np.dtype([
    (name, "i8") for name in (
        "epoll", "addresses_seen", "addresses_chosen", "next_address",
        "head", "taken", "next_due_ns", "starved", "started", "draining", "used_slots", "open", "connecting", "has_pwait2",
        "waiting_bytes", "startable", "backing_off", "retry_tokens_ppm",
        "now_ns", "polled_ns", "unread_ns", "left_over", "behind",
    )
] + [("tls_session", "u8")])  # fmt: skip
"""The lane's state between two turns.

The feed: entries [`head`, `taken`) of the ring wait. `next_due_ns`: when the next entry is due. `starved`: the ring
was found empty. `started`: a closed loop has found its first entry.

Connections: `used_slots` is how many slots were ever used. `open` and `connecting` count connections. `next_address`
is the position in `chosen` for the next connection.

Waiting: `waiting_bytes` counts the bytes in the wait queue, `startable` its ready rows, `backing_off` the rows that
back off. `retry_tokens_ppm` is the budget for retries.

Delays: `now_ns` is when the last turn ended. `polled_ns`, `unread_ns` and `left_over`: see `ledger/gaps` and
`_note_unread`. `behind`: a connection is needed, but opening it was postponed. `tls_session` is the session that new
connections resume.
"""

connection_type, state_type = from_dtype(CONNECTION), from_dtype(STATE)


@bundle
class Lane(NamedTuple):
    """All memory of one lane. If neither clients nor retries are used, their tables have one row."""

    metrics: Annotated[LaneMetrics, LaneMetrics, "the metrics and control words that the control plane reads"]
    feed: Annotated[Feed, Feed, "due requests"]
    settings: Annotated[LaneSettings, LaneSettings, "the settings of the lane"]
    state: Annotated[Array, state_type[::1], "the state of the lane between turns; one row"]
    connections: Annotated[Array, connection_type[::1], "the slots"]
    slots_by_state: Annotated[Lists, Lists, "over slots: TIMED, FREE, UNUSED"]
    idle_of_client: Annotated[Lists, Lists, "over slots: the idle connections of each client"]
    clients: Annotated[Array, client_type[::1], "the clients of this lane"]
    ready_clients: Annotated[Lists, Lists, "over clients: those with a row that is ready"]
    dial_clients: Annotated[Lists, Lists, "over clients: those that need another connection"]
    wait_queue: Annotated[Array, waiting_type[::1], "requests that wait outside of the ring, or back off"]
    free_rows: Annotated[Lists, Lists, "over the wait queue: rows that are not in use"]
    client_queues: Annotated[Lists, Lists, "over the wait queue: the rows of each client that wait"]
    wait_order: Annotated[Lists, Lists, "over the wait queue: all rows that wait, the oldest first"]
    backoff: Annotated[Array, "int32[::1]", "heap of the rows that back off"]
    retry_on: Annotated[Array, "uint8[::1]", "which statuses and outcomes are tried again (RETRY_ON)"]
    chosen: Annotated[Array, "int64[::1]", "rows of the address table that are in use"]
    resolve: Annotated[ResolveRings, ResolveRings, "requests for addresses, and the replies"]
    events: Annotated[Array, "uint8[::1]", "epoll events"]
    buffer: Annotated[Array, "uint8[::1]", "the bytes that were received last"]
    scratch: Annotated[Array, "int64[::1]", "memory for the arguments of system calls"]
    sessions: Annotated[Sessions, Sessions, "captures, checks and cookie jars"]
    beginnings: Annotated[
        Array, "uint8[:, ::1]", "per slot: the first bytes of a response, in case it is malformed"
    ]
    keeping: Annotated[Keeping, Keeping, "the parts of responses that are kept"]


LANE_TYPE = numba_type(Lane)

_clear_attempt = clears([name for name, _ in ATTEMPT_FIELDS])


@kernel(inlined=True)
def begin_attempt(c):
    """Clear the fields of an earlier attempt before the connection's request is sent."""
    _clear_attempt(c)
    c.to_head = c.flags & HEAD
    c.first_byte_ns = -1


@kernel(inlined=True)
def push_timed(lane, slot, deadline_ns):
    """Append a slot to the timed list. Deadlines only grow, so the first slot is the next to expire."""
    lane.connections[slot].deadline_ns = deadline_ns
    push_back(lane.slots_by_state, TIMED, slot)


@kernel(inlined=True)
def drop_timed(lane, slot):
    """Remove a slot from the timed list, so that it cannot expire."""
    drop(lane.slots_by_state, slot)


@kernel(inlined=True)
def first_timed(lane):
    """Return the slot that expires next, or NONE."""
    return first_of(lane.slots_by_state, TIMED)


@kernel(inlined=True)
def hasten(lane, slot):
    """Move a slot to the front of the timed list, so that it is the next to expire."""
    drop(lane.slots_by_state, slot)
    lane.connections[slot].deadline_ns = 0
    push_front(lane.slots_by_state, TIMED, slot)


@kernel(inlined=True)
def first_free(lane):
    """Return the free connection that was used last, or NONE."""
    return first_of(lane.slots_by_state, FREE)


@kernel(inlined=True)
def last_free(lane):
    """Return the connection that has been free for longest, or NONE."""
    return last_of(lane.slots_by_state, FREE)


@kernel(inlined=True)
def free_for(lane, key):
    """Return a free connection for a request of this client, or NONE.

    If clients have connections of their own, only those are considered.
    """
    return first_of(lane.idle_of_client, key) if lane.settings.per_client else first_free(lane)


@kernel(inlined=True)
def push_idle(lane, slot, now):
    """Mark a connection as free.

    If clients have connections of their own, it is free for its client only, until the idle time-out.
    """
    c = lane.connections[slot]
    c.state = IDLE
    push_front(lane.slots_by_state, FREE, slot)
    if lane.settings.per_client:
        c.deadline_ns = now + lane.settings.idle_timeout_ns
        push_front(lane.idle_of_client, c.key, slot)
        if lane.clients[c.key].startable:
            push_ready(lane, c.key)


@kernel(inlined=True)
def drop_idle(lane, slot):
    """Remove a connection from the free ones, before it is used or closed."""
    drop(lane.slots_by_state, slot)
    if lane.settings.per_client:
        drop(lane.idle_of_client, slot)


@kernel(inlined=True)
def take_closed_slot(lane):
    """Remove a slot from the unused ones, and return it. There must be one."""
    st = lane.state[0]
    slot = pop_front(lane.slots_by_state, UNUSED)
    st.used_slots = max(st.used_slots, slot + 1)
    return slot


@kernel(inlined=True)
def give_closed_slot(lane, slot):
    """Mark a slot that has no socket as unused. Events with its old generation are ignored."""
    c = lane.connections[slot]
    c.generation += 1
    c.state = CLOSED
    c.fd = NONE
    push_front(lane.slots_by_state, UNUSED, slot)
