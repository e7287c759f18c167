"""The lane: one kernel that sends due requests on time and records what became of them. `docs/lane-contract.md`.

It reads from top to bottom: the life of a request (take up, begin, transmit, answer, finish), of a connection (dial,
connected, lost, hang up), of the queue, and the loop that waits for whichever comes first.
"""

from __future__ import annotations

import errno as _errno

import numpy as np

from . import http1, libc, tls
from .addresses import A, heed_addresses, is_removed
from .asks import ask, can_ask, has_grant, take_grant
from .bank import (
    GENERATOR,
    MALFORMED,
    REFUSED,
    RESET,
    TIMEOUT,
    TLS,
    TRUNCATED,
    C,
    Control,
    State,
    Stop,
)
from .clients import (
    KEPT_BYTES,
    NONE,
    REQUEST_BYTES,
    drop_age,
    hold,
    join_line,
    key_of,
    leave_line,
    leave_room,
    pop_dial,
    pop_ready,
    push_age,
    push_dial,
    push_ready,
    set_ready,
    settle_line,
    swap_requests,
    wants_connection,
)
from .clock import now_ns, thread_cpu_ns
from .connections import (
    BUSY,
    CONNECTING,
    IDLE,
    LANE_TYPE,
    drop_free,
    drop_idle,
    drop_timed,
    give_closed_slot,
    hasten,
    push_idle,
    push_timed,
    take_closed_slot,
)
from .feed import HEAD, IDEMPOTENT, LOOKED_AT, PATCHES_MASK, PATCHES_SHIFT, STATUS_SHIFT, WARM_UP
from .io import (
    close_connection,
    connect_error,
    event_mask,
    is_drained,
    is_quiet,
    open_connection,
    receive_bytes,
    send_bytes,
    watch,
)
from .jit import kernel
from .libc import (
    EADDRNOTAVAIL,
    EAGAIN,
    EINTR,
    EMFILE,
    ENFILE,
    ENOBUFS,
    ENOMEM,
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
from .memory import release, with_room
from .record import (
    record_attempt,
    record_done,
    record_handshake,
    record_looked,
    record_sent,
    record_taken,
    record_unsent,
)
from .retry import PPM, backoff_ns, is_retried, pop_backoff, push_backoff
from .sessions import PATCH_BYTES, forget_values, look, patched_bytes, put_patched
from .shared import load_acquire, peek_i64, store_release

_memcpy, _read = libc.memcpy, libc.read
_epoll_create1, _epoll_wait, _epoll_pwait2, _prctl = (
    libc.epoll_create1,
    libc.epoll_wait,
    libc.epoll_pwait2,
    libc.prctl,
)
_close = libc.close

FAR_NS = 1 << 62
HEARTBEAT_NS = 100_000_000
TAKEN_AT_ONCE = 16
ON_TIME = 2
"""Requests taken up in one loop up to which the lane keeps its schedule."""
EVENTS_AT_ONCE = 64
BUFFER_BYTES = 65_536
WAKE_TOKEN = -1

ECONNRESET, EPIPE, EPROTO, ETIMEDOUT = _errno.ECONNRESET, _errno.EPIPE, _errno.EPROTO, _errno.ETIMEDOUT


@kernel(inlined=True)
def _outcome_of(error):
    """The outcome that an errno of connect, send or receive stands for."""
    if error in (EMFILE, ENFILE, EADDRNOTAVAIL, ENOBUFS, ENOMEM):
        return GENERATOR
    if error in (ECONNRESET, EPIPE):
        return RESET
    if error == EPROTO:
        return TLS
    return TIMEOUT if error == ETIMEDOUT else REFUSED


# The life of a request.


@kernel()
def _begin(lane, slot):
    """Put the request at the head of the queue onto a free or fresh connection, and send it."""
    st, c = lane.state[0], lane.connections[slot]
    ring = lane.feed.ring
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    c.request, c.capacity = with_room(c.request, c.capacity, max(e.length, np.int64(REQUEST_BYTES)))
    _memcpy(c.request, ring.ctypes.data + np.uint64(e.offset & (ring.size - 1)), np.uint64(e.length))
    c.request_bytes = e.length
    c.seq, c.due_ns, c.taken_ns, c.ready_ns = e.seq, e.due_ns, e.taken_ns, e.taken_ns
    c.client, c.route, c.flags = np.int64(e.client), np.int64(e.route), e.flags
    c.tries = 1
    c.sent_ns = -1
    _release_head(lane)
    _attempt(lane, slot)


@kernel()
def _begin_row(lane, slot, row):
    """Put a request of the waiting room onto a free or fresh connection, and send it."""
    c, w = lane.connections[slot], lane.room[row]
    drop_age(lane, row)
    leave_line(lane, row)
    swap_requests(c, w)
    c.request_bytes = w.length
    c.seq, c.due_ns, c.taken_ns = w.seq, w.due_ns, w.taken_ns
    c.client, c.route, c.flags = np.int64(w.client), np.int64(w.route), w.flags
    c.ready_ns = w.first_ready_ns if w.tries else w.ready_ns
    c.tries = w.tries + 1
    c.sent_ns = w.sent_ns
    leave_room(lane, row)
    _attempt(lane, slot)


@kernel()
def _put_values(lane, slot):
    """Put its client's values into the connection's request; False where one of them is absent."""
    c = lane.connections[slot]
    patches = c.flags >> PATCHES_SHIFT & PATCHES_MASK
    length = c.request_bytes - PATCH_BYTES * patches
    total = patched_bytes(lane.sessions, c.client, c.request, length, patches)
    if total < 0:
        return False
    c.spare, c.spare_capacity = with_room(c.spare, c.spare_capacity, max(total, np.int64(REQUEST_BYTES)))
    put_patched(c.spare, lane.sessions, c.client, c.request, length, patches)
    c.request, c.spare = c.spare, c.request
    c.capacity, c.spare_capacity = c.spare_capacity, c.capacity
    c.request_bytes = total
    if c.spare_capacity > KEPT_BYTES:
        release(c.spare)
        c.spare = np.uint64(0)
        c.spare_capacity = 0
    return True


@kernel()
def _give_back(lane, slot):
    """The request on the connection lacks a value: it is unsent, and the connection is free for the next."""
    st, c = lane.state[0], lane.connections[slot]
    record_unsent(
        lane.bank, C.unsent_capture, c.flags, c.route, c.seq, c.client, c.due_ns, c.taken_ns, st.max_wait_ns
    )
    now = now_ns(lane.scratch)
    push_idle(lane, slot, now)
    if st.by_client:
        settle_line(lane, key_of(lane, c.client), now)


@kernel(inlined=True)
def _attempt(lane, slot):
    """The connection carries its request from now on: it is in flight."""
    st, c = lane.state[0], lane.connections[slot]
    if c.sent_ns < 0 and c.flags & PATCHES_MASK << PATCHES_SHIFT and not _put_values(lane, slot):
        _give_back(lane, slot)
        return
    if st.by_client:
        c.key = key_of(lane, c.client)
    c.first_byte_ns = -1
    c.sent_bytes = 0
    c.received_bytes = 0
    c.kept_bytes = 0
    c.resent = 0
    http1.reset(c, c.flags & HEAD)
    if c.tries == 1:
        _count_attempt(lane, c.client)
    lane.bank.counters[C.retries] += c.tries > 1
    _transmit(lane, slot)


@kernel(inlined=True)
def _count_attempt(lane, client):
    """A request is attempted for the first time: it is in flight until it has ended, however often it is tried."""
    st = lane.state[0]
    record_attempt(lane.bank)
    if st.by_client:
        lane.clients[key_of(lane, client)].in_flight += 1
    if st.retry_attempts > 1:
        st.retry_tokens_ppm = min(st.retry_tokens_ppm + st.retry_budget_ppm, st.retry_burst_ppm)


@kernel()
def _transmit(lane, slot):
    """Send the connection's request from its first byte."""
    st, c = lane.state[0], lane.connections[slot]
    c.state = BUSY
    c.send_error = 0
    now = now_ns(lane.scratch)
    if c.sent_ns < 0:
        c.sent_ns = now
        record_sent(lane.bank, c.flags, now - c.taken_ns, c.ready_ns - c.taken_ns, c.fresh, st.closed_loop)
    lane.bank.counters[C.attempts] += 1
    push_timed(lane, slot, now + st.timeout_ns)
    _send_rest(lane, slot)


@kernel()
def _send_rest(lane, slot):
    """Send what the socket takes of the rest. Of a connection that takes no more `_cut_off` makes an end."""
    c = lane.connections[slot]
    while c.send_error == 0 and c.sent_bytes < c.request_bytes:
        sent = send_bytes(c, c.request + np.uint64(c.sent_bytes), np.uint64(c.request_bytes - c.sent_bytes))
        if sent >= 0:
            c.sent_bytes += sent
            lane.bank.counters[C.bytes_sent] += sent
        elif sent == -EAGAIN:
            return
        elif sent != -EINTR:
            c.send_error = -sent
            hasten(lane, slot)
            return


@kernel()
def _cut_off(lane, slot):
    """A send failed. The answer may be there already (an early 413): reading decides."""
    c = lane.connections[slot]
    _receive(lane, slot, True)
    if c.state == BUSY:
        _lost(lane, slot, TLS if c.send_error == EPROTO else RESET)


@kernel()
def _receive(lane, slot, to_end):
    """Read and parse what has come, until the socket is empty or the answer is whole.

    A read that fills less than the buffer has emptied the socket, unless the peer's end came with it (`to_end`): no
    further event would tell of that.
    """
    st, c = lane.state[0], lane.connections[slot]
    buffer = lane.buffer
    while c.state == BUSY:
        got = receive_bytes(c, buffer)
        if got == -EAGAIN:
            return
        if got == -EINTR:
            continue
        if got < 0:
            _lost(lane, slot, TLS if got == -EPROTO else RESET)
            return
        now = now_ns(lane.scratch)
        if got == 0:
            if c.first_byte_ns >= 0 and http1.end_of_input(c):
                if c.flags & LOOKED_AT:
                    _look(lane, slot, 0, now)
                _answered(lane, slot, now, False)
            else:
                _lost(lane, slot, TRUNCATED)
            return
        if c.first_byte_ns < 0:
            c.first_byte_ns = now
        c.received_bytes += got
        lane.bank.counters[C.bytes_received] += got
        at = http1.parse(c, buffer, 0, got, st.header_limit)
        if c.flags & LOOKED_AT:
            _look(lane, slot, at, now)
        if c.parse_state == http1.DONE:
            reusable = (
                not st.single_use and at == got and c.sent_bytes == c.request_bytes and http1.keeps_alive(c)
            )
            _answered(lane, slot, now, reusable and is_quiet(c, buffer))
        elif c.parse_state == http1.BAD:
            _finish(lane, slot, MALFORMED, now)
        elif is_drained(c, got, buffer.size) and not to_end:
            return


@kernel()
def _look(lane, slot, end, now):
    """Hold an answer that is whole with buffer[:end] against the rules of its route; keep what has come of others."""
    c, sessions = lane.connections[slot], lane.sessions
    limit, kept = sessions.kept.shape[1], sessions.kept[slot]
    if c.parse_state != http1.DONE or c.kept_bytes:
        room = max(min(end, limit - c.kept_bytes), np.int64(0))
        _memcpy(kept.ctypes.data + np.uint64(c.kept_bytes), lane.buffer.ctypes.data, np.uint64(room))
        c.kept_bytes += end
    if c.parse_state != http1.DONE or not 200 <= c.status < 600:
        return
    data = kept if c.kept_bytes else lane.buffer
    size = c.kept_bytes if c.kept_bytes else np.int64(end)
    lane.bank.counters[C.answers_cut] += size > limit
    checks, failed, cut = look(
        sessions, c.client, c.route, data, 0, min(size, limit), size <= limit, c.status, c.flags >> STATUS_SHIFT,
        c.body_bytes, lane.bank.rule_counts, c.flags & WARM_UP == 0,
    )  # fmt: skip
    record_looked(
        lane.bank, checks, failed, cut, c.status // 100 - 2, c.flags, c.route, c.seq, c.client, c.due_ns, c.taken_ns,
        c.sent_ns, c.first_byte_ns, now, c.status, lane.state[0].closed_loop,
    )  # fmt: skip


@kernel(inlined=True)
def _answered(lane, slot, now, reusable):
    """A whole answer: its outcome is its class; the connection is free, or closed."""
    st, c = lane.state[0], lane.connections[slot]
    outcome = c.status // 100 - 2
    if c.ssl and c.fresh and st.tls_resume:
        # With the first answer TLS 1.3's tickets have come as well.
        if st.per_client:
            client = lane.clients[c.key]
            client.tls_session = tls.newer_session(c.ssl, client.tls_session)
        else:
            st.tls_session = tls.newer_session(c.ssl, st.tls_session)
    if c.informational:
        lane.bank.counters[C.informational] += c.informational
    if outcome < 0 or outcome > 3:
        _finish(lane, slot, MALFORMED, now)
    elif reusable and not is_removed(lane.bank, c.address):
        _record(lane, slot, outcome, now)
        drop_timed(lane, slot)
        c.fresh = 0
        push_idle(lane, slot, now)
    else:
        lane.bank.address_counts[c.address, A.drained] += reusable
        _finish(lane, slot, outcome, now)


@kernel()
def _record(lane, slot, outcome, now):
    """Write down how the connection's request ended, unless it is tried again."""
    st, c = lane.state[0], lane.connections[slot]
    status = c.status if c.parse_state == http1.DONE else np.int64(0)
    lane.bank.address_counts[c.address, A.requests] += 1
    lane.bank.address_counts[c.address, A.errors] += outcome >= REFUSED
    if st.retry_attempts > 1 and _may_retry(lane, c.tries, c.flags, outcome, status, c.sent_ns):
        row = st.room_free
        w = lane.room[row]
        st.room_free = w.next
        swap_requests(c, w)
        w.length = c.request_bytes
        w.seq, w.due_ns, w.taken_ns, w.flags = c.seq, c.due_ns, c.taken_ns, c.flags
        w.client, w.route, w.key = np.uint32(c.client), np.uint32(c.route), np.int32(c.key)
        w.first_ready_ns, w.sent_ns, w.received_bytes = c.ready_ns, c.sent_ns, c.received_bytes
        _back_off(lane, row, c.tries, outcome, status, now)
        return
    record_done(
        lane.bank, outcome, c.flags, c.route, c.seq, c.client, c.due_ns, c.taken_ns, c.sent_ns, c.first_byte_ns, now,
        status, c.received_bytes, st.closed_loop,
    )  # fmt: skip
    if st.by_client:
        lane.clients[c.key].in_flight -= 1
        settle_line(lane, c.key, now)


# Retries.


@kernel(inlined=True)
def _may_retry(lane, tries, flags, outcome, status, sent_ns):
    """Whether a request is tried again; if so a retry is taken out of the budget."""
    st, counters = lane.state[0], lane.bank.counters
    if tries >= st.retry_attempts or st.draining or not is_retried(lane.retry_on, outcome, status):
        return False
    if not (flags & IDEMPOTENT or st.retry_all_methods):
        return False
    if sent_ns < 0 and flags & PATCHES_MASK << PATCHES_SHIFT:
        return False
    if st.room_free == NONE or (st.retry_budget_ppm >= 0 and st.retry_tokens_ppm < PPM):
        counters[C.retries_denied] += 1
        return False
    if st.retry_budget_ppm >= 0:
        st.retry_tokens_ppm -= PPM
    return True


@kernel(inlined=True)
def _back_off(lane, row, tries, outcome, status, now):
    """A row that is in no list waits for its next try. It is still in flight."""
    st, w = lane.state[0], lane.room[row]
    w.tries, w.outcome, w.status = tries, outcome, status
    w.retry_ns = now + backoff_ns(
        w.seq, tries, st.retry_backoff_ns, st.retry_backoff_max_ns, st.retry_jitter_ppm, st.seed
    )
    lane.bank.counters[C.retried] += tries == 1
    push_backoff(lane, row)


@kernel()
def _try_again(lane, now):
    """Those that have backed off wait for a connection, before others of their client."""
    st = lane.state[0]
    while st.backing_off and lane.room[lane.backoff[0]].retry_ns <= now:
        row = pop_backoff(lane)
        lane.room[row].since_ns = now
        push_age(lane, row)
        join_line(lane, row)
        set_ready(lane, row, now)


@kernel()
def _end_row(lane, row, now):
    """A request that was tried before is tried no more: it ends as its last try did."""
    st, w = lane.state[0], lane.room[row]
    record_done(
        lane.bank, w.outcome, w.flags, np.int64(w.route), w.seq, np.int64(w.client), w.due_ns, w.taken_ns, w.sent_ns,
        np.int64(-1), now, w.status, w.received_bytes, st.closed_loop,
    )  # fmt: skip
    if st.by_client:
        lane.clients[w.key].in_flight -= 1


@kernel()
def _finish(lane, slot, outcome, now):
    """The request ended and so does its connection."""
    _record(lane, slot, outcome, now)
    drop_timed(lane, slot)
    _hang_up(lane, slot, outcome >= REFUSED)


# The life of a connection.


@kernel()
def _dial(lane, slot):
    """Begin to connect this slot, which asks for an address first where names are looked up for each: 0, or errno."""
    st, c = lane.state[0], lane.connections[slot]
    st.next_address %= st.addresses_chosen
    c.address = lane.chosen[st.next_address]
    st.next_address += 1
    if can_ask(lane.asks):
        ask(lane.asks, _token_of(lane, slot), st.ask_fd, lane.scratch)
    else:
        error = _open(lane, slot)
        if error:
            return error
    c.fresh = 1
    c.state = CONNECTING
    st.connecting += 1
    _count_open(lane, 1)
    push_timed(lane, slot, now_ns(lane.scratch) + st.timeout_ns)
    return np.int64(0)


@kernel(inlined=True)
def _token_of(lane, slot):
    """A slot and its generation: what comes back for another generation is for a connection that is gone."""
    return (lane.connections[slot].generation & 0x7FFFFFFF) << 32 | slot


@kernel()
def _open(lane, slot):
    """Open this slot's socket to its address: 0, or errno."""
    c, counts = lane.connections[slot], lane.bank.address_counts
    fd = open_connection(
        lane.state[0].epoll, lane.bank.addresses[c.address], _token_of(lane, slot), lane.scratch
    )
    if fd < 0:
        counts[c.address, A.connects_failed] += 1
        return -fd
    counts[c.address, A.connects] += 1
    lane.bank.counters[C.connects] += 1
    c.fd = fd
    return np.int64(0)


@kernel()
def _take_grants(lane):
    """Connections whose address came are opened to it."""
    while has_grant(lane.asks):
        token, row = take_grant(lane.asks)
        slot = token & 0xFFFFFFFF
        c = lane.connections[slot]
        if _token_of(lane, slot) != token or c.state != CONNECTING or c.fd != NONE:
            continue
        c.address = row
        error = _open(lane, slot)
        if error:
            _connect_failed(lane, slot, _outcome_of(error))


@kernel(inlined=True)
def _count_open(lane, change):
    """Keep the number of sockets."""
    st, counters = lane.state[0], lane.bank.counters
    st.open += change
    counters[C.open] = st.open
    counters[C.open_max] = max(counters[C.open_max], st.open)


@kernel()
def _dial_for_queue(lane):
    """One more connection for those that wait; where none can be had, the request at the head fails."""
    slot = take_closed_slot(lane)
    lane.connections[slot].bound = 0
    error = _dial(lane, slot)
    if error:
        give_closed_slot(lane, slot)
        lane.bank.counters[C.connects_failed] += 1
        _fail_next(lane, NONE, _outcome_of(error))


@kernel()
def _dial_for_client(lane):
    """One more connection for the first of the clients that need one. At the cap the one idle for longest makes room."""
    st = lane.state[0]
    key = pop_dial(lane)
    if not wants_connection(lane, key):
        return
    if st.open >= st.connections:
        oldest = st.free_last
        lane.bank.counters[C.cap_bound] += 1
        drop_idle(lane, oldest)
        _hang_up(lane, oldest, False)
    slot = take_closed_slot(lane)
    c, client = lane.connections[slot], lane.clients[key]
    c.bound = 0
    c.key = key
    client.open += 1
    client.connecting += 1
    error = _dial(lane, slot)
    if error:
        client.connecting -= 1
        _forget_connection(lane, slot)
        lane.bank.counters[C.connects_failed] += 1
        _fail_next(lane, key, _outcome_of(error))
    elif wants_connection(lane, key):
        push_dial(lane, key)


@kernel()
def _connected(lane, slot):
    """A connect ended, one way or the other."""
    st, c = lane.state[0], lane.connections[slot]
    error = connect_error(c.fd, lane.scratch)
    if error:
        _connect_failed(lane, slot, _outcome_of(error))
    elif st.tls_context:
        c.connected_ns = now_ns(lane.scratch)
        session = lane.clients[c.key].tls_session if st.per_client else st.tls_session
        c.ssl = tls.begin_client(st.tls_context, c.fd, st.tls_name, session)
        if c.ssl:
            _secure(lane, slot)
        else:
            _connect_failed(lane, slot, GENERATOR)
    else:
        _connection_ready(lane, slot)


@kernel()
def _secure(lane, slot):
    """Go on with the handshake of a connection that is there."""
    c = lane.connections[slot]
    done = tls.handshake(c.ssl)
    if done == 1:
        record_handshake(lane.bank, tls.is_resumed(c.ssl), now_ns(lane.scratch) - c.connected_ns)
        _connection_ready(lane, slot)
    elif done not in (-EAGAIN, -EINTR):
        _connect_failed(lane, slot, TLS)


@kernel()
def _connection_ready(lane, slot):
    """A connection can be used: by the request that it was made for, or by whoever comes."""
    st, c = lane.state[0], lane.connections[slot]
    st.connecting -= 1
    drop_timed(lane, slot)
    if c.bound:
        c.bound = 0
        _transmit(lane, slot)
    else:
        if st.per_client:
            lane.clients[c.key].connecting -= 1
        push_idle(lane, slot, now_ns(lane.scratch))


@kernel()
def _connect_failed(lane, slot, outcome):
    """The request that the connection was for fails: its own, or the one at the head of the queue."""
    st, c = lane.state[0], lane.connections[slot]
    lane.bank.counters[C.connects_failed] += 1
    lane.bank.address_counts[c.address, A.connects_failed] += c.fd != NONE
    if c.ssl:
        lane.bank.counters[C.handshakes_failed] += 1
    st.connecting -= 1
    if c.bound:
        c.bound = 0
        _finish(lane, slot, outcome, now_ns(lane.scratch))
        return
    if st.per_client:
        lane.clients[c.key].connecting -= 1
    drop_timed(lane, slot)
    _hang_up(lane, slot, False)
    _fail_next(lane, c.key, outcome)


@kernel()
def _lost(lane, slot, outcome):
    """The connection ended before the answer was whole."""
    c = lane.connections[slot]
    counters = lane.bank.counters
    counters[C.closed_by_target] += 1
    again = c.fresh == 0 and c.first_byte_ns < 0 and c.flags & IDEMPOTENT and c.resent == 0
    if not again or outcome == TLS:
        _finish(lane, slot, outcome, now_ns(lane.scratch))
        return
    counters[C.resent] += 1
    c.resent = 1
    c.sent_bytes = 0
    http1.reset(c, c.flags & HEAD)
    drop_timed(lane, slot)
    close_connection(c, False, lane.scratch)
    c.fd = NONE
    c.generation += 1
    _count_open(lane, -1)
    c.bound = 1
    error = _dial(lane, slot)
    if error:
        c.bound = 0
        counters[C.connects_failed] += 1
        _record(lane, slot, _outcome_of(error), now_ns(lane.scratch))
        _forget_connection(lane, slot)


@kernel()
def _heed_addresses(lane, version):
    """The address table changed: what is idle on, or connecting to, an address that was removed ends here.

    A connection that is busy, or carries a request already, ends after its answer.
    """
    st = lane.state[0]
    st.addresses_seen = version
    st.addresses_chosen = heed_addresses(lane.bank, lane.chosen, st.addresses_chosen)
    for slot in range(st.used_slots):
        c = lane.connections[slot]
        idle = c.state == IDLE
        if not (idle or (c.state == CONNECTING and not c.bound and c.fd != NONE)) or not is_removed(
            lane.bank, c.address
        ):
            continue
        if idle:
            drop_idle(lane, slot)
        else:
            st.connecting -= 1
            if st.per_client:
                lane.clients[c.key].connecting -= 1
            drop_timed(lane, slot)
        lane.bank.address_counts[c.address, A.drained] += 1
        _hang_up(lane, slot, False)


@kernel()
def _hang_up(lane, slot, abort):
    """Close a connection that is in no list."""
    c = lane.connections[slot]
    close_connection(c, abort, lane.scratch)
    _count_open(lane, -1)
    _forget_connection(lane, slot)


@kernel(inlined=True)
def _forget_connection(lane, slot):
    """The slot has no connection any more; its client may need another."""
    c = lane.connections[slot]
    if lane.state[0].per_client:
        lane.clients[c.key].open -= 1
        if lane.clients[c.key].startable:
            push_ready(lane, c.key)
    give_closed_slot(lane, slot)


# The queue: entries [head, taken) of the ring.


@kernel(inlined=True)
def _release_head(lane):
    """The head of the queue is done with: its place in the rings is the producer's again."""
    st, control = lane.state[0], lane.bank.control
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    end = e.offset + e.length
    st.head += 1
    _count_waiting(lane)
    store_release(control, Control.RING_HEAD, end)
    store_release(control, Control.FEED_HEAD, st.head)


@kernel(inlined=True)
def _count_waiting(lane):
    """Keep the number of those that wait."""
    st = lane.state[0]
    lane.bank.counters[C.waiting] = st.taken - st.head + st.waiting


@kernel(inlined=True)
def _fail_next(lane, key, outcome):
    """A connect failed, for this client where it was its own: so does the request that is next, if one still waits."""
    st = lane.state[0]
    if st.per_client:
        _fail_client(lane, key, outcome)
        return
    while st.ready_first != NONE:
        if _fail_client(lane, pop_ready(lane), outcome):
            return
    if _queued(lane) > 0:
        _fail_head(lane, outcome)


@kernel()
def _fail_head(lane, outcome):
    """An attempt began for the request at the head, and failed before it could be sent."""
    st = lane.state[0]
    if st.closed_loop:
        _take_up(lane)
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    now = now_ns(lane.scratch)
    _count_attempt(lane, np.int64(e.client))
    if st.retry_attempts > 1 and _may_retry(lane, np.int64(1), e.flags, outcome, np.int64(0), np.int64(-1)):
        row = st.room_free
        _hold_head(lane, row, np.int64(0))
        lane.room[row].first_ready_ns = e.taken_ns
        lane.room[row].received_bytes = 0
        _back_off(lane, row, np.int64(1), outcome, np.int64(0), now)
    else:
        record_done(
            lane.bank, outcome, e.flags, np.int64(e.route), e.seq, np.int64(e.client), e.due_ns, e.taken_ns, np.int64(-1),
            np.int64(-1), now, np.int64(0), np.int64(0), st.closed_loop,
        )  # fmt: skip
    _release_head(lane)


@kernel()
def _give_up_head(lane, reason):
    """The request at the head will not be sent. `reason` is a counter: C.unsent_..."""
    st = lane.state[0]
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
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
    _release_head(lane)


@kernel(inlined=True)
def _wanted(lane):
    """How many requests want a connection now."""
    return _queued(lane) + lane.state[0].startable


@kernel(inlined=True)
def _queued(lane):
    """How many of them are in the ring."""
    st = lane.state[0]
    if not st.closed_loop:
        return st.taken - st.head
    if st.draining or not st.started:
        return np.int64(0)
    return load_acquire(lane.bank.control, Control.FEED_TAIL) - st.taken


@kernel(inlined=True)
def _wants_dial(lane):
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
def _serve(lane):
    """Give free connections to those that wait."""
    st = lane.state[0]
    if st.ready_first != NONE:
        _serve_ready(lane)
    if st.by_client:
        return
    while st.free_first != NONE and _queued(lane) > 0:
        slot = st.free_first
        drop_free(lane, slot)
        if st.closed_loop:
            _take_up(lane)
        _begin(lane, slot)


@kernel()
def _take_up(lane):
    """Take up the next entry: it is planned from now on."""
    st, bank = lane.state[0], lane.bank
    e = lane.feed.entries[st.taken & (lane.feed.entries.size - 1)]
    e.taken_ns = now_ns(lane.scratch)
    if bank.counters[C.planned] == 0:
        bank.counters[C.first_due_ns] = e.due_ns
        bank.counters[C.cpu_first_ns] = thread_cpu_ns(lane.scratch)
    record_taken(bank, e.flags, e.taken_ns - e.due_ns, st.closed_loop)
    st.taken += 1


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
        _take_up(lane)
        count += 1
        if st.by_client:
            _admit(lane)
        else:
            _bound_queue(lane)
        # A client's connection is made in a later loop: those that wait for one count as if it were there.
        made = st.open + (st.startable if st.per_client else 0)
        if made >= st.connections and st.free_first == NONE:
            bank.counters[C.cap_bound] += 1
        _serve(lane)
        _count_waiting(lane)
        bank.counters[C.waiting_max] = max(bank.counters[C.waiting_max], bank.counters[C.waiting])
    st.next_due_ns = FAR_NS
    if st.closed_loop and st.taken < tail:
        st.started = 1
        _serve(lane)
    elif load_acquire(bank.control, Control.FEED_END) == 0:
        st.starved = 1
    return count


@kernel(inlined=True)
def _bound_queue(lane):
    """The queue may hold half of the rings; past that its oldest request is given up."""
    st = lane.state[0]
    entries = lane.feed.entries
    newest = entries[(st.taken - 1) & (entries.size - 1)]
    while st.taken - st.head > 1:
        oldest = entries[st.head & (entries.size - 1)]
        held = newest.offset + newest.length - oldest.offset
        if st.taken - st.head <= st.entries_limit and held <= st.ring_limit:
            return
        _give_up_head(lane, C.unsent_limit)


@kernel()
def _expire(lane, now):
    """Time-outs of connects and answers, and max_wait of the queue."""
    st = lane.state[0]
    while st.timed_first != NONE and lane.connections[st.timed_first].deadline_ns <= now:
        slot = st.timed_first
        if lane.connections[slot].state == CONNECTING:
            _connect_failed(lane, slot, TIMEOUT)
        elif lane.connections[slot].send_error:
            _cut_off(lane, slot)
        else:
            _finish(lane, slot, TIMEOUT, now)
    while st.taken > st.head:
        if lane.feed.entries[st.head & (lane.feed.entries.size - 1)].taken_ns + st.max_wait_ns > now:
            break
        _give_up_head(lane, C.unsent_max_wait)
    while st.age_first != NONE and lane.room[st.age_first].since_ns + st.max_wait_ns <= now:
        _give_up_row(lane, st.age_first, C.unsent_max_wait)


@kernel()
def _expire_idle(lane, now):
    """Connections of clients that were idle for too long."""
    st = lane.state[0]
    while st.free_last != NONE and lane.connections[st.free_last].deadline_ns <= now:
        slot = st.free_last
        lane.bank.counters[C.idle_closed] += 1
        drop_idle(lane, slot)
        _hang_up(lane, slot, False)


# The waiting room, where clients matter: a request leaves the ring when it is taken up. Retries wait there too.


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
        _begin(lane, slot)
        return
    while st.age_first != NONE and (st.room_free == NONE or st.waiting_bytes + e.length > st.ring_limit):
        _give_up_row(lane, st.age_first, C.unsent_limit)
    row = st.room_free
    if row == NONE:
        # Every row backs off.
        _give_up_head(lane, C.unsent_limit)
        return
    _hold_head(lane, row, key)
    push_age(lane, row)
    join_line(lane, row)
    if st.ordered:
        settle_line(lane, key, e.taken_ns)
    else:
        set_ready(lane, row, e.taken_ns)
    _release_head(lane)


@kernel(inlined=True)
def _hold_head(lane, row, key):
    """Copy the request at the head into a free row."""
    ring = lane.feed.ring
    e, w = lane.feed.entries[lane.state[0].head & (lane.feed.entries.size - 1)], lane.room[row]
    hold(lane, row, ring.ctypes.data + np.uint64(e.offset & (ring.size - 1)), e.length)
    w.seq, w.due_ns, w.taken_ns, w.since_ns, w.flags = e.seq, e.due_ns, e.taken_ns, e.taken_ns, e.flags
    w.client, w.route, w.key = e.client, e.route, np.int32(key)


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
            _begin_row(lane, slot, np.int64(client.first))
            slot = np.int64(client.idle) if st.per_client else st.free_first
        if not st.per_client and client.startable:
            push_ready(lane, key)
        elif st.per_client and wants_connection(lane, key):
            push_dial(lane, key)
        _count_waiting(lane)


@kernel()
def _fail_client(lane, key, outcome):
    """An attempt began for the first of a client's requests, and failed before it could be sent; False if none waits."""
    if lane.clients[key].startable == 0:
        return False
    st, row, now = lane.state[0], np.int64(lane.clients[key].first), now_ns(lane.scratch)
    w = lane.room[row]
    if w.tries == 0:
        _count_attempt(lane, np.int64(w.client))
    if st.retry_attempts > 1 and _may_retry(lane, w.tries + 1, w.flags, outcome, np.int64(0), w.sent_ns):
        w.first_ready_ns = w.first_ready_ns if w.tries else w.ready_ns
        drop_age(lane, row)
        leave_line(lane, row)
        _back_off(lane, row, w.tries + 1, outcome, np.int64(0), now)
        _count_waiting(lane)
    else:
        w.outcome, w.status, w.received_bytes = outcome, 0, 0
        _end_row(lane, row, now)
        _forget_row(lane, row, now)
    if lane.clients[key].startable:
        push_ready(lane, key)
    return True


@kernel()
def _give_up_row(lane, row, reason):
    """A request of the room will not be sent (`reason` is a counter: C.unsent_...), or not again."""
    w, now = lane.room[row], now_ns(lane.scratch)
    if w.tries:
        _end_row(lane, row, now)
    else:
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
    _count_waiting(lane)
    settle_line(lane, key, now)


# The loop.


@kernel()
def _on_event(lane, slot, generation, mask):
    """One socket event."""
    c = lane.connections[slot]
    if c.generation & 0x7FFFFFFF != generation:
        return
    if c.state == CONNECTING:
        if c.ssl:
            _secure(lane, slot)
        elif mask & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            _connected(lane, slot)
    elif c.state == BUSY:
        if mask & EPOLLOUT and c.sent_bytes < c.request_bytes:
            _send_rest(lane, slot)
        # TLS may have waited to write before it could read on.
        if mask & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP) or c.ssl:
            _receive(lane, slot, mask & (EPOLLRDHUP | EPOLLERR | EPOLLHUP) != 0)
    elif c.state == IDLE and receive_bytes(c, lane.buffer) not in (-EAGAIN, -EINTR):
        lane.bank.counters[C.closed_by_target] += 1
        drop_idle(lane, slot)
        _hang_up(lane, slot, False)


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
        until = min(until, lane.connections[st.timed_first].deadline_ns)
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
        _take_up(lane)
    while st.age_first != NONE:
        _give_up_row(lane, st.age_first, C.unsent_interrupted)
    while st.backing_off:
        row = pop_backoff(lane)
        _end_row(lane, row, now)
        leave_room(lane, row)
    while st.head < st.taken:
        _give_up_head(lane, C.unsent_interrupted)


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


@kernel()
def _loop(lane):
    """Until the feed ends or STOP: take up, wait, handle, expire."""
    st, bank = lane.state[0], lane.bank
    control, counters, scratch = bank.control, bank.counters, lane.scratch
    now = now_ns(scratch)
    while True:
        stop = load_acquire(control, Control.STOP)
        if stop != Stop.RUN and not st.draining:
            _drain(lane)
        if stop == Stop.ABANDON:
            return
        version = load_acquire(control, Control.ADDRESSES)
        if version != st.addresses_seen:
            _heed_addresses(lane, version)
        _take_grants(lane)
        taken = 0 if st.draining else _take_due(lane, TAKEN_AT_ONCE)
        if _finished(lane):
            return
        n = _wait(lane, 0 if taken or _wants_dial(lane) else _sleep_ns(lane, now_ns(scratch)))
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
            _try_again(lane, now)
        if not st.draining:
            _serve(lane)
        # One a loop, and none while the lane is behind: those who wait then wait for us, and connections would not help.
        if _wants_dial(lane):
            if st.per_client:
                if taken <= ON_TIME or st.connecting == 0:
                    _dial_for_client(lane)
            elif taken <= ON_TIME or st.open == 0:
                _dial_for_queue(lane)


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
