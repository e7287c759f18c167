"""Trace rows to due requests: which rows are sent, when each is due, and what the plan says of them.

Both kernels walk columns of a trace in time order. `table` holds raw addresses of the requests dictionary, a
row a batch of 1,048,576 requests: the columns named below. `rules` says by method what becomes of a row.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i32, peek_u8, peek_u32
from replay_native.ledger.hdr import HALF_2, record

OFFSETS, DATA, METHOD, ROUTE, HOST, HEADERS_ID, BODY_ID = 0, 1, 2, 3, 4, 5, 6
TABLE_COLUMNS = 7
BATCH_BITS = 20
BATCH_MASK = (1 << BATCH_BITS) - 1

SEND, NEEDS_BODY, NOT_ALLOWED, NOT_SENDABLE = 0, 1, 2, 3
"""Rules of a method. NEEDS_BODY is sent, and counted where its route has no body."""

BINS = 64
"""Parts of a window in which a peak is looked for."""

BIN, EDGE_NS, SUM, PEAK, PEAK_EDGE_NS, BUSY, BUSY_PEAK = 0, 1, 2, 3, 4, 5, 6
WINDOW_WORDS = 7

CLOSED_LOOP_PERIOD_NS = -1.0
"""In place of the period of a constant rate: every row is due at once."""


@kernel(inlined=True)
def due_of(at_ns, number, origin_ns, speed, period_ns):
    """When a row is due, ns from the start: by its recorded time (period 0), by its number, or at once."""
    if period_ns > 0.0:
        return np.int64(number * period_ns)
    if period_ns < 0.0:
        return np.int64(0)
    if speed == 1.0:
        return at_ns - origin_ns
    return np.int64(np.rint((at_ns - origin_ns) / speed))


@kernel(inlined=True)
def _advance(window, rows, busy, bin_ns, due_ns):
    """Move a window on until `due_ns` falls in its last bin."""
    steps = (due_ns - window[EDGE_NS]) // bin_ns + 1
    if steps >= BINS:
        rows[:] = 0
        busy[:] = 0
        window[SUM] = 0
        window[BUSY] = 0
        window[BIN] = (window[BIN] + steps) & (BINS - 1)
    else:
        for _ in range(steps):
            window[BIN] = (window[BIN] + 1) & (BINS - 1)
            window[SUM] -= rows[window[BIN]]
            window[BUSY] -= busy[window[BIN]]
            rows[window[BIN]] = 0
            busy[window[BIN]] = 0
    window[EDGE_NS] += steps * bin_ns


@kernel(inlined=True)
def _count_in(window, rows, busy, bin_ns, due_ns, took_ns):
    """Count one row in a sliding window of BINS * bin_ns, and keep its peaks."""
    if due_ns >= window[EDGE_NS]:
        _advance(window, rows, busy, bin_ns, due_ns)
    place = window[BIN]
    rows[place] += 1
    busy[place] += took_ns
    window[SUM] += 1
    window[BUSY] += took_ns
    if window[SUM] > window[PEAK]:
        window[PEAK] = window[SUM]
        window[PEAK_EDGE_NS] = window[EDGE_NS]
    window[BUSY_PEAK] = max(window[BUSY_PEAK], window[BUSY])


@kernel(
    "int64(int64[::1], uint32[::1], int16[::1], int64[::1], int64[:,::1], uint8[::1], int64, int64, int64,"
    " float64, float64, int64, int64[::1], int64[::1], int64[:,::1], uint32[:,::1], int64[::1], int64[::1],"
    " int64[:,::1], int64[:,::1], int64[:,::1])"
)
def survey(
    at_ns, request, status, took_ns, table, rules, first, rows_max, origin_ns, speed,
    period_ns, default_took_ns, sent, skipped, routes, tooks, hosts, bodiless, windows,
    rows, busy,
):  # fmt: skip
    """Count rows by what becomes of them, until `first` has grown to `rows_max`; how many were selected so
    far.

    sent and skipped int64[256] by method; routes int64[n, 6] by status class (0: unknown); tooks uint32[n,
    COUNTERS_2]; hosts int64[n + 1], the last one for none; bodiless int64[n] rows that need a body and have
    none; windows int64[2, WINDOW_WORDS] of 1 s and 60 s, with their bins rows and busy int64[2, BINS].
    """
    selected = first
    bin_1_ns, bin_60_ns = np.int64(1_000_000_000 // BINS), np.int64(60_000_000_000 // BINS)
    many_hosts = hosts.shape[0] > 1
    for index in range(at_ns.shape[0]):
        if selected >= rows_max:
            break
        number = np.int64(request[index])
        batch, place = number >> BATCH_BITS, number & BATCH_MASK
        method = peek_u8(np.uint64(table[batch, METHOD] + place))
        rule = rules[method]
        if rule >= NOT_ALLOWED:
            skipped[method] += 1
            continue
        sent[method] += 1
        route = peek_u32(np.uint64(table[batch, ROUTE] + 4 * place))
        code = np.int64(status[index])
        routes[route, code // 100 if 100 <= code < 600 else 0] += 1
        took = took_ns[index]
        if took >= 0:
            record(tooks[route], HALF_2, took)
        else:
            took = default_took_ns
        if rule == NEEDS_BODY and peek_i32(np.uint64(table[batch, BODY_ID] + 4 * place)) < 0:
            bodiless[route] += 1
        host = np.int64(-1)
        if many_hosts:
            host = np.int64(peek_i32(np.uint64(table[batch, HOST] + 4 * place)))
        hosts[host if host >= 0 else hosts.shape[0] - 1] += 1
        due_ns = due_of(at_ns[index], selected, origin_ns, speed, period_ns)
        _count_in(windows[0], rows[0], busy[0], bin_1_ns, due_ns, took)
        _count_in(windows[1], rows[1], busy[1], bin_60_ns, due_ns, took)
        selected += 1
    return selected


@kernel(
    "int64(int64[::1], uint32[::1], uint32[::1], int16[::1], int64, int64[:,::1], uint8[::1], int64, int64, int64,"
    " float64, float64, int64[::1], uint32[::1], uint32[::1], uint32[::1], uint8[::1], int16[::1], int64[::1],"
    " int64[::1])"
)
def select(
    at_ns, request, client, status, begin, table, rules, first, rows_max, origin_ns, speed,
    period_ns, out_due_ns, out_request, out_client, out_route, out_method, out_status, out_at_ns, consumed,
):  # fmt: skip
    """Copy the rows that are sent, from row `begin` on, until `rows_max` are copied; how many were.

    `first` is the number of the first in the run; consumed[0] is the row to go on with.
    """
    written = np.int64(0)
    index = begin
    while index < at_ns.shape[0] and written < rows_max:
        number = np.int64(request[index])
        batch, place = number >> BATCH_BITS, number & BATCH_MASK
        method = peek_u8(np.uint64(table[batch, METHOD] + place))
        if rules[method] < NOT_ALLOWED:
            out_due_ns[written] = due_of(at_ns[index], first + written, origin_ns, speed, period_ns)
            out_request[written] = request[index]
            out_client[written] = client[index]
            out_route[written] = peek_u32(np.uint64(table[batch, ROUTE] + 4 * place))
            out_method[written] = method
            out_status[written] = status[index]
            out_at_ns[written] = at_ns[index]
            written += 1
        index += 1
    consumed[0] = index
    return written


NONE = -1
FIRST, LAST, OPEN, OPEN_PEAK, OPENED, SECOND, IN_SECOND, SECOND_PEAK = 0, 1, 2, 3, 4, 5, 6, 7
CLIENT_WORDS = 8
"""Of `count_clients`: the ends of its list, connections open now and at most, all that were opened; the second that is
counted, connections opened in it, and the most in one."""

OLDER, NEWER = 0, 1


@kernel(inlined=True)
def _unlink(links, words, client):
    """Take a client out of the list."""
    older, newer = links[client, OLDER], links[client, NEWER]
    if older == NONE:
        words[FIRST] = newer
    else:
        links[older, NEWER] = newer
    if newer == NONE:
        words[LAST] = older
    else:
        links[newer, OLDER] = older


@kernel(inlined=True)
def _append(links, words, client):
    """Put a client at the end of the list."""
    links[client, OLDER] = np.int32(words[LAST])
    links[client, NEWER] = NONE
    if words[LAST] == NONE:
        words[FIRST] = client
    else:
        links[words[LAST], NEWER] = np.int32(client)
    words[LAST] = client


@kernel("void(int64[::1], uint32[::1], int64, int64[::1], int32[:,::1], int64[::1])")
def count_clients(due_ns, client, idle_ns, last_ns, links, words):
    """Count the connections of due requests in order, where each client has one until `idle_ns` after its last request.

    last_ns int64[clients] is -1 of clients without a connection; those that have one are in a list, links
    int32[clients, 2], the longest idle first; words int64[CLIENT_WORDS].
    """
    for row in range(due_ns.shape[0]):
        now, who = due_ns[row], np.int64(client[row])
        while words[FIRST] != NONE and last_ns[words[FIRST]] + idle_ns < now:
            last_ns[words[FIRST]] = -1
            _unlink(links, words, words[FIRST])
            words[OPEN] -= 1
        if last_ns[who] >= 0:
            _unlink(links, words, who)
        else:
            words[OPEN] += 1
            words[OPENED] += 1
            words[OPEN_PEAK] = max(words[OPEN_PEAK], words[OPEN])
            if words[SECOND] != now // 1_000_000_000:
                words[SECOND] = now // 1_000_000_000
                words[IN_SECOND] = 0
            words[IN_SECOND] += 1
            words[SECOND_PEAK] = max(words[SECOND_PEAK], words[IN_SECOND])
        _append(links, words, who)
        last_ns[who] = now
