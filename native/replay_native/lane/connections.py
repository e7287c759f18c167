"""The lane's memory: its connection table, its settings, and what it keeps from turn to turn.

Theory of operation
-------------------

A connection is a row (a slot) of `connections`. `states` has its states as a table. Each slot is in one list of
`slots_by_state`, and its state says in which:

- TIMED: CONNECTING and BUSY slots, by deadline. All deadlines are now + `timeout`, so appending keeps the order, and
  the first slot is always the next to expire. `hasten` breaks that order on purpose: it puts a slot whose send failed
  to the front, so that it is dealt with in this turn, but after its socket has been read (the response may be there:
  an early 413).
- FREE: IDLE slots. Taken from the front, last in, first out, so that the warmest connection is used and the others can
  age: the last one has been idle for longest.
- UNUSED: CLOSED slots. A stack as well, so that a small pool stays in few rows.

Where clients have connections of their own, an IDLE slot is also in `idle_of_client`, a list per client.

epoll knows a slot by a token: the slot and its generation. The generation grows with every close, so an event that was
already delivered for a closed socket does not match any more and is dropped. So are replies to old resolve requests.
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
"""What belongs to one attempt to send a request, and its response. `begin_attempt` clears all of it as one range."""

CONNECTION = np.dtype([
    ("fd", "i8"), ("ssl", "u8"), ("generation", "i8"), ("state", "i8"), ("deadline_ns", "i8"), ("connected_ns", "i8"),
    ("fresh", "i8"), ("bound", "i8"), ("resent", "i8"), ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"),
    ("ready_ns", "i8"), ("sent_ns", "i8"), ("first_byte_ns", "i8"), ("client", "i8"), ("key", "i8"), ("route", "i8"),
    ("flags", "i8"), ("address", "i8"), ("tries", "i8"),
    ("request", "u8"), ("capacity", "i8"), ("request_bytes", "i8"), ("spare", "u8"), ("spare_capacity", "i8"),
    ("own_ns", "i8"), *ATTEMPT_FIELDS,
])  # fmt: skip
"""One slot, with the request that it carries.

The connection: `ssl` is the address of OpenSSL's object, 0 on a plain connection; a CONNECTING slot that has one is in
its handshake, which began at `connected_ns`. `fresh`: it has carried no request yet. `bound`: it is CONNECTING for a
request that it already carries (one that is sent again). `address` is its row of the address table.

The request: `key` is its client's row; `tries` counts its tries; `request` is the address of its copy. `spare` is the
address of memory in which a request gets its values; the two then change places. `own_ns` is the lane's own part of
the time until the request was first sent: its lateness, and what the lane lost while it waited. Until it is sent, the
lane's `lost_ns` is still to be added.

The attempt: `send_error` is the errno of a send that failed. `kept_bytes` of the response were kept for captures and
checks, or would have been, had there been memory; `beginning_bytes` of it are in `beginnings`.
"""


@bundle
class LaneSettings(NamedTuple):
    """The settings of a lane, which do not change after its start. Shares are parts per million."""

    wake_fd: Annotated[int, "int64", "eventfd that ends the lane's sleep"]
    resolve_fd: Annotated[int, "int64", "eventfd that tells the control plane of resolve requests"]
    connections: Annotated[int, "int64", "connections at most"]
    timeout_ns: Annotated[int, "int64", "limit for connecting, and for a complete response"]
    max_wait_ns: Annotated[int, "int64", "how long a request may wait before it counts as unsent"]
    spin_ns: Annotated[int, "int64", "the last part before a due time, which is spent awake"]
    header_limit: Annotated[int, "int64", "bytes of a response's head at most"]
    entries_limit: Annotated[int, "int64", "requests that may wait in the feed's ring"]
    ring_limit: Annotated[int, "int64", "bytes that may wait in the ring, or in the wait queue"]
    lanes: Annotated[int, "int64", "lanes of the run: this one has every so-manieth client"]
    client_connections: Annotated[int, "int64", "connections of one client at most"]
    idle_timeout_ns: Annotated[int, "int64", "how long a client's connection may be idle"]
    closed_loop: Annotated[bool, "boolean", "due times are ignored: a free connection takes the next request"]
    ordered: Annotated[bool, "boolean", "the requests of one client go one after another"]
    by_client: Annotated[bool, "boolean", "the lane knows its clients"]
    per_client: Annotated[bool, "boolean", "each client has connections of its own"]
    single_use: Annotated[bool, "boolean", "a connection carries one request"]
    retry_attempts: Annotated[int, "int64", "tries of one request at most; 0 and 1: it is not tried again"]
    retry_backoff_ns: Annotated[int, "int64", "back-off before the second try"]
    retry_backoff_max_ns: Annotated[int, "int64", "back-off at most"]
    retry_jitter_ppm: Annotated[int, "int64", "the random share of a back-off"]
    retry_budget_ppm: Annotated[
        int, "int64", "retries per request that the budget earns; -1: there is no budget"
    ]
    retry_burst_ppm: Annotated[int, "int64", "what the budget holds at most"]
    retry_all_methods: Annotated[bool, "boolean", "requests that are not idempotent are tried again too"]
    seed: Annotated[int, "int64", "names the random parts of back-offs"]
    trace_seed: Annotated[int, "uint64", "names the traces of requests; 0: they have no traceparent"]
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
"""What the lane keeps between turns.

