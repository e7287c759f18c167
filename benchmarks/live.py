"""What viewers of the live page cost a run: generator lag with none and with many of them, in turns in one run.

    python -m benchmarks.live [--viewers 50] [--rate 5000] [--phase 10] [--turns 3]

One run at a constant rate onto the sink; a process of viewers connects for every other phase and reads everything. The
first SETTLE_S of each phase are left out. It fails where p90 grows by CHANGE_MAX or more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from replay.ledger.histogram import Histogram
from replay.results import hlog
from replay.trace import TraceWriter

SETTLE_S = 2.0
CHANGE_MAX = 0.10
PERCENTILES = (50.0, 90.0, 99.0)


def view(link: str, viewers: int, begin_s: float, phase_s: float, turns: int) -> None:
    """Connect so many viewers in every second phase after `begin_s` (CLOCK_MONOTONIC), and read what they are sent."""
    parts = urlsplit(link)
    head = f"GET /stream HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {parts.fragment}\r\n\r\n".encode()
    received = 0
    for turn in range(turns):
        starts_s = begin_s + (2 * turn + 1) * phase_s
        time.sleep(max(0.0, starts_s - time.monotonic()))
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            for _ in range(viewers):
                made = stack.enter_context(socket.create_connection((parts.hostname, parts.port)))
                made.sendall(head)
                made.setblocking(False)
                selector.register(made, selectors.EVENT_READ)
            while (left_s := starts_s + phase_s - time.monotonic()) > 0:
                for ready, _ in selector.select(left_s):
                    received += len(ready.fileobj.recv(1 << 18))  # type: ignore[union-attr]
    print(json.dumps({"received_bytes": received}))


def measure(viewers: int, rate: int, phase_s: float, turns: int) -> dict[str, object]:
    """One run: generator lag in ns without and with viewers, and how p90 changes."""
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as name, _sink() as port:
        folder = Path(name)
        with TraceWriter(folder / "t.trace") as writer:
            request = writer.add_request("GET", b"/")
            rows = round(rate * 2 * phase_s * turns)
            at_ns = np.arange(rows, dtype=np.int64) * 1_000_000_000 // rate
            writer.add_events(at_ns, np.full(rows, request, np.uint32), np.zeros(rows, np.uint32))
        words = [
            sys.executable, "-m", "replay.cli", "run", str(folder / "t.trace"), "--target", f"http://127.0.0.1:{port}",
            "--live=127.0.0.1:0", "-o", str(folder / "run"), "--plain",
        ]  # fmt: skip
        run = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert run.stderr is not None
        while not (link := re.search(r"live page: (\S+)", line := run.stderr.readline())):
            assert line, "the run did not begin"
        started = folder / "run" / "started.json"
        while not (started.exists() and started.stat().st_size):
            time.sleep(0.01)
        begin_s = json.loads(started.read_text())["start"]["monotonic_ns"] / 1e9
        given = [link[1], str(viewers), str(begin_s), str(phase_s), str(turns)]
        reader = subprocess.run(
            ["nice", "-n", "19", sys.executable, "-m", "benchmarks.live", "--view", *given],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        run.communicate()
        phases = _phases(folder / "run" / "latency.hlog", phase_s)
        found = {
            name: dict(zip(("p50", "p90", "p99"), phases[name].percentiles(PERCENTILES), strict=True))
            for name in phases
        }
        change = found["viewers"]["p90"] / found["alone"]["p90"] - 1
        return {
            "count": viewers, "rate_per_s": rate, "phase_s": phase_s, "turns": turns, **found,
            "p90_change": round(change, 4), **json.loads(reader.stdout),
        }  # fmt: skip


def _phases(path: Path, phase_s: float) -> dict[str, Histogram]:
    """Generator lag of all phases alone, and of all with viewers."""
    found: dict[str, Histogram] = {}
    first_s = None
    for interval in hlog.scan(hlog.Log(path), lambda tag: tag == "lateness.all"):
        first_s = interval.start_s if first_s is None else first_s
        number, into_s = divmod(interval.start_s - first_s, phase_s)
        if into_s < SETTLE_S or into_s + interval.length_s > phase_s + 0.1:
            continue
        name = "viewers" if int(number) % 2 else "alone"
        found[name] = interval.histogram.merged(found[name]) if name in found else interval.histogram
    return found


@contextlib.contextmanager
def _sink() -> Iterator[int]:
    """A sink in a process of its own; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "replay.staging.sink", "--port", str(port)], stdout=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure and print; exit code 1 where p90 grows too much with viewers."""
    if sys.argv[1:2] == ["--view"]:
        link, viewers, begin_s, phase_s, turns = sys.argv[2:]
        view(link, int(viewers), float(begin_s), float(phase_s), int(turns))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--phase", type=float, default=10.0)
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    found = measure(options.viewers, options.rate, options.phase, options.turns)
    print(json.dumps(found, indent=2))
    sys.exit(float(str(found["p90_change"])) >= CHANGE_MAX)


if __name__ == "__main__":
    main()
