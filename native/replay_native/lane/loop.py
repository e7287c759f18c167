"""The lane: one kernel that sends due requests on time and records what became of them (`docs/lane-contract.md`).

Theory of operation
-------------------

A lane is one thread that runs without the interpreter lock. `run` begins, takes turns until nothing is left to do,
and ends. In each `turn` the lane:

1. obeys the control plane: STOP, a changed address table, replies to resolve requests;
2. takes up the requests that are due (`take_due`), and puts them on free connections or lets them wait;
3. sleeps in epoll until shortly before the next due time, or until a socket, a deadline or the control plane needs
   it. It stays awake for the last `spin_ns`, because no sleep ends exactly on time;
4. handles the events. After each event it checks whether a request is due, because a burst of responses must not
   delay a request;
5. ends what took too long, schedules retries, and opens at most one new connection.

Two rules keep the generator honest. First, a request gets its time stamp `taken` when it is taken up, whatever
happens to it afterwards, so that a slow target can never look like a late generator. Second, the lane opens no
connections while it is behind its own schedule (it took up more than ON_TIME requests in one turn), unless it has
none (`_dial_one`). Requests then wait because of the lane, and more connections would not help. That time is counted
as the lane's own.

`exchange` handles a request on its connection, `connecting` and `dialing` a connection that is being opened,
`waiting` and `clients` requests that wait, and `retry` those that are tried again. Only `wait` blocks, and memory is
only allocated for the buffers of requests and values.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.clock import now_ns, thread_cpu_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import (
    EAGAIN,
    EINTR,
    ENOSYS,
    EPOLL_DATA_OFFSET,
    EPOLL_EVENT_BYTES,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    PR_GET_TIMERSLACK,
    PR_SET_TIMERSLACK,
    errno,
)
from replay_native.ground.linked import NONE, first_of, length_of
from replay_native.ground.memory import release
from replay_native.ground.shared import load_acquire, peek_i64, store_release
from replay_native.http1.sessions import forget_values
from replay_native.keeping.responses import give_back
from replay_native.ledger.gaps import BEAT_NS, GAP_NS, note_poll
from replay_native.ledger.lane_metrics import TIMEOUT, C, Control, State, Stop

from . import tls
from .clients import (
    first_waiting,
    free_row,
    join_client_queue,
    join_wait_order,
    key_of,
    pop_ready,
    push_dial,
    push_ready,
    set_ready,
    settle_client,
    wants_connection,
)
from .connecting import (
    connect_failed,
    connected,
    dial_for_client,
    dial_for_queue,
    leave_removed,
    secure,
    take_replies,
)
from .connections import LANE_TYPE, drop_idle, first_free, first_timed, free_for, last_free
from .dialing import hang_up
from .exchange import begin, begin_row, cut_off, finish, receive, send_rest
from .io import close_connection, event_mask, receive_bytes, watch
from .retry import end_row, pop_backoff, try_again
from .states import BUSY, CONNECTING, IDLE
from .waiting import (
    bound_queue,
    count_waiting,
    give_up_head,
    give_up_row,
    head_to_row,
    queued,
    release_head,
    take_up,
    wants_dial,
)

_epoll_create1, _epoll_wait, _epoll_pwait2, _prctl = (
    libc.epoll_create1,
    libc.epoll_wait,
    libc.epoll_pwait2,
    libc.prctl,
)
_close, _read = libc.close, libc.read

FAR_NS = 1 << 62
HEARTBEAT_NS = 100_000_000
TAKEN_AT_ONCE = 16
ON_TIME = 2
"""A lane that takes up more requests than this in one turn is behind its schedule."""
EVENTS_AT_ONCE = 64
BUFFER_BYTES = 65_536
WAKE_TOKEN = -1


@kernel()
def _serve(lane):
    """Give free connections to waiting requests."""
    if first_of(lane.ready_clients, 0) != NONE:
        _serve_ready(lane)
    if lane.settings.by_client:
        return
    while first_free(lane) != NONE and queued(lane) > 0:
        slot = first_free(lane)
        drop_idle(lane, slot)
        if lane.settings.closed_loop:
            take_up(lane)
        begin(lane, slot)


@kernel()
def take_due(lane, at_most):
    """Take up and serve at most `at_most` requests that are due; return how many, and set `next_due_ns`.

    A closed loop starts when its first entry is due. From then on `_serve` takes up its requests, which do not count
    here.
    """
    st, metrics = lane.state[0], lane.metrics
    entries = lane.feed.entries
    tail = load_acquire(metrics.control, Control.FEED_TAIL)
    count = 0
    if st.starved and st.taken < tail:
        st.starved = 0
        late = entries[st.taken & (entries.size - 1)].due_ns < now_ns(lane.scratch)
        metrics.counters[C.underruns] += late and not lane.settings.closed_loop
    while st.taken < tail:
        due_ns = entries[st.taken & (entries.size - 1)].due_ns
        st.next_due_ns = due_ns
        if due_ns > now_ns(lane.scratch) or count == at_most:
            return count
        if lane.settings.closed_loop:
            break
        take_up(lane)
        count += 1
        if lane.settings.by_client:
            _admit(lane)
        else:
            bound_queue(lane)
        # A client's own connection is opened only in a later turn. So requests that wait for one count as connections.
        made = st.open + (st.startable if lane.settings.per_client else 0)
        if made >= lane.settings.connections and first_free(lane) == NONE:
            metrics.counters[C.cap_bound] += 1
        _serve(lane)
        count_waiting(lane)
        metrics.counters[C.waiting_max] = max(metrics.counters[C.waiting_max], metrics.counters[C.waiting])
    st.next_due_ns = FAR_NS
    if lane.settings.closed_loop and st.taken < tail:
        st.started = 1
        _serve(lane)
    elif load_acquire(metrics.control, Control.FEED_END) == 0:
        st.starved = 1
    return count


@kernel()
def _expire(lane, now):
    """End connects and requests that took too long, requests whose send failed, and waits (`max_wait`)."""
    st = lane.state[0]
    while first_timed(lane) != NONE and lane.connections[first_timed(lane)].deadline_ns <= now:
        slot = first_timed(lane)
        if lane.connections[slot].state == CONNECTING:
            connect_failed(lane, slot, TIMEOUT)
        elif lane.connections[slot].send_error:
            cut_off(lane, slot)
        else:
            finish(lane, slot, TIMEOUT, now)
    while st.taken > st.head:
        if (
            lane.feed.entries[st.head & (lane.feed.entries.size - 1)].taken_ns + lane.settings.max_wait_ns
            > now
        ):
            break
        give_up_head(lane, C.unsent_max_wait)
    while (
        first_of(lane.wait_order, 0) != NONE
        and lane.wait_queue[first_of(lane.wait_order, 0)].since_ns + lane.settings.max_wait_ns <= now
    ):
        give_up_row(lane, first_of(lane.wait_order, 0), C.unsent_max_wait)


@kernel()
def _expire_idle(lane, now):
    """Close clients' connections that have been idle for too long."""
    while last_free(lane) != NONE and lane.connections[last_free(lane)].deadline_ns <= now:
        slot = last_free(lane)
        lane.metrics.counters[C.idle_closed] += 1
        drop_idle(lane, slot)
        hang_up(lane, slot, False)


