"""Requests that are tried again: whether they may be, how long they back off, the heap of those that do, how they end.

Back-off with jitter is that of M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015); the budget that
of B. Beyer et al., "Site Reliability Engineering" (2016), chapter 21, as a bucket of tokens: docs/retries.md.
"""

from __future__ import annotations

import numpy as np

from replay_native.feed.ring import IDEMPOTENT, PATCHES_MASK, PATCHES_SHIFT
from replay_native.ground.jit import kernel
from replay_native.ground.randoms import random_of, unit_of
from replay_native.ledger.lane_metrics import MALFORMED, C
from replay_native.ledger.record import (
    record_attempt,
    record_done,
    record_malformed,
    record_net,
)

from .clients import (
    NONE,
    join_line,
    key_of,
    push_age,
    set_ready,
)

RETRY_ON = 1_024
"""Length of the table of what is tried again: by status of whole answers, by FAILURE + outcome of others."""

FAILURE = 600
PPM = 1_000_000
"""One retry in tokens of the budget; shares are parts per million."""

_SALT = np.uint64(0x5E77AB1E5E77AB1E)


@kernel("int64(int64, int64, int64, int64, int64, int64)")
def backoff_ns(seq, retry, base_ns, most_ns, jitter_ppm, seed):
    """How long retry number `retry` (from 1) of a request backs off: base * 2^(retry - 1), `most_ns` at most, of which
    a random part of up to `jitter_ppm` is taken away. The same seed gives the same again.
    """
    wait_ns = base_ns
    for _ in range(1, retry):
        wait_ns = min(2 * wait_ns, most_ns)
    wait_ns = min(wait_ns, most_ns)
    unit = unit_of(random_of(np.uint64(seed), np.int64(seq * 64 + retry), _SALT))
    return np.int64(wait_ns * (1.0 - unit * jitter_ppm / PPM))


@kernel(inlined=True)
def is_retried(table, outcome, status):
    """Whether what a try came to is tried again."""
    return table[FAILURE + outcome if outcome > 3 else status] != 0


@kernel(inlined=True)
def push_backoff(lane, row):
    """Into the heap, by `retry_ns`: its first is the next to be tried again."""
    st, heap, room = lane.state[0], lane.backoff, lane.room
    at = st.backing_off
    st.backing_off += 1
    while at > 0:
        above = (at - 1) // 2
        if room[heap[above]].retry_ns <= room[row].retry_ns:
            break
        heap[at] = heap[above]
        at = above
    heap[at] = np.int32(row)


@kernel(inlined=True)
def pop_backoff(lane):
    """The first of the heap, which is not empty."""
    st, heap, room = lane.state[0], lane.backoff, lane.room
    first = np.int64(heap[0])
    st.backing_off -= 1
    last, count = heap[st.backing_off], st.backing_off
    at = np.int64(0)
    while 2 * at + 1 < count:
        below = 2 * at + 1
        if below + 1 < count and room[heap[below + 1]].retry_ns < room[heap[below]].retry_ns:
            below += 1
        if room[last].retry_ns <= room[heap[below]].retry_ns:
            break
        heap[at] = heap[below]
        at = below
    heap[at] = last
    return first


@kernel(inlined=True)
def count_attempt(lane, client):
    """A request is attempted for the first time: it is in flight until it has ended, however often it is tried."""
    st = lane.state[0]
    record_attempt(lane.bank)
    if st.by_client:
        lane.clients[key_of(lane, client)].in_flight += 1
    if st.retry_attempts > 1:
        st.retry_tokens_ppm = min(st.retry_tokens_ppm + st.retry_budget_ppm, st.retry_burst_ppm)


@kernel(inlined=True)
def may_retry(lane, tries, flags, outcome, status, sent_ns):
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
def back_off(lane, row, tries, outcome, status, now):
    """A row that is in no list waits for its next try. It is still in flight."""
    st, w = lane.state[0], lane.room[row]
    w.tries, w.outcome, w.status = tries, outcome, status
    w.retry_ns = now + backoff_ns(
        w.seq, tries, st.retry_backoff_ns, st.retry_backoff_max_ns, st.retry_jitter_ppm, st.seed
    )
    lane.bank.counters[C.retried] += tries == 1
    push_backoff(lane, row)


@kernel()
def try_again(lane, now):
    """Those that have backed off wait for a connection, before others of their client."""
    st = lane.state[0]
    while st.backing_off and lane.room[lane.backoff[0]].retry_ns <= now:
        row = pop_backoff(lane)
        lane.room[row].since_ns = now
        push_age(lane, row)
        join_line(lane, row)
        set_ready(lane, row, now)


@kernel()
def end_row(lane, row, now):
    """A request that was tried before is tried no more: it ends as its last try did."""
    st, w = lane.state[0], lane.room[row]
    own_ns = w.own_ns if w.sent_ns >= 0 else w.own_ns + lane.bank.counters[C.lost_ns]
    record_net(lane.bank, w.flags, w.due_ns, w.sent_ns, now, own_ns, np.int64(0), st.closed_loop)
    if w.outcome == MALFORMED:
        record_malformed(lane.bank, w.flags, np.int64(w.route), w.reason, lane.beginnings[0], np.int64(0))
    record_done(
        lane.bank, w.outcome, w.flags, np.int64(w.route), w.seq, np.int64(w.client), w.due_ns, w.taken_ns, w.sent_ns,
        np.int64(-1), now, w.status, w.received_bytes, st.closed_loop,
    )  # fmt: skip
    if st.by_client:
        lane.clients[w.key].in_flight -= 1
