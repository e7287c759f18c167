"""The lane's connection table: a row a slot, two linked lists (free ones; timed ones), and its working state."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import from_dtype, types

from replay_native.feed.resolve import ASKS_TYPE
from replay_native.feed.ring import FEED_TYPE, HEAD
from replay_native.ground.bundle import bundle_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import clears
from replay_native.http1.parser import PARSER_FIELDS
from replay_native.http1.sessions import SESSIONS_TYPE
from replay_native.ledger.lane_metrics import BANK_TYPE

from .clients import (
    NONE,
    client_type,
    push_ready,
    waiting_type,
)

CLOSED, CONNECTING, IDLE, BUSY = range(4)
"""state of a slot. CONNECTING and BUSY are in the timed list, IDLE in the free list, CLOSED in the stack of closed ones."""

ATTEMPT_FIELDS = [
    ("sent_bytes", "i8"), ("received_bytes", "i8"), ("kept_bytes", "i8"), ("send_error", "i8"), ("beginning_bytes", "i8"),
    *PARSER_FIELDS,
]  # fmt: skip
"""What belongs to one sending of a request and its answer. `begin_attempt` clears them all as one range."""

CONNECTION = np.dtype([
    ("fd", "i8"), ("ssl", "u8"), ("generation", "i8"), ("state", "i8"), ("next", "i8"), ("previous", "i8"),
    ("deadline_ns", "i8"), ("connected_ns", "i8"),
    ("fresh", "i8"), ("bound", "i8"), ("resent", "i8"), ("seq", "i8"), ("due_ns", "i8"), ("taken_ns", "i8"),
    ("ready_ns", "i8"), ("sent_ns", "i8"), ("first_byte_ns", "i8"), ("client", "i8"), ("key", "i8"), ("route", "i8"),
    ("flags", "i8"), ("address", "i8"), ("sibling", "i8"), ("tries", "i8"),
    ("request", "u8"), ("capacity", "i8"), ("request_bytes", "i8"), ("spare", "u8"), ("spare_capacity", "i8"),
    ("own_ns", "i8"), *ATTEMPT_FIELDS,
])  # fmt: skip
"""One slot. `tries` counts those of its request, `key` is its client's row, `sibling` the next idle connection of that
client; `address` is its row of the address table, `request` the address of its own copy of the request; `bound` says that a
CONNECTING slot already carries a request (sent again after a reused connection was closed under it). `ssl` is the address
of OpenSSL's object, 0 on a plain connection; a CONNECTING slot that has one is in its handshake, since `connected_ns`.
`kept_bytes` of its answer were kept for captures and checks, or would have been, had there been room; `beginning_bytes`
of it are in `beginnings`. `send_error` is the errno of a send that failed. `spare` is the address of memory for a request
with its values: the two change places. `own_ns` is the lane's own part of the time until it was first sent: its lateness,
and what the lane lost while it waited. Until then the lane's `lost_ns` is still to be added."""

STATE = np.dtype([
    (name, "i8") for name in (
        "epoll", "wake_fd", "connections", "timeout_ns", "max_wait_ns", "spin_ns", "header_limit", "closed_loop",
        "entries_limit", "ring_limit", "ordered", "lanes", "by_client", "per_client", "single_use",
        "client_connections", "idle_timeout_ns",
        "retry_attempts", "retry_backoff_ns", "retry_backoff_max_ns", "retry_jitter_ppm", "retry_budget_ppm",
        "retry_burst_ppm", "retry_all_methods", "seed",
        "addresses_seen", "addresses_chosen", "next_address", "ask_fd",
        "head", "taken", "next_due_ns", "starved", "started", "draining", "used_slots", "open", "connecting",
        "free_first", "free_last", "timed_first", "timed_last", "closed_first", "has_pwait2",
        "room_free", "age_first", "age_last", "waiting", "waiting_bytes", "startable", "ready_first", "ready_last",
        "dial_first", "dial_last", "backing_off", "retry_tokens_ppm",
        "tls_resume", "polled_ns", "unread_ns", "left_over", "behind",
    )
] + [(name, "u8") for name in ("tls_context", "tls_name", "tls_session")])  # fmt: skip
"""The lane's settings (first two rows) and what it keeps between loops. Of TLS (0: plain): the address of its SSL_CTX, of
the server's name, and of the session that new connections resume."""

Lane = namedtuple(
    "Lane",
    "bank feed connections clients room backoff retry_on state chosen asks events buffer scratch sessions beginnings",
)
"""connections CONNECTION[cap], clients CLIENT[n], room WAITING[n] (a row each where neither clients nor retries matter),
backoff int32[n] (the heap of rows that back off), retry_on uint8[RETRY_ON], state STATE[1], chosen int64[ADDRESSES_MAX]
(rows of the address table that are in use), asks (`asks`), events uint8[n * event bytes], buffer uint8[n], scratch
int64[4], sessions: see `sessions`, beginnings uint8[cap, BEGINNING_BYTES]: the first bytes of answers that came in several
reads, or were malformed."""

