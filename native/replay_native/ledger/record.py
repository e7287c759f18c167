"""What becomes of a request, written into a lane's bank: counters, histograms, samples. Both engines record by these.

The order of calls for one request: `record_taken`, then `record_unsent`, or `record_attempt`, `record_sent` (if it
came to a send) and `record_done`, before which `record_malformed` notes a malformed answer. Requests that go out together
have `record_sent_together` and `record_done_together`.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, uint8

from replay_native.feed.ring import STATUS_SHIFT, WARM_UP, entry_type
from replay_native.ground.jit import kernel

from .catalog import ACCOUNT_COUNTERS, FIRST_FAILED, FIRST_OUTCOME, UNSENT_OF_TARGET, R
from .gaps import OWN_PART
from .hdr import (
    HALF_2,
    HALF_3,
    clamp,
    index_of,
    value_at,
)
from .lane_metrics import (
    BANK_TYPE,
    REFUSED,
    SAMPLES_KEPT,
    UNSENT,
    C,
    T,
)
from .statuses import count_status

RESPONSE, SERVICE = R.response, R.service


@kernel(inlined=True)
def _count(bank, which, value_ns):
    """Into one of the histograms over all routes."""
    _count_many(bank, which, value_ns, np.int64(1))


@kernel(inlined=True)
def _count_many(bank, which, value_ns, times):
    """The same value so many times."""
    bank.totals[which, index_of(clamp(value_ns), HALF_3)] += np.uint64(times)


@kernel(inlined=True)
def _slot(bank, route, outcome):
    """The arena slot of a route and outcome, made at first use; that of `other` once the arena is full."""
    slot = np.int64(bank.slots[route, outcome])
    if slot >= 0:
        return slot
    slot = bank.counters[C.slots_used]
    if slot < bank.arena.shape[0]:
        bank.counters[C.slots_used] = slot + 1
    else:
        bank.counters[C.routes_merged] += 1
        slot = outcome
    bank.slots[route, outcome] = np.int32(slot)
    return slot


@kernel(inlined=True)
def _count_route(bank, route, outcome, which, value_ns, times):
    """Into the histogram of a route and outcome, so many times."""
    bank.arena[_slot(bank, route, outcome), which, index_of(clamp(value_ns), HALF_2)] += np.uint32(times)


@kernel(inlined=True)
def _write_sample(
    row, outcome, route, seq, client, due_ns, taken_ns, sent_ns, first_byte_ns, done_ns, status, size
):
    row.seq, row.due_ns, row.taken_ns, row.sent_ns = seq, due_ns, taken_ns, sent_ns
    row.first_byte_ns, row.done_ns, row.bytes = first_byte_ns, done_ns, size
    row.route, row.client = np.uint32(route), np.uint32(client)
    row.status, row.outcome, row.rule = np.int32(status), np.int32(outcome), np.int64(-1)


@kernel(inlined=True)
def _felt_ns(row):
    """What a sample is ranked by: its response; in a closed loop, where nothing is due, its service."""
    return row.done_ns - row.due_ns


@kernel(inlined=True)
def _settle_least(rows, count):
    """Bring the least of the kept samples to the front, where the next candidate finds it."""
    least = 0
    for i in range(1, count):
        if _felt_ns(rows[i]) < _felt_ns(rows[least]):
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
def _sample(
    bank, outcome, route, seq, client, due_ns, taken_ns, sent_ns, first_byte_ns, done_ns, status, size
):
    """Keep the first failed and the slowest of each route (the least of them at the front)."""
    if outcome >= FIRST_FAILED and bank.failed_counts[route] < SAMPLES_KEPT:
        _write_sample(
            bank.failed[route, bank.failed_counts[route]], outcome, route, seq, client, due_ns, taken_ns, sent_ns,
            first_byte_ns, done_ns, status, size,
        )  # fmt: skip
        bank.failed_counts[route] += 1
    count = bank.slowest_counts[route]
    rows = bank.slowest[route]
    if count == SAMPLES_KEPT and done_ns - due_ns <= _felt_ns(rows[0]):
        return
    at = 0 if count == SAMPLES_KEPT else count
    _write_sample(
        rows[at], outcome, route, seq, client, due_ns, taken_ns, sent_ns, first_byte_ns, done_ns, status, size
    )
    count = min(count + 1, SAMPLES_KEPT)
    bank.slowest_counts[route] = count
    _settle_least(rows, count)


@kernel((BANK_TYPE, int64, int64, boolean))
def record_taken(bank, flags, lateness_ns, closed_loop):
    """A due request was taken up: it is planned. `lateness_ns` = taken - due."""
    bank.counters[C.planned] += 1
    if flags & WARM_UP:
        bank.counters[C.warm_up] += 1
    elif not closed_loop:
        _count(bank, T.lateness_all, lateness_ns)


@kernel((BANK_TYPE,))
def record_attempt(bank):
    """A connect or send began for it: it counts as sent, and is in flight."""
    bank.counters[C.in_flight] += 1
    bank.counters[C.sent] += 1


@kernel((BANK_TYPE, int64, int64, int64, boolean, boolean))
def record_sent(bank, flags, wait_ns, order_ns, fresh, closed_loop):
    """Its first byte is about to be sent. `wait_ns` = sent - taken, of which `order_ns` were for the request of its client
    before it; the rest was for a connection. `fresh`: on one never used before.
    """
    if flags & WARM_UP or closed_loop:
        return
    _count(bank, T.wait_all, wait_ns)
    _count(bank, T.wait_connect if fresh else T.wait_queue, wait_ns - order_ns)
    if order_ns > 0:
        _count(bank, T.wait_order, order_ns)


@kernel((BANK_TYPE, int64, int64))
def record_handshake(bank, resumed, took_ns):
    """A TLS handshake came to its good end, `took_ns` after the connection was there."""
    if resumed:
        bank.counters[C.handshakes_resumed] += 1
        _count(bank, T.handshake_resumed, took_ns)
    else:
        bank.counters[C.handshakes_full] += 1
        _count(bank, T.handshake_full, took_ns)


@kernel(inlined=True)
def _count_end(bank, outcome, times):
    """The accounts of so many requests in flight that ended."""
    counters = bank.counters
    counters[FIRST_OUTCOME + outcome] += times
    counters[ACCOUNT_COUNTERS[outcome]] += times
    counters[C.in_flight] -= times


@kernel(inlined=True)
def _count_response(bank, route, outcome, response_ns, times):
    """The same response so many times."""
    _count_many(bank, T.response_all, response_ns, times)
    if outcome < REFUSED:
        _count_many(bank, T.response_ok, response_ns, times)
    _count_route(bank, route, outcome, RESPONSE, response_ns, times)


@kernel((BANK_TYPE, *[int64] * 12, boolean))
def record_done(
    bank, outcome, flags, route, seq, client, due_ns, taken_ns, sent_ns, first_byte_ns, done_ns, status, size, closed_loop
):  # fmt: skip
    """It ended. Stamps that never came are -1; `size` is the bytes received; `status` is 0 where there was none.

    `flags` are the entry's, with the recorded status among them.
    """
    _count_end(bank, outcome, np.int64(1))
    bank.counters[C.last_done_ns] = done_ns
    if flags & WARM_UP:
        return
    bank.route_counts[route, outcome] += 1
    if outcome < REFUSED and status > 0:
        count_status(bank.status_counts, route, flags >> STATUS_SHIFT, status)
    if closed_loop:
        due_ns = sent_ns if sent_ns >= 0 else taken_ns
    else:
        _count_response(bank, route, outcome, done_ns - due_ns, np.int64(1))
    if sent_ns >= 0:
        _count(bank, T.service_all, done_ns - sent_ns)
        _count_route(bank, route, outcome, SERVICE, done_ns - sent_ns, np.int64(1))
    if first_byte_ns >= 0:
        _count(bank, T.first_byte_all, first_byte_ns - sent_ns)
    _sample(
        bank, outcome, route, seq, client, due_ns, taken_ns, sent_ns, first_byte_ns, done_ns, status, size
    )


@kernel((BANK_TYPE, int64, int64, int64, uint8[::1], int64))
def record_malformed(bank, flags, route, reason, beginning, count):
    """Note why an answer was malformed and its first `count` bytes, for the sample that `record_done` keeps next."""
    at = bank.failed_counts[route]
    if flags & WARM_UP or at >= SAMPLES_KEPT:
        return
    row = bank.malformed[route, at]
    row[0], row[1] = np.uint8(reason), np.uint8(count)
    for i in range(count):
        row[2 + i] = beginning[i]


@kernel((BANK_TYPE, *[int64] * 6, boolean))
def record_net(bank, flags, due_ns, sent_ns, done_ns, own_ns, unread_ns, closed_loop):
    """The end of a request without the generator's own part of it: `own_ns` until it was sent, and `unread_ns` at most
    that its answer lay unread.
    """
    late_ns = min(unread_ns, done_ns - sent_ns) if sent_ns >= 0 else np.int64(0)
    if late_ns > 0:
        bank.counters[C.reads_late] += 1
        bank.counters[C.reads_late_ns] += late_ns
    if flags & WARM_UP:
        return
    if not closed_loop:
        _count(bank, T.response_arrived, done_ns - due_ns - late_ns)
        _count(bank, T.response_net, max(done_ns - due_ns - own_ns - late_ns, np.int64(0)))
    if sent_ns >= 0:
        _count(bank, T.service_net, done_ns - sent_ns - late_ns)


@kernel((BANK_TYPE, *[int64] * 5))
def record_net_unsent(bank, reason, flags, own_ns, waited_ns, max_wait_ns):
    """As `record_net` for a request that is not sent. `own_ns` is the generator's own part of the time since it was due,
    `waited_ns`: above a quarter, the target is not to blame.
    """
    if reason in UNSENT_OF_TARGET and OWN_PART * own_ns > waited_ns:
        bank.counters[C.unsent_own] += 1
    if flags & WARM_UP == 0:
        _count(bank, T.response_arrived, max_wait_ns)
        _count(bank, T.response_net, max(max_wait_ns - own_ns, np.int64(0)))


@kernel(inlined=True)
def _count_waits(bank, wait_ns, times):
    """The same wait for a connection used before so many times."""
    _count_many(bank, T.wait_all, wait_ns, times)
    _count_many(bank, T.wait_queue, wait_ns, times)


@kernel((BANK_TYPE, entry_type[::1], int64, boolean))
def record_sent_together(bank, rows, sent_ns, closed_loop):
    """As `record_attempt` and `record_sent` for each of `rows`, on a connection used before."""
    bank.counters[C.in_flight] += rows.shape[0]
    bank.counters[C.sent] += rows.shape[0]
    if closed_loop:
        return
    taken_ns, alike = np.int64(0), np.int64(0)
    for row in range(rows.shape[0]):
        if rows[row].flags & WARM_UP:
            continue
        if rows[row].taken_ns != taken_ns and alike:
            _count_waits(bank, sent_ns - taken_ns, alike)
            alike = np.int64(0)
        taken_ns = rows[row].taken_ns
        alike += 1
    if alike:
        _count_waits(bank, sent_ns - taken_ns, alike)


@kernel((BANK_TYPE, int64, entry_type[::1], int64, int64, int64, boolean))
def record_done_together(bank, outcome, rows, sent_ns, done_ns, status, closed_loop):
    """As `record_done` for each of `rows` (at least one, all of one route) that were sent together and ended together."""
    _count_end(bank, outcome, np.int64(rows.shape[0]))
    bank.counters[C.last_done_ns] = done_ns
    route, measured = np.int64(rows[0].route), np.int64(0)
    felt, alike = np.int64(0), np.int64(0)
    for row in range(rows.shape[0]):
        entry = rows[row]
        if entry.flags & WARM_UP:
            continue
        measured += 1
        if outcome < REFUSED and status > 0:
            count_status(bank.status_counts, route, entry.flags >> STATUS_SHIFT, status)
        due_ns = sent_ns if closed_loop else entry.due_ns
        index = index_of(clamp(done_ns - due_ns), HALF_3)
        if index != felt and alike and not closed_loop:
            _count_response(bank, route, outcome, value_at(felt, HALF_3), alike)
            alike = np.int64(0)
        felt = index
        alike += 1
        _sample(
            bank, outcome, route, entry.seq, np.int64(entry.client), due_ns, entry.taken_ns, sent_ns, np.int64(-1),
            done_ns, status, np.int64(0),
        )  # fmt: skip
    if alike and not closed_loop:
        _count_response(bank, route, outcome, value_at(felt, HALF_3), alike)
    if measured:
        bank.route_counts[route, outcome] += measured
        _count_many(bank, T.service_all, done_ns - sent_ns, measured)
        _count_route(bank, route, outcome, SERVICE, done_ns - sent_ns, measured)


@kernel((BANK_TYPE, *[int64] * 8))
def record_unsent(bank, reason, flags, route, seq, client, due_ns, taken_ns, max_wait_ns):
    """It will not be sent. `reason` is C.unsent_...; it enters `response` as `max_wait_ns`, the least it was felt as."""
    bank.counters[reason] += 1
    bank.counters[FIRST_OUTCOME + UNSENT] += 1
    if flags & WARM_UP:
        return
    bank.route_counts[route, UNSENT] += 1
    _count(bank, T.response_all, max_wait_ns)
    _count_route(bank, route, UNSENT, RESPONSE, max_wait_ns, np.int64(1))
    done_ns = due_ns + max_wait_ns
    _sample(
        bank,
        np.int64(UNSENT),
        route,
        seq,
        client,
        due_ns,
        taken_ns,
        np.int64(-1),
        np.int64(-1),
        done_ns,
        reason,
        np.int64(0),
    )


@kernel((BANK_TYPE, *[int64] * 14, boolean))
def record_looked(
    bank, checks, failed, cut, outcome, flags, route, seq, client, due_ns, taken_ns, sent_ns, first_byte_ns, done_ns, status,
    closed_loop,
):  # fmt: skip
    """What `sessions.look` found in a whole answer: keep the first mismatches of each route."""
    bank.counters[C.cookies_cut] += cut
    if flags & WARM_UP or checks == 0:
        return
    bank.checked[route, 0] += 1
    if failed < 0:
        return
    bank.checked[route, 1] += 1
    if bank.mismatched_counts[route] < SAMPLES_KEPT:
        row = bank.mismatched[route, bank.mismatched_counts[route]]
        _write_sample(
            row, outcome, route, seq, client, sent_ns if closed_loop else due_ns, taken_ns, sent_ns, first_byte_ns, done_ns,
            status, np.int64(0),
        )  # fmt: skip
        row.rule = failed
        bank.mismatched_counts[route] += 1
