"""A request on its connection: how it begins, is sent, is answered and recorded, or loses its connection.

A request that is put on a connection is copied there, or exchanges its memory with that of its row in the wait queue.
So its place in the ring is free at once, whatever the target does. `_attempt` inserts a client's values, `transmit`
sends, `receive` parses the response, which may arrive in any number of pieces, and `_record` records the end or
schedules a retry.
"""

from __future__ import annotations

from errno import EPROTO

import numpy as np

from replay_native.feed.addresses import A, is_removed
from replay_native.feed.ring import EVALUATED, IDEMPOTENT, PATCHES_MASK, PATCHES_SHIFT, STATUS_SHIFT, WARM_UP
from replay_native.ground import libc
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import EAGAIN, EINTR
from replay_native.ground.linked import NONE, pop_front
from replay_native.ground.memory import release, with_capacity
from replay_native.http1 import parser as http1
from replay_native.http1.sessions import PATCH_BYTES, Answer, evaluate, patched_bytes, put_patched
from replay_native.ledger.gaps import unread_ns
from replay_native.ledger.lane_metrics import BEGINNING_BYTES, MALFORMED, REFUSED, RESET, TLS, TRUNCATED, C
from replay_native.ledger.record import (
    Ending,
    Evaluation,
    record_done,
    record_evaluation,
    record_malformed,
    record_net,
    record_net_unsent,
    record_sent,
    record_unsent,
    request_of,
)
from replay_native.templates.trace_context import attempt_of, renew_parent

from . import tls
from .clients import (
    KEPT_BYTES,
    REQUEST_BYTES,
    free_row,
    key_of,
    leave_client_queue,
    leave_wait_order,
    settle_client,
    swap_requests,
)
from .connections import begin_attempt, drop_timed, hasten, push_idle, push_timed
from .dialing import count_open, dial, forget_connection, hang_up, outcome_of
from .io import close_connection, is_drained, is_quiet, receive_bytes, send_bytes
from .keeping import begin_response, hand_over_response, parse_response
from .retry import back_off, count_attempt, may_retry
from .states import BUSY
from .waiting import release_head

_memcpy = libc.memcpy

_LINE_FEED, _CARRIAGE_RETURN, _COLON, _EQUALS = 10, 13, 58, 61


@kernel()
def begin(lane, slot):
    """Put the request at the head of the ring onto a connection, and send it."""
    st, c = lane.state[0], lane.connections[slot]
    ring = lane.feed.ring
    e = lane.feed.entries[st.head & (lane.feed.entries.size - 1)]
    c.request, c.capacity = with_capacity(c.request, c.capacity, max(e.length, np.int64(REQUEST_BYTES)))
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
    """Put a request of the wait queue onto a connection, and send it."""
    c, w = lane.connections[slot], lane.wait_queue[row]
    leave_wait_order(lane, row)
    leave_client_queue(lane, row)
    swap_requests(c, w)
    c.request_bytes = w.length
    c.seq, c.due_ns, c.taken_ns = w.seq, w.due_ns, w.taken_ns
    c.client, c.route, c.flags = np.int64(w.client), np.int64(w.route), w.flags
    c.ready_ns = w.first_ready_ns if w.tries else w.ready_ns
    c.tries = w.tries + 1
    c.sent_ns, c.own_ns = w.sent_ns, w.own_ns
    free_row(lane, row)
    _attempt(lane, slot)


@kernel()
def _put_values(lane, slot):
    """Insert the client's values into the connection's request. False if one of them is missing."""
    c = lane.connections[slot]
    patches = c.flags >> PATCHES_SHIFT & PATCHES_MASK
    length = c.request_bytes - PATCH_BYTES * patches
    total = patched_bytes(lane.sessions, c.client, c.request, length, patches)
    if total < 0:
        return False
    c.spare, c.spare_capacity = with_capacity(c.spare, c.spare_capacity, max(total, np.int64(REQUEST_BYTES)))
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
    """Count the request as unsent because it lacks a value, and free its connection for the next request."""
    c = lane.connections[slot]
    now = now_ns(lane.scratch)
    own_ns = c.own_ns + lane.metrics.counters[C.lost_ns]
    record_net_unsent(
        lane.metrics, C.unsent_capture, c.route, c.flags, own_ns, now - c.due_ns, lane.settings.max_wait_ns
    )
    record_unsent(lane.metrics, C.unsent_capture, request_of(c), lane.settings.max_wait_ns)
    push_idle(lane, slot, now)
    if lane.settings.by_client:
        settle_client(lane, key_of(lane, c.client), now)


@kernel(inlined=True)
def _attempt(lane, slot):
    """Begin a try of the connection's request, which is in flight from now on, and send it.

    If the request lacks a value of its client, it is not sent.
    """
    c = lane.connections[slot]
    if c.sent_ns < 0 and c.flags & PATCHES_MASK << PATCHES_SHIFT and not _put_values(lane, slot):
        _give_back(lane, slot)
        return
    c.key = key_of(lane, c.client) if lane.settings.by_client else np.int64(0)
    begin_attempt(c)
    c.resent = 0
    if c.tries == 1:
        count_attempt(lane, c.client)
    lane.metrics.counters[C.retries] += c.tries > 1
    transmit(lane, slot)


