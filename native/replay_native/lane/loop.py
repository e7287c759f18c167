"""The lane: one kernel that sends due requests on time and records what became of them. `docs/lane-contract.md`.

Here is what is due taken up and given to connections (those that wait: `waiting`, `retry`), and the loop that waits for
whichever comes first. A request on its connection is `exchange`; a connection before that `connecting`, on `dial`.
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
from replay_native.ground.memory import release
from replay_native.ground.shared import load_acquire, peek_i64, store_release
from replay_native.http1.sessions import forget_values
from replay_native.ledger.gaps import BEAT_NS, GAP_NS, note_poll
from replay_native.ledger.lane_metrics import (
    TIMEOUT,
    C,
    Control,
    State,
    Stop,
)

from . import tls
from .clients import (
    NONE,
    join_line,
    key_of,
    leave_room,
    pop_ready,
    push_age,
    push_dial,
    push_ready,
    set_ready,
    settle_line,
    wants_connection,
)
from .connecting import (
    connect_failed,
    connected,
    dial_for_client,
    dial_for_queue,
    leave_removed,
    secure,
    take_grants,
)
from .connections import (
    BUSY,
    CONNECTING,
    IDLE,
    LANE_TYPE,
    drop_free,
    drop_idle,
)
from .dialing import hang_up
from .exchange import (
    begin,
    begin_row,
    cut_off,
    finish,
    receive,
    send_rest,
)
from .io import (
    close_connection,
    event_mask,
    receive_bytes,
    watch,
)
from .retry import end_row, pop_backoff, try_again
from .waiting import (
    bound_queue,
    count_waiting,
    give_up_head,
    give_up_row,
    hold_head,
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
"""Requests taken up in one loop up to which the lane keeps its schedule."""
EVENTS_AT_ONCE = 64
BUFFER_BYTES = 65_536
WAKE_TOKEN = -1


# What is due, onto connections.


@kernel()
def _serve(lane):
    """Give free connections to those that wait."""
    st = lane.state[0]
    if st.ready_first != NONE:
        _serve_ready(lane)
    if st.by_client:
        return
    while st.free_first != NONE and queued(lane) > 0:
        slot = st.free_first
        drop_free(lane, slot)
        if st.closed_loop:
            take_up(lane)
        begin(lane, slot)


@kernel()
def _take_due(lane, at_most):
    """Take up what is due and serve it; sets next_due_ns. Returns how many."""
    st, bank = lane.state[0], lane.bank
    entries = lane.feed.entries
    tail = load_acquire(bank.control, Control.FEED_TAIL)
    count = 0
    if st.starved and st.taken < tail:
        st.starved = 0
        late = entries[st.taken & (entries.size - 1)].due_ns < now_ns(lane.scratch)
        bank.counters[C.underruns] += late and not st.closed_loop
    while st.taken < tail:
        due_ns = entries[st.taken & (entries.size - 1)].due_ns
        st.next_due_ns = due_ns
        if due_ns > now_ns(lane.scratch) or count == at_most:
            return count
        if st.closed_loop:
            break
        take_up(lane)
        count += 1
        if st.by_client:
            _admit(lane)
        else:
            bound_queue(lane)
        # A client's connection is made in a later loop: those that wait for one count as if it were there.
        made = st.open + (st.startable if st.per_client else 0)
        if made >= st.connections and st.free_first == NONE:
            bank.counters[C.cap_bound] += 1
        _serve(lane)
        count_waiting(lane)
        bank.counters[C.waiting_max] = max(bank.counters[C.waiting_max], bank.counters[C.waiting])
    st.next_due_ns = FAR_NS
    if st.closed_loop and st.taken < tail:
        st.started = 1
        _serve(lane)
    elif load_acquire(bank.control, Control.FEED_END) == 0:
        st.starved = 1
    return count


@kernel()
def _expire(lane, now):
    """Time-outs of connects and answers, and max_wait of the queue."""
    st = lane.state[0]
    while st.timed_first != NONE and lane.connections[st.timed_first].deadline_ns <= now:
        slot = st.timed_first
        if lane.connections[slot].state == CONNECTING:
            connect_failed(lane, slot, TIMEOUT)
        elif lane.connections[slot].send_error:
            cut_off(lane, slot)
        else:
            finish(lane, slot, TIMEOUT, now)
    while st.taken > st.head:
        if lane.feed.entries[st.head & (lane.feed.entries.size - 1)].taken_ns + st.max_wait_ns > now:
            break
        give_up_head(lane, C.unsent_max_wait)
    while st.age_first != NONE and lane.room[st.age_first].since_ns + st.max_wait_ns <= now:
        give_up_row(lane, st.age_first, C.unsent_max_wait)


@kernel()
def _expire_idle(lane, now):
    """Connections of clients that were idle for too long."""
    st = lane.state[0]
    while st.free_last != NONE and lane.connections[st.free_last].deadline_ns <= now:
        slot = st.free_last
        lane.bank.counters[C.idle_closed] += 1
        drop_idle(lane, slot)
        hang_up(lane, slot, False)


@kernel()
def _admit(lane):
    """The request just taken up goes onto a free connection if it is its turn; else into the room."""
    st = lane.state[0]
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    key = key_of(lane, np.int64(e.client))
    client = lane.clients[key]
    slot = np.int64(client.idle) if st.per_client else st.free_first
    if slot != NONE and client.first == NONE and (client.in_flight == 0 or not st.ordered):
        drop_idle(lane, slot)
        begin(lane, slot)
        return
    while st.age_first != NONE and (st.room_free == NONE or st.waiting_bytes + e.length > st.ring_limit):
        give_up_row(lane, st.age_first, C.unsent_limit)
    row = st.room_free
    if row == NONE:
        # Every row backs off.
        give_up_head(lane, C.unsent_limit)
        return
    hold_head(lane, row, key)
    push_age(lane, row)
    join_line(lane, row)
    if st.ordered:
        settle_line(lane, key, e.taken_ns)
    else:
        set_ready(lane, row, e.taken_ns)
    release_head(lane)


@kernel()
def _serve_ready(lane):
    """Give free connections to the clients whose turn it is, those that came first before others."""
    st = lane.state[0]
    while st.ready_first != NONE and (st.per_client or st.free_first != NONE):
        key = pop_ready(lane)
        client = lane.clients[key]
        slot = np.int64(client.idle) if st.per_client else st.free_first
        while client.startable and slot != NONE:
            drop_idle(lane, slot)
            begin_row(lane, slot, np.int64(client.first))
            slot = np.int64(client.idle) if st.per_client else st.free_first
        if not st.per_client and client.startable:
            push_ready(lane, key)
        elif st.per_client and wants_connection(lane, key):
            push_dial(lane, key)
        count_waiting(lane)


# The loop.


@kernel()
def _on_event(lane, slot, generation, mask):
    """One socket event."""
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
        # TLS may have waited to write before it could read on.
        if mask & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) or c.ssl:
            receive(lane, slot, mask & (EPOLLRDHUP | EPOLLERR | EPOLLHUP) != 0)
    elif c.state == IDLE and receive_bytes(c, lane.buffer) not in (-EAGAIN, -EINTR):
        lane.bank.counters[C.closed_by_target] += 1
        drop_idle(lane, slot)
        hang_up(lane, slot, False)


@kernel()
def _handle(lane, n):
    """Handle n events, looking for due requests between any two."""
    st = lane.state[0]
    base = lane.events.ctypes.data
    for i in range(n):
        token = peek_i64(base + np.uint64(i * EPOLL_EVENT_BYTES + EPOLL_DATA_OFFSET))
        if token == WAKE_TOKEN:
            _read(st.wake_fd, lane.scratch.ctypes.data, 8)
        else:
            _on_event(lane, token & 0xFFFFFFFF, token >> 32, event_mask(lane.events, i, EPOLL_EVENT_BYTES))
            _serve(lane)
        if st.next_due_ns < FAR_NS and now_ns(lane.scratch) >= st.next_due_ns:
            _take_due(lane, 1)


@kernel(inlined=True)
def _sleep_ns(lane, now):
    """How long nothing needs doing: until shortly before the next due time, or a deadline."""
    st = lane.state[0]
    until = min(now + HEARTBEAT_NS, st.next_due_ns - st.spin_ns)
    if st.timed_first != NONE:
        until = min(until, now + BEAT_NS, lane.connections[st.timed_first].deadline_ns)
    if st.taken > st.head:
        waits = lane.feed.entries[st.head & (lane.feed.entries.size - 1)].taken_ns
        until = min(until, waits + st.max_wait_ns)
    if st.age_first != NONE:
        until = min(until, lane.room[st.age_first].since_ns + st.max_wait_ns)
    if st.backing_off:
        until = min(until, lane.room[lane.backoff[0]].retry_ns)
    if st.per_client and st.free_last != NONE:
        until = min(until, lane.connections[st.free_last].deadline_ns)
    return until - now


@kernel()
def _wait(lane, sleep_ns):
    """Wait for events, at most this long (0 or less: look and go on). Returns how many, none on EINTR."""
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
    """STOP: what is due by now is planned, and unsent; so is what waits. What is in flight may finish."""
    st, control = lane.state[0], lane.bank.control
    entries = lane.feed.entries
    st.draining = 1
    st.next_due_ns = FAR_NS
    now = now_ns(lane.scratch)
    tail = load_acquire(control, Control.FEED_TAIL)
    while not st.closed_loop and st.taken < tail and entries[st.taken & (entries.size - 1)].due_ns <= now:
        take_up(lane)
    while st.age_first != NONE:
        give_up_row(lane, st.age_first, C.unsent_interrupted)
    while st.backing_off:
        row = pop_backoff(lane)
        end_row(lane, row, now)
        leave_room(lane, row)
    while st.head < st.taken:
        give_up_head(lane, C.unsent_interrupted)


@kernel(inlined=True)
def _finished(lane):
    """Nothing more will come, nothing waits, nothing is in flight."""
    st, bank = lane.state[0], lane.bank
    if st.taken > st.head or st.waiting or bank.counters[C.in_flight]:
        return False
    if st.draining:
        return True
    return (
        load_acquire(bank.control, Control.FEED_END) == 1
        and load_acquire(bank.control, Control.FEED_TAIL) == st.taken
    )


@kernel(inlined=True)
def _note_unread(lane, unread_ns, polled_ns, n):
    """For how long at most the responses of these n events have lain there. Events of before a gap may fill several
    batches, one for each connection at most, and come first.
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
    """At most one more connection for those that wait, and none while the lane is behind its schedule: they wait for the
    lane then, and connections would not help. What is put off so is the lane's own part of their wait.
    """
    st = lane.state[0]
    if wants_dial(lane) and (taken <= ON_TIME or (st.connecting if st.per_client else st.open) == 0):
        lane.bank.counters[C.dials_postponed] += st.behind
        if st.per_client:
            dial_for_client(lane)
        else:
            dial_for_queue(lane)
    st.behind = wants_dial(lane)


