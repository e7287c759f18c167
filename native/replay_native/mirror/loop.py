"""The loop of the mirror receiver: it accepts, reads, answers, and puts each request into the ring.

A request is received directly into the ring, because copying a body costs about as much as checking it. If a read
returned anything but exactly one request, its bytes are moved to the connection's buffer, and copied from there.

Only usual requests are handled here. A connection with anything else is handed over to the control plane for good,
together with the bytes read from it. Examples are a chunked body, a body larger than the buffer, a malformed head, a
request that stays incomplete, and a response that the socket does not accept at once. New connections for which there
is no slot, and all connections that are open at the end, are handed over, too.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.clock import now_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import (
    EAGAIN,
    EINTR,
    EPOLL_CTL_DEL,
    EPOLL_DATA_OFFSET,
    EPOLL_EVENT_BYTES,
    EPOLLERR,
    EPOLLHUP,
    EPOLLRDHUP,
    IPPROTO_TCP,
    MSG_NOSIGNAL,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    errno,
)
from replay_native.ground.shared import load_acquire, peek_i64, poke_i64, poke_u32, store_release
from replay_native.lane.io import event_mask, watch

from .memory import (
    CLOSE,
    EVENTS_AT_ONCE,
    FREE,
    FRESH_MAX,
    GIVEN,
    KEEP_1_0,
    KEEP_1_1,
    MIRROR_TYPE,
    NONE,
    OPEN,
    RING_TYPE,
    SCAN_NS,
    MirrorWords,
)
from .request import CR, INCOMPLETE, LF, H, read_head
from .ring import RECORD_BYTES, publish, put, reserve

_accept4, _setsockopt, _close, _read, _write = (
    libc.accept4,
    libc.setsockopt,
    libc.close,
    libc.read,
    libc.write,
)
_recv, _send, _memcpy = libc.recv, libc.send, libc.memcpy
_epoll_create1, _epoll_wait, _epoll_ctl = libc.epoll_create1, libc.epoll_wait, libc.epoll_ctl

MS_NS = 1_000_000
ACCEPT_AGAIN_NS = 10 * MS_NS
LISTENER_TOKEN, WAKE_TOKEN = -1, -2
AF_INET6 = 10
ADDRESS_WORDS = 4
"""Words of scratch that accept4 needs for an address. The address's length is in the word after them."""


@kernel(inlined=True)
def _add(control, word, count):
    store_release(control, word, control[word] + count)


@kernel()
def _hand_over(m, slot, owed, answer):
    """Hand a connection over to the control plane, and wake up the control plane."""
    c, st, control = m.connections[slot], m.settings[0], m.control
    _epoll_ctl(st.epoll, EPOLL_CTL_DEL, c.fd, m.scratch.ctypes.data)
    row = m.given[control[MirrorWords.GIVEN] % m.given.shape[0]]
    row.fd, row.slot, row.in_end, row.owed, row.answer = c.fd, slot, c.in_end, owed, answer
    row.family, row.address, row.more_address = c.family, c.address, c.more_address
    row.at_ns, row.read_ns = c.at_ns, c.read_ns
    c.state = GIVEN
    _add(control, MirrorWords.OPEN, np.int64(-1))
    _add(control, MirrorWords.GIVEN, np.int64(1))
    m.scratch[0] = 1
    _write(st.given_fd, m.scratch.ctypes.data, 8)


@kernel()
def _free(m, slot):
    """Make a slot available again."""
    c, st = m.connections[slot], m.settings[0]
    c.state, c.in_end, c.fd = FREE, 0, NONE
    c.generation += 1
    c.next = st.free_first
    st.free_first = slot


@kernel()
def _end(m, slot):
    """Close a connection, and free its slot."""
    _close(m.connections[slot].fd)
    _add(m.control, MirrorWords.OPEN, np.int64(-1))
    _free(m, slot)


@kernel()
def _free_taken(m):
    """Free the slots of the connections that the control plane has taken over."""
    st, took = m.settings[0], load_acquire(m.control, MirrorWords.TOOK)
    while st.freed < took:
        slot = m.given[st.freed % m.given.shape[0]].slot
        if slot != NONE:
            _free(m, slot)
        st.freed += 1


