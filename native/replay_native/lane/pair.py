"""Two lanes on one thread: each due request is sent to two targets, one right after the other.

Theory of operation
-------------------

A pair compares two builds under the same noise. Both lanes have the same schedule, but each has its own memory:
connections, clients, histograms, accounts. `run_pair` takes their turns in one loop. So whatever stops the thread
stops both, and a request and its twin are sent within microseconds of each other.

The lane that sends second is late by one send call, and the lane that reads second finds its response later by one
read. So the order alternates: request k is sent first by the first lane if k is even. Until the next request is taken
up, the same lane also comes first in handling events and opening connections.

Each lane has its own epoll. While both sleep, the thread waits on a third one that contains the two.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground import libc
from replay_native.ground.clock import now_ns, thread_cpu_ns
from replay_native.ground.jit import kernel
from replay_native.ground.libc import (
    EPOLL_CTL_ADD,
    EPOLL_DATA_OFFSET,
    EPOLLIN,
    PR_GET_TIMERSLACK,
    PR_SET_TIMERSLACK,
    errno,
)
from replay_native.ground.shared import poke_i64, poke_u32, store_release
from replay_native.ledger.lane_metrics import C, Control, State

from .connections import LANE_TYPE
from .loop import (
    FAR_NS,
    TAKEN_AT_ONCE,
    begin_lane,
    end_lane,
    end_turn,
    handle_event,
    is_finished,
    note_events,
    obey,
    sleep_after,
    take_due,
    turn,
    wait,
)

_epoll_create1, _epoll_ctl, _epoll_wait, _epoll_pwait2 = (
    libc.epoll_create1,
    libc.epoll_ctl,
    libc.epoll_wait,
    libc.epoll_pwait2,
)
_close, _prctl = libc.close, libc.prctl


@kernel()
def _take_of(lane):
    """Take up one request if one is due, and return how many were taken up."""
    return np.int64(0) if lane.state[0].draining else np.int64(take_due(lane, 1))


@kernel(inlined=True)
def _is_early(lane, other):
    """Return whether the next request of `lane`, and so its twin, is not due yet.

    The caller has found that no request of `lane` is due. The next request of `other` is its twin if both lanes have
    taken up equally many.
    """
    mine, theirs = lane.state[0], other.state[0]
    return mine.taken == theirs.taken and mine.next_due_ns < FAR_NS


@kernel()
def take_pair(one, two):
    """Take up at most one due request of each lane, in alternating order.

    Return 1 if `one` took up a request, plus 2 if `two` did.
    """
    if one.state[0].taken & 1:
        second = _take_of(two)
        if not second and _is_early(two, one):
            return np.int64(0)
        return _take_of(one) | second << 1
    first = _take_of(one)
    if not first and _is_early(one, two):
        return np.int64(0)
    return first | _take_of(two) << 1


@kernel(inlined=True)
def _is_any_due(one, two):
    """Return whether either lane has a request that is due."""
    next_ns = min(one.state[0].next_due_ns, two.state[0].next_due_ns)
    return next_ns < FAR_NS and now_ns(one.scratch) >= next_ns


@kernel()
def _handle(lane, n, one, two):
    """Handle n events of a lane. Between them, take up due requests in both lanes."""
    for i in range(n):
        handle_event(lane, i)
        if _is_any_due(one, two):
            take_pair(one, two)


@kernel(inlined=True)
def _sleep(epoll, one, sleep_ns):
    """Wait until either lane has events, but at most `sleep_ns`."""
    st, scratch, events = one.state[0], one.scratch, one.events.ctypes.data
    if st.has_pwait2:
        scratch[0] = sleep_ns // 1_000_000_000
        scratch[1] = sleep_ns % 1_000_000_000
        _epoll_pwait2(epoll, events, 2, scratch.ctypes.data, 0)
    else:
        _epoll_wait(epoll, events, 2, sleep_ns // 1_000_000)


@kernel()
def turn_pair(one, two, epoll):
    """Take one turn of both lanes. Returns 0 when one of them has ended."""
    if not obey(one) or not obey(two):
        return 0
    taken_one = taken_two = 0
    for _ in range(TAKEN_AT_ONCE):
        taken = take_pair(one, two)
        taken_one += taken & 1
        taken_two += taken >> 1
        if not taken:
            break
    if is_finished(one) or is_finished(two):
        return 0
    asleep = now_ns(one.scratch)
    sleep = min(sleep_after(one, taken_one, asleep), sleep_after(two, taken_two, asleep))
    if sleep > 0:
        _sleep(epoll, one, sleep)
    n_one, n_two = wait(one, np.int64(0)), wait(two, np.int64(0))
    polled = now_ns(one.scratch)
    note_events(one, asleep, sleep, polled, n_one)
    note_events(two, asleep, sleep, polled, n_two)
    idle = not (n_one or n_two or taken_one or taken_two)
    if one.state[0].taken & 1:
        _handle(one, n_one, one, two)
        _handle(two, n_two, one, two)
        end_turn(one, taken_one, idle)
        end_turn(two, taken_two, idle)
    else:
        _handle(two, n_two, one, two)
        _handle(one, n_one, one, two)
        end_turn(two, taken_two, idle)
        end_turn(one, taken_one, idle)
    return 1


@kernel(inlined=True)
def _join(epoll, lane):
    """Add a lane's epoll to the thread's, level-triggered, because a lane may leave events behind; 0 or minus errno."""
    base = lane.scratch.ctypes.data
    poke_u32(base, np.uint32(EPOLLIN))
    poke_i64(base + np.uint64(EPOLL_DATA_OFFSET), np.int64(0))
    done = _epoll_ctl(epoll, EPOLL_CTL_ADD, lane.state[0].epoll, base)
    return np.int64(0) if done == 0 else -np.int64(errno())


@kernel()
def _end(lane):
    """Free the memory and sockets of a lane that has ended, and publish its state."""
    lane.metrics.counters[C.cpu_last_ns] = thread_cpu_ns(lane.scratch)
    end_lane(lane)
    store_release(lane.metrics.control, Control.STATE, State.ENDED)


@kernel()
def _finish(one, two):
    """Let the other lane continue alone when one lane has ended, until both have ended."""
    goes_on = turn(two)
    if not goes_on:
        _end(two)
    while turn(one):
        pass
    _end(one)
    if goes_on:
        while turn(two):
            pass
        _end(two)


@kernel()
def _fail(one, two, error):
    """Record in both lanes that they could not begin."""
    store_release(one.metrics.control, Control.STATE, error)
    store_release(two.metrics.control, Control.STATE, error)


@kernel((LANE_TYPE, LANE_TYPE))
def run_pair(one, two):
    """Run two lanes to their ends, on this thread. Afterwards Control.STATE of both is ENDED, or minus errno."""
    epoll = np.int64(_epoll_create1(0))
    if epoll < 0:
        _fail(one, two, -np.int64(errno()))
        return
    failed = begin_lane(one)
    if failed == 0:
        failed = begin_lane(two)
        if failed == 0:
            failed = min(_join(epoll, one), _join(epoll, two))
            if failed:
                end_lane(two)
        if failed:
            end_lane(one)
    if failed:
        _fail(one, two, failed)
    else:
        slack = _prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)
        _prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
        store_release(one.metrics.control, Control.STATE, State.RUNNING)
        store_release(two.metrics.control, Control.STATE, State.RUNNING)
        while turn_pair(one, two, epoll):
            pass
        _finish(one, two)
        _prctl(PR_SET_TIMERSLACK, np.uint64(max(slack, 1)), 0, 0, 0)
    _close(np.int32(epoll))
