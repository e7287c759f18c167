"""A replay on loopback, captured by tcpdump: the capture has what was sent, and tshark reads the same from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from replay.staging.sink import Sink
from replay.trace import Trace
from replay.trace.importing import import_files
from tests.support.events import Event, events
from tests.support.trace_data import Row, write_trace

pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(
        shutil.which("tcpdump") is None or os.geteuid() != 0, reason="needs tcpdump, and root to capture"
    ),
]
ROWS = 400


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """The trace that was replayed, the capture, and the port."""
    folder = tmp_path_factory.mktemp("captured")
    trace, capture = folder / "sent.trace", folder / "a.pcap"
    write_trace(trace, [Row(n * 5_000_000, target=b"/%d" % (n % 7)) for n in range(ROWS)])
    with Sink(capacity=10_000) as sink:
        words = [
            "tcpdump",
            "-i",
            "lo",
            "--nano",
            "-U",
            "-B",
            "32768",
            "-w",
            str(capture),
            f"tcp port {sink.port}",
        ]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as dump:
            assert dump.stderr is not None
            while "listening" not in (line := dump.stderr.readline()):
                assert line, "tcpdump ended before it captured"
            target = f"http://127.0.0.1:{sink.port}"
            ran = [
                sys.executable,
                "-m",
                "replay.cli",
                "run",
                str(trace),
                "--target",
                target,
                "-o",
                str(folder / "run"),
            ]
            subprocess.run(ran, timeout=120, check=False, capture_output=True)
            time.sleep(1)
            # tcpdump writes each packet at once (-U). A pytest worker may ignore SIGTERM, and its children inherit
            # that.
            dump.kill()
        return trace, capture, sink.port


def test_the_capture_holds_what_was_sent(captured: tuple[Path, Path, int], tmp_path: Path) -> None:
    trace, capture, _ = captured
    sent = Counter(event.target for event in events(Trace.open(trace)))
    back = events(import_files([capture], tmp_path / "back.trace"))
    found = Counter(event.target for event in back)
    # A busy machine may drop packets. Those that were captured must be right.
    assert not found - sent
    assert found.total() > 0.5 * ROWS
    assert {event.status for event in back} <= {200, -1}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark not found")
def test_tshark_reads_the_same(captured: tuple[Path, Path, int], tmp_path: Path) -> None:
    _, capture, port = captured
    words = ["tshark", "-r", str(capture), "-d", f"tcp.port=={port},http", "-T", "fields"]

    def fields(what: str, *names: str) -> list[list[str]]:
        chosen = [word for name in names for word in ("-e", name)]
        out = subprocess.run(
            [*words, "-Y", what, *chosen], capture_output=True, text=True, check=True, timeout=60
        )
        return [line.split("\t") for line in out.stdout.splitlines()]

    asked = {
        row[0]: row[1:]
        for row in fields("http.request", "frame.number", "frame.time_epoch", "http.request.uri")
    }
    answered = fields("http.response", "http.request_in", "http.time", "http.response.code")
    ours = {event.at_ns: event for event in events(import_files([capture], tmp_path / "back.trace"))}
    at_ns = {number: int(stamp.replace(".", "").ljust(19, "0")) for number, (stamp, _) in asked.items()}
    assert set(at_ns.values()) == set(ours)
    compared = 0
    for number, took, status in answered:
        event: Event | None = ours.get(at_ns.get(number, -1))
        if event is None or event.status < 0 or not took:
            continue
        compared += 1
        assert (event.status, event.took_ns) == (int(status), pytest.approx(float(took) * 1e9, abs=10_000))
    assert compared > 0.5 * ROWS
