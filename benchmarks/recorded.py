"""A recorded day of a real web server, replayed 600 times as fast: the lateness of its requests by the sink's stamps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replay.trace.importing.pipeline import import_files

from . import peers

RECORDING = Path(__file__).resolve().parents[2] / "shared" / "traces" / "nasa-http-1995-08-01.log"
SPEED = 600


@dataclass(frozen=True)
class Recorded:
    """The requests of the day, their outcomes, and their lateness against the recorded times."""

    rows: int
    planned: int
    ok: int
    arrived: int
    verdict: str
    p50_ms: float
    p90_ms: float
    p99_ms: float


def measure(folder: Path) -> Recorded | None:
    """Replay the whole day; return None if the recording is missing."""
    if not RECORDING.exists():
        return None
    trace = import_files([RECORDING], folder / "day.trace")
    recorded_ns = np.concatenate([batch.at_ns for batch in trace.batches()])
    with peers.sink(trace.rows + 1_000) as (port, memory):
        document = peers.replay(folder, [
            os.fspath(folder / "day.trace"), "--target", f"http://127.0.0.1:{port}", "--speed", str(SPEED),
            "--methods", "all", "--empty-bodies",
        ])  # fmt: skip
        stamps = memory.stamps()
    stamps = stamps[stamps["seq"] >= 0]
    due_ns = document["start"]["monotonic_ns"] + (recorded_ns - recorded_ns[0]) / SPEED
    late_ms = (stamps["arrival_ns"] - due_ns[stamps["seq"]]) / 1e6
    p50, p90, p99 = np.percentile(late_ms, [50, 90, 99])
    accounts = document["accounts"]
    return Recorded(
        trace.rows, accounts["planned"], accounts["ok"], int(np.unique(stamps["seq"]).size),
        document["validity"]["verdict"], float(p50), float(p90), float(p99),
    )  # fmt: skip
