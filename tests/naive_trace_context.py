"""W3C Trace Context in plain Python: the twin of `replay_native.templates.trace_context`."""

from __future__ import annotations

import re

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
VALID = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01")


def mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def id_of(seed: int, seq: int, salt: bytes) -> int:
    mixed = mix(seed ^ int.from_bytes(salt, "big"))
    return mix((mixed + (seq + 1) * GOLDEN) & MASK) or 1


def traceparent(seed: int, seq: int, attempt: int = 2) -> bytes:
    high, low = id_of(seed, seq, b"tracehig"), id_of(seed, seq, b"tracelow")
    salt = (int.from_bytes(b"parent\0\0", "big") ^ attempt).to_bytes(8, "big")
    return b"00-%016x%016x-%016x-01" % (high, low, id_of(seed, seq, salt))


def renewed(request: bytes, seed: int, seq: int, attempt: int) -> bytes:
    """The request with the parent id of an attempt, if its head has a traceparent."""
    head, end, body = request.partition(b"\r\n\r\n")
    found = re.search(rb"\r\ntraceparent: [^\r]*", head)
    if found is None:
        return request
    line = b"\r\ntraceparent: " + traceparent(seed, seq, attempt)
    return head[: found.start()] + line + head[found.end() :] + end + body
