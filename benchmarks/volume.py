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
    """One run: lateness at the receiver, and what it took of memory. p50 and p90 are those of the median window, as long as
    a round of `punctuality`; p90_whole is that of all requests.
    """

    rows: int
    arrived: int
    underruns: int
    verdict: str
    p50_ms: float
    p90_ms: float
    p90_whole_ms: float
    peak_rss_mib: float


def _run(folder: Path, trace: Path, rows: int) -> Volume:
    with peers.sink(rows + 1_000) as (port, memory):
        document, peak_rss_mib = peers.replay_and_rss(
            folder, [str(trace), "--target", f"http://127.0.0.1:{port}"]
        )
        stamps = memory.stamps()
    stamps = stamps[stamps["seq"] >= 0]
    due_ns = document["start"]["monotonic_ns"] + stamps["seq"] * (1_000_000_000 // RATE)
    late_ms = (stamps["arrival_ns"] - due_ns) / 1e6
    window = stamps["seq"] // (RATE * punctuality.SECONDS)
    windows = [np.percentile(late_ms[window == number], [50, 90]) for number in np.unique(window)]
    p50, p90 = np.median(windows, axis=0)
    return Volume(
        rows, int(stamps.size), document["generator"]["underruns"], document["validity"]["verdict"], float(p50),
        float(p90), float(np.percentile(late_ms, 90)), peak_rss_mib,
    )  # fmt: skip


def measure(folder: Path, rows: tuple[int, ...] = ROWS) -> dict[str, list[Volume] | list[punctuality.Late]]:
    """A run of each size, and the machine's floor at the same rate before and after each."""
    runs, control = [], [punctuality.control(RATE)]
    for n in rows:
        runs.append(_run(folder, traces.distinct_paths(folder / f"{n}.trace", n, RATE), n))
        control.append(punctuality.control(RATE))
    return {"runs": runs, "control": control}
