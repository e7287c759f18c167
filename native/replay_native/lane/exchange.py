"""The life of a request on its connection: begin, transmit, receive, record; or the connection is lost."""

from __future__ import annotations

from errno import EPROTO

import numpy as np

from replay_native.feed.addresses import A, is_removed
from replay_native.feed.ring import (
    IDEMPOTENT,
    LOOKED_AT,
    PATCHES_MASK,
    PATCHES_SHIFT,
    STATUS_SHIFT,
    WARM_UP,
)
from replay_native.ground import libc
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import EAGAIN, EINTR
from replay_native.ground.memory import release, with_room
from replay_native.http1 import parser as http1
from replay_native.http1.sessions import (
    PATCH_BYTES,
    look,
    patched_bytes,
    put_patched,
)
from replay_native.ledger.gaps import unread_ns
from replay_native.ledger.lane_metrics import (
    BEGINNING_BYTES,
    MALFORMED,
    REFUSED,
    RESET,
    TLS,
    TRUNCATED,
    C,
)
from replay_native.ledger.record import (
    record_done,
    record_looked,
    record_malformed,
    record_net,
    record_net_unsent,
    record_sent,
    record_unsent,
)

from . import tls
from .clients import (
    KEPT_BYTES,
    NONE,
    REQUEST_BYTES,
    drop_age,
    key_of,
    leave_line,
    leave_room,
    settle_line,
    swap_requests,
)
from .connections import (
    BUSY,
    begin_attempt,
    drop_timed,
    hasten,
    push_idle,
    push_timed,
)
from .dialing import (
    count_open,
    dial,
    forget_connection,
    hang_up,
    outcome_of,
)
from .io import (
    close_connection,
    is_drained,
    is_quiet,
    receive_bytes,
    send_bytes,
)
from .retry import back_off, count_attempt, may_retry
from .waiting import release_head

_memcpy = libc.memcpy

_LINE_FEED, _CARRIAGE_RETURN, _COLON, _EQUALS = 10, 13, 58, 61


@kernel()
def begin(lane, slot):
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
    c.own_ns = e.taken_ns - e.due_ns - e.state
    release_head(lane)
    _attempt(lane, slot)


@kernel()
def begin_row(lane, slot, row):
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
    c.sent_ns, c.own_ns = w.sent_ns, w.own_ns
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
    now = now_ns(lane.scratch)
    own_ns = c.own_ns + lane.bank.counters[C.lost_ns]
    record_net_unsent(lane.bank, C.unsent_capture, c.flags, own_ns, now - c.due_ns, st.max_wait_ns)
    record_unsent(
        lane.bank, C.unsent_capture, c.flags, c.route, c.seq, c.client, c.due_ns, c.taken_ns, st.max_wait_ns
    )
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
    c.key = key_of(lane, c.client) if st.by_client else np.int64(0)
    begin_attempt(c)
    c.resent = 0
    if c.tries == 1:
        count_attempt(lane, c.client)
    lane.bank.counters[C.retries] += c.tries > 1
    transmit(lane, slot)


@kernel()
def transmit(lane, slot):
    """Send the connection's request from its first byte."""
    st, c = lane.state[0], lane.connections[slot]
    c.state = BUSY
    now = now_ns(lane.scratch)
    if c.sent_ns < 0:
        c.sent_ns = now
        c.own_ns += lane.bank.counters[C.lost_ns]
        record_sent(lane.bank, c.flags, now - c.taken_ns, c.ready_ns - c.taken_ns, c.fresh, st.closed_loop)
    lane.bank.counters[C.attempts] += 1
    push_timed(lane, slot, now + st.timeout_ns)
    send_rest(lane, slot)


@kernel()
def send_rest(lane, slot):
    """Send what the socket takes of the rest. Of a connection that takes no more `cut_off` makes an end."""
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
def cut_off(lane, slot):
    """A send failed. The answer may be there already (an early 413): reading decides."""
    c = lane.connections[slot]
    receive(lane, slot, True)
    if c.state == BUSY:
        _lost(lane, slot, TLS if c.send_error == EPROTO else RESET)


@kernel()
def receive(lane, slot, to_end):
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
        if c.fresh == 0 and http1.is_idle_close(c):
            lane.bank.counters[C.closed_by_target] += 1
            _send_again(lane, slot)
            return
        if c.received_bytes == got and c.parse_state != http1.DONE:
            _keep_beginning(lane, slot, got)
        if c.flags & LOOKED_AT:
            _look(lane, slot, at, now)
        if c.parse_state == http1.DONE:
            reusable = (
                not st.single_use and at == got and c.sent_bytes == c.request_bytes and http1.keeps_alive(c)
            )
            _answered(lane, slot, now, reusable and is_quiet(c, buffer))
        elif c.parse_state == http1.BAD:
            finish(lane, slot, MALFORMED, now)
        elif is_drained(c, got, buffer.size) and not to_end:
            return


