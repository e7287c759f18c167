"""Requests that wait: in the queue, which is entries [head, taken) of the ring, or in the room.

The room is where clients matter: a request leaves the ring when it is taken up. Retries wait there too.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.clock import now_ns, thread_cpu_ns
from replay_native.ground.jit import kernel
from replay_native.ground.shared import load_acquire, store_release
from replay_native.ledger.gaps import GAP_NS
from replay_native.ledger.lane_metrics import C, Control
from replay_native.ledger.record import (
    record_done,
    record_net,
    record_net_unsent,
    record_taken,
    record_unsent,
)

from .clients import (
    NONE,
    drop_age,
    hold,
    leave_line,
    leave_room,
    pop_ready,
    push_ready,
    settle_line,
)
from .retry import (
    back_off,
    count_attempt,
    end_row,
    may_retry,
)


@kernel(inlined=True)
def release_head(lane):
    """The head of the queue is done with: its place in the rings is the producer's again."""
    st, control = lane.state[0], lane.bank.control
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    end = e.offset + e.length
    st.head += 1
    count_waiting(lane)
    store_release(control, Control.RING_HEAD, end)
    store_release(control, Control.FEED_HEAD, st.head)


@kernel(inlined=True)
def count_waiting(lane):
    """Keep the number of those that wait."""
    st = lane.state[0]
    lane.bank.counters[C.waiting] = st.taken - st.head + st.waiting


@kernel(inlined=True)
def own_since_due(lane, e):
    """The lane's own part of the time until now of a request in the ring: it was taken up late, and waited while the lane
    lost time.
    """
    return e.taken_ns - e.due_ns + lane.bank.counters[C.lost_ns] - e.state


@kernel(inlined=True)
def fail_next(lane, key, outcome):
    """A connect failed, for this client where it was its own: so does the request that is next, if one still waits."""
    st = lane.state[0]
    if st.per_client:
        _fail_client(lane, key, outcome)
        return
    while st.ready_first != NONE:
        if _fail_client(lane, pop_ready(lane), outcome):
            return
    if queued(lane) > 0:
        _fail_head(lane, outcome)


@kernel()
def _fail_head(lane, outcome):
    """An attempt began for the request at the head, and failed before it could be sent."""
    st = lane.state[0]
    if st.closed_loop:
        take_up(lane)
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    now = now_ns(lane.scratch)
    count_attempt(lane, np.int64(e.client))
    if st.retry_attempts > 1 and may_retry(lane, np.int64(1), e.flags, outcome, np.int64(0), np.int64(-1)):
        row = st.room_free
        hold_head(lane, row, np.int64(0))
        lane.room[row].first_ready_ns = e.taken_ns
        lane.room[row].received_bytes = 0
        lane.room[row].reason = 0
        back_off(lane, row, np.int64(1), outcome, np.int64(0), now)
    else:
        own_ns = own_since_due(lane, e)
        record_net(lane.bank, e.flags, e.due_ns, np.int64(-1), now, own_ns, np.int64(0), st.closed_loop)
        record_done(
            lane.bank, outcome, e.flags, np.int64(e.route), e.seq, np.int64(e.client), e.due_ns, e.taken_ns, np.int64(-1),
            np.int64(-1), now, np.int64(0), np.int64(0), st.closed_loop,
        )  # fmt: skip
    release_head(lane)


@kernel()
def give_up_head(lane, reason):
    """The request at the head will not be sent. `reason` is a counter: C.unsent_..."""
    st = lane.state[0]
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    waited_ns = now_ns(lane.scratch) - e.due_ns
    record_net_unsent(lane.bank, reason, e.flags, own_since_due(lane, e), waited_ns, st.max_wait_ns)
    record_unsent(
        lane.bank,
        reason,
        e.flags,
        np.int64(e.route),
        e.seq,
        np.int64(e.client),
        e.due_ns,
        e.taken_ns,
        st.max_wait_ns,
    )
    release_head(lane)


@kernel(inlined=True)
def _wanted(lane):
    """How many requests want a connection now."""
    return queued(lane) + lane.state[0].startable


@kernel(inlined=True)
def queued(lane):
    """How many of them are in the ring."""
    st = lane.state[0]
    if not st.closed_loop:
        return st.taken - st.head
    if st.draining or not st.started:
        return np.int64(0)
    return load_acquire(lane.bank.control, Control.FEED_TAIL) - st.taken


