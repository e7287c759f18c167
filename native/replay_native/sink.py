"""The sink: an HTTP/1.1 server in one kernel. It answers at wire speed, notes arrivals, and fails on command.

What a request may ask for is in `replay.staging.sink`, which owns the memory and the thread. The kernel reads
from top to bottom: a request comes in (head, options, body), waits for a server where there is a queue, an answer goes
out (in pieces), timers, events, the loop.
"""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import from_dtype, types

from . import libc, tls
from .bundle import bundle_type
from .clock import now_ns
from .io import close_connection, event_mask, is_drained, receive_bytes, send_bytes, watch
from .jit import kernel
from .libc import (
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
    IPPROTO_TCP,
    PR_GET_TIMERSLACK,
    PR_SET_TIMERSLACK,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    errno,
)
from .queueing import QUEUE, take_on
from .randoms import random_of
from .shared import load_acquire, peek_i64, poke_u32, store_release

_accept4, _setsockopt, _close, _read = libc.accept4, libc.setsockopt, libc.close, libc.read
_epoll_create1, _epoll_wait, _epoll_pwait2 = libc.epoll_create1, libc.epoll_wait, libc.epoll_pwait2
_memchr, _prctl, _ppoll = libc.memchr, libc.prctl, libc.ppoll

_SinkWords = namedtuple(
    "_SinkWords", "STOP STALL_AT_NS STALL_NS STATE PORT ARRIVALS OPEN ACCEPTED REFUSED WORDS"
)
SinkWords = _SinkWords(*range(0, 80, 8))
"""Words of `control`, a cache line apart. STOP and STALL_* (write STALL_NS last) are the control plane's.

STATE is 0, 1 running, 2 ended, or minus errno; ARRIVALS counts requests, stored or not; REFUSED counts
connections over the cap.
"""

STAMP = np.dtype([("seq", "i8"), ("arrival_ns", "i8"), ("connection", "i8")])
"""One arrived request. `seq` is -1 without X-Replay; `connection` counts accepted connections from 0."""

OPTIONS = (
    "status", "body", "delay_ms", "stall_ms", "drip_ms", "step", "chunked", "trailers", "until_close",
    "informational", "close", "close_silently", "idle_close_ms", "reset", "reset_reused", "reset_at",
    "hang_up", "hang_up_reused", "truncate_at", "garbage", "endless_headers", "never", "fails",
)  # fmt: skip
O = namedtuple("OptionIndex", OPTIONS)(*range(len(OPTIONS)))
NO_OPTION = -1
OPTION_BYTES = 16
_NAMES = np.frombuffer(b"".join(name.encode().ljust(OPTION_BYTES, b"\0") for name in OPTIONS), np.uint8)
_NAMES = _NAMES.reshape(len(OPTIONS), OPTION_BYTES).copy()

PEER = np.dtype([
    (name, "i8") for name in (
        "fd", "generation", "state", "next", "number", "served", "recv_ns",
        "in_end", "phase", "remaining", "to_head", "keep", "plain", "seq",
        "stage", "out_at", "out_end", "body_left", "informational_left", "allowed", "after",
        "in_time", "tries_left",
    )
] + [("ssl", "u8")])  # fmt: skip
"""One connection of the sink. `ssl` is 0 on a plain one; `in_time` is whether a server will have done what it was
asked for before its patience is over."""

SETTINGS = np.dtype([
    (name, "i8") for name in (
        "listener", "wake_fd", "run_until_ns", "spin", "body",
        "epoll", "used_slots", "free_first", "next_timer_ns", "stalled_until_ns", "accept_again",
        "has_pwait2",
    )
] + [("tls_context", "u8")])  # fmt: skip
"""The sink's settings (first row) and what it keeps between loops."""

Sink = namedtuple(
    "Sink", "control stamps peers settings timers options inputs outputs answer events scratch queue free_ns"
)
"""control int64[SinkWords.WORDS], stamps STAMP[n], peers PEER[cap], settings SETTINGS[1], timers int64[cap],
options int64[cap, len(OPTIONS)], inputs and outputs uint8[cap, ROW_BYTES], answer uint8[n] (the usual answer,
whole), events uint8[n], scratch int64[4], queue QUEUE[1], free_ns int64[servers] (none: requests need no server)."""

