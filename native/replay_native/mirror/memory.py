"""The memory of the mirror receiver: control words, its own and handed-over connections, and the ring of requests."""

from __future__ import annotations

from collections import namedtuple
from typing import Annotated, NamedTuple

import numpy as np
from numba import from_dtype

from replay_native.ground.bundle import Array, bundle, numba_type

_MirrorWords = namedtuple(
    "_MirrorWords", "STOP FOREIGN TOOK STATE REQUESTS LOST ACCEPTED OPEN GIVEN WAITS FAILED WORDS"
)
MirrorWords = _MirrorWords(*range(0, 96, 8))
"""Words of `control`, a cache line apart. The control plane writes the first three.

STOP ends the loop. FOREIGN is the number of connections that the control plane has, TOOK the number of handed-over
rows that it has processed. STATE is 0 (not started), 1 (running), 2 (ended), or minus errno. LOST counts those of
REQUESTS that are not in the ring, because it was full or closed. OPEN is the number of connections that the loop has.
GIVEN counts handed-over rows. WAITS counts how often the receiver stopped accepting connections because of its limit.
FAILED counts failed calls of accept.
"""

_RingWords = namedtuple("_RingWords", "PUT TAKEN PUT_RECORDS TAKEN_RECORDS CLOSED WORDS")
RingWords = _RingWords(*range(0, 48, 8))
"""Words of the ring, a cache line apart.

PUT and TAKEN are the total bytes written to and removed from the ring, PUT_RECORDS and TAKEN_RECORDS the total
requests. Nothing is written to a ring that is CLOSED.
"""

_RecordWords = namedtuple(
    "_RecordWords", "SIZE AT_NS LINE_END HEAD_END END FAMILY ADDRESS MORE_ADDRESS WORDS"
)
RecordWords = _RecordWords(*range(9))
"""The first words of a request in the ring.

SIZE includes these words; 0 means that the next request is at the ring's beginning. LINE_END, HEAD_END and END are
the offsets from the head's first byte at which the request line, the head and the body end. The address of the peer
is that of its sockaddr.
"""

CONNECTION = np.dtype([
    (name, "i8") for name in (
        "fd", "generation", "state", "next", "in_end", "at_ns", "read_ns", "family", "address", "more_address",
    )
])  # fmt: skip
"""One connection.

`at_ns` is when the first byte of the request in the buffer was read, or 1 ns after the request before it if both were
read at once. `read_ns` is when the last byte was read.
"""

HANDED_OVER = np.dtype([
    (name, "i8") for name in (
        "fd", "slot", "family", "address", "more_address", "at_ns", "read_ns", "in_end", "owed", "answer",
    )
])  # fmt: skip
"""A connection that the control plane continues.

The first `in_end` bytes of its row of `inputs` are not processed yet. The last `owed` bytes of the response
`answer` are not sent yet. `slot` is NONE for a new connection that got no slot.
"""

SETTINGS = np.dtype([
    (name, "i8") for name in (
        "listener", "wake_fd", "given_fd", "wall_offset_ns", "idle_ns", "partial_ns", "connections_max",
        "epoll", "used_slots", "free_first", "freed", "accept_again", "waits", "next_scan_ns",
    )
])  # fmt: skip
"""Settings of the receiver (first line), and its state between turns."""

connection_type, handed_type, settings_type = map(from_dtype, (CONNECTION, HANDED_OVER, SETTINGS))


@bundle
class Ring(NamedTuple):
    """Requests on their way to the process that cleans them."""

    words: Annotated[Array, "int64[::1]", "see RingWords"]
    data: Annotated[Array, "uint8[::1]", "the requests; a power of two"]


@bundle
class Mirror(NamedTuple):
    """All memory of a receiver."""

    control: Annotated[Array, "int64[::1]", "control words; see MirrorWords"]
    connections: Annotated[Array, connection_type[::1], "connections"]
    inputs: Annotated[Array, "uint8[:, ::1]", "per connection: bytes received and not yet answered"]
    settings: Annotated[Array, settings_type[::1], "settings and state; one row"]
    given: Annotated[
        Array, handed_type[::1], "connections handed over: more rows than connections by FRESH_MAX"
    ]
    answers: Annotated[Array, "uint8[::1]", "the responses, one after the other"]
    answer_ends: Annotated[Array, "int64[::1]", "per response and one more: where it begins"]
    events: Annotated[Array, "uint8[::1]", "epoll's events"]
    scratch: Annotated[Array, "int64[::1]", "memory for the arguments of system calls"]
    head: Annotated[Array, "int64[::1]", "what was found in a head; see HeadWords"]


RING_TYPE, MIRROR_TYPE = numba_type(Ring), numba_type(Mirror)

FREE, OPEN, GIVEN = range(3)
KEEP_1_1, KEEP_1_0, CLOSE = range(3)
"""The responses: the connection stays open (HTTP/1.1 or HTTP/1.0), or it is closed."""

NONE = -1
FRESH_MAX = 1_024
"""Maximum number of connections without a slot that wait to be handed over."""

EVENTS_AT_ONCE = 64
SCAN_NS = 250_000_000