@kernel()
def _answer(m, slot, answer):
    """Send a response, close the connection after CLOSE, and return whether this loop keeps the connection."""
    c, at = m.connections[slot], m.answer_ends[answer]
    size = m.answer_ends[answer + 1] - at
    sent = np.int64(_send(c.fd, m.answers.ctypes.data + np.uint64(at), np.uint64(size), MSG_NOSIGNAL))
    if sent < 0:
        if errno() not in (EAGAIN, EINTR):
            _end(m, slot)
            return False
        sent = np.int64(0)
    if sent < size:
        _hand_over(m, slot, size - sent, answer)
        return False
    if answer == CLOSE:
        _end(m, slot)
        return False
    return True


@kernel()
def _keep(m, ring, data, begin, end, slot):
    """Count a complete request, and copy it into the ring, or count it as LOST if the ring does not accept it."""
    _add(m.control, MirrorWords.REQUESTS, np.int64(1))
    if not put(ring, data, begin, end, m.head, m.connections[slot]):
        _add(m.control, MirrorWords.LOST, np.int64(1))


@kernel(inlined=True)
def _drop_read(c, data, count):
    """Remove the first `count` bytes of a buffer.

    Requests from the same read would have the same time. Each gets a later one than the request before it, so that
    a trace, which is sorted by time, has them in the order of the connection.
    """
    if count > 0:
        for i in range(count, c.in_end):
            data[i - count] = data[i]
        c.in_end -= count
        c.at_ns = max(c.read_ns, c.at_ns + 1)


@kernel(inlined=True)
def _answer_to(head):
    """Return the number of the response to a request with this head."""
    return np.int64(CLOSE if not head[H.keeps] else KEEP_1_1 if head[H.minor] else KEEP_1_0)


@kernel()
def _consume(m, ring, slot):
    """Answer the complete requests in the buffer, and return whether this loop keeps the connection."""
    c, data, head = m.connections[slot], m.inputs[slot], m.head
    at = np.int64(0)
    while at < c.in_end:
        if at + 1 < c.in_end and data[at] == CR and data[at + 1] == LF:
            at += 2
            continue
        length = read_head(data, at, c.in_end, head)
        if length == INCOMPLETE and c.in_end - at < data.shape[0]:
            break
        end = at + head[H.head_end] + length
        if length < 0 or end - at > data.shape[0]:
            _drop_read(c, data, at)
            _hand_over(m, slot, np.int64(0), np.int64(0))
            return False
        if end > c.in_end:
            break
        if at > 0:
            c.at_ns = max(c.read_ns, c.at_ns)
        _keep(m, ring, data, at, end, slot)
        answer = _answer_to(head)
        if end == c.in_end or answer == CLOSE:
            c.in_end = 0
        else:
            _drop_read(c, data, end)
        at = np.int64(0)
        if not _answer(m, slot, answer):
            return False
    _drop_read(c, data, at)
    return True


@kernel()
def _consume_in_ring(m, ring, slot, place, got):
    """Answer the request that was received at an offset of the ring, and return whether this loop keeps the connection.

    Anything but exactly one request is moved to the buffer of the connection, and processed there.
    """
    c, data, begin = m.connections[slot], m.inputs[slot], place + RECORD_BYTES
    length = read_head(ring.data, begin, begin + got, m.head)
    if length < 0 or m.head[H.head_end] + length != got:
        _memcpy(data.ctypes.data, ring.data.ctypes.data + np.uint64(begin), np.uint64(got))
        c.in_end = got
        return _consume(m, ring, slot)
    _add(m.control, MirrorWords.REQUESTS, np.int64(1))
    publish(ring, place, got, m.head, c)
    return _answer(m, slot, _answer_to(m.head))


@kernel(inlined=True)
def _receive_once(m, ring, slot, room):
    """Receive up to `room` bytes, in the ring if a request begins; return their number, and where they are.

    They are at an offset of the ring, or in the connection's buffer (NONE).
    """
    c, data = m.connections[slot], m.inputs[slot]
    place = reserve(ring, room) if c.in_end == 0 else np.int64(NONE)
    address = data.ctypes.data + np.uint64(c.in_end)
    if place != NONE:
        address = ring.data.ctypes.data + np.uint64(place + RECORD_BYTES)
    return np.int64(_recv(c.fd, address, np.uint64(room), 0)), place


