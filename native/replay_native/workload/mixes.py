"""Chooses the requests and clients of generated events. Draws are weighted, and depend only on the event's number."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.randoms import exponential_of, random_of

_CHOICE, _CLIENT, _STEPS = np.uint64(0x63686F696365), np.uint64(0x636C69656E74), np.uint64(0x7374657073)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


@bundle
class Alias(NamedTuple):
    """Walker's alias table: entry i stands for i with probability share[i], otherwise for alias[i]."""

    share: Annotated[Array, "float64[::1]", "per entry: the probability that it stands for itself"]
    alias: Annotated[Array, "int64[::1]", "per entry: the entry that it stands for otherwise"]


@bundle
class Visits(NamedTuple):
    """The structure of sessions. Each kind of session has steps, and each step requests one of a range of ids."""

    kinds: Annotated[Alias, Alias, "the table that draws the kind of a session"]
    kind_ends: Annotated[Array, "int64[::1]", "per kind and one more: its first step"]
    ids_begin: Annotated[Array, "int64[::1]", "per step: the offset of its ids in `ids`"]
    ids_count: Annotated[Array, "int64[::1]", "per step: how many ids it draws from"]
    pause_ns: Annotated[Array, "float64[::1]", "per step: the mean pause before it"]
    ids: Annotated[Array, "uint32[::1]", "the ids of requests"]
    seed: Annotated[int, "uint64", "seed of the random draws"]


@bundle
class Generated(NamedTuple):
    """Rows that were generated."""

    at_ns: Annotated[Array, "int64[::1]", "when it is sent"]
    request: Annotated[Array, "uint32[::1]", "its request"]
    client: Annotated[Array, "uint32[::1]", "its client"]
    step: Annotated[Array, "int64[::1]", "its step of the session"]


ALIAS_TYPE, VISITS_TYPE, GENERATED_TYPE = numba_type(Alias), numba_type(Visits), numba_type(Generated)


@kernel("void(float64[::1], float64[::1], int64[::1], int64[::1])")
def build_alias(weights, share, alias, work):
    """Build Walker's alias table by Vose's method (1991). Scratch memory: work int64[n]."""
    n = weights.shape[0]
    total = 0.0
    for index in range(n):
        total += weights[index]
    small, large = np.int64(0), np.int64(n)
    for index in range(n):
        share[index] = weights[index] * n / total
        alias[index] = index
        if share[index] < 1.0:
            work[small] = index
            small += 1
        else:
            large -= 1
            work[large] = index
    while small > 0 and large < n:
        small -= 1
        low, high = work[small], work[large]
        alias[low] = high
        share[high] -= 1.0 - share[low]
        if share[high] < 1.0:
            large += 1
            work[small] = high
            small += 1
    for index in range(large, n):
        share[work[index]] = 1.0
    for index in range(small):
        share[work[index]] = 1.0


@kernel(inlined=True)
def chosen(table, bits):
    """Return the entry that 64 random bits select from an alias table, which must have fewer than 2^32 entries."""
    share, alias = table.share, table.alias
    place = np.int64(((bits >> _SHIFT) * np.uint64(share.shape[0])) >> _SHIFT)
    return place if np.float64(bits & _LOW) < share[place] * 4294967296.0 else alias[place]


@kernel(
    types.void(
        ALIAS_TYPE,
        types.uint32[::1],
        types.int64,
        types.uint64,
        types.int64,
        types.uint32[::1],
        types.uint32[::1],
    )
)
def ask(table, ids, clients, seed, first, out_request, out_client):
    """Draw the request (ids[entry]) and the client of each event from number `first` on."""
    for index in range(out_request.shape[0]):
        out_request[index] = ids[chosen(table, random_of(seed, first + index, _CHOICE))]
        bits = random_of(seed, first + index, _CLIENT)
        out_client[index] = np.uint32(((bits >> _SHIFT) * np.uint64(clients)) >> _SHIFT)


@kernel(
    types.UniTuple(types.int64, 2)(
        types.int64[::1], types.int64, VISITS_TYPE, types.int64, types.int64, GENERATED_TYPE
    )
)
def visit(start_ns, begin, visits, first, until_ns, out):
    """Write the requests of the sessions that begin at start_ns[begin:], as many whole sessions as fit.

    Each step waits for an exponentially distributed time (not at all if its mean is 0) and requests an id. All steps
    of a session draw the same relative place in their ids, so that a session that creates a thing also requests that
    thing later. Session `first + i` belongs to client `first + i`. Requests at `until_ns` or later are left out.
    Returns the rows written, and the session to continue with.
    """
    written, session = np.int64(0), begin
    kind_ends, pause_ns, seed = visits.kind_ends, visits.pause_ns, visits.seed
    out_at_ns, out_request, out_client, out_step = out.at_ns, out.request, out.client, out.step
    while session < start_ns.shape[0]:
        number = first + session
        kind = chosen(visits.kinds, random_of(seed, number, _CHOICE))
        if written + kind_ends[kind + 1] - kind_ends[kind] > out_at_ns.shape[0]:
            break
        at_ns = start_ns[session]
        pick = random_of(seed, number, _CLIENT) >> _SHIFT
        for step in range(kind_ends[kind], kind_ends[kind + 1]):
            if pause_ns[step] > 0.0:
                place = number * 64 + step - kind_ends[kind]
                pause = exponential_of(random_of(seed, place, _STEPS)) * pause_ns[step]
                at_ns += np.int64(min(pause, 4e18))
            if at_ns >= until_ns:
                break
            out_at_ns[written] = at_ns
            drawn = np.int64((pick * np.uint64(visits.ids_count[step])) >> _SHIFT)
            out_request[written] = visits.ids[visits.ids_begin[step] + drawn]
            out_client[written] = np.uint32(number)
            out_step[written] = step
            written += 1
        session += 1
    return written, session
