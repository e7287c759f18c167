"""Less or more of the same traffic: thinning, growing by interpolating gaps, cloning sessions.

`requests` is the trace's dictionary (`trace/columns`). `classes` int64[routes] has the rule of each route, -1 for
none. Random draws depend on a row's number since the start of the trace, so that portions of any size give the same
rows.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.randoms import random_of, unit_of
from replay_native.trace.columns import ROWS_TYPE, route_of

LEFT, EXTRA = 0, 1
ROUTE_WORDS = 2
"""State per route. LEFT: its rows that are not written yet. EXTRA: how many of these get one more copy."""

COUNTED_AT_ONCE = 1 << 10
"""The length of the scratch memory of `count_classes`, which stays in the CPU cache."""

KEPT = np.iinfo(np.int64).min
"""Stands for the time of a rule's previous row, if there is none yet."""

_REQUESTS, _CLIENTS = np.uint64(0x7265717565737473), np.uint64(0x636C69656E7473)
_EXTRAS, _PLACES = np.uint64(0x657874726173), np.uint64(0x706C61636573)
_TIES = np.uint64(0x74696573)
_SESSIONS, _SHIFTS = np.uint64(0x73657373696F6E73), np.uint64(0x736869667473)


@bundle
class Growth(NamedTuple):
    """How many copies the rows of each route get."""

    classes: Annotated[Array, "int64[::1]", "per route: its rule, -1 for none"]
    whole: Annotated[Array, "int64[::1]", "per rule: the smallest number of times that a row is written"]
    states: Annotated[Array, "int64[:, ::1]", "per route: LEFT, EXTRA"]
    before_ns: Annotated[
        Array, "int64[::1]", "per rule: the time of its previous row; KEPT if there is none yet"
    ]
    seed: Annotated[int, "uint64", "seed of the random draws"]
    repeat: Annotated[
        bool, "boolean", "copies get the time of their row, and are not spread over the gap before it"
    ]


@bundle
class Clones(NamedTuple):
    """How sessions are cloned."""

    pause_ns: Annotated[int, "int64", "a client's pause of this length ends its session"]
    clients: Annotated[Array, "int64[:, ::1]", "per client: LAST_NS, SESSION"]
    clones: Annotated[Array, "int64[::1]", "per session: how many clones it gets"]
    first_clients: Annotated[Array, "int64[::1]", "per session: the client of its first clone"]
    gaps_ns: Annotated[
        Array, "int64[::1]", "per session: the time before it over which its clones are spread"
    ]
    seed: Annotated[int, "uint64", "seed of the random draws"]


@bundle
class Copies(NamedTuple):
    """Rows that were written."""

    at_ns: Annotated[Array, "int64[::1]", "when it is sent"]
    source: Annotated[Array, "int64[::1]", "the row that it is a copy of"]
    client: Annotated[Array, "uint32[::1]", "the client that sends it (if clients are cloned)"]


GROWTH_TYPE, CLONES_TYPE, COPIES_TYPE = numba_type(Growth), numba_type(Clones), numba_type(Copies)


@kernel(inlined=True)
def _class_of(request, requests, classes):
    return classes[route_of(requests, np.int64(request))]


@kernel("void(uint32[::1], int64[:,::1], int64[::1], int64[::1], int64[::1])")
def count_classes(request, requests, classes, found, counts):
    """Add the number of rows of each rule to counts int64[n + 1]. Its last entry counts the rows of no rule.

    `found` is scratch memory of any length. Classes are found for so many rows before they are counted, because a
    lookup that follows the update of a counter takes twice as long.
    """
    none = np.int64(counts.shape[0] - 1)
    for first in range(0, request.shape[0], found.shape[0]):
        rows = min(found.shape[0], request.shape[0] - first)
        for index in range(rows):
            number = _class_of(request[first + index], requests, classes)
            found[index] = number if number >= 0 else none
        for index in range(rows):
            counts[found[index]] += 1


@kernel("void(uint64[::1], int64[::1], uint64[::1])")
def take_words(column, rows, out):
    """Copy rows of a column of 64 bits, by their indexes."""
    for index in range(rows.shape[0]):
        out[index] = column[rows[index]]


@kernel("void(uint32[::1], int64[::1], uint32[::1])")
def take_halves(column, rows, out):
    """Copy rows of a column of 32 bits, by their indexes."""
    for index in range(rows.shape[0]):
        out[index] = column[rows[index]]


@kernel("void(uint16[::1], int64[::1], uint16[::1])")
def take_quarters(column, rows, out):
    """Copy rows of a column of 16 bits, by their indexes."""
    for index in range(rows.shape[0]):
        out[index] = column[rows[index]]