@kernel()
def transmit(lane, slot):
    """Send the connection's request from its first byte."""
    c = lane.connections[slot]
    c.state = BUSY
    if lane.settings.trace_seed and c.sent_ns >= 0:
        renew_parent(
            np.int64(c.request),
            c.request_bytes,
            lane.settings.trace_seed,
            c.seq,
            attempt_of(c.tries, c.resent),
        )
    now = now_ns(lane.scratch)
    if c.sent_ns < 0:
        c.sent_ns = now
        c.own_ns += lane.metrics.counters[C.lost_ns]
        record_sent(
            lane.metrics,
            c.flags,
            now - c.taken_ns,
            c.ready_ns - c.taken_ns,
            c.fresh,
            lane.settings.closed_loop,
        )
    lane.metrics.counters[C.attempts] += 1
    push_timed(lane, slot, now + lane.settings.timeout_ns)
    send_rest(lane, slot)


@kernel()
def send_rest(lane, slot):
    """Send as much of the rest of a request as the socket accepts.

    If sending fails, `cut_off` ends the request when the lane next looks for expired slots.
    """
    c = lane.connections[slot]
    while c.send_error == 0 and c.sent_bytes < c.request_bytes:
        sent = send_bytes(c, c.request + np.uint64(c.sent_bytes), np.uint64(c.request_bytes - c.sent_bytes))
        if sent >= 0:
            c.sent_bytes += sent
            lane.metrics.counters[C.bytes_sent] += sent
        elif sent == -EAGAIN:
            return
        elif sent != -EINTR:
            c.send_error = -sent
            hasten(lane, slot)
            return


@kernel()
def cut_off(lane, slot):
    """End a request whose send failed, unless its response has already arrived (such as an early 413)."""
    c = lane.connections[slot]
    receive(lane, slot, True)
    if c.state == BUSY:
        _lost(lane, slot, TLS if c.send_error == EPROTO else RESET)


@kernel()
def receive(lane, slot, to_end):
    """Read and parse what has arrived, until the socket is empty or the response is complete.

    On a plain connection, a read that fills less than the buffer has emptied the socket. With `to_end` the peer has
    closed the connection, or sending has failed. Then everything is read, because events are edge-triggered, and no
    further one may arrive.
    """
    c = lane.connections[slot]
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
                if c.flags & EVALUATED:
                    _evaluate(lane, slot, 0, now)
                _answered(lane, slot, now, False)
            else:
                _lost(lane, slot, TRUNCATED)
            return
        if c.first_byte_ns < 0:
            c.first_byte_ns = now
            begin_response(lane, slot)
        c.received_bytes += got
        lane.metrics.counters[C.bytes_received] += got
        at = parse_response(lane, slot, got)
        if c.fresh == 0 and http1.is_idle_close(c):
            lane.metrics.counters[C.closed_by_target] += 1
            _send_again(lane, slot)
            return
        if c.received_bytes == got and c.parse_state != http1.DONE:
            _keep_beginning(lane, slot, got)
        if c.flags & EVALUATED:
            _evaluate(lane, slot, at, now)
        if c.parse_state == http1.DONE:
            reusable = (
                not lane.settings.single_use
                and at == got
                and c.sent_bytes == c.request_bytes
                and http1.keeps_alive(c)
            )
            _answered(lane, slot, now, reusable and is_quiet(c, buffer))
        elif c.parse_state == http1.BAD:
            finish(lane, slot, MALFORMED, now)
        elif is_drained(c, got, buffer.size) and not to_end:
            return


