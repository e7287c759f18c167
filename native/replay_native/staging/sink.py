"""The sink: an HTTP/1.1 server in one kernel. It responds at wire speed, records arrivals, and fails on command.

`replay.staging.sink` owns its memory and its thread, and documents the options of a request. This module has the
sockets, timers, events and the loop. `sink_request` reads requests, `sink_response` writes responses.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.clock import now_ns
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
    IPPROTO_TCP,
    PR_GET_TIMERSLACK,
    PR_SET_TIMERSLACK,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    errno,
)
from replay_native.ground.shared import (
    load_acquire,
    peek_i64,
    poke_u32,
    store_release,
)
from replay_native.lane import tls
from replay_native.lane.io import event_mask, watch

from .sink_memory import (
    ANSWERING,
    CLOSED,
    EVENTS_AT_ONCE,
    FAR_NS,
    IN_HEAD,
    MS_NS,
    NONE,
    QUEUED,
    READING,
    SECURING,
    SINK_TYPE,
    O,
    SinkWords,
)
from .sink_request import receive
from .sink_response import (
    hang_up,
    on_turn,
    send_more,
    stall,
)

_accept4, _setsockopt, _close, _read = libc.accept4, libc.setsockopt, libc.close, libc.read
_epoll_create1, _epoll_wait, _epoll_pwait2 = libc.epoll_create1, libc.epoll_wait, libc.epoll_pwait2
_prctl = libc.prctl

HEARTBEAT_NS = 100_000_000
AWAKE_NS = 60_000
"""The sink wakes up this much before a server is done. This is about the time that waking up takes."""
ACCEPT_AGAIN_NS = 10_000_000
LISTENER_TOKEN, WAKE_TOKEN = -1, -2


@kernel()
def _accept_one(s, fd):
    """Give an accepted socket a slot, or close it if there is none."""
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
        hang_up(s, slot, True)


@kernel()
def _secure(s, slot):
    """Continue the TLS handshake. After its end, read the data that arrived with its last message."""
    p = s.peers[slot]
    done = tls.handshake(p.ssl)
    if done == 1:
        p.state = READING
        receive(s, slot, True)
    elif done not in (-EAGAIN, -EINTR):
        hang_up(s, slot, False)


@kernel()
def _accept(s):
    """Accept all pending connections. If that fails (usually for want of a descriptor), try again a little later."""
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
    """Handle one socket event.

    A connection whose timer is set sends only when the timer expires. If the client has closed its end, a response
    that must wait is not sent, and the connection is closed.
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
        send_more(s, slot)
    if p.state == READING and (goes_on or left or mask & EPOLLIN):
        receive(s, slot, goes_on or left)
    if p.state in (ANSWERING, QUEUED) and left:
        hang_up(s, slot, False)


@kernel()
def _on_timers(s, now):
    """Handle the timers that are due, and find the next one."""
    st, timers = s.settings[0], s.timers
    for slot in range(st.used_slots):
        if timers[slot] > now:
            continue
        timers[slot] = FAR_NS
        if s.peers[slot].state == READING:
            hang_up(s, slot, False)
            continue
        if s.peers[slot].state == QUEUED:
            on_turn(s, slot, now)
        else:
            send_more(s, slot)
        if s.peers[slot].state == READING:
            receive(s, slot, True)
    next_ns = np.int64(FAR_NS)
    for slot in range(st.used_slots):
        next_ns = min(next_ns, timers[slot])
    st.next_timer_ns = next_ns


@kernel(inlined=True)
def _sleep_ns(s, now):
    """Return how long to sleep: until the next timer, heartbeat, retry of accept, or stall. With `spin`, return 0."""
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
    """Wait for events, at most this long, and return their number."""
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
    """Serve until STOP, or until the run time ends."""
    st, control = s.settings[0], s.control
    events = s.events.ctypes.data
    while load_acquire(control, SinkWords.STOP) == 0:
        now = stall(s, now_ns(s.scratch))
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
    """Serve on this thread until STOP, or until the run time ends. Then SinkWords.STATE is 2, or minus errno."""
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
                hang_up(s, slot, True)
    _close(st.epoll)
    _prctl(PR_SET_TIMERSLACK, np.uint64(max(slack, 1)), 0, 0, 0)
    store_release(control, SinkWords.STATE, failed if failed else np.int64(2))