@kernel("int64(uint32[::1], int64[:,::1], int64[::1], int64[::1])")
def keep_classes(request, requests, classes, kept):
    """Write the indexes of the rows that have a rule to `kept`, and return how many."""
    count = np.int64(0)
    for index in range(request.shape[0]):
        kept[count] = index
        count += _class_of(request[index], requests, classes) >= 0
    return count


@kernel("int64(int64, uint64, float64, int64, int64[::1])")
def thin_requests(rows, seed, share, first, kept):
    """Keep each row with probability `share`: write the indexes to `kept`, and return how many."""
    count = np.int64(0)
    for index in range(rows):
        kept[count] = index
        count += unit_of(random_of(seed, first + index, _REQUESTS)) <= share
    return count


@kernel("int64(uint32[::1], uint64, float64, int64[::1])")
def thin_clients(client, seed, share, kept):
    """Keep the rows of each client with probability `share`: write the indexes to `kept`, and return how many."""
    count = np.int64(0)
    for index in range(client.shape[0]):
        kept[count] = index
        count += unit_of(random_of(seed, np.int64(client[index]), _CLIENTS)) <= share
    return count


@kernel(inlined=True)
def _copies_of(words, whole, seed, number):
    """Return how often a row appears. Exactly EXTRA of the LEFT rows appear once more (Knuth's algorithm S)."""
    more = np.int64(0)
    if words[EXTRA] > 0:
        draw = unit_of(random_of(seed, number, _EXTRAS)) * np.float64(words[LEFT])
        more = np.int64(draw <= np.float64(words[EXTRA]))
    words[EXTRA] -= more
    words[LEFT] -= 1
    return whole + more


@kernel(inlined=True)
def _place(out_at_ns, begin, count, from_ns, until_ns, seed, number):
    """Write `count` uniformly drawn times within a gap, in order, from out_at_ns[begin] on."""
    gap_ns = np.float64(until_ns - from_ns)
    for copy in range(count):
        bits = random_of(seed, (number << np.int64(14)) + copy, _PLACES)
        at_ns = until_ns - np.int64(unit_of(bits) * gap_ns)
        place = begin + copy
        while place > begin and out_at_ns[place - 1] > at_ns:
            out_at_ns[place] = out_at_ns[place - 1]
            place -= 1
        out_at_ns[place] = at_ns


@kernel(
    types.UniTuple(types.int64, 2)(
        ROWS_TYPE, types.int64, types.int64[:, ::1], GROWTH_TYPE, types.int64, COPIES_TYPE
    )
)
def grow(rows, begin, requests, growth, first, out):
    """Write the rows from `begin` on, each as often as its rule requires, as many as fit.

    `first` is the number of row 0. Copies are spread uniformly over the gap since the previous row of the same rule,
    and the row itself is last. With `repeat`, or without such a row, copies have the time of their row. A row
    of no rule is written once. Returns how many were written, and the row to continue with.
    """
    written, index = np.int64(0), begin
    at_ns, request, seed, before_ns = rows.at_ns, rows.request, growth.seed, growth.before_ns
    classes, whole, states = growth.classes, growth.whole, growth.states
    out_at_ns, out_source = out.at_ns, out.source
    while index < at_ns.shape[0]:
        route = route_of(requests, np.int64(request[index]))
        found, times = classes[route], np.int64(1)
        if found >= 0:
            if written + whole[found] + 1 > out_at_ns.shape[0]:
                break
            times = _copies_of(states[route], whole[found], seed, first + index)
        elif written + 1 > out_at_ns.shape[0]:
            break
        if times > 1:
            alone = growth.repeat or before_ns[found] == KEPT
            from_ns = at_ns[index] if alone else before_ns[found]
            _place(out_at_ns, written, times - 1, from_ns, at_ns[index], seed, first + index)
        if times > 0:
            out_at_ns[written + times - 1] = at_ns[index]
            out_source[written : written + times] = index
        written += times
        if found >= 0:
            before_ns[found] = at_ns[index]
        index += 1
    return written, index


@kernel("void(uint64, float64[::1])")
def draw_ties(seed, out):
    """Draw a number in (0, 1] for each route, which decides which of several equal remainders is first."""
    for route in range(out.shape[0]):
        out[route] = unit_of(random_of(seed, route, _TIES))


LAST_NS, SESSION = 0, 1
CLIENT_WORDS = 2
"""Words of a client: when its last row was, and the session of that row (-1: none yet)."""


