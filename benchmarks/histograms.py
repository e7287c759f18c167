"""The cost of recording a value: by the kernel, and by the hdrhistogram package, whose layout and encoding it shares."""

from __future__ import annotations

import time

import numpy as np
from hdrh.histogram import HdrHistogram

from replay_native.ground import jit
from replay_native.ledger import hdr

VALUES = 10_000_000
ROUNDS = 5


def measure() -> dict[str, float]:
    """Return ns per recorded value: of the kernel in the best of ROUNDS, of the package in one round."""
    jit.warm(["ledger.hdr"])
    values = np.clip(np.random.default_rng(1).lognormal(13, 1, VALUES).astype(np.int64), 1, hdr.HIGHEST_NS)
    counts = np.zeros(hdr.COUNTERS_3, np.uint64)
    ours = min(_timed(lambda: hdr.record_all(counts, hdr.HALF_3, values)) for _ in range(ROUNDS)) / VALUES
    package = HdrHistogram(1, hdr.HIGHEST_NS, 3)
    few = values[:100_000].tolist()

    def record_each() -> None:
        for value in few:
            package.record_value(value)

    return {"kernel": ours * 1e9, "hdrhistogram package": _timed(record_each) / len(few) * 1e9}


def _timed(action) -> float:  # type: ignore[no-untyped-def]
    before = time.perf_counter()
    action()
    return time.perf_counter() - before