@kernel()
def _receive(m, ring, slot, to_the_end):
    """Read and answer until the socket is empty.

    A short read means that the socket is empty, unless `to_the_end` says that the peer has closed its end.
    """
    c, data, st = m.connections[slot], m.inputs[slot], m.settings[0]
    while True:
        room = np.int64(data.shape[0] - c.in_end)
        got, place = _receive_once(m, ring, slot, room)
        if got > 0:
            c.read_ns = now_ns(m.scratch) + st.wall_offset_ns
            if c.in_end == 0:
                c.at_ns = c.read_ns
            if place == NONE:
                c.in_end += got
                keeps = _consume(m, ring, slot)
            else:
                keeps = _consume_in_ring(m, ring, slot, place, got)
            if not keeps or (got < room and not to_the_end):
                return
        elif got < 0 and errno() == EAGAIN:
            return
        elif got == 0 or errno() != EINTR:
            if c.in_end > 0:
                _hand_over(m, slot, np.int64(0), np.int64(0))
            else:
                _end(m, slot)
            return


@kernel()
def _read_address(m, row):
    """Copy the peer's address from the scratch memory."""
    base = m.scratch.ctypes.data
    row.family = peek_i64(base) & 0xFFFF
    if row.family == AF_INET6:
        row.address, row.more_address = peek_i64(base + np.uint64(8)), peek_i64(base + np.uint64(16))
    else:
        row.address, row.more_address = (peek_i64(base) >> 32) & 0xFFFFFFFF, 0


@kernel()
def _hand_over_fresh(m, fd):
    """Hand a new connection over to the control plane, because no slot is free."""
    control = m.control
    row = m.given[control[MirrorWords.GIVEN] % m.given.shape[0]]
    row.fd, row.slot, row.in_end, row.owed, row.answer, row.at_ns, row.read_ns = fd, NONE, 0, 0, 0, 0, 0
    _read_address(m, row)
    _add(control, MirrorWords.GIVEN, np.int64(1))
    m.scratch[0] = 1
    _write(m.settings[0].given_fd, m.scratch.ctypes.data, 8)


@kernel()
def _accept_one(m, ring, fd):
    """Give an accepted socket a slot, or hand it over to the control plane if no slot is free.

    The peer's address is in the scratch memory.
    """
    st = m.settings[0]
    slot = st.free_first
    if slot == NONE and st.used_slots == m.connections.shape[0]:
        _hand_over_fresh(m, fd)
        return
    if slot != NONE:
        st.free_first = m.connections[slot].next
    else:
        slot = st.used_slots
        st.used_slots += 1
    c = m.connections[slot]
    _read_address(m, c)
    c.fd, c.state, c.in_end = fd, OPEN, 0
    c.read_ns = now_ns(m.scratch) + st.wall_offset_ns
    _add(m.control, MirrorWords.OPEN, np.int64(1))
    poke_u32(m.scratch.ctypes.data, np.uint32(1))
    _setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, m.scratch.ctypes.data, 4)
    if watch(st.epoll, fd, (c.generation & 0x7FFFFFFF) << 32 | slot, m.scratch) < 0:
        _end(m, slot)


@kernel(inlined=True)
def _may_accept(m):
    """Return whether the limits allow one more connection."""
    control, st = m.control, m.settings[0]
    has_slot = st.free_first != NONE or st.used_slots < m.connections.shape[0]
    pending = control[MirrorWords.GIVEN] - load_acquire(control, MirrorWords.TOOK)
    connections = control[MirrorWords.OPEN] + pending + load_acquire(control, MirrorWords.FOREIGN)
    return connections < st.connections_max and (has_slot or pending < FRESH_MAX)


