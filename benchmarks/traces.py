"""Generated traces for benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from replay.trace import TraceWriter

ROWS_AT_ONCE = 1 << 16


def one_path(path: Path) -> Path:
    """Write a trace whose requests are all for `/`, as those of wrk, and return its path."""
    return _write(path, 10_000, 1_000, lambda _: b"/")


def distinct_paths(path: Path, rows: int, rate_per_s: int) -> Path:
    """Write a trace at a constant rate in which no two requests have the same path, and return its path."""
    return _write(
        path, rows, rate_per_s, lambda row: b"/items/%d/view?session=%x" % (row, row * 2_654_435_761 % 2**32)
    )


def _write(path: Path, rows: int, rate_per_s: int, target_of: Callable[[int], bytes]) -> Path:
    with TraceWriter(path) as writer:
        method = writer.method_id("GET")
        for first in range(0, rows, ROWS_AT_ONCE):
            numbers = np.arange(first, min(first + ROWS_AT_ONCE, rows), dtype=np.int64)
            targets = [target_of(row) for row in numbers.tolist()]
            offsets = np.cumsum([0, *map(len, targets)], dtype=np.int64)
            ids = writer.add_requests(
                np.frombuffer(bytearray(b"".join(targets)), np.uint8),
                offsets,
                np.full(numbers.size, method, np.int64),
                np.full(numbers.size, -1, np.int64),
            )
            clients = (numbers % 1_000).astype(np.uint32)
            writer.add_events(1_577_836_800_000_000_000 + numbers * 1_000_000_000 // rate_per_s, ids, clients)
    return path