@kernel()
def _loop(lane):
    """Until the feed ends or STOP: take up, wait, handle, expire."""
    st, bank = lane.state[0], lane.bank
    control, counters, scratch = bank.control, bank.counters, lane.scratch
    now = now_ns(scratch)
    st.polled_ns = now
    while True:
        stop = load_acquire(control, Control.STOP)
        if stop != Stop.RUN and not st.draining:
            _drain(lane)
        if stop == Stop.ABANDON:
            return
        version = load_acquire(control, Control.ADDRESSES)
        if version != st.addresses_seen:
            leave_removed(lane, version)
        take_grants(lane)
        taken = 0 if st.draining else _take_due(lane, TAKEN_AT_ONCE)
        if _finished(lane):
            return
        asleep = now_ns(scratch)
        sleep = np.int64(0) if taken or wants_dial(lane) else max(_sleep_ns(lane, asleep), np.int64(0))
        n = _wait(lane, sleep)
        polled = now_ns(scratch)
        unread = note_poll(bank, st.polled_ns, asleep, asleep + sleep, polled, GAP_NS, st.behind)
        _note_unread(lane, unread, polled, n)
        if n:
            _handle(lane, n)
        then = now
        now = now_ns(scratch)
        if not n and not taken:
            counters[C.idle_ns] += now - then
        counters[C.loops] += 1
        store_release(control, Control.HEARTBEAT_NS, now)
        _expire(lane, now)
        if st.per_client:
            _expire_idle(lane, now)
        if st.backing_off:
            try_again(lane, now)
        if not st.draining:
            _serve(lane)
        _dial_one(lane, taken)


