"""Volume: ten million requests with distinct paths at 50,000/s, on time and in flat memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import peers, punctuality, traces

RATE = 50_000
ROWS = (1_000_000, 10_000_000)


@dataclass(frozen=True)
class Volume:
    """One run: lateness at the receiver, and what it took of memory."""

    rows: int
    arrived: int
    underruns: int
    verdict: str
    p50_ms: float
    p90_ms: float
    peak_rss_mib: float


def _run(folder: Path, trace: Path, rows: int) -> Volume:
    with peers.sink(rows + 1_000) as (port, memory):
        document, peak_rss_mib = peers.replay_and_rss(
            folder, [str(trace), "--target", f"http://127.0.0.1:{port}"]
        )
        stamps = memory.stamps()
    stamps = stamps[stamps["seq"] >= 0]
    due_ns = document["start"]["monotonic_ns"] + stamps["seq"] * (1_000_000_000 // RATE)
    p50, p90 = np.percentile((stamps["arrival_ns"] - due_ns) / 1e6, [50, 90])
    return Volume(
        rows, int(stamps.size), document["generator"]["underruns"], document["validity"]["verdict"], float(p50),
        float(p90), peak_rss_mib,
    )  # fmt: skip


def measure(folder: Path, rows: tuple[int, ...] = ROWS) -> dict[str, list[Volume] | list[punctuality.Late]]:
    """A run of each size, and the machine's floor at the same rate before and after each."""
    runs, control = [], [punctuality.control(RATE)]
    for n in rows:
        runs.append(_run(folder, traces.distinct_paths(folder / f"{n}.trace", n, RATE), n))
        control.append(punctuality.control(RATE))
    return {"runs": runs, "control": control}
