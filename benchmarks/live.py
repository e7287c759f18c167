"""What viewers of the live page cost a run: the generator lag without viewers and with many, in turns within one run.

    python -m benchmarks.live [--viewers 50] [--rate 5000] [--phase 10] [--turns 3]

The run sends to the sink at a constant rate. In every second phase another process connects the viewers, which read
everything. All sinks of figures are on throughout: files, a collector that accepts each export, and one scrape of
Prometheus per second. The first 2 s of each phase are left out. The exit code is 1 if p90 grows by 10% or more with
viewers, or if a sink of figures lost anything.
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
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import numpy as np

from replay.ledger.histogram import Histogram
from replay.results import hlog
from replay.trace import TraceWriter

SETTLE_S = 2.0
CHANGE_MAX = 0.10
SCRAPE_S = 1.0
PERCENTILES = (50.0, 90.0, 99.0)


def view(link: str, viewers: int, begin_s: float, phase_s: float, turns: int) -> None:
    """Connect the viewers in every second phase after `begin_s` (CLOCK_MONOTONIC), and print the bytes that they receive."""
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


_OPENER = build_opener(ProxyHandler({}))


class _Exports(BaseHTTPRequestHandler):
    """Accepts each export, and counts them."""

    count = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        _Exports.count += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def collect(scraped_port: int) -> None:
    """Print a port, receive exports there, and scrape a port each second, until standard input is closed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Exports)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    scrapes = 0
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin, selectors.EVENT_READ)
        while not selector.select(SCRAPE_S):
            with (
                contextlib.suppress(OSError),
                _OPENER.open(f"http://127.0.0.1:{scraped_port}/metrics") as response,
            ):
                scrapes += bool(response.read())
    print(json.dumps({"exports": _Exports.count, "scrapes": scrapes}))


@contextlib.contextmanager
def _collector(scraped_port: int) -> Iterator[tuple[int, Callable[[], dict[str, int]]]]:
    """Run `collect` in a process of its own; yield its port, and a function that ends it and returns its counts."""
    process = subprocess.Popen(
        ["nice", "-n", "19", sys.executable, "-m", "benchmarks.live", "--collect", str(scraped_port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), lambda: json.loads(process.communicate()[0])
    finally:
        process.kill()
        process.wait()


def measure(viewers: int, rate: int, phase_s: float, turns: int) -> dict[str, object]:
    """Measure one run: the generator lag in ns without and with viewers, and the relative change of its p90."""
    scraped = _free_port()
    with (
        tempfile.TemporaryDirectory(prefix="replay-bench-") as name,
        _sink() as port,
        _collector(scraped) as (collector, end_of),
    ):
        folder = Path(name)
        with TraceWriter(folder / "t.trace") as writer:
            request = writer.add_request("GET", b"/")
            rows = round(rate * 2 * phase_s * turns)
            at_ns = np.arange(rows, dtype=np.int64) * 1_000_000_000 // rate
            writer.add_events(at_ns, np.full(rows, request, np.uint32), np.zeros(rows, np.uint32))
        words = [
            sys.executable, "-m", "replay.cli", "run", str(folder / "t.trace"), "--target", f"http://127.0.0.1:{port}",
            "--live=127.0.0.1:0", "-o", str(folder / "run"), "--plain", *_sinks(folder, scraped, collector),
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
        taken = end_of()
        if not all(taken.values()) or _lost(folder / "run"):
            raise SystemExit(f"a sink received nothing or lost seconds: {taken}, {_lost(folder / 'run')}")
        phases = _phases(folder / "run" / "latency.hlog", phase_s)
        found = {
            name: dict(zip(("p50", "p90", "p99"), phases[name].percentiles(PERCENTILES), strict=True))
            for name in phases
        }
        change = found["viewers"]["p90"] / found["alone"]["p90"] - 1
        return {
            "count": viewers, "rate_per_s": rate, "phase_s": phase_s, "turns": turns, **found,
            "p90_change": round(change, 4), **json.loads(reader.stdout), **taken,
        }  # fmt: skip


def _phases(path: Path, phase_s: float) -> dict[str, Histogram]:
    """Return the generator lag of all phases without viewers ("alone") and of all with them ("viewers")."""
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


def _sinks(folder: Path, scraped_port: int, collector_port: int) -> list[str]:
    """Return the flags of all sinks of figures."""
    sinks = (
        f"csv={folder / 'seconds.csv'}", f"jsonl={folder / 'seconds.jsonl'}",
        f"prometheus=127.0.0.1:{scraped_port},linger=0", f"otlp=http://127.0.0.1:{collector_port}",
    )  # fmt: skip
    return [word for sink in sinks for word in ("--sink", sink)]


def _lost(run: Path) -> list[str]:
    """Return the notes of a run about sinks that failed or lost seconds."""
    notes = json.loads((run / "run.json").read_text())["notes"]
    return [str(note) for note in notes if "SINK_" in str(note)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def _sink() -> Iterator[int]:
    """Run the target in a process of its own, and yield its port."""
    port = _free_port()
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
    """Measure and print; exit with 1 if p90 grows by CHANGE_MAX or more with viewers."""
    if sys.argv[1:2] == ["--view"]:
        link, viewers, begin_s, phase_s, turns = sys.argv[2:]
        view(link, int(viewers), float(begin_s), float(phase_s), int(turns))
        return
    if sys.argv[1:2] == ["--collect"]:
        collect(int(sys.argv[2]))
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