stamp_type, peer_type, settings_type = from_dtype(STAMP), from_dtype(PEER), from_dtype(SETTINGS)
SINK_TYPE = bundle_type(
    Sink,
    [
        types.int64[::1], stamp_type[::1], peer_type[::1], settings_type[::1], types.int64[::1],
        types.int64[:, ::1], types.uint8[:, ::1], types.uint8[:, ::1], types.uint8[::1], types.uint8[::1],
        types.int64[::1], from_dtype(QUEUE)[::1], types.int64[::1],
    ],
)  # fmt: skip

CLOSED, READING, ANSWERING, SECURING, QUEUED = range(5)
IN_HEAD, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK_LINE, IN_CHUNK = range(5)
IN_CHUNK_END, IN_TRAILER, IN_TRAILER_LINE, WHOLE = range(5, 9)
INFORMATIONAL, ANSWER_HEAD, ANSWER_BODY, GARBAGE, ENDLESS, NEVER, NOTHING_MORE = range(7)
KEEP, FIN, RST = range(3)

NONE = -1
FAR_NS = 1 << 62
MS_NS = 1_000_000
HEARTBEAT_NS = 100_000_000
AWAKE_NS = 60_000
"""How long before a server has done a request the sink is awake: about what a machine takes to wake up."""

ACCEPT_AGAIN_NS = 10_000_000
EVENTS_AT_ONCE = 64
ROW_BYTES = 16_384
PIECES_AT_ONCE = 16
CHUNK_ROOM = 64
LISTENER_TOKEN, WAKE_TOKEN = -1, -2
CR, LF, SPACE, SLASH, COLON, DASH, EQUALS = 13, 10, 32, 47, 58, 45, 61


def _text(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8).copy()


