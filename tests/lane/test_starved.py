"""A generator that is stopped again and again must say so, whatever the target did; one at ease must not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.errors import Exit
from replay.staging.sink import Sink
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.whole

ROWS, EVERY_NS = 900, 3_000_000
BOUND_S = 90.0
OFF_S, ON_S = 0.6, 0.03
"""Stopped and continued in turns."""


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(capacity=4 * ROWS) as sink:
        yield sink


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


@pytest.mark.timing
@pytest.mark.parametrize("connect", ["pool", "per-request", "per-client"])
@pytest.mark.parametrize("engine", ["native", "portable"])
def test_a_starved_generator_is_invalid(sink: Sink, tmp_path: Path, engine: str, connect: str) -> None:
    path = tmp_path / "a.trace"
    write_trace(path, [Row(at_ns=EVERY_NS * n, client=n % 50) for n in range(ROWS)])
    code, document = run(
        path, sink.port, tmp_path / "run", "--connect", connect, "--engine", engine, starved=True
    )
    assert (document["validity"]["verdict"], code) == ("INVALID", Exit.INVALID)
    delays = document["generator"]["delays"]
    assert delays["gap_max_ns"] > OFF_S * 0.9e9
    assert delays["response_net"]["p50_ns"] < document["latency"]["response"]["p50_ns"] / 2