@kernel()
def _admit(lane):
    """Put the request that was just taken up onto a free connection, or into the wait queue.

    It is put onto a connection only if no earlier request of its client waits and, with `order`, none is in flight.
    If the wait queue is full, the requests that have waited longest are given up. If it still has no free row, because
    retries use them all, this request is given up.
    """
    st = lane.state[0]
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    key = key_of(lane, np.int64(e.client))
    client = lane.clients[key]
    slot = free_for(lane, key)
    its_turn = first_waiting(lane, key) == NONE and (client.in_flight == 0 or not lane.settings.ordered)
    if slot != NONE and its_turn:
        drop_idle(lane, slot)
        begin(lane, slot)
        return
    while first_of(lane.wait_order, 0) != NONE and (
        first_of(lane.free_rows, 0) == NONE or st.waiting_bytes + e.length > lane.settings.ring_limit
    ):
        give_up_row(lane, first_of(lane.wait_order, 0), C.unsent_limit)
    if first_of(lane.free_rows, 0) == NONE:
        give_up_head(lane, C.unsent_limit)
        return
    row = head_to_row(lane, key)
    join_wait_order(lane, row)
    join_client_queue(lane, row)
    if lane.settings.ordered:
        settle_client(lane, key, e.taken_ns)
    else:
        set_ready(lane, row, e.taken_ns)
    release_head(lane)