_SALT = np.uint64(0x51A4FA115)
_PATH = _text(b"/sink/")
_HEAD = _text(b"head ")
_REPLAY, _LENGTH, _ENCODING, _CONNECTION = (
    _text(b"x-replay:"), _text(b"content-length:"), _text(b"transfer-encoding:"), _text(b"connection:"),
)  # fmt: skip
_CLOSE, _KEEP_ALIVE = _text(b"close"), _text(b"keep-alive")
_STATUS_LINE, _REASON = _text(b"HTTP/1.1 "), _text(b" Sink\r\n")
_SAY_LENGTH, _SAY_CHUNKED = _text(b"Content-Length: "), _text(b"Transfer-Encoding: chunked\r\n")
_SAY_CLOSE, _NEW_LINE = _text(b"Connection: close\r\n"), _text(b"\r\n")
_EARLY_HINTS = _text(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")
_LAST_CHUNK, _TRAILERS = _text(b"0\r\n"), _text(b"X-Checksum: none\r\nX-Second: trailer\r\n")
_NOT_HTTP = _text(b"220 this is no web server\r\n\r\n\x00\x01\x02\xff\r\n\r\n")
_ENDLESS_LINE = _text(b"X-Endless: " + b"a" * 500 + b"\r\n")


# A request comes in.


@kernel()
def _starts(data, at, end, text):
    """Whether `text` (lower case) is at this place, in any case."""
    if at + text.size > end:
        return False
    for i in range(text.size):
        byte = data[at + i]
        if 65 <= byte <= 90:
            byte += 32
        if byte != text[i]:
            return False
    return True


@kernel()
def _number(data, at, end):
    """The digits at this place; -1 where there are none."""
    number = np.int64(-1)
    while at < end and 48 <= data[at] <= 57 and number < FAR_NS // 16:
        number = max(number, np.int64(0)) * 10 + np.int64(data[at]) - 48
        at += 1
    return number


@kernel(inlined=True)
def _last_number(data, at, end):
    """The digits after the last `-` of RUN-SEQ; -1 where there are none."""
    while at < end and data[at] == SPACE:
        at += 1
    dash = at - 1
    for i in range(at, end):
        if data[i] == DASH:
            dash = i
    return _number(data, dash + 1, end)


@kernel()
def _read_options(data, at, end, options):
    """The options of a path after `/sink/`: `name` or `name=number`, apart by slashes."""
    while at < end and data[at] not in (SPACE, 63):
        last = at
        while last < end and data[last] not in (SPACE, SLASH, 63):
            last += 1
        for which in range(_NAMES.shape[0]):
            i = 0
            while i < OPTION_BYTES and at + i < last and _NAMES[which, i] == data[at + i]:
                i += 1
            if (i < OPTION_BYTES and _NAMES[which, i]) or (at + i < last and data[at + i] != EQUALS):
                continue
            options[which] = max(_number(data, at + i + 1, last), np.int64(0))
        at = last + 1 if last < end and data[last] == SLASH else last


@kernel(inlined=True)
def _read_request_line(s, slot, data, at, end):
    """Method, path and version."""
    p = s.peers[slot]
    p.to_head = _starts(data, at, end, _HEAD)
    p.keep = data[end - 1] != 48
    while at < end and data[at] != SPACE:
        at += 1
    p.plain = not _starts(data, at + 1, end, _PATH)
    if not p.plain:
        options = s.options[slot]
        options[:] = NO_OPTION
        _read_options(data, at + 1 + _PATH.size, end, options)


@kernel(inlined=True)
def _read_header(s, slot, data, at, end):
    """One header line, of those that matter."""
    p = s.peers[slot]
    initial = data[at] | 32
    if initial == 120 and _starts(data, at, end, _REPLAY):
        p.seq = _last_number(data, at + _REPLAY.size, end)
    elif initial == 99 and _starts(data, at, end, _LENGTH):
        at += _LENGTH.size
        while at < end and data[at] == SPACE:
            at += 1
        p.remaining = _number(data, at, end)
    elif initial == 116 and _starts(data, at, end, _ENCODING):
        p.phase = IN_CHUNK_SIZE
    elif initial == 99 and _starts(data, at, end, _CONNECTION):
        at += _CONNECTION.size
        while at < end and data[at] == SPACE:
            at += 1
        if _starts(data, at, end, _CLOSE):
            p.keep = 0
        elif _starts(data, at, end, _KEEP_ALIVE):
            p.keep = 1


@kernel()
def _read_head(s, slot, at):
    """Read a whole head: the offset after it, or -1 where more must come. Sets the phase that follows."""
    p, data = s.peers[slot], s.inputs[slot]
    base = data.ctypes.data
    p.seq = -1
    p.remaining = 0
    p.phase = WHOLE
    first = at
    while at < p.in_end:
        found = _memchr(base + np.uint64(at), LF, np.uint64(p.in_end - at))
        if found == 0:
            break
        line_feed = np.int64(found - base)
        end = line_feed - 1 if line_feed > at and data[line_feed - 1] == CR else line_feed
        if end == at:
            if at > first:
                if p.phase == IN_CHUNK_SIZE:
                    p.remaining = 0
                elif p.remaining > 0:
                    p.phase = IN_BODY
                return line_feed + 1
            first = line_feed + 1
        elif at == first:
            _read_request_line(s, slot, data, at, end)
        else:
            _read_header(s, slot, data, at, end)
        at = line_feed + 1
    p.phase = IN_HEAD
    return np.int64(-1)


@kernel()
def _pass_chunk_byte(p, byte):
    """One byte of a chunked body that is not data."""
    if p.phase in (IN_CHUNK_SIZE, IN_CHUNK_LINE):
        digit = np.int64(byte) - 48 if byte < 58 else (np.int64(byte) & 31) + 9
        if byte == LF:
            p.phase = IN_CHUNK if p.remaining else IN_TRAILER
        elif p.phase == IN_CHUNK_SIZE and 0 <= digit < 16:
            p.remaining = p.remaining * 16 + digit
        else:
            p.phase = IN_CHUNK_LINE
    elif p.phase == IN_CHUNK_END:
        if byte == LF:
            p.phase = IN_CHUNK_SIZE
    elif p.phase == IN_TRAILER:
        if byte == LF:
            p.phase = WHOLE
        elif byte != CR:
            p.phase = IN_TRAILER_LINE
    elif byte == LF:
        p.phase = IN_TRAILER


@kernel()
def _pass_body(s, slot, at):
    """Pass over the request's body, as far as it has come; the offset reached."""
    p, data = s.peers[slot], s.inputs[slot]
    while at < p.in_end and p.phase != WHOLE:
        if p.phase in (IN_BODY, IN_CHUNK):
            step = min(p.in_end - at, p.remaining)
            at += step
            p.remaining -= step
            if p.remaining == 0:
                p.phase = WHOLE if p.phase == IN_BODY else IN_CHUNK_END
        else:
            _pass_chunk_byte(p, data[at])
            at += 1
    return at


@kernel(inlined=True)
def _note_arrival(s, slot):
    """Write down that a request came; a full array counts on but stores no more."""
    p = s.peers[slot]
    count = s.control[SinkWords.ARRIVALS]
    if count < s.stamps.size:
        stamp = s.stamps[count]
        stamp.seq, stamp.arrival_ns, stamp.connection = p.seq, p.recv_ns, p.number
    store_release(s.control, SinkWords.ARRIVALS, count + 1)


@kernel()
def _consume(s, slot):
    """Answer what has been read, request by request, until one must wait or more must come."""
    p, data = s.peers[slot], s.inputs[slot]
    at = np.int64(0)
    while p.state == READING and at < p.in_end:
        if p.phase == IN_HEAD:
            after = _read_head(s, slot, at)
            if after < 0:
                break
            at = after
            _note_arrival(s, slot)
        if p.phase != WHOLE:
            at = _pass_body(s, slot, at)
        if p.phase == WHOLE:
            p.phase = IN_HEAD
            _take_up(s, slot)
    if p.state == CLOSED:
        return
    if at:
        for i in range(at, p.in_end):
            data[i - at] = data[i]
        p.in_end -= at
    if p.in_end == data.size and p.state == READING:
        _hang_up(s, slot, True)


@kernel()
def _receive(s, slot, to_the_end):
    """Read and answer until the socket is empty, or an answer must wait. A short read means that it is empty,
    unless its end is known to have come."""
    p = s.peers[slot]
    if p.in_end:
        _consume(s, slot)
    while p.state == READING:
        room = s.inputs[slot, p.in_end :]
        got = receive_bytes(p, room)
        if got > 0:
            p.recv_ns = now_ns(s.scratch)
            p.in_end += got
            _consume(s, slot)
            if is_drained(p, got, room.size) and not to_the_end:
                return
        elif got == -EAGAIN:
            return
        elif got != -EINTR:
            _hang_up(s, slot, False)


# It waits for a server, where there is a queue.


@kernel(inlined=True)
def _set_timer(s, slot, at_ns):
    """One timer a connection."""
    s.timers[slot] = at_ns
    s.settings[0].next_timer_ns = min(s.settings[0].next_timer_ns, at_ns)


@kernel()
def _ask_a_server(s, slot, at_ns):
    """Wait until a server has done it, or until patience is over; that server works on it all the same."""
    p, queue = s.peers[slot], s.queue[0]
    done_ns = take_on(queue, s.free_ns, at_ns)
    patient_ns = at_ns + queue.patience_ns
    p.state, p.in_time = QUEUED, queue.retries == 0 or done_ns <= patient_ns
    _set_timer(s, slot, done_ns if p.in_time else patient_ns)


@kernel()
def _on_turn(s, slot, now):
    """A server has done it, and it is answered; or patience is over, and it is asked for again, or fails."""
    p = s.peers[slot]
    if p.in_time:
        _answer(s, slot)
    elif p.tries_left > 0:
        p.tries_left -= 1
        _ask_a_server(s, slot, now)
    else:
        s.options[slot, :] = NO_OPTION
        s.options[slot, O.status] = 503
        _answer_as_told(s, slot, np.int64(0))


# An answer goes out.


@kernel()
def _take_up(s, slot):
    """A whole request has come: answer it, or have it wait for a server."""
    p = s.peers[slot]
    p.served += 1
    if s.free_ns.shape[0] > 0 and p.plain:
        p.tries_left = s.queue[0].retries
        _ask_a_server(s, slot, p.recv_ns)
    else:
        _answer(s, slot)


@kernel()
def _answer(s, slot):
    """Answer a whole request: usually by one send, else as its options say."""
    p = s.peers[slot]
    p.state = READING
    sent = np.int64(0)
    if p.plain:
        if p.keep and not p.to_head and (p.ssl == 0 or s.answer.size <= ROW_BYTES):
            sent = send_bytes(p, s.answer.ctypes.data, np.uint64(s.answer.size))
            if sent == s.answer.size:
                return
            if sent < 0 and sent not in (-EAGAIN, -EINTR):
                _hang_up(s, slot, False)
                return
            if p.ssl:
                _finish_later(s, slot, max(sent, np.int64(0)))
                return
        s.options[slot, :] = NO_OPTION
    _answer_as_told(s, slot, max(sent, np.int64(0)))


@kernel()
def _finish_later(s, slot, sent):
    """The usual answer did not go out whole by TLS, which must be given the very same bytes again."""
    p, out = s.peers[slot], s.outputs[slot]
    s.options[slot, :] = NO_OPTION
    for i in range(s.answer.size):
        out[i] = s.answer[i]
    p.state, p.stage, p.after = ANSWERING, NOTHING_MORE, KEEP
    p.out_at, p.out_end, p.allowed = sent, s.answer.size, FAR_NS
    s.timers[slot] = FAR_NS


@kernel()
def _answer_as_told(s, slot, sent):
    """Answer by the options of the request; of a usual answer, `sent` bytes are out already."""
    p, o = s.peers[slot], s.options[slot]
    reused = p.served > 1
    if o[O.reset] >= 0 or (o[O.reset_reused] >= 0 and reused):
        _hang_up(s, slot, True)
        return
    if o[O.hang_up] >= 0 or (o[O.hang_up_reused] >= 0 and reused):
        _hang_up(s, slot, False)
        return
    _begin_answer(s, slot)
    while sent > 0 and _render(s, slot):
        p.out_at = min(sent, p.out_end)
        sent -= p.out_at
    if o[O.stall_ms] >= 0:
        now = now_ns(s.scratch)
        s.settings[0].stalled_until_ns = now + o[O.stall_ms] * MS_NS
        _stall(s, now)
    if o[O.never] >= 0:
        return
    if o[O.delay_ms] >= 0:
        _set_timer(s, slot, p.recv_ns + o[O.delay_ms] * MS_NS)
    else:
        _send_more(s, slot)


@kernel()
def _begin_answer(s, slot):
    """Set out what will be sent, and how it will end."""
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
    """Append text; the place after it."""
    for i in range(text.size):
        out[at + i] = text[i]
    return at + text.size


@kernel()
def _put_number(out, at, number, base):
    """Append a number, decimal or hexadecimal; the place after it."""
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
    """Begin with the status line; the place after it."""
    at = _put(out, np.int64(0), _STATUS_LINE)
    return _put(out, _put_number(out, at, status, np.int64(10)), _REASON)


@kernel()
def _render_head(s, slot, out):
    """The status line and headers; sets the stage that follows. Bytes written."""
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
    """The next piece of the body; bytes written."""
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
    """Put the next piece of the answer into the connection's output; False where nothing more comes."""
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
def _send_more(s, slot):
    """Send what the socket takes, or the next drop of a drip. One that reads much gives way to the others."""
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
            _hang_up(s, slot, False)
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
    """The answer is out: keep the connection, or close it as was told."""
    p, o = s.peers[slot], s.options[slot]
    if p.after != KEEP:
        _hang_up(s, slot, p.after == RST)
        return
    p.state = READING
    if o[O.idle_close_ms] >= 0:
        _set_timer(s, slot, now_ns(s.scratch) + o[O.idle_close_ms] * MS_NS)


@kernel()
def _hang_up(s, slot, abort):
    """Close a connection, by RST with `abort`, and give its slot back."""
    p, st = s.peers[slot], s.settings[0]
    close_connection(p, abort, s.scratch)
    p.fd = NONE
    p.state = CLOSED
    p.generation += 1
    p.next = st.free_first
    st.free_first = slot
    s.timers[slot] = FAR_NS
    store_release(s.control, SinkWords.OPEN, s.control[SinkWords.OPEN] - 1)


# Events, timers, the loop.


@kernel()
def _accept_one(s, fd):
    """Give an accepted socket a slot, or close it where all are taken."""
    st, control = s.settings[0], s.control
    slot = st.free_first
    if slot != NONE:
        st.free_first = s.peers[slot].next
    elif st.used_slots < s.peers.size:
        slot = st.used_slots
        st.used_slots += 1
    else:
        store_release(control, SinkWords.REFUSED, control[SinkWords.REFUSED] + 1)
        _close(fd)
        return
    p = s.peers[slot]
    poke_u32(s.scratch.ctypes.data, np.uint32(1))
    _setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, s.scratch.ctypes.data, 4)
    p.fd, p.state, p.phase = fd, READING, IN_HEAD
    p.number = control[SinkWords.ACCEPTED]
    p.served, p.in_end = 0, 0
    store_release(control, SinkWords.ACCEPTED, p.number + 1)
    store_release(control, SinkWords.OPEN, control[SinkWords.OPEN] + 1)
    if st.tls_context:
        p.state = SECURING
        p.ssl = tls.begin_server(st.tls_context, fd)
    failed = st.tls_context != 0 and p.ssl == 0
    if failed or watch(st.epoll, fd, (p.generation & 0x7FFFFFFF) << 32 | slot, s.scratch) < 0:
        _hang_up(s, slot, True)