@kernel()
def _close_all(lane):
    """Give everything back: sockets, request copies, the epoll descriptor."""
    st = lane.state[0]
    for slot in range(st.used_slots):
        c = lane.connections[slot]
        if c.fd != NONE:
            close_connection(c, c.state == BUSY, lane.scratch)
        release(c.request)
        release(c.spare)
    tls.free_session(st.tls_session)
    if st.per_client and st.tls_context:
        for key in range(lane.clients.size):
            tls.free_session(lane.clients[key].tls_session)
    for row in range(lane.room.shape[0]):
        release(lane.room[row].request)
    forget_values(lane.sessions)
    _close(st.epoll)


@kernel((LANE_TYPE,))
def run(lane):
    """Run a lane to its end, on this thread. Afterwards Control.STATE is ENDED, or minus errno."""
    st, control = lane.state[0], lane.bank.control
    slack = _prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
    _prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    st.epoll = _epoll_create1(0)
    failed = (
        -np.int64(errno())
        if st.epoll < 0
        else watch(st.epoll, st.wake_fd, np.int64(WAKE_TOKEN), lane.scratch)
    )
    if failed == 0:
        store_release(control, Control.STATE, State.RUNNING)
        _loop(lane)
        lane.bank.counters[C.cpu_last_ns] = thread_cpu_ns(lane.scratch)
        _close_all(lane)
    _prctl(PR_SET_TIMERSLACK, np.uint64(max(slack, 1)), 0, 0, 0)
    store_release(control, Control.STATE, failed if failed else State.ENDED)