@kernel(
    types.int64(
        ROWS_TYPE, types.int64[:, ::1], types.int64[::1], types.int64, types.int64[:, ::1], types.int64, types.int64[::1],
        types.int64[::1],
    )
)  # fmt: skip
def find_sessions(rows, requests, classes, pause_ns, clients, sessions, starts_ns, masks):
    """Give numbers to sessions in the order of their first rows, and return how many there are.

    A session is the rows of a client without a pause of `pause_ns` between them. `clients` is int64[n, CLIENT_WORDS].
    `starts_ns` and `masks` (int64, with space for sessions + rows) get the begin of each session, and the rules of
    its rows, one bit each.
    """
    at_ns, request, client = rows.at_ns, rows.request, rows.client
    for index in range(at_ns.shape[0]):
        who = np.int64(client[index])
        if clients[who, SESSION] < 0 or at_ns[index] - clients[who, LAST_NS] >= pause_ns:
            clients[who, SESSION] = sessions
            starts_ns[sessions] = at_ns[index]
            masks[sessions] = 0
            sessions += 1
        clients[who, LAST_NS] = at_ns[index]
        found = _class_of(request[index], requests, classes)
        if found >= 0:
            masks[clients[who, SESSION]] |= np.int64(1) << found
    return sessions


@kernel("int64(int64[::1], int64[::1], float64[::1], uint64, int64[::1], int64[::1], int64[::1])")
def plan_clones(starts_ns, masks, factors, seed, before_ns, clones, gaps_ns):
    """Decide how many clones each session gets, and return how many there are in total.

    A session with several rules grows by the largest of their factors float64[rules], and counts for that rule. A
    fraction of a clone is drawn at random. gaps_ns is the time since the previous session of the same rule (0
    without one), over which the begins of the clones are spread.
    """
    total = np.int64(0)
    for session in range(starts_ns.shape[0]):
        best, factor = np.int64(-1), 1.0
        for found in range(factors.shape[0]):
            if masks[session] >> found & 1 and factors[found] > factor:
                best, factor = np.int64(found), factors[found]
        clones[session] = 0
        if best >= 0:
            clones[session] = np.int64(factor - 1.0)
            rest = factor - 1.0 - np.float64(clones[session])
            if rest > 0.0 and unit_of(random_of(seed, session, _SESSIONS)) <= rest:
                clones[session] += 1
            known = before_ns[best] != KEPT
            gaps_ns[session] = starts_ns[session] - before_ns[best] if known else 0
            before_ns[best] = starts_ns[session]
        total += clones[session]
    return total


@kernel(types.UniTuple(types.int64, 3)(ROWS_TYPE, types.int64, CLONES_TYPE, types.int64, COPIES_TYPE))
def clone_rows(rows, begin, plan, sessions, out):
    """Write the rows from `begin` on, and the rows of the clones of their sessions, as many as fit.

    Clone j of session s is client first_clients[s] + j, and is earlier by a part of gaps_ns[s]. Returns how many rows
    were written, the row to continue with, and how many sessions were numbered so far.
    """
    written, index = np.int64(0), begin
    at_ns, client, clients, clones, gaps_ns = rows.at_ns, rows.client, plan.clients, plan.clones, plan.gaps_ns
    out_at_ns, out_source, out_client = out.at_ns, out.source, out.client
    while index < at_ns.shape[0]:
        who = np.int64(client[index])
        session = clients[who, SESSION]
        fresh = session < 0 or at_ns[index] - clients[who, LAST_NS] >= plan.pause_ns
        session = sessions if fresh else session
        if written + 1 + clones[session] > out_at_ns.shape[0]:
            break
        if fresh:
            clients[who, SESSION] = session
            sessions += 1
        clients[who, LAST_NS] = at_ns[index]
        for clone in range(clones[session]):
            bits = random_of(plan.seed, (session << np.int64(14)) + clone, _SHIFTS)
            out_at_ns[written] = at_ns[index] - np.int64(unit_of(bits) * np.float64(gaps_ns[session]))
            out_client[written] = np.uint32(plan.first_clients[session] + clone)
            out_source[written] = index
            written += 1
        out_at_ns[written] = at_ns[index]
        out_client[written] = client[index]
        out_source[written] = index
        written += 1
        index += 1
    return written, index, sessions


@kernel("void(int64[::1], int64, float64)")
def squeeze(at_ns, origin_ns, factor):
    """Divide the distances of time stamps from the origin by a factor, and round them to ns, in place."""
    for index in range(at_ns.shape[0]):
        at_ns[index] = origin_ns + np.int64(np.rint(np.float64(at_ns[index] - origin_ns) / factor))


@kernel("int64(uint32[::1], int64[::1], int64)")
def renumber(client, ids, known):
    """Renumber clients in place, in the order in which they first appear, and return how many are known.

    ids int64[clients] must be -1 at first.
    """
    for index in range(client.shape[0]):
        who = np.int64(client[index])
        if ids[who] < 0:
            ids[who] = known
            known += 1
        client[index] = np.uint32(ids[who])
    return known