@kernel()
def _accept(m, ring):
    """Accept all pending connections, within the limit. Those beyond it wait in the kernel's queue."""
    st, base = m.settings[0], m.scratch.ctypes.data
    st.accept_again = 0
    while True:
        if not _may_accept(m):
            if not st.waits:
                _add(m.control, MirrorWords.WAITS, np.int64(1))
            st.waits, st.accept_again = 1, 1
            return
        st.waits = 0
        poke_i64(base + np.uint64(8 * ADDRESS_WORDS), np.int64(8 * ADDRESS_WORDS))
        fd = _accept4(st.listener, base, base + np.uint64(8 * ADDRESS_WORDS), SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd >= 0:
            _add(m.control, MirrorWords.ACCEPTED, np.int64(1))
            _accept_one(m, ring, fd)
        elif errno() == EAGAIN:
            return
        elif errno() != EINTR:
            _add(m.control, MirrorWords.FAILED, np.int64(1))
            st.accept_again = 1
            return


@kernel()
def _scan(m, now):
    """Close idle connections, and hand over those whose request stays incomplete.

    The control plane applies time limits to the connections that it gets.
    """
    st = m.settings[0]
    _free_taken(m)
    wall_ns = now + st.wall_offset_ns
    for slot in range(st.used_slots):
        c = m.connections[slot]
        if c.state != OPEN:
            continue
        if c.in_end == 0 and wall_ns - c.read_ns > st.idle_ns:
            _end(m, slot)
        elif c.in_end > 0 and wall_ns - c.at_ns > st.partial_ns:
            _hand_over(m, slot, np.int64(0), np.int64(0))
    st.next_scan_ns = now + SCAN_NS


@kernel(inlined=True)
def _on_event(m, ring, token, mask):
    """Handle one event from epoll."""
    if token == LISTENER_TOKEN:
        _accept(m, ring)
    elif token == WAKE_TOKEN:
        _read(m.settings[0].wake_fd, m.scratch.ctypes.data, 8)
    else:
        slot = token & 0xFFFFFFFF
        c = m.connections[slot]
        if c.state == OPEN and c.generation & 0x7FFFFFFF == token >> 32:
            _receive(m, ring, slot, mask & (EPOLLERR | EPOLLHUP | EPOLLRDHUP) != 0)


@kernel()
def _serve(m, ring):
    """Accept connections and serve them until STOP."""
    st, events = m.settings[0], m.events.ctypes.data
    now = now_ns(m.scratch)
    while load_acquire(m.control, MirrorWords.STOP) == 0:
        if st.accept_again:
            _free_taken(m)
            _accept(m, ring)
        if now >= st.next_scan_ns:
            _scan(m, now)
        sleep_ns = ACCEPT_AGAIN_NS if st.accept_again else SCAN_NS
        found = np.int64(_epoll_wait(st.epoll, events, EVENTS_AT_ONCE, sleep_ns // MS_NS))
        now = now_ns(m.scratch)
        for i in range(found):
            token = peek_i64(events + np.uint64(i * EPOLL_EVENT_BYTES + EPOLL_DATA_OFFSET))
            _on_event(m, ring, token, event_mask(m.events, i, EPOLL_EVENT_BYTES))


@kernel((MIRROR_TYPE, RING_TYPE))
def run(m, ring):
    """Receive on this thread until STOP, then hand over every connection.

    Afterwards MirrorWords.STATE is 2, or minus errno.
    """
    st, control = m.settings[0], m.control
    st.epoll = _epoll_create1(0)
    failed = -np.int64(errno()) if st.epoll < 0 else np.int64(0)
    if failed == 0:
        failed = watch(st.epoll, st.listener, np.int64(LISTENER_TOKEN), m.scratch)
    if failed == 0:
        failed = watch(st.epoll, st.wake_fd, np.int64(WAKE_TOKEN), m.scratch)
    if failed == 0:
        store_release(control, MirrorWords.STATE, np.int64(1))
        _serve(m, ring)
        _free_taken(m)
        _accept(m, ring)
        for slot in range(st.used_slots):
            if m.connections[slot].state == OPEN:
                _hand_over(m, slot, np.int64(0), np.int64(0))
    _close(st.epoll)
    store_release(control, MirrorWords.STATE, failed if failed else np.int64(2))