@kernel()
def _secure(s, slot):
    """Go on with the handshake; then read what came with its end."""
    p = s.peers[slot]
    done = tls.handshake(p.ssl)
    if done == 1:
        p.state = READING
        _receive(s, slot, True)
    elif done not in (-EAGAIN, -EINTR):
        _hang_up(s, slot, False)


@kernel()
def _accept(s):
    """Accept all that wait. Out of descriptors, it tries again a little later."""
    st = s.settings[0]
    st.accept_again = 0
    while True:
        fd = _accept4(st.listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            _accept_one(s, fd)
        elif errno() == EAGAIN:
            return
        elif errno() != EINTR:
            st.accept_again = 1
            return


@kernel()
def _on_event(s, slot, generation, mask):
    """One socket event. A connection whose timer is set sends by the timer alone; a client that will say no
    more has left, and gets no answer that must wait.
    """
    p = s.peers[slot]
    if p.generation & 0x7FFFFFFF != generation or p.state == CLOSED:
        return
    if p.state == SECURING:
        _secure(s, slot)
        return
    left = mask & (EPOLLERR | EPOLLHUP | EPOLLRDHUP) != 0
    goes_on = p.state == ANSWERING and mask & EPOLLOUT != 0 and not left
    goes_on = goes_on and s.timers[slot] == FAR_NS and s.options[slot, O.never] < 0
    if goes_on:
        _send_more(s, slot)
    if p.state == READING and (goes_on or left or mask & EPOLLIN):
        _receive(s, slot, goes_on or left)
    if p.state in (ANSWERING, QUEUED) and left:
        _hang_up(s, slot, False)


@kernel()
def _on_timers(s, now):
    """Handle the timers that are due, and find the next one."""
    st, timers = s.settings[0], s.timers
    for slot in range(st.used_slots):
        if timers[slot] > now:
            continue
        timers[slot] = FAR_NS
        if s.peers[slot].state == READING:
            _hang_up(s, slot, False)
            continue
        if s.peers[slot].state == QUEUED:
            _on_turn(s, slot, now)
        else:
            _send_more(s, slot)
        if s.peers[slot].state == READING:
            _receive(s, slot, True)
    next_ns = np.int64(FAR_NS)
    for slot in range(st.used_slots):
        next_ns = min(next_ns, timers[slot])
    st.next_timer_ns = next_ns


@kernel()
def _stall(s, now):
    """While the whole server is to stall, neither read nor answer. Returns the clock afterwards."""
    st, control, scratch = s.settings[0], s.control, s.scratch
    stall_ns = load_acquire(control, SinkWords.STALL_NS)
    if stall_ns > 0 and now >= load_acquire(control, SinkWords.STALL_AT_NS):
        st.stalled_until_ns = load_acquire(control, SinkWords.STALL_AT_NS) + stall_ns
        store_release(control, SinkWords.STALL_NS, np.int64(0))
    while now < st.stalled_until_ns and load_acquire(control, SinkWords.STOP) == 0:
        scratch[0] = 0
        scratch[1] = min(st.stalled_until_ns - now, np.int64(ACCEPT_AGAIN_NS))
        _ppoll(0, 0, scratch.ctypes.data, 0)
        now = now_ns(scratch)
    return now


@kernel(inlined=True)
def _sleep_ns(s, now):
    """How long nothing needs doing."""
    st, control = s.settings[0], s.control
    if st.spin:
        return np.int64(0)
    until = min(st.next_timer_ns, now + (ACCEPT_AGAIN_NS if st.accept_again else HEARTBEAT_NS))
    if s.free_ns.shape[0] > 0:
        until -= AWAKE_NS
    if load_acquire(control, SinkWords.STALL_NS) > 0:
        until = min(until, load_acquire(control, SinkWords.STALL_AT_NS))
    return max(until - now, np.int64(0))


@kernel()
def _wait(s, sleep_ns):
    """Wait for events, at most this long; how many came."""
    st, scratch, events = s.settings[0], s.scratch, s.events.ctypes.data
    if sleep_ns > 0 and st.has_pwait2:
        scratch[0] = sleep_ns // 1_000_000_000
        scratch[1] = sleep_ns % 1_000_000_000
        n = np.int64(_epoll_pwait2(st.epoll, events, EVENTS_AT_ONCE, scratch.ctypes.data, 0))
        if n >= 0 or errno() != ENOSYS:
            return max(n, np.int64(0))
        st.has_pwait2 = 0
    return max(
        np.int64(_epoll_wait(st.epoll, events, EVENTS_AT_ONCE, max(sleep_ns, 0) // MS_NS)), np.int64(0)
    )


@kernel()
def _loop(s):
    """Serve until STOP, or until the run time is over."""
    st, control = s.settings[0], s.control
    events = s.events.ctypes.data
    while load_acquire(control, SinkWords.STOP) == 0:
        now = _stall(s, now_ns(s.scratch))
        if now >= st.run_until_ns:
            return
        if st.accept_again:
            _accept(s)
        if now >= st.next_timer_ns:
            _on_timers(s, now)
        for i in range(_wait(s, _sleep_ns(s, now))):
            token = peek_i64(events + np.uint64(i * EPOLL_EVENT_BYTES + EPOLL_DATA_OFFSET))
            if token == LISTENER_TOKEN:
                _accept(s)
            elif token == WAKE_TOKEN:
                _read(st.wake_fd, s.scratch.ctypes.data, 8)
            else:
                _on_event(s, token & 0xFFFFFFFF, token >> 32, event_mask(s.events, i, EPOLL_EVENT_BYTES))


@kernel((SINK_TYPE,))
def run(s):
    """Serve on this thread until told to stop. Afterwards SinkWords.STATE is 2, or minus errno."""
    st, control = s.settings[0], s.control
    slack = _prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
    _prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    st.epoll = _epoll_create1(0)
    failed = -np.int64(errno()) if st.epoll < 0 else np.int64(0)
    if failed == 0:
        failed = watch(st.epoll, st.listener, np.int64(LISTENER_TOKEN), s.scratch)
    if failed == 0:
        failed = watch(st.epoll, st.wake_fd, np.int64(WAKE_TOKEN), s.scratch)
    if failed == 0:
        store_release(control, SinkWords.STATE, np.int64(1))
        _loop(s)
        for slot in range(st.used_slots):
            if s.peers[slot].state != CLOSED:
                _hang_up(s, slot, True)
    _close(st.epoll)
    _prctl(PR_SET_TIMERSLACK, np.uint64(max(slack, 1)), 0, 0, 0)
    store_release(control, SinkWords.STATE, failed if failed else np.int64(2))