The feed: [`head`, `taken`) of the ring waits; `next_due_ns` is when the next entry is due; `starved`: the ring was
found empty; `started`: a closed loop has found its first entry. Connections: `used_slots` were ever used; `open` and
`connecting` count them; `next_address` is whose turn it is among `chosen`. Waiting: the bytes of the wait queue, its
ready rows (`startable`), how many back off, the budget for retries. Delays: `now_ns` is when the last turn ended; for
the others see `ledger/gaps` and `_note_unread`; `behind`: a connection is wanted and was put off. `tls_session` is
what new connections resume.
"""

connection_type, state_type = from_dtype(CONNECTION), from_dtype(STATE)


@bundle
class Lane(NamedTuple):
    """All memory of one lane. Where neither clients nor retries matter, their tables have one row."""

    metrics: Annotated[LaneMetrics, LaneMetrics, "what the control plane reads"]
    feed: Annotated[Feed, Feed, "due requests"]
    settings: Annotated[LaneSettings, LaneSettings, "what the lane is told"]
    state: Annotated[Array, state_type[::1], "what the lane keeps between turns; one row"]
    connections: Annotated[Array, connection_type[::1], "the slots"]
    slots_by_state: Annotated[Lists, Lists, "over slots: TIMED, FREE, UNUSED"]
    idle_of_client: Annotated[Lists, Lists, "over slots: the idle connections of each client"]
    clients: Annotated[Array, client_type[::1], "the clients of this lane"]
    ready_clients: Annotated[Lists, Lists, "over clients: those with a row that is ready"]
    dial_clients: Annotated[Lists, Lists, "over clients: those that need another connection"]
    wait_queue: Annotated[Array, waiting_type[::1], "requests that wait outside the ring, or back off"]
    free_rows: Annotated[Lists, Lists, "over the wait queue: rows that are not in use"]
    client_queues: Annotated[Lists, Lists, "over the wait queue: the rows of each client that wait"]
    wait_order: Annotated[Lists, Lists, "over the wait queue: all rows that wait, the oldest first"]
    backoff: Annotated[Array, "int32[::1]", "heap of the rows that back off"]
    retry_on: Annotated[Array, "uint8[::1]", "which statuses and outcomes are tried again (RETRY_ON)"]
    chosen: Annotated[Array, "int64[::1]", "rows of the address table that are in use"]
    resolve: Annotated[ResolveRings, ResolveRings, "requests for addresses, and the replies"]
    events: Annotated[Array, "uint8[::1]", "epoll's events"]
    buffer: Annotated[Array, "uint8[::1]", "what was received last"]
    scratch: Annotated[Array, "int64[::1]", "memory for the arguments of system calls"]
    sessions: Annotated[Sessions, Sessions, "captures, checks and cookie jars"]
    beginnings: Annotated[
        Array, "uint8[:, ::1]", "per slot: the first bytes of a response that came in several reads"
    ]
    keeping: Annotated[Keeping, Keeping, "what is kept of responses"]


LANE_TYPE = numba_type(Lane)

_clear_attempt = clears([name for name, _ in ATTEMPT_FIELDS])


@kernel(inlined=True)
def begin_attempt(c):
    """Clear everything that an earlier attempt left, because the connection's request is about to be sent."""
    _clear_attempt(c)
    c.to_head = c.flags & HEAD
    c.first_byte_ns = -1


@kernel(inlined=True)
def push_timed(lane, slot, deadline_ns):
    """Append to the timed list. Deadlines only grow, so its first slot is the next to expire."""
    lane.connections[slot].deadline_ns = deadline_ns
    push_back(lane.slots_by_state, TIMED, slot)


@kernel(inlined=True)
def drop_timed(lane, slot):
    """Take a slot out of the timed list."""
    drop(lane.slots_by_state, slot)


@kernel(inlined=True)
def first_timed(lane):
    """The slot that expires next, or NONE."""
    return first_of(lane.slots_by_state, TIMED)


@kernel(inlined=True)
def hasten(lane, slot):
    """Move the slot to the front of the timed list, so that it expires in the next pass."""
    drop(lane.slots_by_state, slot)
    lane.connections[slot].deadline_ns = 0
    push_front(lane.slots_by_state, TIMED, slot)


@kernel(inlined=True)
def first_free(lane):
    """The free connection that was used last, or NONE."""
    return first_of(lane.slots_by_state, FREE)


@kernel(inlined=True)
def last_free(lane):
    """The connection that has been free for longest, or NONE."""
    return last_of(lane.slots_by_state, FREE)


@kernel(inlined=True)
def free_for(lane, key):
    """The connection for a request of this client, or NONE: one of the client's own, or any free one."""
    return first_of(lane.idle_of_client, key) if lane.settings.per_client else first_free(lane)


@kernel(inlined=True)
def push_idle(lane, slot, now):
    """Mark the connection as free: for the next request, or for its own client until the idle time-out."""
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
    """The connection is no longer free."""
    drop(lane.slots_by_state, slot)
    if lane.settings.per_client:
        drop(lane.idle_of_client, slot)


@kernel(inlined=True)
def take_closed_slot(lane):
    """A slot without a connection. The caller has checked that there is one."""
    st = lane.state[0]
    slot = pop_front(lane.slots_by_state, UNUSED)
    st.used_slots = max(st.used_slots, slot + 1)
    return slot


@kernel(inlined=True)
def give_closed_slot(lane, slot):
    """The slot's connection is closed. Events that still carry its generation are ignored."""
    c = lane.connections[slot]
    c.generation += 1
    c.state = CLOSED
    c.fd = NONE
    push_front(lane.slots_by_state, UNUSED, slot)