@kernel()
def _keep_beginning(lane, slot, got):
    """Copy the first bytes of a response from the buffer, to show them if the response is malformed.

    Only the first line is kept, up to the first `:` or `=`, because the rest may be a secret.
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
def _evaluate(lane, slot, end, now):
    """Apply the rules of the route to a response that is complete with buffer[:end].

    If the response is not complete yet, only keep the bytes that have arrived.
    """
    c, sessions = lane.connections[slot], lane.sessions
    limit, kept = sessions.kept.shape[1], sessions.kept[slot]
    if c.parse_state != http1.DONE or c.kept_bytes:
        fits = max(min(end, limit - c.kept_bytes), np.int64(0))
        _memcpy(kept.ctypes.data + np.uint64(c.kept_bytes), lane.buffer.ctypes.data, np.uint64(fits))
        c.kept_bytes += end
    if c.parse_state != http1.DONE or not 200 <= c.status < 600:
        return
    data = kept if c.kept_bytes else lane.buffer
    size = c.kept_bytes if c.kept_bytes else np.int64(end)
    lane.metrics.counters[C.answers_cut] += size > limit
    answer = Answer(c.status, c.flags >> STATUS_SHIFT, c.body_bytes, np.int64(size <= limit))
    checks, failed, cut = evaluate(
        sessions,
        c.client,
        c.route,
        data,
        min(size, limit),
        answer,
        lane.metrics.rule_counts,
        c.flags & WARM_UP == 0,
    )
    ending = Ending(c.status // 100 - 2, c.status, np.int64(0), c.sent_ns, c.first_byte_ns, now)
    record_evaluation(
        lane.metrics, Evaluation(checks, failed, cut), request_of(c), ending, lane.settings.closed_loop
    )


@kernel(inlined=True)
def _answered(lane, slot, now, reusable):
    """Record a complete response, and free or close its connection.

    The outcome is the status class. A response whose status is outside 200 to 599 is malformed.
    """
    st, c = lane.state[0], lane.connections[slot]
    outcome = c.status // 100 - 2
    if c.ssl and c.fresh and lane.settings.tls_resume:
        # TLS 1.3 servers send tickets after the handshake, so they have arrived once the first response has.
        if lane.settings.per_client:
            client = lane.clients[c.key]
            client.tls_session = tls.newer_session(c.ssl, client.tls_session)
        else:
            st.tls_session = tls.newer_session(c.ssl, st.tls_session)
    if outcome < 0 or outcome > 3:
        c.reason = http1.STATUS_RANGE
        if c.beginning_bytes == 0:
            _keep_beginning(lane, slot, c.received_bytes)
        finish(lane, slot, MALFORMED, now)
    elif reusable and not is_removed(lane.metrics, c.address):
        _record(lane, slot, outcome, now)
        drop_timed(lane, slot)
        c.fresh = 0
        push_idle(lane, slot, now)
    else:
        lane.metrics.address_counts[c.address, A.drained] += reusable
        finish(lane, slot, outcome, now)


@kernel()
def _record(lane, slot, outcome, now):
    """Record how the connection's request ended, or schedule a retry."""
    st, c = lane.state[0], lane.connections[slot]
    status = c.status if c.parse_state == http1.DONE else np.int64(0)
    lane.metrics.address_counts[c.address, A.requests] += 1
    lane.metrics.address_counts[c.address, A.errors] += outcome >= REFUSED
    lane.metrics.counters[C.informational] += c.informational
    if lane.settings.retry_attempts > 1 and may_retry(lane, c.tries, c.flags, outcome, status, c.sent_ns):
        row = pop_front(lane.free_rows, 0)
        w = lane.wait_queue[row]
        swap_requests(c, w)
        w.length = c.request_bytes
        w.seq, w.due_ns, w.taken_ns, w.flags = c.seq, c.due_ns, c.taken_ns, c.flags
        w.client, w.route, w.key = np.uint32(c.client), np.uint32(c.route), c.key
        w.first_ready_ns, w.sent_ns, w.received_bytes = c.ready_ns, c.sent_ns, c.received_bytes
        w.reason, w.own_ns = c.reason, c.own_ns
        back_off(lane, row, c.tries, outcome, status, now)
        return
    own_ns = c.own_ns if c.sent_ns >= 0 else c.own_ns + lane.metrics.counters[C.lost_ns]
    unread = unread_ns(st.unread_ns, st.polled_ns, now)
    record_net(lane.metrics, c.flags, c.due_ns, c.sent_ns, now, own_ns, unread, lane.settings.closed_loop)
    if outcome == MALFORMED:
        record_malformed(lane.metrics, c.flags, c.route, c.reason, lane.beginnings[slot], c.beginning_bytes)
    ending = Ending(outcome, status, c.received_bytes, c.sent_ns, c.first_byte_ns, now)
    record_done(lane.metrics, request_of(c), ending, lane.settings.closed_loop)
    hand_over_response(lane, slot, outcome)
    if lane.settings.by_client:
        lane.clients[c.key].in_flight -= 1
        settle_client(lane, c.key, now)


@kernel()
def finish(lane, slot, outcome, now):
    """Record the end of a request or schedule its retry, and close its connection."""
    _record(lane, slot, outcome, now)
    drop_timed(lane, slot)
    hang_up(lane, slot, outcome >= REFUSED)


@kernel()
def _lost(lane, slot, outcome):
    """Handle a connection that ended before the response was complete: fail its request, or send it again."""
    c = lane.connections[slot]
    lane.metrics.counters[C.closed_by_target] += 1
    again = c.fresh == 0 and c.first_byte_ns < 0 and c.flags & IDEMPOTENT and c.resent == 0
    if not again or outcome == TLS:
        finish(lane, slot, outcome, now_ns(lane.scratch))
    else:
        _send_again(lane, slot)


@kernel()
def _send_again(lane, slot):
    """Send a request once more on a new connection, because the target closed the reused one without answering."""
    c, counters = lane.connections[slot], lane.metrics.counters
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
