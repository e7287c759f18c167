"""W3C Trace Context: the `traceparent` of a request, `00-TRACE_ID-PARENT_ID-01` (version 00, sampled).

Both ids are computed from the run's seed and the request's number. So they are not stored, and the trace id of any
request can be computed afterwards. A request has one trace id. Each attempt has its own parent id, so that a tracing
backend shows retries as separate spans of one trace.
"""

from __future__ import annotations

import numpy as np

from replay_native.ground.jit import kernel
from replay_native.ground.randoms import random_of
from replay_native.ground.shared import peek_u8, poke_u8

from .text import put, put_hex

TRACEPARENT_BYTES = 55
"""`00-` + 32 digits + `-` + 16 digits + `-01`."""

PARENT_FROM = 3 + 32 + 1
"""Where the parent id begins in the value."""

FIRST_ATTEMPT = 2
"""The attempt of a request that is sent for the first time: see `attempt_of`."""

_HIGH, _LOW, _PARENT = (
    np.uint64(0x7472616365686967), np.uint64(0x74726163656C6F77), np.uint64(0x706172656E740000),
)  # fmt: skip
_BEFORE = np.frombuffer(b"\r\ntraceparent: 00-", dtype=np.uint8)
_VERSION = np.frombuffer(b"00-", dtype=np.uint8)
_FLAGS = np.frombuffer(b"-01", dtype=np.uint8)
_NAME = np.frombuffer(b"traceparent: ", dtype=np.uint8)

LINE_BYTES = _NAME.shape[0] + TRACEPARENT_BYTES + 2
"""Bytes of the header line, with its CR LF."""

_DASH, _CR, _LF = 45, 13, 10


@kernel(inlined=True)
def attempt_of(tries, resent):
    """Return the number of an attempt: twice the number of the try, plus 1 if it was sent again on a new connection."""
    return np.int64(2 * tries + resent)


@kernel(inlined=True)
def _id_of(seed, seq, salt):
    """Return 64 bits of an id, which are never all zeros, because such an id would be invalid."""
    bits = random_of(seed, seq, salt)
    return bits if bits != np.uint64(0) else np.uint64(1)


@kernel()
def _put_parent(at, seed, seq, attempt):
    """Write the parent id of an attempt in hexadecimal, and return the address after it."""
    return put_hex(at, _id_of(seed, seq, _PARENT ^ np.uint64(attempt)), 16)


@kernel()
def put_traceparent(at, seed, seq, attempt):
    """Write the value of the header, and return the address after it."""
    at = put(at, _VERSION, 0, _VERSION.shape[0])
    at = put_hex(at, _id_of(seed, seq, _HIGH), 16)
    at = put_hex(at, _id_of(seed, seq, _LOW), 16)
    poke_u8(np.uint64(at), np.uint8(_DASH))
    at = _put_parent(at + 1, seed, seq, attempt)
    return put(at, _FLAGS, 0, _FLAGS.shape[0])


@kernel()
def put_trace_line(at, seed, seq):
    """Write the header line for the first attempt of a request, and return the address after it."""
    at = put(at, _NAME, 0, _NAME.shape[0])
    at = put_traceparent(at, seed, seq, np.int64(FIRST_ATTEMPT))
    poke_u8(np.uint64(at), np.uint8(_CR))
    poke_u8(np.uint64(at + 1), np.uint8(_LF))
    return at + 2


@kernel(inlined=True)
def _begins_line(at):
    """Return whether the header line, and the line end before it, are at an address."""
    same = np.int64(0)
    while same < _BEFORE.shape[0] and peek_u8(np.uint64(at + same)) == _BEFORE[same]:
        same += 1
    return same == _BEFORE.shape[0]


@kernel()
def renew_parent(address, length, seed, seq, attempt):
    """Replace the parent id of a rendered request, if it has a traceparent, with that of this attempt.

    The head has at most one `traceparent` line. No other line can be mistaken for it, because values contain no line
    ends.
    """
    size = _BEFORE.shape[0]
    for at in range(address, address + length - size - TRACEPARENT_BYTES):
        if peek_u8(np.uint64(at)) != _CR:
            continue
        if _begins_line(at):
            _put_parent(at + size - _VERSION.shape[0] + PARENT_FROM, seed, seq, attempt)
            return
        if peek_u8(np.uint64(at + 2)) == _CR:
            return


@kernel("void(uint8[::1], uint64, int64, int64)", brief=True)
def write_traceparent(out, seed, seq, attempt):
    """Write the value of the header into `out`, which must have at least TRACEPARENT_BYTES."""
    put_traceparent(np.int64(out.ctypes.data), seed, seq, attempt)


@kernel("void(uint8[::1], uint64, int64, int64, int64)", brief=True)
def renew_parent_in(request, seed, seq, tries, resent):
    """Call `renew_parent` for a request in an array."""
    attempt = attempt_of(tries, resent)
    renew_parent(np.int64(request.ctypes.data), np.int64(request.shape[0]), seed, seq, attempt)
