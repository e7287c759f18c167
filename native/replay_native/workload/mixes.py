"""What generated requests ask for, and who asks: draws by weight, each named by its event's number alone."""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.randoms import exponential_of, random_of

_CHOICE, _CLIENT, _STEPS = np.uint64(0x63686F696365), np.uint64(0x636C69656E74), np.uint64(0x7374657073)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


@kernel("void(float64[::1], float64[::1], int64[::1], int64[::1])")
def build_alias(weights, share, alias, work):
    """Walker's alias table by Vose's method (1991): entry i is i with share[i], else alias[i]. work int64[n]."""
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
def chosen(share, alias, bits):
    """The entry that 64 random bits draw from an alias table (of less than 2^32 entries)."""
    place = np.int64(((bits >> _SHIFT) * np.uint64(share.shape[0])) >> _SHIFT)
    return place if np.float64(bits & _LOW) < share[place] * 4294967296.0 else alias[place]


@kernel("void(float64[::1], int64[::1], uint32[::1], int64, uint64, int64, uint32[::1], uint32[::1])")
def ask(share, alias, ids, clients, seed, first, out_request, out_client):
    """What events `first` and on ask for (ids[entry]), and which of `clients` asks."""
    for index in range(out_request.shape[0]):
        out_request[index] = ids[chosen(share, alias, random_of(seed, first + index, _CHOICE))]
        bits = random_of(seed, first + index, _CLIENT)
        out_client[index] = np.uint32(((bits >> _SHIFT) * np.uint64(clients)) >> _SHIFT)


@kernel(
    "int64(int64[::1], int64, float64[::1], int64[::1], int64[::1], int64[::1], int64[::1], float64[::1],"
    " uint32[::1], int64, int64, uint64, int64[::1], uint32[::1], uint32[::1], int64[::1], int64[::1])"
)
def visit(
    start_ns, begin, share, alias, kind_ends, ids_begin, ids_count, pause_ns, ids, first, until_ns, seed,
    out_at_ns, out_request, out_client, out_step, consumed,
):  # fmt: skip
    """Sessions that begin at start_ns[begin:] as their requests, as many whole ones as fit; the rows written.

    Session kind k has the steps kind_ends[k] to kind_ends[k + 1]; step s waits an exponential time of mean
    pause_ns[s] and asks for one of ids[ids_begin[s]:][:ids_count[s]]: the same place in each step of a session,
    so that what a session makes it asks for again. Session `first + i` is client first + i. What would come at
    `until_ns` or later is left out. consumed[0] is the session to go on with.
    """
    written, session = np.int64(0), begin
    while session < start_ns.shape[0]:
        number = first + session
        kind = chosen(share, alias, random_of(seed, number, _CHOICE))
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
            out_request[written] = ids[
                ids_begin[step] + np.int64((pick * np.uint64(ids_count[step])) >> _SHIFT)
            ]
            out_client[written] = np.uint32(number)
            out_step[written] = step
            written += 1
        session += 1
    consumed[0] = session
    return written
