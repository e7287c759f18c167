"""A generator that is stopped again and again must say so, whatever the target did; one at ease must not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from replay.errors import Exit
from replay.staging.sink import Sink

from .trace_data import constant

pytestmark = pytest.mark.whole

BOUND_S = 90.0
OFF_S, ON_S = 0.6, 0.03
"""Stopped and continued in turns."""


def run(trace: Path, port: int, out: Path, *more: str, starved: bool) -> tuple[int, dict[str, Any]]:
    """Exit code and run.json of a run that is starved from its first second on, or left alone."""
    command = [sys.executable, "-m", "replay.cli", "run", str(trace), "--target", f"http://127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "-o", str(out), "--quiet", *more])
    bound = time.monotonic() + BOUND_S
    try:
        while not (out / "latency.hlog").exists() and process.poll() is None and time.monotonic() < bound:
            time.sleep(0.05)
        while starved and process.poll() is None and time.monotonic() < bound:
            process.send_signal(signal.SIGSTOP)
            time.sleep(OFF_S)
            process.send_signal(signal.SIGCONT)
            time.sleep(ON_S)
        code = process.wait(max(bound - time.monotonic(), 1))
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
    return code, json.loads((out / "run.json").read_text())


@pytest.mark.parametrize("connect", ["pool", "per-request", "per-client"])
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_a_starved_generator_is_invalid(sink: Sink, tmp_path: Path, engine: str, connect: str) -> None:
    trace = constant(tmp_path / "a.trace", rows=900, rate_per_s=300)
    code, document = run(
        trace, sink.port, tmp_path / "run", "--connect", connect, "--engine", engine, starved=True
    )
    assert (document["validity"]["verdict"], code) == ("INVALID", Exit.INVALID)
    delays = document["generator"]["delays"]
    assert delays["gap_max_ns"] > OFF_S * 0.9e9
    assert delays["response_net"]["p50_ns"] < document["latency"]["response"]["p50_ns"] / 2