connection_type, state_type = from_dtype(CONNECTION), from_dtype(STATE)
LANE_TYPE = bundle_type(
    Lane,
    [
        BANK_TYPE, FEED_TYPE, connection_type[::1], client_type[::1], waiting_type[::1], types.int32[::1],
        types.uint8[::1], state_type[::1],
        types.int64[::1], ASKS_TYPE, types.uint8[::1], types.uint8[::1], types.int64[::1], SESSIONS_TYPE,
        types.uint8[:, ::1],
    ],
)  # fmt: skip


_clear_attempt = clears([name for name, _ in ATTEMPT_FIELDS])


@kernel(inlined=True)
def begin_attempt(c):
    """The connection's request is about to be sent: nothing of an attempt before it is left."""
    _clear_attempt(c)
    c.to_head = c.flags & HEAD
    c.first_byte_ns = -1


@kernel(inlined=True)
def push_timed(lane, slot, deadline_ns):
    """Append to the timed list; deadlines only grow, so its head is always the first to expire."""
    st, c = lane.state[0], lane.connections[slot]
    c.deadline_ns = deadline_ns
    c.next = NONE
    c.previous = st.timed_last
    if st.timed_last == NONE:
        st.timed_first = slot
    else:
        lane.connections[st.timed_last].next = slot
    st.timed_last = slot


@kernel(inlined=True)
def drop_timed(lane, slot):
    """Take out of the timed list."""
    st, c = lane.state[0], lane.connections[slot]
    if c.previous == NONE:
        st.timed_first = c.next
    else:
        lane.connections[c.previous].next = c.next
    if c.next == NONE:
        st.timed_last = c.previous
    else:
        lane.connections[c.next].previous = c.previous


@kernel(inlined=True)
def hasten(lane, slot):
    """Bring it to the head of the timed list, as one whose time is over."""
    drop_timed(lane, slot)
    st, c = lane.state[0], lane.connections[slot]
    c.deadline_ns = 0
    c.previous = NONE
    c.next = st.timed_first
    if st.timed_first == NONE:
        st.timed_last = slot
    else:
        lane.connections[st.timed_first].previous = slot
    st.timed_first = slot


@kernel(inlined=True)
def push_free(lane, slot):
    """Last in, first out: the warmest connection serves next."""
    st, c = lane.state[0], lane.connections[slot]
    c.previous = NONE
    c.next = st.free_first
    if st.free_first == NONE:
        st.free_last = slot
    else:
        lane.connections[st.free_first].previous = slot
    st.free_first = slot


@kernel(inlined=True)
def drop_free(lane, slot):
    """Take out of the free list."""
    st, c = lane.state[0], lane.connections[slot]
    if c.previous == NONE:
        st.free_first = c.next
    else:
        lane.connections[c.previous].next = c.next
    if c.next == NONE:
        st.free_last = c.previous
    else:
        lane.connections[c.next].previous = c.previous


@kernel(inlined=True)
def push_idle(lane, slot, now):
    """The connection is free: for whoever comes, or for its own client, until it was idle for too long."""
    st, c = lane.state[0], lane.connections[slot]
    c.state = IDLE
    push_free(lane, slot)
    if st.per_client:
        client = lane.clients[c.key]
        c.deadline_ns = now + st.idle_timeout_ns
        c.sibling = client.idle
        client.idle = np.int32(slot)
        if client.startable:
            push_ready(lane, c.key)


@kernel(inlined=True)
def drop_idle(lane, slot):
    """The connection is free no more. A client has few of them: its list is walked."""
    st, c = lane.state[0], lane.connections[slot]
    drop_free(lane, slot)
    if st.per_client:
        client = lane.clients[c.key]
        if client.idle == slot:
            client.idle = np.int32(c.sibling)
            return
        before = np.int64(client.idle)
        while lane.connections[before].sibling != slot:
            before = lane.connections[before].sibling
        lane.connections[before].sibling = c.sibling


@kernel(inlined=True)
def take_closed_slot(lane):
    """A slot with no connection; the caller has seen that open < connections."""
    st = lane.state[0]
    slot = st.closed_first
    if slot == NONE:
        slot = st.used_slots
        st.used_slots += 1
    else:
        st.closed_first = lane.connections[slot].next
    return slot


@kernel(inlined=True)
def give_closed_slot(lane, slot):
    """The slot's connection is closed: events that still carry its generation fall on the floor."""
    st, c = lane.state[0], lane.connections[slot]
    c.generation += 1
    c.state = CLOSED
    c.fd = NONE
    c.next = st.closed_first
    st.closed_first = slot
