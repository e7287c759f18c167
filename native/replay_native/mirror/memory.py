"""The memory of the mirror receiver: control words, connections, the ring of requests, what is handed over."""

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

STOP ends the loop. FOREIGN is how many connections the control plane has, TOOK how many handed-over rows it took. STATE
is 0, 1 (running), 2 (ended), or minus errno. Of REQUESTS, LOST are not in the ring: it was full, or closed. GIVEN counts
handed-over rows, WAITS how often the receiver stopped to accept because of its limit, FAILED how often the system
refused it a descriptor.
"""

_RingWords = namedtuple("_RingWords", "PUT TAKEN PUT_RECORDS TAKEN_RECORDS CLOSED WORDS")
RingWords = _RingWords(*range(0, 48, 8))
"""Words of the ring, a cache line apart: bytes put into it and taken out of it since the beginning, and the same in
requests. Nothing is put into a ring that is CLOSED.
"""

_RecordWords = namedtuple(
    "_RecordWords", "SIZE AT_NS LINE_END HEAD_END END FAMILY ADDRESS MORE_ADDRESS WORDS"
)
RecordWords = _RecordWords(*range(9))
"""The first words of a request in the ring. SIZE counts them, too; 0 means that the next request is at the ring's
beginning. LINE_END, HEAD_END and END are where the request line, the head and the body end, from the head's first byte.
The address of the peer is that of its sockaddr.
"""

CONNECTION = np.dtype([
    (name, "i8") for name in (
        "fd", "generation", "state", "next", "in_end", "at_ns", "read_ns", "family", "address", "more_address",
    )
])  # fmt: skip
"""One connection. `at_ns` is when the first byte of the request in the buffer was read, `read_ns` when the last was."""

HANDED_OVER = np.dtype([
    (name, "i8") for name in (
        "fd", "slot", "family", "address", "more_address", "at_ns", "read_ns", "in_end", "owed", "answer",
    )
])  # fmt: skip
"""A connection that the control plane goes on with. The first `in_end` bytes of its row of `inputs` are unread; the last
`owed` bytes of the response `answer` are not sent. `slot` is NONE for a connection of which nothing was read.
"""

SETTINGS = np.dtype([
    (name, "i8") for name in (
        "listener", "wake_fd", "given_fd", "wall_offset_ns", "idle_ns", "partial_ns", "connections_max",
        "epoll", "used_slots", "free_first", "freed", "accept_again", "waits", "next_scan_ns",
    )
])  # fmt: skip
"""What the receiver is told (first line) and what it keeps between turns."""

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
"""The responses: the connection goes on (by the request's version), or ends."""

NONE = -1
FRESH_MAX = 1_024
"""How many connections may wait to be handed over without a slot."""

EVENTS_AT_ONCE = 64
SCAN_NS = 250_000_000
