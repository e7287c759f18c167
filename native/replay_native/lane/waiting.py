"""Requests that wait, and how they end without being sent.

They wait in the ring (entries [head, taken)) or in the wait queue. The wait queue is used for clients and for
retries; `clients` explains it. Without clients, the ring itself is the queue. A request leaves the ring with
`release_head`.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.clock import now_ns, thread_cpu_ns
from replay_native.ground.jit import kernel
from replay_native.ground.linked import NONE, first_of, length_of
from replay_native.ground.shared import load_acquire, store_release
from replay_native.ledger.gaps import GAP_NS
from replay_native.ledger.lane_metrics import C, Control
from replay_native.ledger.record import (
    Ending,
    record_done,
    record_net,
    record_net_unsent,
    record_taken,
    record_unsent,
    request_of,
)

from .clients import (
    copy_to_row,
    first_waiting,
    free_row,
    leave_client_queue,
    leave_wait_order,
    pop_ready,
    push_ready,
    settle_client,
)
from .connections import last_free
from .retry import back_off, count_attempt, end_row, may_retry


@kernel(inlined=True)
def release_head(lane):
    """Release the request at the head of the ring, so that the producer can use its place in both rings."""
    st, control = lane.state[0], lane.metrics.control
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    end = e.offset + e.length
    st.head += 1
    count_waiting(lane)
    store_release(control, Control.RING_HEAD, end)
    store_release(control, Control.FEED_HEAD, st.head)


@kernel(inlined=True)
def count_waiting(lane):
    """Publish how many requests wait. Those that back off are not counted."""
    st = lane.state[0]
    lane.metrics.counters[C.waiting] = st.taken - st.head + length_of(lane.wait_order, 0)


@kernel(inlined=True)
def own_since_due(lane, e):
    """Return the lane's own part of the time since a request in the ring was due, in ns.

    This is how late the lane took it up, and the time that the lane lost while the request waited.
    """
    return e.taken_ns - e.due_ns + lane.metrics.counters[C.lost_ns] - e.state


@kernel(inlined=True)
def fail_next(lane, key, outcome):
    """Fail the next waiting request after a failed connect, or schedule its retry.

    If clients have connections of their own, this is the next request of client `key`; otherwise `key` is not used.
    Nothing happens if no request is ready.
    """
    if lane.settings.per_client:
        _fail_client(lane, key, outcome)
        return
    while first_of(lane.ready_clients, 0) != NONE:
        if _fail_client(lane, pop_ready(lane), outcome):
            return
    if queued(lane) > 0:
        _fail_head(lane, outcome)


@kernel()
def _fail_head(lane, outcome):
    """Fail the request at the head of the ring, whose attempt ended before it could be sent, or schedule a retry."""
    st = lane.state[0]
    if lane.settings.closed_loop:
        take_up(lane)
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    now = now_ns(lane.scratch)
    count_attempt(lane, np.int64(e.client))
    if lane.settings.retry_attempts > 1 and may_retry(
        lane, np.int64(1), e.flags, outcome, np.int64(0), np.int64(-1)
    ):
        row = head_to_row(lane, np.int64(0))
        lane.wait_queue[row].first_ready_ns = e.taken_ns
        lane.wait_queue[row].received_bytes = 0
        lane.wait_queue[row].reason = 0
        back_off(lane, row, np.int64(1), outcome, np.int64(0), now)
    else:
        own_ns = own_since_due(lane, e)
        record_net(
            lane.metrics, e.flags, e.due_ns, np.int64(-1), now, own_ns, np.int64(0), lane.settings.closed_loop
        )
        never, nothing = np.int64(-1), np.int64(0)
        ending = Ending(outcome, nothing, nothing, never, never, now)
        record_done(lane.metrics, request_of(e), ending, lane.settings.closed_loop)
    release_head(lane)


@kernel()
def give_up_head(lane, reason):
    """Give up the request at the head of the ring: it will not be sent. `reason` is a counter (C.unsent_...)."""
    st = lane.state[0]
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    waited_ns = now_ns(lane.scratch) - e.due_ns
    own_ns, route = own_since_due(lane, e), np.int64(e.route)
    record_net_unsent(lane.metrics, reason, route, e.flags, own_ns, waited_ns, lane.settings.max_wait_ns)
    record_unsent(lane.metrics, reason, request_of(e), lane.settings.max_wait_ns)
    release_head(lane)


@kernel(inlined=True)
def _wanted(lane):
    """Return how many requests in the ring and in the wait queue need a connection now."""
    return queued(lane) + lane.state[0].startable


@kernel(inlined=True)
def queued(lane):
    """Return how many requests in the ring need a connection now.

    In a closed loop, these are the published requests that were not taken up: none before its start or after STOP.
    """
    st = lane.state[0]
    if not lane.settings.closed_loop:
        return st.taken - st.head
    if st.draining or not st.started:
        return np.int64(0)
    return load_acquire(lane.metrics.control, Control.FEED_TAIL) - st.taken


@kernel(inlined=True)
def wants_dial(lane):
    """Return whether another connection is needed and allowed."""
    st = lane.state[0]
    if st.draining:
        return False
    if lane.settings.per_client:
        return first_of(lane.dial_clients, 0) != NONE and (
            st.open < lane.settings.connections or last_free(lane) != NONE
        )
    if st.open >= lane.settings.connections:
        return False
    return _wanted(lane) > (0 if lane.settings.closed_loop else st.connecting)


@kernel()
def take_up(lane):
    """Take up the next entry of the ring, which counts as planned from now on."""
    st, metrics = lane.state[0], lane.metrics
    e = lane.feed.entries[st.taken & (lane.feed.entries.size - 1)]
    e.taken_ns = now_ns(lane.scratch)
    if metrics.counters[C.planned] == 0:
        metrics.counters[C.first_due_ns] = e.due_ns
        metrics.counters[C.cpu_first_ns] = thread_cpu_ns(lane.scratch)
    e.state = metrics.counters[C.lost_ns]
    record_taken(metrics, e.flags, e.taken_ns - e.due_ns, lane.settings.closed_loop)
    if e.taken_ns - e.due_ns > GAP_NS and not lane.settings.closed_loop:
        metrics.counters[C.sends_postponed] += 1
        metrics.counters[C.sends_postponed_ns] += e.taken_ns - e.due_ns
    st.taken += 1


@kernel(inlined=True)
def bound_queue(lane):
    """Give up the oldest requests until those that wait in the ring are within its limits. The newest one stays."""
    st = lane.state[0]
    entries = lane.feed.entries
    newest = entries[(st.taken - 1) & (entries.size - 1)]
    while st.taken - st.head > 1:
        oldest = entries[st.head & (entries.size - 1)]
        held = newest.offset + newest.length - oldest.offset
        if st.taken - st.head <= lane.settings.entries_limit and held <= lane.settings.ring_limit:
            return
        give_up_head(lane, C.unsent_limit)


@kernel(inlined=True)
def head_to_row(lane, key):
    """Copy the request at the head of the ring into a free row, and return the row. There must be a free row."""
    ring = lane.feed.ring
    e = lane.feed.entries[lane.state[0].head & (lane.feed.entries.size - 1)]
    row = copy_to_row(lane, ring.ctypes.data + np.uint64(e.offset & (ring.size - 1)), e.length)
    w = lane.wait_queue[row]
    w.seq, w.due_ns, w.taken_ns, w.since_ns, w.flags = e.seq, e.due_ns, e.taken_ns, e.taken_ns, e.flags
    w.client, w.route, w.key = e.client, e.route, key
    w.own_ns = e.taken_ns - e.due_ns - e.state
    return row


@kernel()
def _fail_client(lane, key, outcome):
    """Fail a client's first request, whose attempt ended before it could be sent, or schedule a retry.

    False if the client has no request that is ready.
    """
    if lane.clients[key].startable == 0:
        return False
    row, now = first_waiting(lane, key), now_ns(lane.scratch)
    w = lane.wait_queue[row]
    if w.tries == 0:
        count_attempt(lane, np.int64(w.client))
    w.received_bytes, w.reason = 0, 0
    if lane.settings.retry_attempts > 1 and may_retry(
        lane, w.tries + 1, w.flags, outcome, np.int64(0), w.sent_ns
    ):
        w.first_ready_ns = w.first_ready_ns if w.tries else w.ready_ns
        leave_wait_order(lane, row)
        leave_client_queue(lane, row)
        back_off(lane, row, w.tries + 1, outcome, np.int64(0), now)
        count_waiting(lane)
    else:
        w.outcome, w.status = outcome, 0
        end_row(lane, row, now)
        _end_waiting(lane, row, now)
    if lane.clients[key].startable:
        push_ready(lane, key)
    return True


@kernel()
def give_up_row(lane, row, reason):
    """Give up a row of the wait queue: it will not be sent, or not tried again.

    `reason` is a counter (C.unsent_...) for a request that was never tried.
    """
    w, now = lane.wait_queue[row], now_ns(lane.scratch)
    if w.tries:
        end_row(lane, row, now)
    else:
        own_ns = w.own_ns + lane.metrics.counters[C.lost_ns]
        waited_ns, route = now - w.due_ns, np.int64(w.route)
        record_net_unsent(lane.metrics, reason, route, w.flags, own_ns, waited_ns, lane.settings.max_wait_ns)
        record_unsent(lane.metrics, reason, request_of(w), lane.settings.max_wait_ns)
    _end_waiting(lane, row, now)


@kernel()
def _end_waiting(lane, row, now):
    """Remove a row from the wait queue for good. Its client's next request may become ready."""
    key = np.int64(lane.wait_queue[row].key)
    leave_wait_order(lane, row)
    leave_client_queue(lane, row)
    free_row(lane, row)
    count_waiting(lane)
    settle_client(lane, key, now)
