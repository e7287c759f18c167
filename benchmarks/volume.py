"""Lateness and memory of one and ten million requests with distinct paths at 50,000/s."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import peers, punctuality, traces

RATE = 50_000
ROWS = (1_000_000, 10_000_000)


@dataclass(frozen=True)
class Volume:
    """The lateness of one run by the sink's stamps, and its peak memory.

    `p50_ms` and `p90_ms` are those of the median window, which is as long as a round of `punctuality`. `p90_whole_ms` is
    that of all requests. For the control, `verdict` is empty, and `underruns` and `peak_rss_mib` are 0.
    """

    program: str
    rows: int
    arrived: int
    underruns: int
    verdict: str
    p50_ms: float
    p90_ms: float
    p90_whole_ms: float
    peak_rss_mib: float


def _late(stamps: np.ndarray, start_ns: int) -> tuple[float, float, float]:
    """Return p50 and p90 of the median window, and p90 of all requests, in ms."""
    stamps = stamps[stamps["seq"] >= 0]
    late_ms = (stamps["arrival_ns"] - start_ns - stamps["seq"] * (1_000_000_000 // RATE)) / 1e6
    window = stamps["seq"] // (RATE * punctuality.SECONDS)
    windows = [np.percentile(late_ms[window == number], [50, 90]) for number in np.unique(window)]
    p50_ms, p90_ms = np.median(windows, axis=0)
    return float(p50_ms), float(p90_ms), float(np.percentile(late_ms, 90))


def _run(folder: Path, rows: int) -> Volume:
    trace = traces.distinct_paths(folder / f"{rows}.trace", rows, RATE)
    with peers.sink(rows + 1_000) as (port, memory):
        document = peers.replay(folder, [str(trace), "--target", f"http://127.0.0.1:{port}"])
        stamps = memory.stamps()
    return Volume(
        "replay", rows, int((stamps["seq"] >= 0).sum()), document["generator"]["underruns"],
        document["validity"]["verdict"], *_late(stamps, document["start"]["monotonic_ns"]),
        peers.peak_rss_mib(document),
    )  # fmt: skip


def _control(rows: int) -> Volume:
    """Measure the least lateness that the machine allows over the same time, because longer runs have more stalls."""
    with peers.sink(rows + 1_000) as (port, memory):
        done = peers.finish(
            [sys.executable, "-m", "benchmarks.control", str(port), str(RATE), str(rows / RATE)]
        )
        stamps = memory.stamps()
    return Volume(
        "control",
        rows,
        int((stamps["seq"] >= 0).sum()),
        0,
        "",
        *_late(stamps, int(done.out.split()[0])),
        0.0,
    )


def measure(folder: Path, rows: tuple[int, ...] = ROWS) -> list[Volume]:
    """Measure a run of each size and its control, smaller sizes first.

    The order matters, because the peak RSS of a child process begins with that of its parent.
    """
    return [made for n in rows for made in (_run(folder, n), _control(n))]
