"""Measures the maximum rate of a lane on this machine.

The measurement is a closed loop against the built-in sink, in this process.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from replay.settings.file import load
from replay.staging.sink import Sink
from replay.trace import TraceWriter

from .prepare import prepare

ROWS = 10_000


def closed_loop_per_s(duration_ns: int) -> float:
    """Measure the requests per second of one lane with 64 connections, with the sink on another thread."""
    with tempfile.TemporaryDirectory(prefix="replay-calibrate-") as name, Sink() as sink:
        with TraceWriter(Path(name) / "one.trace") as writer:
            request = writer.add_request("GET", b"/")
            at_ns = np.arange(ROWS, dtype=np.int64)
            writer.add_events(at_ns, np.full(ROWS, request, np.uint32), np.zeros(ROWS, np.uint32))
        assert writer.trace is not None
        values = {
            "target": f"http://127.0.0.1:{sink.port}", "rate": "max", "threads": 1, "connections": 64,
            "duration": duration_ns / 1e9,
        }  # fmt: skip
        scenario = load(None, values, {})
        with prepare(writer.trace, scenario) as prepared:
            document = prepared.run(Path(name) / "run")
    return document.accounts.ok / document.duration_s
