"""Runs with watched figures, written by the real recorder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replay.results.run import Run, load_run

from . import metrics_data

GOAL = "p90<50ms"


def make_run(folder: Path, seconds: list[tuple[float, dict[str, float | None]]], **more: Any) -> Run:
    """A run with 100 requests in each second: 80 take 2 ms, 20 take `slow_ms`; and its samples."""
    made = metrics_data.trial(folder, slo=[GOAL], **more)
    for number, (slow_ms, watched) in enumerate(seconds):
        for at in range(100):
            due_ms = 1_000.0 * number + at
            made.lanes[0].request(due_ms=due_ms, service_ms=slow_ms if at < 20 else 2.0)
        made.recorder.tick(metrics_data.at_s(number + 1), watched=watched)
    made.recorder.finish(metrics_data.at_s(len(seconds)))
    return load_run(folder)
