"""What the sink keeps: the control plane's words, connections, options of requests, settings, arrivals."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
from numba import from_dtype, types

from replay_native.ground.bundle import bundle_type

from .queueing import QUEUE

_SinkWords = namedtuple(
    "_SinkWords", "STOP STALL_AT_NS STALL_NS STATE PORT ARRIVALS OPEN ACCEPTED REFUSED WORDS"
)
SinkWords = _SinkWords(*range(0, 80, 8))
"""Words of `control`, a cache line apart. STOP and STALL_* (write STALL_NS last) are the control plane's.

STATE is 0, 1 running, 2 ended, or minus errno; ARRIVALS counts requests, stored or not; REFUSED counts
connections over the cap.
"""

STAMP = np.dtype([("seq", "i8"), ("arrival_ns", "i8"), ("connection", "i8")])
"""One arrived request. `seq` is -1 without X-Replay; `connection` counts accepted connections from 0."""

OPTIONS = (
    "status", "body", "delay_ms", "stall_ms", "drip_ms", "step", "chunked", "trailers", "until_close",
    "informational", "close", "close_silently", "idle_close_ms", "reset", "reset_reused", "reset_at",
    "hang_up", "hang_up_reused", "truncate_at", "garbage", "endless_headers", "never", "fails",
)  # fmt: skip
O = namedtuple("OptionIndex", OPTIONS)(*range(len(OPTIONS)))
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
"""One connection of the sink. `ssl` is 0 on a plain one; `in_time` is whether a server will have done what it was
asked for before its patience is over."""

SETTINGS = np.dtype([
    (name, "i8") for name in (
        "listener", "wake_fd", "run_until_ns", "spin", "body",
        "epoll", "used_slots", "free_first", "next_timer_ns", "stalled_until_ns", "accept_again",
        "has_pwait2",
    )
] + [("tls_context", "u8")])  # fmt: skip
"""The sink's settings (first row) and what it keeps between loops."""

Sink = namedtuple(
    "Sink", "control stamps peers settings timers options inputs outputs answer events scratch queue free_ns"
)
"""control int64[SinkWords.WORDS], stamps STAMP[n], peers PEER[cap], settings SETTINGS[1], timers int64[cap],
options int64[cap, len(OPTIONS)], inputs and outputs uint8[cap, ROW_BYTES], answer uint8[n] (the usual answer,
whole), events uint8[n], scratch int64[4], queue QUEUE[1], free_ns int64[servers] (none: requests need no server)."""

stamp_type, peer_type, settings_type = from_dtype(STAMP), from_dtype(PEER), from_dtype(SETTINGS)
SINK_TYPE = bundle_type(
    Sink,
    [
        types.int64[::1], stamp_type[::1], peer_type[::1], settings_type[::1], types.int64[::1],
        types.int64[:, ::1], types.uint8[:, ::1], types.uint8[:, ::1], types.uint8[::1], types.uint8[::1],
        types.int64[::1], from_dtype(QUEUE)[::1], types.int64[::1],
    ],
)  # fmt: skip

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
    """What kernels compare with and copy from."""
    return np.frombuffer(literal, np.uint8).copy()