@kernel(inlined=True)
def wants_dial(lane):
    """Whether requests wait for which no connection is on its way, and one more is allowed."""
    st = lane.state[0]
    if st.draining:
        return False
    if st.per_client:
        return st.dial_first != NONE and (st.open < st.connections or st.free_last != NONE)
    if st.open >= st.connections:
        return False
    return _wanted(lane) > (0 if st.closed_loop else st.connecting)


@kernel()
def take_up(lane):
    """Take up the next entry: it is planned from now on."""
    st, bank = lane.state[0], lane.bank
    e = lane.feed.entries[st.taken & (lane.feed.entries.size - 1)]
    e.taken_ns = now_ns(lane.scratch)
    if bank.counters[C.planned] == 0:
        bank.counters[C.first_due_ns] = e.due_ns
        bank.counters[C.cpu_first_ns] = thread_cpu_ns(lane.scratch)
    e.state = bank.counters[C.lost_ns]
    record_taken(bank, e.flags, e.taken_ns - e.due_ns, st.closed_loop)
    if e.taken_ns - e.due_ns > GAP_NS and not st.closed_loop:
        bank.counters[C.sends_postponed] += 1
        bank.counters[C.sends_postponed_ns] += e.taken_ns - e.due_ns
    st.taken += 1


@kernel(inlined=True)
def bound_queue(lane):
    """The queue may hold half of the rings; past that its oldest request is given up."""
    st = lane.state[0]
    entries = lane.feed.entries
    newest = entries[(st.taken - 1) & (entries.size - 1)]
    while st.taken - st.head > 1:
        oldest = entries[st.head & (entries.size - 1)]
        held = newest.offset + newest.length - oldest.offset
        if st.taken - st.head <= st.entries_limit and held <= st.ring_limit:
            return
        give_up_head(lane, C.unsent_limit)


@kernel(inlined=True)
def hold_head(lane, row, key):
    """Copy the request at the head into a free row."""
    ring = lane.feed.ring
    e, w = lane.feed.entries[lane.state[0].head & (lane.feed.entries.size - 1)], lane.room[row]
    hold(lane, row, ring.ctypes.data + np.uint64(e.offset & (ring.size - 1)), e.length)
    w.seq, w.due_ns, w.taken_ns, w.since_ns, w.flags = e.seq, e.due_ns, e.taken_ns, e.taken_ns, e.flags
    w.client, w.route, w.key = e.client, e.route, np.int32(key)
    w.own_ns = e.taken_ns - e.due_ns - e.state


@kernel()
def _fail_client(lane, key, outcome):
    """An attempt began for the first of a client's requests, and failed before it could be sent; False if none waits."""
    if lane.clients[key].startable == 0:
        return False
    st, row, now = lane.state[0], np.int64(lane.clients[key].first), now_ns(lane.scratch)
    w = lane.room[row]
    if w.tries == 0:
        count_attempt(lane, np.int64(w.client))
    w.received_bytes, w.reason = 0, 0
    if st.retry_attempts > 1 and may_retry(lane, w.tries + 1, w.flags, outcome, np.int64(0), w.sent_ns):
        w.first_ready_ns = w.first_ready_ns if w.tries else w.ready_ns
        drop_age(lane, row)
        leave_line(lane, row)
        back_off(lane, row, w.tries + 1, outcome, np.int64(0), now)
        count_waiting(lane)
    else:
        w.outcome, w.status = outcome, 0
        end_row(lane, row, now)
        _forget_row(lane, row, now)
    if lane.clients[key].startable:
        push_ready(lane, key)
    return True


@kernel()
def give_up_row(lane, row, reason):
    """A request of the room will not be sent (`reason` is a counter: C.unsent_...), or not again."""
    w, now = lane.room[row], now_ns(lane.scratch)
    if w.tries:
        end_row(lane, row, now)
    else:
        own_ns = w.own_ns + lane.bank.counters[C.lost_ns]
        record_net_unsent(lane.bank, reason, w.flags, own_ns, now - w.due_ns, lane.state[0].max_wait_ns)
        record_unsent(
            lane.bank, reason, w.flags, np.int64(w.route), w.seq, np.int64(w.client), w.due_ns, w.taken_ns,
            lane.state[0].max_wait_ns,
        )  # fmt: skip
    _forget_row(lane, row, now)


@kernel()
def _forget_row(lane, row, now):
    """A request of the room is done with; it may be the turn of the next of its client."""
    key = np.int64(lane.room[row].key)
    drop_age(lane, row)
    leave_line(lane, row)
    leave_room(lane, row)
    count_waiting(lane)
    settle_line(lane, key, now)
