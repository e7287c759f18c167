"""Retries: whether a request may be tried again, how long it backs off, and how it ends after its last try.

Theory of operation
-------------------

A try that failed moves its request from the connection to a free row of the wait queue. The row then backs off: it is
in a binary heap, ordered by the time of its next try, and in no list. At that time it joins the wait queue like any
other request, but at the front of its client's queue. In the accounts all tries are one request. It stays in flight
from its first attempt on, and only its last try is recorded as its end.

The back-off doubles from try to try, less a random part ("jitter": M. Brooker, "Exponential Backoff And Jitter", AWS
Architecture Blog, 2015), so that the clients of a failed target do not all return at the same moment. A budget limits
retries to a share of the requests, because retries multiply the load of a target that is already overloaded. It is a
token bucket: each request earns a part of a token, and each retry costs one (B. Beyer et al., "Site Reliability
Engineering", 2016, chapter 21; docs/retries.md).
"""

from __future__ import annotations

import numpy as np

from replay_native.feed.ring import IDEMPOTENT, PATCHES_MASK, PATCHES_SHIFT
from replay_native.ground.jit import kernel
from replay_native.ground.linked import NONE, first_of
from replay_native.ground.randoms import random_of, unit_of
from replay_native.ledger.lane_metrics import MALFORMED, C
from replay_native.ledger.record import (
    Ending,
    record_attempt,
    record_done,
    record_malformed,
    record_net,
    request_of,
)

from .clients import join_client_queue, join_wait_order, key_of, set_ready

RETRY_ON = 1_024
"""Length of `retry_on`, which is indexed by the status of a complete response, or by FAILURE + outcome."""

FAILURE = 600
PPM = 1_000_000
"""One in parts per million. A retry costs this much of the budget."""

_SALT = np.uint64(0x5E77AB1E5E77AB1E)


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def backoff_ns(seq, retry, base_ns, most_ns, jitter_ppm, seed):
    """Return how long a request backs off before its retry number `retry`, which counts from 1.

    This is base * 2^(retry - 1), at most `most_ns`, less a random part of up to `jitter_ppm`. The same seed gives the
    same back-off.
    """
    wait_ns = base_ns
    for _ in range(1, retry):
        wait_ns = min(2 * wait_ns, most_ns)
    wait_ns = min(wait_ns, most_ns)
    unit = unit_of(random_of(np.uint64(seed), np.int64(seq * 64 + retry), _SALT))
    return np.int64(wait_ns * (1.0 - unit * jitter_ppm / PPM))


@kernel(inlined=True)
def is_retried(table, outcome, status):
    """Return whether a try with this outcome and status is tried again."""
    return table[FAILURE + outcome if outcome > 3 else status] != 0


@kernel(inlined=True)
def push_backoff(lane, row):
    """Add a row to the heap, whose first row is the next to be tried again."""
    st, heap, rows = lane.state[0], lane.backoff, lane.wait_queue
    at = st.backing_off
    st.backing_off += 1
    while at > 0:
        above = (at - 1) // 2
        if rows[heap[above]].retry_ns <= rows[row].retry_ns:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = np.int32(row)


@kernel(inlined=True)
def pop_backoff(lane):
    """Remove and return the first row of the heap. The heap must not be empty."""
    st, heap, rows = lane.state[0], lane.backoff, lane.wait_queue
    first = np.int64(heap[0])
    st.backing_off -= 1
    last, count = heap[st.backing_off], st.backing_off
    at = np.int64(0)
    while 2 * at + 1 < count:
        below = 2 * at + 1
        if below + 1 < count and rows[heap[below + 1]].retry_ns < rows[heap[below]].retry_ns:
            below += 1
        if rows[last].retry_ns <= rows[heap[below]].retry_ns:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = last
    return first


@kernel(inlined=True)
def count_attempt(lane, client):
    """Count the first attempt of a request. It is in flight until it ends, however often it is tried."""
    st = lane.state[0]
    record_attempt(lane.metrics)
    if lane.settings.by_client:
        lane.clients[key_of(lane, client)].in_flight += 1
    if lane.settings.retry_attempts > 1:
        st.retry_tokens_ppm = min(
            st.retry_tokens_ppm + lane.settings.retry_budget_ppm, lane.settings.retry_burst_ppm
        )


@kernel(inlined=True)
def may_retry(lane, tries, flags, outcome, status, sent_ns):
    """Decide whether a request is tried again. If so, take one retry out of the budget."""
    st, counters = lane.state[0], lane.metrics.counters
    if tries >= lane.settings.retry_attempts or st.draining or not is_retried(lane.retry_on, outcome, status):
        return False
    if not (flags & IDEMPOTENT or lane.settings.retry_all_methods):
        return False
    # A request gets its client's values when it is first sent. This one was never sent, so that it has none.
    if sent_ns < 0 and flags & PATCHES_MASK << PATCHES_SHIFT:
        return False
    if first_of(lane.free_rows, 0) == NONE or (
        lane.settings.retry_budget_ppm >= 0 and st.retry_tokens_ppm < PPM
    ):
        counters[C.retries_denied] += 1
        return False
    if lane.settings.retry_budget_ppm >= 0:
        st.retry_tokens_ppm -= PPM
    return True


@kernel(inlined=True)
def back_off(lane, row, tries, outcome, status, now):
    """Schedule a retry for a row that is in no list. The request stays in flight in the accounts."""
    w = lane.wait_queue[row]
    w.tries, w.outcome, w.status = tries, outcome, status
    w.retry_ns = now + backoff_ns(
        w.seq,
        tries,
        lane.settings.retry_backoff_ns,
        lane.settings.retry_backoff_max_ns,
        lane.settings.retry_jitter_ppm,
        lane.settings.seed,
    )
    lane.metrics.counters[C.retried] += tries == 1
    push_backoff(lane, row)


@kernel()
def try_again(lane, now):
    """Move rows whose back-off has ended to the wait queue, in front of other requests of their client."""
    st = lane.state[0]
    while st.backing_off and lane.wait_queue[lane.backoff[0]].retry_ns <= now:
        row = pop_backoff(lane)
        lane.wait_queue[row].since_ns = now
        join_wait_order(lane, row)
        join_client_queue(lane, row)
        set_ready(lane, row, now)


@kernel()
def end_row(lane, row, now):
    """End a request of the wait queue that was tried before. Its last try is recorded as its end."""
    w = lane.wait_queue[row]
    own_ns = w.own_ns if w.sent_ns >= 0 else w.own_ns + lane.metrics.counters[C.lost_ns]
    record_net(
        lane.metrics, w.flags, w.due_ns, w.sent_ns, now, own_ns, np.int64(0), lane.settings.closed_loop
    )
    if w.outcome == MALFORMED:
        record_malformed(lane.metrics, w.flags, np.int64(w.route), w.reason, lane.beginnings[0], np.int64(0))
    ending = Ending(w.outcome, w.status, w.received_bytes, w.sent_ns, np.int64(-1), now)
    record_done(lane.metrics, request_of(w), ending, lane.settings.closed_loop)
    if lane.settings.by_client:
        lane.clients[w.key].in_flight -= 1
