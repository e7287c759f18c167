"""The W3C trace of a request, whose id follows from the run and the number of the request."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(run_id: str) -> int:
    """Return the seed of all trace ids of a run. It is never 0, because 0 means that requests have no traceparent."""
    digest = hashlib.blake2b(run_id.encode(), digest_size=8, person=b"traceparent").digest()
    return int.from_bytes(digest, "big") or 1


def traceparent(seed: int, seq: int, attempt: int | None = None) -> bytes:
    """Return the value of the header `traceparent` for an attempt of a request; by default for the first attempt."""
    from replay_native.ground.jit import warm  # The imports are here so that reports do not load Numba.
    from replay_native.templates import trace_context as kernels

    warm(("templates.trace_context",))
    out = np.empty(kernels.TRACEPARENT_BYTES, np.uint8)
    kernels.write_traceparent(out, np.uint64(seed), seq, attempt or kernels.FIRST_ATTEMPT)
    return out.tobytes()


def trace_id(seed: int, seq: int) -> str:
    """Return the trace id of a request; it is the same for all its attempts."""
    return traceparent(seed, seq).decode()[3:35]
