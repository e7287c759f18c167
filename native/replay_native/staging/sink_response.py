"""The sink's responses: kernels that wait in the queue, render by the request's options, and send in pieces."""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import EAGAIN, EINTR
from replay_native.ground.randoms import random_of
from replay_native.ground.shared import load_acquire, store_release
from replay_native.lane.io import close_connection, send_bytes

from .queueing import take_on
from .sink_memory import (
    ANSWER_BODY,
    ANSWER_HEAD,
    ANSWERING,
    CLOSED,
    ENDLESS,
    FAR_NS,
    FIN,
    GARBAGE,
    INFORMATIONAL,
    KEEP,
    MS_NS,
    NO_OPTION,
    NONE,
    NOTHING_MORE,
    QUEUED,
    READING,
    ROW_BYTES,
    RST,
    O,
    SinkWords,
    text_of,
)

_ppoll = libc.ppoll

NAP_NS = 10_000_000
CHUNK_ROOM = 64
PIECES_AT_ONCE = 16
_SALT = np.uint64(0x51A4FA115)

_EARLY_HINTS = text_of(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
_ENDLESS_LINE = text_of(b"X-Endless: " + b"a" * 500 + b"\r\n")
_LAST_CHUNK, _TRAILERS = text_of(b"0\r\n"), text_of(b"X-Checksum: none\r\nX-Second: trailer\r\n")
_SAY_CLOSE, _NEW_LINE = text_of(b"Connection: close\r\n"), text_of(b"\r\n")
_NOT_HTTP = text_of(b"220 this is no web server\r\n\r\n\x00\x01\x02\xff\r\n\r\n")
_STATUS_LINE, _REASON = text_of(b"HTTP/1.1 "), text_of(b" Sink\r\n")
_SAY_LENGTH, _SAY_CHUNKED = text_of(b"Content-Length: "), text_of(b"Transfer-Encoding: chunked\r\n")


@kernel(inlined=True)
def _set_timer(s, slot, at_ns):
    """Set the timer of a connection. Each connection has one."""
    s.timers[slot] = at_ns
    s.settings[0].next_timer_ns = min(s.settings[0].next_timer_ns, at_ns)


@kernel()
def _ask_a_server(s, slot, at_ns):
    """Wait until a server is done with the request, but at most `patience_ns` if the queue has retries.

    After `patience_ns`, the server works on the request nevertheless.
    """
    p, queue = s.peers[slot], s.queue[0]
    done_ns = take_on(queue, s.free_ns, at_ns)
    patient_ns = at_ns + queue.patience_ns
    p.state, p.in_time = QUEUED, queue.retries == 0 or done_ns <= patient_ns
    _set_timer(s, slot, done_ns if p.in_time else patient_ns)


@kernel()
def on_turn(s, slot, now):
    """Respond if a server is done with the request. After `patience_ns`, try again, or respond with 503."""
    p = s.peers[slot]
    if p.in_time:
        _answer(s, slot)
    elif p.tries_left > 0:
        p.tries_left -= 1
        _ask_a_server(s, slot, now)
    else:
        s.options[slot, :] = NO_OPTION
        s.options[slot, O.status] = 503
        _answer_as_set(s, slot, np.int64(0))


@kernel()
def take_up(s, slot):
    """Respond to a complete request, or let it wait for a server."""
    p = s.peers[slot]
    p.served += 1
    # The connection is no longer idle: clear the timer that an earlier response set.
    s.timers[slot] = FAR_NS
    if s.free_ns.shape[0] > 0 and p.plain:
        p.tries_left = s.queue[0].retries
        _ask_a_server(s, slot, p.recv_ns)
    else:
        _answer(s, slot)


@kernel()
def _answer(s, slot):
    """Respond to a complete request: usually by one send, else by its options."""
    p = s.peers[slot]
    p.state = READING
    sent = np.int64(0)
    if p.plain:
        if p.keep and not p.to_head and (p.ssl == 0 or s.answer.size <= ROW_BYTES):
            sent = send_bytes(p, s.answer.ctypes.data, np.uint64(s.answer.size))
            if sent == s.answer.size:
                return
            if sent < 0 and sent not in (-EAGAIN, -EINTR):
                hang_up(s, slot, False)
                return
            if p.ssl:
                _finish_later(s, slot, max(sent, np.int64(0)))
                return
        s.options[slot, :] = NO_OPTION
    _answer_as_set(s, slot, max(sent, np.int64(0)))


@kernel()
def _finish_later(s, slot, sent):
    """Finish a usual response of which TLS has sent only a part. TLS requires the same bytes again."""
    p, out = s.peers[slot], s.outputs[slot]
    s.options[slot, :] = NO_OPTION
    for i in range(s.answer.size):
        out[i] = s.answer[i]
    p.state, p.stage, p.after = ANSWERING, NOTHING_MORE, KEEP
    p.out_at, p.out_end, p.allowed = sent, s.answer.size, FAR_NS
    s.timers[slot] = FAR_NS


@kernel()
def _answer_as_set(s, slot, sent):
    """Respond by the options of the request. The first `sent` bytes of a usual response are already sent."""
    p, o = s.peers[slot], s.options[slot]
    reused = p.served > 1
    if o[O.reset] >= 0 or (o[O.reset_reused] >= 0 and reused):
        hang_up(s, slot, True)
        return
    if o[O.hang_up] >= 0 or (o[O.hang_up_reused] >= 0 and reused):
        hang_up(s, slot, False)
        return
    _begin_answer(s, slot)
    while sent > 0 and _render(s, slot):
        p.out_at = min(sent, p.out_end)
        sent -= p.out_at
    if o[O.stall_ms] >= 0:
        now = now_ns(s.scratch)
        s.settings[0].stalled_until_ns = now + o[O.stall_ms] * MS_NS
        stall(s, now)
    if o[O.never] >= 0:
        return
    if o[O.delay_ms] >= 0:
        _set_timer(s, slot, p.recv_ns + o[O.delay_ms] * MS_NS)
    else:
        send_more(s, slot)


@kernel()
def _begin_answer(s, slot):
    """Decide which bytes will be sent, and how the connection ends."""
    p, o = s.peers[slot], s.options[slot]
    p.state = ANSWERING
    s.timers[slot] = FAR_NS
    p.out_at = 0
    p.out_end = 0
    p.informational_left = max(o[O.informational], np.int64(0))
    p.stage = INFORMATIONAL
    p.body_left = o[O.body] if o[O.body] >= 0 else s.settings[0].body
    p.allowed = FAR_NS
    ends = not p.keep or o[O.close] >= 0 or o[O.close_silently] >= 0 or o[O.until_close] >= 0
    p.after = FIN if ends else KEEP
    if o[O.truncate_at] >= 0:
        p.allowed = o[O.truncate_at]
        p.after = FIN
    if o[O.reset_at] >= 0:
        p.allowed = o[O.reset_at]
        p.after = RST
    if o[O.garbage] >= 0:
        p.stage = GARBAGE
        p.after = FIN
    if o[O.endless_headers] >= 0:
        p.stage = ENDLESS
        p.body_left = -1


@kernel()
def _put(out, at, text):
    """Append text, and return the offset after it."""
    for i in range(text.size):
        out[at + i] = text[i]
    return at + text.size


@kernel()
def _put_number(out, at, number, base):
    """Append a number, decimal or hexadecimal, and return the offset after it."""
    digits = np.int64(1)
    rest = number // base
    while rest:
        digits += 1
        rest //= base
    for i in range(digits):
        digit = number % base
        out[at + digits - 1 - i] = np.uint8(48 + digit if digit < 10 else 87 + digit)
        number //= base
    return at + digits


@kernel()
def _put_status(out, status):
    """Write the status line, and return the offset after it."""
    at = _put(out, np.int64(0), _STATUS_LINE)
    return _put(out, _put_number(out, at, status, np.int64(10)), _REASON)


@kernel()
def _render_head(s, slot, out):
    """Write status line and headers, set the stage that follows, and return the number of bytes."""
    p, o = s.peers[slot], s.options[slot]
    status = o[O.status] if o[O.status] >= 0 else np.int64(200)
    if random_of(_SALT, s.control[SinkWords.ARRIVALS], _SALT) % np.uint64(100) < np.uint64(
        max(o[O.fails], 0)
    ):
        status = np.int64(503)
    bodiless = status in (204, 304)
    at = _put_status(out, status)
    if o[O.chunked] >= 0 and not bodiless:
        at = _put(out, at, _SAY_CHUNKED)
    elif o[O.until_close] < 0 and status != 204:
        at = _put(out, at, _SAY_LENGTH)
        at = _put_number(out, at, p.body_left, np.int64(10))
        at = _put(out, at, _NEW_LINE)
    if o[O.close] >= 0 or not p.keep:
        at = _put(out, at, _SAY_CLOSE)
    p.stage = NOTHING_MORE if bodiless or p.to_head else ANSWER_BODY
    return _put(out, at, _NEW_LINE)


@kernel()
def _render_body(s, slot, out):
    """Write the next piece of the body, and return the number of bytes."""
    p, o = s.peers[slot], s.options[slot]
    chunked = o[O.chunked] >= 0
    at = np.int64(0)
    if p.body_left == 0:
        p.stage = NOTHING_MORE
        if chunked:
            at = _put(out, at, _LAST_CHUNK)
            if o[O.trailers] >= 0:
                at = _put(out, at, _TRAILERS)
            at = _put(out, at, _NEW_LINE)
        return at
    size = min(p.body_left, np.int64(out.size - CHUNK_ROOM))
    if chunked:
        size = min(size, o[O.chunked] if o[O.chunked] > 0 else size)
        at = _put_number(out, at, size, np.int64(16))
        at = _put(out, at, _NEW_LINE)
    for i in range(at, at + size):
        out[i] = 120
    p.body_left -= size
    return _put(out, at + size, _NEW_LINE) if chunked else at + size


@kernel()
def _render(s, slot):
    """Write the next piece of the response to the connection's output, and return whether there is one."""
    p, out = s.peers[slot], s.outputs[slot]
    p.out_at = 0
    p.out_end = 0
    while p.out_end == 0 and p.stage != NOTHING_MORE:
        if p.stage == INFORMATIONAL:
            if p.informational_left > 0:
                p.informational_left -= 1
                p.out_end = _put(out, np.int64(0), _EARLY_HINTS)
            else:
                p.stage = ANSWER_HEAD
        elif p.stage == ANSWER_HEAD:
            p.out_end = _render_head(s, slot, out)
        elif p.stage == ANSWER_BODY:
            p.out_end = _render_body(s, slot, out)
        elif p.stage == GARBAGE:
            p.out_end = _put(out, np.int64(0), _NOT_HTTP)
            p.stage = NOTHING_MORE
        else:
            if p.body_left < 0:
                p.body_left = 0
                p.out_end = _put_status(out, np.int64(200))
            while p.out_end + _ENDLESS_LINE.size <= out.size:
                p.out_end = _put(out, p.out_end, _ENDLESS_LINE)
    return p.out_end > 0


@kernel()
def send_more(s, slot):
    """Send as much as the socket accepts, or the next piece of a drip.

    After PIECES_AT_ONCE pieces the connection waits for its timer, so that the others get their turn.
    """
    p, o = s.peers[slot], s.options[slot]
    step = max(o[O.step], np.int64(1)) if o[O.drip_ms] >= 0 else np.int64(ROW_BYTES)
    for _ in range(PIECES_AT_ONCE):
        if p.out_at == p.out_end and (p.allowed == 0 or not _render(s, slot)):
            _answer_ends(s, slot)
            return
        size = min(p.out_end - p.out_at, p.allowed, step)
        sent = send_bytes(p, s.outputs[slot].ctypes.data + np.uint64(p.out_at), np.uint64(size))
        if sent == -EAGAIN:
            return
        if sent < 0 and sent != -EINTR:
            hang_up(s, slot, False)
            return
        sent = max(sent, np.int64(0))
        p.out_at += sent
        p.allowed -= sent
        if p.allowed == 0:
            p.out_at = p.out_end
        if o[O.drip_ms] >= 0:
            _set_timer(s, slot, now_ns(s.scratch) + o[O.drip_ms] * MS_NS)
            return
    _set_timer(s, slot, now_ns(s.scratch))


@kernel()
def _answer_ends(s, slot):
    """Keep the connection after its response, or close it as decided."""
    p, o = s.peers[slot], s.options[slot]
    if p.after != KEEP:
        hang_up(s, slot, p.after == RST)
        return
    p.state = READING
    if o[O.idle_close_ms] >= 0:
        _set_timer(s, slot, now_ns(s.scratch) + o[O.idle_close_ms] * MS_NS)


@kernel()
def hang_up(s, slot, abort):
    """Close a connection (by RST with `abort`), and free its slot."""
    p, st = s.peers[slot], s.settings[0]
    close_connection(p, abort, s.scratch)
    p.fd = NONE
    p.state = CLOSED
    p.generation += 1
    p.next = st.free_first
    st.free_first = slot
    s.timers[slot] = FAR_NS
    store_release(s.control, SinkWords.OPEN, s.control[SinkWords.OPEN] - 1)


@kernel()
def stall(s, now):
    """If the server is to stall, sleep until the stall or the server ends. Return the current time."""
    st, control, scratch = s.settings[0], s.control, s.scratch
    stall_ns = load_acquire(control, SinkWords.STALL_NS)
    if stall_ns > 0 and now >= load_acquire(control, SinkWords.STALL_AT_NS):
        st.stalled_until_ns = load_acquire(control, SinkWords.STALL_AT_NS) + stall_ns
        store_release(control, SinkWords.STALL_NS, np.int64(0))
    while now < st.stalled_until_ns and load_acquire(control, SinkWords.STOP) == 0:
        scratch[0] = 0
        scratch[1] = min(st.stalled_until_ns - now, np.int64(NAP_NS))
        _ppoll(0, 0, scratch.ctypes.data, 0)
        now = now_ns(scratch)
    return now
