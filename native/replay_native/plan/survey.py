"""Which rows of a trace are sent, when each is due, and the counts that a plan reports.

The kernels read the rows of a trace in time order. `requests` is its dictionary (`trace/columns`). `rules` uint8[256]
has the rule of each method.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.linked import LISTS_TYPE, NONE, drop, first_of, is_in_list, length_of, push_back
from replay_native.ledger.hdr import HALF_2, record
from replay_native.trace.columns import BODY, HOST, ROWS_TYPE, entry_of, method_of, route_of

SEND, NEEDS_BODY, NOT_ALLOWED, NOT_SENDABLE = 0, 1, 2, 3
"""Rules of a method. Rows with NEEDS_BODY are sent, but counted if their request has no recorded body."""

BINS = 64
"""How many bins a sliding window has in the search for a peak."""

BIN, EDGE_NS, SUM, PEAK, PEAK_EDGE_NS, BUSY, BUSY_PEAK = 0, 1, 2, 3, 4, 5, 6
WINDOW_WORDS = 7

CLOSED_LOOP_PERIOD_NS = -1.0
"""The period that stands for a closed loop: every row is due at once."""


@bundle
class Pace(NamedTuple):
    """How recorded times become due times."""

    origin_ns: Annotated[int, "int64", "the recorded time that is due at the start"]
    speed: Annotated[float, "float64", "recorded seconds per second of the run"]
    period_ns: Annotated[
        float, "float64", "0: due by recorded time; above 0: a constant rate; below 0: a closed loop"
    ]


@bundle
class DueRows(NamedTuple):
    """Due requests, in due order."""

    due_ns: Annotated[Array, "int64[::1]", "when each is due, from the start of the run"]
    request: Annotated[Array, "uint32[::1]", "its request in the dictionary"]
    client: Annotated[Array, "uint32[::1]", "its recorded client"]
    route: Annotated[Array, "uint32[::1]", "its route"]
    method: Annotated[Array, "uint8[::1]", "its method"]
    status: Annotated[Array, "int16[::1]", "its recorded status, -1 if it is not known"]
    at_ns: Annotated[Array, "int64[::1]", "when it was recorded, since the Unix epoch"]


@bundle
class SurveyCounts(NamedTuple):
    """The counts of one pass over the trace."""

    sent: Annotated[Array, "int64[::1]", "per method: rows that are sent"]
    skipped: Annotated[Array, "int64[::1]", "per method: rows that are not sent"]
    routes: Annotated[Array, "int64[:, ::1]", "per route: rows by class of the recorded status (0: unknown)"]
    tooks: Annotated[Array, "uint32[:, ::1]", "per route: histogram of the recorded durations, at 2 digits"]
    hosts: Annotated[Array, "int64[::1]", "per recorded host, and last for none: its rows"]
    bodiless: Annotated[Array, "int64[::1]", "per route: rows that need a body but have no recorded one"]
    windows: Annotated[Array, "int64[:, ::1]", "the sliding windows of 1 s and 60 s (WINDOW_WORDS)"]
    rows: Annotated[Array, "int64[:, ::1]", "per window: rows by bin"]
    busy: Annotated[Array, "int64[:, ::1]", "per window: summed durations by bin"]


PACE_TYPE, DUE_ROWS_TYPE, SURVEY_TYPE = numba_type(Pace), numba_type(DueRows), numba_type(SurveyCounts)


@kernel(inlined=True)
def due_of(at_ns, number, pace):
    """Return when a row is due, in ns from the start: by its recorded time, by its number, or at once."""
    if pace.period_ns > 0.0:
        return np.int64(number * pace.period_ns)
    if pace.period_ns < 0.0:
        return np.int64(0)
    if pace.speed == 1.0:
        return at_ns - pace.origin_ns
    return np.int64(np.rint((at_ns - pace.origin_ns) / pace.speed))


@kernel(inlined=True)
def _advance(window, rows, busy, bin_ns, due_ns):
    """Move a window until `due_ns` is in its last bin."""
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
    """Count a row in a sliding window of BINS * bin_ns, and update its peaks."""
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
    types.int64(
        ROWS_TYPE,
        types.int64[:, ::1],
        types.uint8[::1],
        PACE_TYPE,
        types.int64,
        types.int64,
        types.int64,
        SURVEY_TYPE,
    )
)
def survey(trace, requests, rules, pace, first, rows_max, default_took_ns, counts):
    """Count the rows that are sent and those that are not, until `rows_max` rows are sent.

    `first` is how many were sent before this batch. Returns how many are sent up to its end. A row whose duration is
    not known is assumed to take `default_took_ns`.
    """
    selected = first
    bin_1_ns, bin_60_ns = np.int64(1_000_000_000 // BINS), np.int64(60_000_000_000 // BINS)
    at_ns, request, status, took_ns = trace.at_ns, trace.request, trace.status, trace.took_ns
    sent, routes, hosts, windows = counts.sent, counts.routes, counts.hosts, counts.windows
    rows, busy = counts.rows, counts.busy
    many_hosts = hosts.shape[0] > 1
    for index in range(at_ns.shape[0]):
        if selected >= rows_max:
            break
        number = np.int64(request[index])
        method = method_of(requests, number)
        rule = rules[method]
        if rule >= NOT_ALLOWED:
            counts.skipped[method] += 1
            continue
        sent[method] += 1
        route = route_of(requests, number)
        code = np.int64(status[index])
        routes[route, code // 100 if 100 <= code < 600 else 0] += 1
        took = took_ns[index]
        if took >= 0:
            record(counts.tooks[route], HALF_2, took)
        else:
            took = default_took_ns
        if rule == NEEDS_BODY and entry_of(requests, number, BODY) < 0:
            counts.bodiless[route] += 1
        host = entry_of(requests, number, HOST) if many_hosts else np.int64(-1)
        hosts[host if host >= 0 else hosts.shape[0] - 1] += 1
        due_ns = due_of(at_ns[index], selected, pace)
        _count_in(windows[0], rows[0], busy[0], bin_1_ns, due_ns, took)
        _count_in(windows[1], rows[1], busy[1], bin_60_ns, due_ns, took)
        selected += 1
    return selected


@kernel(
    types.UniTuple(types.int64, 2)(
        ROWS_TYPE, types.int64, types.int64[:, ::1], types.uint8[::1], PACE_TYPE, types.int64, DUE_ROWS_TYPE
    )
)
def select(trace, begin, requests, rules, pace, first, out):
    """Copy the rows that are sent, from row `begin` on, until `out` is full.

    `first` is the number of the first of them in the run. Returns how many were copied, and the row to continue with.
    """
    written, index = np.int64(0), begin
    at_ns, request, client, status = trace.at_ns, trace.request, trace.client, trace.status
    out_due_ns, out_request, out_client, out_route = out.due_ns, out.request, out.client, out.route
    out_method, out_status, out_at_ns = out.method, out.status, out.at_ns
    while index < at_ns.shape[0] and written < out_due_ns.shape[0]:
        number = np.int64(request[index])
        method = method_of(requests, number)
        if rules[method] < NOT_ALLOWED:
            out_due_ns[written] = due_of(at_ns[index], first + written, pace)
            out_request[written] = request[index]
            out_client[written] = client[index]
            out_route[written] = route_of(requests, number)
            out_method[written] = method
            out_status[written] = status[index]
            out_at_ns[written] = at_ns[index]
            written += 1
        index += 1
    return written, index


OPEN_PEAK, OPENED, SECOND, IN_SECOND, SECOND_PEAK = range(5)
CLIENT_WORDS = 5
"""Places in `words` of `count_clients`.