@kernel()
def _keep_beginning(lane, slot, got):
    """Keep the first bytes of an answer, whose first read is in the buffer, for a sample, should it be malformed.

    Only the first line is kept, up to the first `:` or `=`: what follows may be a secret.
    """
    c, beginning = lane.connections[slot], lane.beginnings[slot]
    at = np.int64(0)
    while at < min(got, np.int64(BEGINNING_BYTES)):
        byte = lane.buffer[at]
        if byte in (_LINE_FEED, _CARRIAGE_RETURN, _COLON, _EQUALS):
            break
        beginning[at] = byte
        at += 1
    c.beginning_bytes = at


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
    if outcome < 0 or outcome > 3:
        c.reason = http1.STATUS_RANGE
        if c.beginning_bytes == 0:
            _keep_beginning(lane, slot, c.received_bytes)
        finish(lane, slot, MALFORMED, now)
    elif reusable and not is_removed(lane.bank, c.address):
        _record(lane, slot, outcome, now)
        drop_timed(lane, slot)
        c.fresh = 0
        push_idle(lane, slot, now)
    else:
        lane.bank.address_counts[c.address, A.drained] += reusable
        finish(lane, slot, outcome, now)


@kernel()
def _record(lane, slot, outcome, now):
    """Write down how the connection's request ended, unless it is tried again."""
    st, c = lane.state[0], lane.connections[slot]
    status = c.status if c.parse_state == http1.DONE else np.int64(0)
    lane.bank.address_counts[c.address, A.requests] += 1
    lane.bank.address_counts[c.address, A.errors] += outcome >= REFUSED
    lane.bank.counters[C.informational] += c.informational
    if st.retry_attempts > 1 and may_retry(lane, c.tries, c.flags, outcome, status, c.sent_ns):
        row = st.room_free
        w = lane.room[row]
        st.room_free = w.next
        swap_requests(c, w)
        w.length = c.request_bytes
        w.seq, w.due_ns, w.taken_ns, w.flags = c.seq, c.due_ns, c.taken_ns, c.flags
        w.client, w.route, w.key = np.uint32(c.client), np.uint32(c.route), np.int32(c.key)
        w.first_ready_ns, w.sent_ns, w.received_bytes = c.ready_ns, c.sent_ns, c.received_bytes
        w.reason, w.own_ns = c.reason, c.own_ns
        back_off(lane, row, c.tries, outcome, status, now)
        return
    own_ns = c.own_ns if c.sent_ns >= 0 else c.own_ns + lane.bank.counters[C.lost_ns]
    unread = unread_ns(st.unread_ns, st.polled_ns, now)
    record_net(lane.bank, c.flags, c.due_ns, c.sent_ns, now, own_ns, unread, st.closed_loop)
    if outcome == MALFORMED:
        record_malformed(lane.bank, c.flags, c.route, c.reason, lane.beginnings[slot], c.beginning_bytes)
    record_done(
        lane.bank, outcome, c.flags, c.route, c.seq, c.client, c.due_ns, c.taken_ns, c.sent_ns, c.first_byte_ns, now,
        status, c.received_bytes, st.closed_loop,
    )  # fmt: skip
    if st.by_client:
        lane.clients[c.key].in_flight -= 1
        settle_line(lane, c.key, now)


@kernel()
def finish(lane, slot, outcome, now):
    """The request ended and so does its connection."""
    _record(lane, slot, outcome, now)
    drop_timed(lane, slot)
    hang_up(lane, slot, outcome >= REFUSED)


@kernel()
def _lost(lane, slot, outcome):
    """The connection ended before the answer was whole."""
    c = lane.connections[slot]
    lane.bank.counters[C.closed_by_target] += 1
    again = c.fresh == 0 and c.first_byte_ns < 0 and c.flags & IDEMPOTENT and c.resent == 0
    if not again or outcome == TLS:
        finish(lane, slot, outcome, now_ns(lane.scratch))
    else:
        _send_again(lane, slot)


@kernel()
def _send_again(lane, slot):
    """A connection that had served before ended under its request: send that once more, on a new connection."""
    c, counters = lane.connections[slot], lane.bank.counters
    counters[C.resent] += 1
    c.resent = 1
    begin_attempt(c)
    drop_timed(lane, slot)
    close_connection(c, False, lane.scratch)
    c.fd = NONE
    c.generation += 1
    count_open(lane, -1)
    c.bound = 1
    error = dial(lane, slot)
    if error:
        c.bound = 0
        counters[C.connects_failed] += 1
        _record(lane, slot, outcome_of(error), now_ns(lane.scratch))
        forget_connection(lane, slot)