@kernel()
def _serve_ready(lane):
    """Give free connections to the ready clients, in the order in which they became ready."""
    while first_of(lane.ready_clients, 0) != NONE and (lane.settings.per_client or first_free(lane) != NONE):
        key = pop_ready(lane)
        client = lane.clients[key]
        slot = free_for(lane, key)
        while client.startable and slot != NONE:
            drop_idle(lane, slot)
            begin_row(lane, slot, first_waiting(lane, key))
            slot = free_for(lane, key)
        if not lane.settings.per_client and client.startable:
            push_ready(lane, key)
        elif lane.settings.per_client and wants_connection(lane, key):
            push_dial(lane, key)
        count_waiting(lane)


@kernel()
def _on_event(lane, slot, generation, mask):
    """Handle one socket event, unless it belongs to a connection that was closed."""
    c = lane.connections[slot]
    if c.generation & 0x7FFFFFFF != generation:
        return
    if c.state == CONNECTING:
        if c.ssl:
            secure(lane, slot)
        elif mask & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            connected(lane, slot)
    elif c.state == BUSY:
        if mask & EPOLLOUT and c.sent_bytes < c.request_bytes:
            send_rest(lane, slot)
        # With TLS, any event may mean that reading can continue, because OpenSSL may have had to write first.
        if mask & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) or c.ssl:
            receive(lane, slot, mask & (EPOLLRDHUP | EPOLLERR | EPOLLHUP) != 0)
    elif c.state == IDLE and receive_bytes(c, lane.buffer) not in (-EAGAIN, -EINTR):
        lane.metrics.counters[C.closed_by_target] += 1
        drop_idle(lane, slot)
        hang_up(lane, slot, False)


@kernel(inlined=True)
def handle_event(lane, i):
    """Handle event `i` of those that `wait` found."""
    base = lane.events.ctypes.data
    token = peek_i64(base + np.uint64(i * EPOLL_EVENT_BYTES + EPOLL_DATA_OFFSET))
    if token == WAKE_TOKEN:
        _read(lane.settings.wake_fd, lane.scratch.ctypes.data, 8)
    else:
        _on_event(lane, token & 0xFFFFFFFF, token >> 32, event_mask(lane.events, i, EPOLL_EVENT_BYTES))
        _serve(lane)


@kernel()
def _handle(lane, n):
    """Handle n events. Between them, take up requests that have become due."""
    st = lane.state[0]
    for i in range(n):
        handle_event(lane, i)
        if st.next_due_ns < FAR_NS and now_ns(lane.scratch) >= st.next_due_ns:
            take_due(lane, 1)


@kernel(inlined=True)
def _sleep_ns(lane, now):
    """Return for how many ns there is nothing to do; 0 or less if there is something now.

    This is the time until shortly before the next due time, or until a deadline, a retry or the next heartbeat. While
    a response may arrive, it is at most BEAT_NS.
    """
    st = lane.state[0]
    until = min(now + HEARTBEAT_NS, st.next_due_ns - lane.settings.spin_ns)
    if first_timed(lane) != NONE:
        until = min(until, now + BEAT_NS, lane.connections[first_timed(lane)].deadline_ns)
    if st.taken > st.head:
        waits = lane.feed.entries[st.head & (lane.feed.entries.size - 1)].taken_ns
        until = min(until, waits + lane.settings.max_wait_ns)
    if first_of(lane.wait_order, 0) != NONE:
        until = min(until, lane.wait_queue[first_of(lane.wait_order, 0)].since_ns + lane.settings.max_wait_ns)
    if st.backing_off:
        until = min(until, lane.wait_queue[lane.backoff[0]].retry_ns)
    if lane.settings.per_client and last_free(lane) != NONE:
        until = min(until, lane.connections[last_free(lane)].deadline_ns)
    return until - now


