"""The sink's memory: control words, connections, options of requests, settings, arrivals."""

from __future__ import annotations

from collections import namedtuple
from typing import Annotated, NamedTuple

import numpy as np
from numba import from_dtype

from replay_native.ground.bundle import Array, bundle, numba_type

from .queueing import QUEUE

_SinkWords = namedtuple(
    "_SinkWords", "STOP STALL_AT_NS STALL_NS STATE PORT ARRIVALS OPEN ACCEPTED REFUSED WORDS"
)
SinkWords = _SinkWords(*range(0, 80, 8))
"""Words of `control`, a cache line apart. The control plane writes STOP and STALL_* (STALL_NS last).

STATE is 0 (not started), 1 (running), 2 (ended), or minus errno. ARRIVALS counts requests, stored or not. REFUSED
counts connections that were closed because all slots were in use.
"""

STAMP = np.dtype([("seq", "i8"), ("arrival_ns", "i8"), ("connection", "i8")])
"""One request that arrived.

`seq` is -1 without X-Replay. `connection` is the number of its connection, counted from 0 as they are accepted.
"""


class OptionIndex(NamedTuple):
    """Columns of `options`: the options of a request, by their names in its path."""

    status: int = 0
    body: int = 1
    delay_ms: int = 2
    stall_ms: int = 3
    drip_ms: int = 4
    step: int = 5
    chunked: int = 6
    trailers: int = 7
    until_close: int = 8
    informational: int = 9
    close: int = 10
    close_silently: int = 11
    idle_close_ms: int = 12
    reset: int = 13
    reset_reused: int = 14
    reset_at: int = 15
    hang_up: int = 16
    hang_up_reused: int = 17
    truncate_at: int = 18
    garbage: int = 19
    endless_headers: int = 20
    never: int = 21
    fails: int = 22


O = OptionIndex()
OPTIONS = OptionIndex._fields
NO_OPTION = -1
OPTION_BYTES = 16
OPTION_NAMES = np.frombuffer(b"".join(name.encode().ljust(OPTION_BYTES, b"\0") for name in OPTIONS), np.uint8)
OPTION_NAMES = OPTION_NAMES.reshape(len(OPTIONS), OPTION_BYTES).copy()

PEER = np.dtype([
    (name, "i8") for name in (
        "fd", "generation", "state", "next", "number", "served", "recv_ns",
        "in_end", "phase", "remaining", "to_head", "keep", "plain", "seq",
        "stage", "out_at", "out_end", "body_left", "informational_left", "allowed", "after",
        "in_time", "tries_left",
    )
] + [("ssl", "u8")])  # fmt: skip
"""One connection of the sink.

`ssl` is 0 for a plain connection. `in_time` is 1 if a server will be done with the request within the queue's
`patience_ns`, or if the queue has no retries.
"""

SETTINGS = np.dtype([
    (name, "i8") for name in (
        "listener", "wake_fd", "run_until_ns", "spin", "body",
        "epoll", "used_slots", "free_first", "next_timer_ns", "stalled_until_ns", "accept_again",
        "has_pwait2",
    )
] + [("tls_context", "u8")])  # fmt: skip
"""Settings of the sink (first line), and its state between turns."""

stamp_type, peer_type, settings_type = from_dtype(STAMP), from_dtype(PEER), from_dtype(SETTINGS)
queue_type = from_dtype(QUEUE)


@bundle
class Sink(NamedTuple):
    """All memory of a sink."""

    control: Annotated[Array, "int64[::1]", "control words; see SinkWords"]
    stamps: Annotated[Array, stamp_type[::1], "requests that arrived"]
    peers: Annotated[Array, peer_type[::1], "connections"]
    settings: Annotated[Array, settings_type[::1], "settings and state; one row"]
    timers: Annotated[Array, "int64[::1]", "per connection: when its timer expires; FAR_NS: not set"]
    options: Annotated[Array, "int64[:, ::1]", "per connection: the options of its request (OPTIONS)"]
    inputs: Annotated[Array, "uint8[:, ::1]", "per connection: bytes received (ROW_BYTES)"]
    outputs: Annotated[Array, "uint8[:, ::1]", "per connection: bytes to be sent (ROW_BYTES)"]
    answer: Annotated[Array, "uint8[::1]", "the usual response, complete"]
    events: Annotated[Array, "uint8[::1]", "epoll's events"]
    scratch: Annotated[Array, "int64[::1]", "memory for the arguments of system calls"]
    queue: Annotated[Array, queue_type[::1], "the queue in front of the servers; one row"]
    free_ns: Annotated[Array, "int64[::1]", "per server: when it is free; empty: requests need no server"]


SINK_TYPE = numba_type(Sink)

CLOSED, READING, ANSWERING, SECURING, QUEUED = range(5)
IN_HEAD, IN_BODY, IN_CHUNK_SIZE, IN_CHUNK_LINE, IN_CHUNK = range(5)
IN_CHUNK_END, IN_TRAILER, IN_TRAILER_LINE, WHOLE = range(5, 9)
INFORMATIONAL, ANSWER_HEAD, ANSWER_BODY, GARBAGE, ENDLESS, NEVER, NOTHING_MORE = range(7)
KEEP, FIN, RST = range(3)

NONE = -1
FAR_NS = 1 << 62
MS_NS = 1_000_000
EVENTS_AT_ONCE = 64
ROW_BYTES = 16_384


def text_of(literal: bytes) -> np.ndarray:
    """Return a literal as an array, with which kernels compare and from which they copy."""
    return np.frombuffer(literal, np.uint8).copy()
