"""The sink's requests: kernels that parse them as they arrive, read their options, and record their arrival."""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import EAGAIN, EINTR
from replay_native.ground.shared import store_release
from replay_native.lane.io import is_drained, receive_bytes

from .sink_memory import (
    CLOSED,
    FAR_NS,
    IN_BODY,
    IN_CHUNK,
    IN_CHUNK_END,
    IN_CHUNK_LINE,
    IN_CHUNK_SIZE,
    IN_HEAD,
    IN_TRAILER,
    IN_TRAILER_LINE,
    NO_OPTION,
    OPTION_BYTES,
    OPTION_NAMES,
    READING,
    WHOLE,
    SinkWords,
    text_of,
)
from .sink_response import hang_up, take_up

_memchr = libc.memchr

CR, LF, SPACE, SLASH, COLON, DASH, EQUALS = 13, 10, 32, 47, 58, 45, 61

_CLOSE, _KEEP_ALIVE = text_of(b"close"), text_of(b"keep-alive")
_REPLAY, _LENGTH, _ENCODING, _CONNECTION = (
    text_of(b"x-replay:"),
    text_of(b"content-length:"),
    text_of(b"transfer-encoding:"),
    text_of(b"connection:"),
)
_HEAD = text_of(b"head ")
_PATH = text_of(b"/sink/")


@kernel()
def _starts(data, at, end, text):
    """Return whether `text` (given in lower case) is at this place, in upper or lower case."""
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
    """Return the number that the digits at this place form, or -1 if there are none."""
    number = np.int64(-1)
    while at < end and 48 <= data[at] <= 57 and number < FAR_NS // 16:
        number = max(number, np.int64(0)) * 10 + np.int64(data[at]) - 48
        at += 1
    return number


@kernel(inlined=True)
def _last_number(data, at, end):
    """Return the number after the last `-` of RUN-SEQ, or -1 if there is none."""
    while at < end and data[at] == SPACE:
        at += 1
    dash = at - 1
    for i in range(at, end):
        if data[i] == DASH:
            dash = i
    return _number(data, dash + 1, end)


@kernel()
def _read_options(data, at, end, options):
    """Read the options of a path after `/sink/`: `name` or `name=number`, separated by slashes."""
    while at < end and data[at] not in (SPACE, 63):
        last = at
        while last < end and data[last] not in (SPACE, SLASH, 63):
            last += 1
        for which in range(OPTION_NAMES.shape[0]):
            i = 0
            while i < OPTION_BYTES and at + i < last and OPTION_NAMES[which, i] == data[at + i]:
                i += 1
            if (i < OPTION_BYTES and OPTION_NAMES[which, i]) or (at + i < last and data[at + i] != EQUALS):
                continue
            options[which] = max(_number(data, at + i + 1, last), np.int64(0))
        at = last + 1 if last < end and data[last] == SLASH else last


@kernel(inlined=True)
def _read_request_line(s, slot, data, at, end):
    """Read a request's method, path and version, and the options of a path that begins with `/sink/`."""
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
    """Read a header line if it is X-Replay, Content-Length, Transfer-Encoding or Connection."""
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
    """Read a complete head, and set the phase that follows.

    The result is the offset after the head, or -1 if the head is not complete yet.
    """
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
    """Skip one byte of a chunked body that is not data."""
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
    """Skip the part of the request's body that has arrived, and return the offset after it."""
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
    """Record the arrival of a request. When the array is full, requests are only counted."""
    p = s.peers[slot]
    count = s.control[SinkWords.ARRIVALS]
    if count < s.stamps.size:
        stamp = s.stamps[count]
        stamp.seq, stamp.arrival_ns, stamp.connection = p.seq, p.recv_ns, p.number
    store_release(s.control, SinkWords.ARRIVALS, count + 1)


@kernel()
def _consume(s, slot):
    """Respond to the requests in the buffer, one after another, until one must wait or is incomplete.

    The connection is reset if an incomplete head fills the buffer.
    """
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
            take_up(s, slot)
    if p.state == CLOSED:
        return
    if at:
        for i in range(at, p.in_end):
            data[i - at] = data[i]
        p.in_end -= at
    if p.in_end == data.size and p.state == READING:
        hang_up(s, slot, True)


@kernel()
def receive(s, slot, to_the_end):
    """Read and respond until the socket is empty, or until a response must wait.

    A short read means that the socket is empty, unless `to_the_end` says that it may not be.
    """
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
            hang_up(s, slot, False)
