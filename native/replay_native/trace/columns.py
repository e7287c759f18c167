"""A trace as kernels read it: columns of its rows, and its dictionary of requests by raw address.

The dictionary is memory-mapped in batches of 1,048,576 requests. `requests` int64[batches, TABLE_COLUMNS] has the
address of each column of each batch. Bodies and header sets are separate dictionaries, whose batches may have any
size. A table of such a dictionary has the id of the first entry of each batch in column 0. Its last row has the id
after the last entry.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel
from replay_native.ground.shared import peek_i32, peek_i64, peek_u8, peek_u32

OFFSETS, DATA, METHOD, ROUTE, HOST, HEADERS, BODY = range(7)
"""Columns of `requests`, which are addresses.

The columns point to the targets' offsets (int64) and bytes, to the methods (uint8), the routes (uint32), and the
hosts, header sets and bodies (int32 each).
"""

TABLE_COLUMNS = 7
BATCH_BITS = 20
BATCH_MASK = (1 << BATCH_BITS) - 1


@bundle
class TraceRows(NamedTuple):
    """Rows of a trace, in time order."""

    at_ns: Annotated[Array, "int64[::1]", "when each was recorded, since the Unix epoch"]
    request: Annotated[Array, "uint32[::1]", "its request in the dictionary"]
    client: Annotated[Array, "uint32[::1]", "the client that sent it"]
    status: Annotated[Array, "int16[::1]", "the recorded status, -1 if it is not known"]
    took_ns: Annotated[Array, "int64[::1]", "the recorded duration, -1 if it is not known"]


ROWS_TYPE = numba_type(TraceRows)


@kernel(inlined=True)
def target_of(requests, number):
    """Return the address and length of a request's target."""
    batch, place = number >> BATCH_BITS, number & BATCH_MASK
    offsets = requests[batch, OFFSETS] + 8 * place
    begin = peek_i64(np.uint64(offsets))
    return requests[batch, DATA] + begin, peek_i64(np.uint64(offsets + 8)) - begin


@kernel(inlined=True)
def method_of(requests, number):
    """Return the number of a request's method."""
    return peek_u8(np.uint64(requests[number >> BATCH_BITS, METHOD] + (number & BATCH_MASK)))


@kernel(inlined=True)
def route_of(requests, number):
    """Return the number of a request's route."""
    return peek_u32(np.uint64(requests[number >> BATCH_BITS, ROUTE] + 4 * (number & BATCH_MASK)))


@kernel(inlined=True)
def entry_of(requests, number, column):
    """Return the host, header set or body of a request (`column` is HOST, HEADERS or BODY), -1 for none."""
    address = requests[number >> BATCH_BITS, column] + 4 * (number & BATCH_MASK)
    return np.int64(peek_i32(np.uint64(address)))


@kernel(inlined=True)
def has_entry(batches, number):
    """Return whether a dictionary of bodies or header sets has an entry with this id."""
    return 0 <= number < batches[batches.shape[0] - 1, 0]


@kernel(inlined=True)
def batch_of(batches, number):
    """Return the batch that contains an id. The dictionary must have an entry with this id."""
    low, high = np.int64(0), np.int64(batches.shape[0] - 1)
    while high - low > 1:
        middle = (low + high) // 2
        if batches[middle, 0] <= number:
            low = middle
        else:
            high = middle
    return low


@kernel()
def body_at(bodies, number):
    """Return the address and length of a body; the length is -1 if there is none.

    `bodies` int64[batches + 1, 3] has the addresses of each batch's offsets (int64) and bytes in columns 1 and 2.
    """
    if not has_entry(bodies, number):
        return np.int64(0), np.int64(-1)
    batch = batch_of(bodies, number)
    offsets = bodies[batch, 1] + 8 * (number - bodies[batch, 0])
    begin = peek_i64(np.uint64(offsets))
    return bodies[batch, 2] + begin, peek_i64(np.uint64(offsets + 8)) - begin