@kernel()
def wait(lane, sleep_ns):
    """Wait for events for at most `sleep_ns` (0 or less: only poll), and return how many there are.

    The result is 0 if a signal interrupted the wait. Without epoll_pwait2, the time is rounded down to milliseconds.
    """
    st, scratch = lane.state[0], lane.scratch
    events = lane.events.ctypes.data
    if sleep_ns <= 0:
        return max(np.int64(_epoll_wait(st.epoll, events, EVENTS_AT_ONCE, 0)), np.int64(0))
    if st.has_pwait2:
        scratch[0] = sleep_ns // 1_000_000_000
        scratch[1] = sleep_ns % 1_000_000_000
        n = np.int64(_epoll_pwait2(st.epoll, events, EVENTS_AT_ONCE, scratch.ctypes.data, 0))
        if n >= 0 or errno() != ENOSYS:
            return max(n, np.int64(0))
        st.has_pwait2 = 0
    return max(np.int64(_epoll_wait(st.epoll, events, EVENTS_AT_ONCE, sleep_ns // 1_000_000)), np.int64(0))


@kernel()
def _drain(lane):
    """Obey STOP: give up all requests that wait. Requests in flight may finish.

    In an open loop, requests that are due by now count as planned and unsent. Requests that back off end with the
    outcome of their last try.
    """
    st, control = lane.state[0], lane.metrics.control
    entries = lane.feed.entries
    st.draining = 1
    st.next_due_ns = FAR_NS
    now = now_ns(lane.scratch)
    tail = load_acquire(control, Control.FEED_TAIL)
    while (
        not lane.settings.closed_loop
        and st.taken < tail
        and entries[st.taken & (entries.size - 1)].due_ns <= now
    ):
        take_up(lane)
    while first_of(lane.wait_order, 0) != NONE:
        give_up_row(lane, first_of(lane.wait_order, 0), C.unsent_interrupted)
    while st.backing_off:
        row = pop_backoff(lane)
        end_row(lane, row, now)
        free_row(lane, row)
    while st.head < st.taken:
        give_up_head(lane, C.unsent_interrupted)


@kernel(inlined=True)
def is_finished(lane):
    """Return whether no more requests will be taken up, none waits, and none is in flight."""
    st, metrics = lane.state[0], lane.metrics
    if st.taken > st.head or length_of(lane.wait_order, 0) or metrics.counters[C.in_flight]:
        return False
    if st.draining:
        return True
    return (
        load_acquire(metrics.control, Control.FEED_END) == 1
        and load_acquire(metrics.control, Control.FEED_TAIL) == st.taken
    )


@kernel(inlined=True)
def _note_unread(lane, unread_ns, polled_ns, n):
    """Record the longest time for which the responses of these n events may have been left unread.

    Events from before a gap come first, at most one per connection. They may fill several batches. So the delay is
    kept until as many events have been handled as there are connections.
    """
    st = lane.state[0]
    left_ns = st.unread_ns + polled_ns - st.polled_ns if st.unread_ns and st.left_over > 0 else np.int64(0)
    if unread_ns >= left_ns:
        st.left_over = st.open
    st.unread_ns = max(unread_ns, left_ns)
    st.left_over = st.left_over - n if n == EVENTS_AT_ONCE else 0
    st.polled_ns = polled_ns


@kernel(inlined=True)
def _dial_one(lane, taken):
    """Open at most one more connection, and none while the lane is behind its schedule.

    If there is no connection at all, one is opened in any case. If clients have connections of their own, one is
    opened in any case when none is being opened. While a connection is postponed (`behind`), the wait for it counts
    as the lane's own.
    """
    st = lane.state[0]
    if wants_dial(lane) and (
        taken <= ON_TIME or (st.connecting if lane.settings.per_client else st.open) == 0
    ):
        lane.metrics.counters[C.dials_postponed] += st.behind
        if lane.settings.per_client:
            dial_for_client(lane)
        else:
            dial_for_queue(lane)
    st.behind = wants_dial(lane)


@kernel(inlined=True)
def obey(lane):
    """Obey the control plane: STOP, a changed address table, replies. False if the lane must end at once."""
    st, control = lane.state[0], lane.metrics.control
    stop = load_acquire(control, Control.STOP)
    if stop != Stop.RUN and not st.draining:
        _drain(lane)
    if stop == Stop.ABANDON:
        return False
    version = load_acquire(control, Control.ADDRESSES)
    if version != st.addresses_seen:
        leave_removed(lane, version)
    take_replies(lane)
    return True


@kernel(inlined=True)
def sleep_after(lane, taken, now):
    """Return how long a lane that took up `taken` requests may sleep, in ns. With 0 it only polls."""
    return np.int64(0) if taken or wants_dial(lane) else max(_sleep_ns(lane, now), np.int64(0))


@kernel(inlined=True)
def note_events(lane, asleep, sleep, polled, n):
    """Record that the lane began to wait at `asleep` for `sleep` ns, and found `n` events at `polled`."""
    st = lane.state[0]
    unread = note_poll(lane.metrics, st.polled_ns, asleep, asleep + sleep, polled, GAP_NS, st.behind)
    _note_unread(lane, unread, polled, n)


@kernel(inlined=True)
def end_turn(lane, taken, idle):
    """End a turn: expire, retry, serve, and open at most one connection. `idle`: this turn had nothing to do."""
    st, metrics = lane.state[0], lane.metrics
    now = now_ns(lane.scratch)
    if idle:
        metrics.counters[C.idle_ns] += now - st.now_ns
    st.now_ns = now
    metrics.counters[C.loops] += 1
    store_release(metrics.control, Control.HEARTBEAT_NS, now)
    _expire(lane, now)
    if lane.settings.per_client:
        _expire_idle(lane, now)
    if st.backing_off:
        try_again(lane, now)
        count_waiting(lane)
    if not st.draining:
        _serve(lane)
    _dial_one(lane, taken)


@kernel((LANE_TYPE,))
def turn(lane):
    """Take one turn: obey, take up, wait, handle, expire. Returns 0 when the lane has ended."""
    if not obey(lane):
        return 0
    taken = 0 if lane.state[0].draining else take_due(lane, TAKEN_AT_ONCE)
    if is_finished(lane):
        return 0
    asleep = now_ns(lane.scratch)
    sleep = sleep_after(lane, taken, asleep)
    n = wait(lane, sleep)
    note_events(lane, asleep, sleep, now_ns(lane.scratch), n)
    if n:
        _handle(lane, n)
    end_turn(lane, taken, not n and not taken)
    return 1


@kernel((LANE_TYPE,))
def begin_lane(lane):
    """Open the lane's epoll descriptor and register its wake-up; return 0 or minus errno."""
    st = lane.state[0]
    st.epoll = _epoll_create1(0)
    if st.epoll < 0:
        return -np.int64(errno())
    st.now_ns = st.polled_ns = now_ns(lane.scratch)
    failed = np.int64(watch(st.epoll, lane.settings.wake_fd, np.int64(WAKE_TOKEN), lane.scratch))
    if failed:
        _close(st.epoll)
    return failed


@kernel((LANE_TYPE,))
def end_lane(lane):
    """Free everything that the lane holds: sockets, buffers, TLS sessions, the epoll descriptor."""
    st = lane.state[0]
    for slot in range(st.used_slots):
        c = lane.connections[slot]
        if c.fd != NONE:
            close_connection(c, c.state == BUSY, lane.scratch)
        release(c.request)
        release(c.spare)
    tls.free_session(st.tls_session)
    if lane.settings.per_client and lane.settings.tls_context:
        for key in range(lane.clients.size):
            tls.free_session(lane.clients[key].tls_session)
    for row in range(lane.wait_queue.shape[0]):
        release(lane.wait_queue[row].request)
    forget_values(lane.sessions)
    give_back(lane.keeping)
    _close(st.epoll)


@kernel((LANE_TYPE,))
def run(lane):
    """Run a lane to its end, on this thread. Afterwards Control.STATE is ENDED, or minus errno."""
    control = lane.metrics.control
    slack = _prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
    _prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    failed = begin_lane(lane)
    if failed == 0:
        store_release(control, Control.STATE, State.RUNNING)
        while turn(lane):
            pass
        lane.metrics.counters[C.cpu_last_ns] = thread_cpu_ns(lane.scratch)
        end_lane(lane)
    _prctl(PR_SET_TIMERSLACK, np.uint64(max(slack, 1)), 0, 0, 0)
    store_release(control, Control.STATE, failed if failed else State.ENDED)
