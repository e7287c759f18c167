"""Kernels that record requests in a lane's metrics: counters, histograms and samples. Both engines use them.

The calls for one request, in order: `record_taken`; then either `record_unsent`, or `record_attempt`, `record_sent`
(if sending began) and `record_done`. For HTTP, `record_net_unsent` precedes `record_unsent`, and these precede
`record_done`: `record_evaluation` if the response was evaluated, `record_net`, and `record_malformed` if it was malformed.
Requests that are sent together (Kafka's) have `record_sent_together` and `record_done_together`.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import boolean, int64, uint8

from replay_native.feed.ring import STATUS_SHIFT, WARM_UP, entry_type
from replay_native.ground.bundle import Int, numba_type, value
from replay_native.ground.jit import kernel

from .catalog import ACCOUNT_COUNTERS, FIRST_FAILED, FIRST_OUTCOME, UNSENT_OF_TARGET, R
from .gaps import OWN_PART
from .hdr import HALF_2, HALF_3, clamp, index_of, value_at
from .lane_metrics import METRICS_TYPE, REFUSED, SAMPLES_KEPT, UNSENT, C, T
from .statuses import count_status

RESPONSE, SERVICE = R.response, R.service


@value
class Request(NamedTuple):
    """A due request: the fields of its feed entry, and the stamp that the lane added."""

    flags: Annotated[Int, "int64", "the flags of the entry, with the recorded status"]
    route: Annotated[Int, "int64", "its route"]
    seq: Annotated[Int, "int64", "its number in the run"]
    client: Annotated[Int, "int64", "its recorded client"]
    due_ns: Annotated[Int, "int64", "when it was due"]
    taken_ns: Annotated[Int, "int64", "when the lane took it up; -1: never"]


@value
class Ending(NamedTuple):
    """How a request ended. Stamps that were never set are -1."""

    outcome: Annotated[Int, "int64", "index in OUTCOMES"]
    status: Annotated[Int, "int64", "of the response; 0 where there was none"]
    received_bytes: Annotated[Int, "int64", "of the response"]
    sent_ns: Annotated[Int, "int64", "just before its first send"]
    first_byte_ns: Annotated[Int, "int64", "when its first bytes had been read"]
    done_ns: Annotated[Int, "int64", "when its response was complete, or it failed"]


@value
class Evaluation(NamedTuple):
    """The result of `evaluate` for a response."""

    checks: Annotated[Int, "int64", "checks made"]
    failed: Annotated[Int, "int64", "the first check that failed, or -1"]
    cut: Annotated[Int, "int64", "cookies that did not fit into the jar"]


REQUEST_TYPE, ENDING_TYPE = numba_type(Request), numba_type(Ending)
EVALUATION_TYPE = numba_type(Evaluation)


@kernel(inlined=True)
def request_of(row):
    """Return the request of a feed entry, of a row of the wait queue, or of a connection. All have these fields."""
    return Request(
        np.int64(row.flags), np.int64(row.route), np.int64(row.seq), np.int64(row.client), np.int64(row.due_ns),
        np.int64(row.taken_ns),
    )  # fmt: skip


@kernel(inlined=True)
def _count(metrics, which, value_ns):
    """Count a value in one of the histograms over all routes."""
    _count_many(metrics, which, value_ns, np.int64(1))


@kernel(inlined=True)
def _count_many(metrics, which, value_ns, times):
    """Count the same value `times` times in one of the histograms over all routes."""
    metrics.totals[which, index_of(clamp(value_ns), HALF_3)] += np.uint64(times)


@kernel(inlined=True)
def _slot(metrics, route, outcome):
    """Return the arena slot of a route and outcome, which is allocated at first use.

    When the arena is full, the slot is that of `other`.
    """
    slot = np.int64(metrics.slots[route, outcome])
    if slot >= 0:
        return slot
    slot = metrics.counters[C.slots_used]
    if slot < metrics.arena.shape[0]:
        metrics.counters[C.slots_used] = slot + 1
    else:
        metrics.counters[C.routes_merged] += 1
        slot = outcome
    metrics.slots[route, outcome] = np.int32(slot)
    return slot


@kernel(inlined=True)
def _count_route(metrics, route, outcome, which, value_ns, times):
    """Count a value `times` times in the histogram of a route and outcome."""
    metrics.arena[_slot(metrics, route, outcome), which, index_of(clamp(value_ns), HALF_2)] += np.uint32(
        times
    )


@kernel(inlined=True)
def _write_sample(row, request, ending):
    row.seq, row.due_ns, row.taken_ns, row.sent_ns = (
        request.seq,
        request.due_ns,
        request.taken_ns,
        ending.sent_ns,
    )
    row.first_byte_ns, row.done_ns, row.bytes = ending.first_byte_ns, ending.done_ns, ending.received_bytes
    row.route, row.client = np.uint32(request.route), np.uint32(request.client)
    row.status, row.outcome, row.rule = np.int32(ending.status), np.int32(ending.outcome), np.int64(-1)


@kernel(inlined=True)
def _latency_ns(row):
    """Return the latency by which samples are ranked.

    It is the response time, or in a closed loop, which has no due times, the service time.
    """
    return row.done_ns - row.due_ns


@kernel(inlined=True)
def _settle_least(rows, count):
    """Move the sample with the lowest latency to the front, where the next candidate is compared with it."""
    least = 0
    for i in range(1, count):
        if _latency_ns(rows[i]) < _latency_ns(rows[least]):
            least = i
    if least:
        for_swap = (
            rows[0].seq, rows[0].due_ns, rows[0].taken_ns, rows[0].sent_ns, rows[0].first_byte_ns, rows[0].done_ns,
            rows[0].bytes, rows[0].route, rows[0].client, rows[0].status, rows[0].outcome,
        )  # fmt: skip
        a, b = rows[0], rows[least]
        a.seq, a.due_ns, a.taken_ns, a.sent_ns, a.first_byte_ns, a.done_ns = (
            b.seq, b.due_ns, b.taken_ns, b.sent_ns, b.first_byte_ns, b.done_ns,
        )  # fmt: skip
        a.bytes, a.route, a.client, a.status, a.outcome = b.bytes, b.route, b.client, b.status, b.outcome
        b.seq, b.due_ns, b.taken_ns, b.sent_ns, b.first_byte_ns, b.done_ns = for_swap[:6]
        b.bytes, b.route, b.client, b.status, b.outcome = for_swap[6:]


@kernel(inlined=True)
def _sample(metrics, request, ending):
    """Keep the first failed requests of each route, and the slowest ones, with the fastest of these at the front."""
    route = request.route
    if ending.outcome >= FIRST_FAILED and metrics.failed_counts[route] < SAMPLES_KEPT:
        _write_sample(metrics.failed[route, metrics.failed_counts[route]], request, ending)
        metrics.failed_counts[route] += 1
    count = metrics.slowest_counts[route]
    rows = metrics.slowest[route]
    if count == SAMPLES_KEPT and ending.done_ns - request.due_ns <= _latency_ns(rows[0]):
        return
    at = 0 if count == SAMPLES_KEPT else count
    _write_sample(rows[at], request, ending)
    count = min(count + 1, SAMPLES_KEPT)
    metrics.slowest_counts[route] = count
    _settle_least(rows, count)


@kernel(inlined=True)
def _due_again(request, due_ns):
    """Return the request with `due_ns` as its due time, which requests of a closed loop do not have."""
    return Request(request.flags, request.route, request.seq, request.client, due_ns, request.taken_ns)


@kernel((METRICS_TYPE, int64, int64, boolean))
def record_taken(metrics, flags, lateness_ns, closed_loop):
    """Count a due request as planned when it is dequeued, and record its lateness (taken - due)."""
    metrics.counters[C.planned] += 1
    if flags & WARM_UP:
        metrics.counters[C.warm_up] += 1
    elif not closed_loop:
        _count(metrics, T.lateness_all, lateness_ns)


@kernel((METRICS_TYPE,))
def record_attempt(metrics):
    """Count a request as sent and in flight, at its first attempt to connect or to send."""
    metrics.counters[C.in_flight] += 1
    metrics.counters[C.sent] += 1


@kernel((METRICS_TYPE, int64, int64, int64, boolean, boolean))
def record_sent(metrics, flags, wait_ns, order_ns, fresh, closed_loop):
    """Record how long a request waited, just before its first byte is sent.

    `wait_ns` = sent - taken. `order_ns` of it were spent waiting for the client's earlier request, the rest for a
    connection. `fresh` means that the connection has had no request before.
    """
    if flags & WARM_UP or closed_loop:
        return
    _count(metrics, T.wait_all, wait_ns)
    _count(metrics, T.wait_connect if fresh else T.wait_queue, wait_ns - order_ns)
    if order_ns > 0:
        _count(metrics, T.wait_order, order_ns)


@kernel((METRICS_TYPE, int64, int64))
def record_handshake(metrics, resumed, took_ns):
    """Record a TLS handshake that succeeded `took_ns` after the TCP connection was established."""
    if resumed:
        metrics.counters[C.handshakes_resumed] += 1
        _count(metrics, T.handshake_resumed, took_ns)
    else:
        metrics.counters[C.handshakes_full] += 1
        _count(metrics, T.handshake_full, took_ns)


@kernel(inlined=True)
def _count_end(metrics, outcome, times):
    """Move requests that ended from `in_flight` to the account of their outcome."""
    counters = metrics.counters
    counters[FIRST_OUTCOME + outcome] += times
    counters[ACCOUNT_COUNTERS[outcome]] += times
    counters[C.in_flight] -= times


@kernel(inlined=True)
def _count_response(metrics, route, outcome, response_ns, times):
    """Count the same response time `times` times."""
    _count_many(metrics, T.response_all, response_ns, times)
    if outcome < REFUSED:
        _count_many(metrics, T.response_ok, response_ns, times)
    _count_route(metrics, route, outcome, RESPONSE, response_ns, times)


@kernel((METRICS_TYPE, REQUEST_TYPE, ENDING_TYPE, boolean))
def record_done(metrics, request, ending, closed_loop):
    """Record the end of a request that was in flight."""
    outcome, sent_ns, done_ns = ending.outcome, ending.sent_ns, ending.done_ns
    _count_end(metrics, outcome, np.int64(1))
    metrics.counters[C.last_done_ns] = done_ns
    if request.flags & WARM_UP:
        return
    route, due_ns = request.route, request.due_ns
    metrics.route_counts[route, outcome] += 1
    if outcome < REFUSED and ending.status > 0:
        count_status(metrics.status_counts, route, request.flags >> STATUS_SHIFT, ending.status)
    if closed_loop:
        due_ns = sent_ns if sent_ns >= 0 else request.taken_ns
    else:
        _count_response(metrics, route, outcome, done_ns - due_ns, np.int64(1))
    if sent_ns >= 0:
        _count(metrics, T.service_all, done_ns - sent_ns)
        _count_route(metrics, route, outcome, SERVICE, done_ns - sent_ns, np.int64(1))
    if ending.first_byte_ns >= 0:
        _count(metrics, T.first_byte_all, ending.first_byte_ns - sent_ns)
    _sample(metrics, _due_again(request, due_ns), ending)


@kernel((METRICS_TYPE, int64, int64, int64, uint8[::1], int64))
def record_malformed(metrics, flags, route, reason, beginning, count):
    """Write why a response was malformed, and its first `count` bytes, to the sample that `record_done` keeps next."""
    at = metrics.failed_counts[route]
    if flags & WARM_UP or at >= SAMPLES_KEPT:
        return
    row = metrics.malformed[route, at]
    row[0], row[1] = np.uint8(reason), np.uint8(count)
    for i in range(count):
        row[2 + i] = beginning[i]


@kernel((METRICS_TYPE, *[int64] * 6, boolean))
def record_net(metrics, flags, due_ns, sent_ns, done_ns, own_ns, unread_ns, closed_loop):
    """Record the end of a request without the generator's own delays.

    These are `own_ns` before it was sent, and at most `unread_ns` in which its response was unread.
    """
    late_ns = min(unread_ns, done_ns - sent_ns) if sent_ns >= 0 else np.int64(0)
    if late_ns > 0:
        metrics.counters[C.reads_late] += 1
        metrics.counters[C.reads_late_ns] += late_ns
    if flags & WARM_UP:
        return
    if not closed_loop:
        _count(metrics, T.response_arrived, done_ns - due_ns - late_ns)
        _count(metrics, T.response_net, max(done_ns - due_ns - own_ns - late_ns, np.int64(0)))
    if sent_ns >= 0:
        _count(metrics, T.service_net, done_ns - sent_ns - late_ns)


@kernel((METRICS_TYPE, *[int64] * 6))
def record_net_unsent(metrics, reason, route, flags, own_ns, waited_ns, max_wait_ns):
    """Record a request that is not sent, without the generator's own delays, as `record_net` does.

    `own_ns` is the generator's part of `waited_ns`, the time since the request was due. If it is more than
    1/OWN_PART of that, the target is not to blame.
    """
    if reason in UNSENT_OF_TARGET and OWN_PART * own_ns > waited_ns:
        metrics.counters[C.unsent_own] += 1
        metrics.route_own[route] += flags & WARM_UP == 0
    if flags & WARM_UP == 0:
        _count(metrics, T.response_arrived, max_wait_ns)
        _count(metrics, T.response_net, max(max_wait_ns - own_ns, np.int64(0)))


@kernel(inlined=True)
def _count_waits(metrics, wait_ns, times):
    """Count the same wait for a reused connection `times` times."""
    _count_many(metrics, T.wait_all, wait_ns, times)
    _count_many(metrics, T.wait_queue, wait_ns, times)


@kernel((METRICS_TYPE, entry_type[::1], int64, boolean))
def record_sent_together(metrics, rows, sent_ns, closed_loop):
    """Record rows that are about to be sent together, as `record_attempt` and `record_sent` do for one request.

    The connection must be a reused one.
    """
    metrics.counters[C.in_flight] += rows.shape[0]
    metrics.counters[C.sent] += rows.shape[0]
    if closed_loop:
        return
    # Requests dequeued at the same instant have the same wait, so that one call counts them all.
    taken_ns, alike = np.int64(0), np.int64(0)
    for row in range(rows.shape[0]):
        if rows[row].flags & WARM_UP:
            continue
        if rows[row].taken_ns != taken_ns and alike:
            _count_waits(metrics, sent_ns - taken_ns, alike)
            alike = np.int64(0)
        taken_ns = rows[row].taken_ns
        alike += 1
    if alike:
        _count_waits(metrics, sent_ns - taken_ns, alike)


@kernel((METRICS_TYPE, int64, entry_type[::1], int64, int64, int64, boolean))
def record_done_together(metrics, outcome, rows, sent_ns, done_ns, status, closed_loop):
    """Record rows that were sent together and ended together, as `record_done` does for one request.

    There is at least one row, and all are of one route.
    """
    _count_end(metrics, outcome, np.int64(rows.shape[0]))
    metrics.counters[C.last_done_ns] = done_ns
    route, measured = np.int64(rows[0].route), np.int64(0)
    ending = Ending(outcome, status, np.int64(0), sent_ns, np.int64(-1), done_ns)
    # Successive response times in the same bucket of the histogram are counted by one call.
    latency, alike = np.int64(0), np.int64(0)
    for row in range(rows.shape[0]):
        entry = rows[row]
        if entry.flags & WARM_UP:
            continue
        measured += 1
        if outcome < REFUSED and status > 0:
            count_status(metrics.status_counts, route, entry.flags >> STATUS_SHIFT, status)
        due_ns = sent_ns if closed_loop else entry.due_ns
        index = index_of(clamp(done_ns - due_ns), HALF_3)
        if index != latency and alike and not closed_loop:
            _count_response(metrics, route, outcome, value_at(latency, HALF_3), alike)
            alike = np.int64(0)
        latency = index
        alike += 1
        _sample(metrics, _due_again(request_of(entry), due_ns), ending)
    if alike and not closed_loop:
        _count_response(metrics, route, outcome, value_at(latency, HALF_3), alike)
    if measured:
        metrics.route_counts[route, outcome] += measured
        _count_many(metrics, T.service_all, done_ns - sent_ns, measured)
        _count_route(metrics, route, outcome, SERVICE, done_ns - sent_ns, measured)


@kernel((METRICS_TYPE, int64, REQUEST_TYPE, int64))
def record_unsent(metrics, reason, request, max_wait_ns):
    """Record a request that will not be sent. `reason` is C.unsent_...

    Its response time counts as `max_wait_ns`, whatever the reason, because it never got a response.
    """
    metrics.counters[reason] += 1
    metrics.counters[FIRST_OUTCOME + UNSENT] += 1
    if request.flags & WARM_UP:
        return
    route, never = request.route, np.int64(-1)
    metrics.route_counts[route, UNSENT] += 1
    metrics.route_own[route] += reason not in UNSENT_OF_TARGET
    _count(metrics, T.response_all, max_wait_ns)
    _count_route(metrics, route, UNSENT, RESPONSE, max_wait_ns, np.int64(1))
    done_ns = request.due_ns + max_wait_ns
    _sample(metrics, request, Ending(np.int64(UNSENT), reason, np.int64(0), never, never, done_ns))


@kernel((METRICS_TYPE, EVALUATION_TYPE, REQUEST_TYPE, ENDING_TYPE, boolean))
def record_evaluation(metrics, found, request, ending, closed_loop):
    """Record the result of `evaluate` for a complete response.

    The first mismatches of each route are kept as samples.
    """
    metrics.counters[C.cookies_cut] += found.cut
    if request.flags & WARM_UP or found.checks == 0:
        return
    route = request.route
    metrics.checked[route, 0] += 1
    if found.failed < 0:
        return
    metrics.checked[route, 1] += 1
    if metrics.mismatched_counts[route] < SAMPLES_KEPT:
        row = metrics.mismatched[route, metrics.mismatched_counts[route]]
        due_ns = ending.sent_ns if closed_loop else request.due_ns
        _write_sample(row, _due_again(request, due_ns), ending)
        row.rule = found.failed
        metrics.mismatched_counts[route] += 1