OPEN_PEAK: the most connections that were open at once. OPENED: all connections that were opened. SECOND: the second
that is being counted. IN_SECOND: connections opened in it. SECOND_PEAK: the most that were opened in one second.
"""


@kernel(
    types.void(
        types.int64[::1], types.uint32[::1], types.int64, types.int64[::1], LISTS_TYPE, types.int64[::1]
    )
)
def count_clients(due_ns, client, idle_ns, last_ns, connected, words):
    """Count the connections of due requests, where each client keeps one until `idle_ns` after its last request.

    The requests are given in due order. last_ns int64[clients] is when a connected client last sent a request.
    `connected` is the list of connected clients, the longest idle first. `words` is int64[CLIENT_WORDS].
    """
    for row in range(due_ns.shape[0]):
        now, who = due_ns[row], np.int64(client[row])
        while first_of(connected, 0) != NONE and last_ns[first_of(connected, 0)] + idle_ns < now:
            drop(connected, first_of(connected, 0))
        if is_in_list(connected, who):
            drop(connected, who)
        else:
            words[OPENED] += 1
            words[OPEN_PEAK] = max(words[OPEN_PEAK], length_of(connected, 0) + 1)
            if words[SECOND] != now // 1_000_000_000:
                words[SECOND] = now // 1_000_000_000
                words[IN_SECOND] = 0
            words[IN_SECOND] += 1
            words[SECOND_PEAK] = max(words[SECOND_PEAK], words[IN_SECOND])
        push_back(connected, 0, who)
        last_ns[who] = now
