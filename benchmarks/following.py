"""How late a followed log is sent, beside `replay run` of the same log, in turns: `python -m benchmarks.following`.

A real nginx writes the log with milliseconds, and with `--buffer 64k` also late and out of order. Each round follows the
log while requests arrive at a constant rate, then replays it with `replay run`. The generator lag of both is compared.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replay.staging.sink import Sink
from tests.support.followed import MS_FORMAT
from tests.support.ports import free_port

CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ }}
http {{
  log_format ms '{format}';
  access_log {folder}/access.log ms {buffer};
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }}
}}
"""


@contextmanager
def nginx(folder: Path, buffer: str) -> Iterator[int]:
    """Run nginx, which writes `folder`/access.log, and yield its port."""
    port, program = free_port(), shutil.which("nginx")
    if program is None:
        raise SystemExit("this benchmark needs nginx")
    (folder / "nginx.conf").write_text(
        CONFIGURATION.format(folder=folder, port=port, format=MS_FORMAT, buffer=buffer)
    )
    process = subprocess.Popen(
        [program, "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL
    )
    time.sleep(1)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def drive(port: int, rate_per_s: float, seconds: float, seed: int) -> int:
    """Send requests one after another, at most at a constant rate, and return their number."""
    connection, randoms = http.client.HTTPConnection("127.0.0.1", port), random.Random(seed)
    begin_s, count = time.monotonic(), 0
    while time.monotonic() < begin_s + seconds:
        connection.request("GET", f"/items/{randoms.randrange(10_000)}")
        connection.getresponse().read()
        count += 1
        time.sleep(max(0.0, begin_s + count / rate_per_s - time.monotonic()))
    return count


def _replay(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "replay.cli", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _figures(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def one_round(folder: Path, target: int, given: argparse.Namespace, seed: int) -> dict[str, float]:
    """Follow a log, replay it, and return the figures of both runs."""
    folder.mkdir()
    url = f"http://127.0.0.1:{target}"
    with nginx(folder, f"buffer={given.buffer} flush=5s" if given.buffer else "") as port:
        drive(port, 10, 1, seed)
        time.sleep(6 if given.buffer else 0)
        flags = [
            "--log-format",
            MS_FORMAT,
            "--target",
            url,
            "-o",
            "followed",
            "--delay",
            given.delay,
            "--plain",
        ]
        follow = _replay(folder, "follow", "access.log", *flags)
        time.sleep(6)
        sent = drive(port, given.rate, given.seconds, seed)
        time.sleep(float(given.delay.removesuffix("s")) + 1)
        follow.send_signal(signal.SIGTERM)
        follow.wait(60)
    _replay(folder, "import", "access.log", "--log-format", MS_FORMAT, "-o", "again.trace").wait(600)
    _replay(folder, "run", "again.trace", "--target", url, "-o", "replayed", "--plain").wait(600)
    followed, replayed = _figures(folder / "followed"), _figures(folder / "replayed")
    source = followed["source"]
    return {
        "requests": sent,
        "planned": followed["accounts"]["planned"],
        "late_at_source": source["late_at_source"],
        "needed_delay_ms": (source["needed_delay_ns"] or 0) / 1e6,
        "follow_p90_ms": followed["latency"]["lateness"]["p90_ns"] / 1e6,
        "run_p90_ms": replayed["latency"]["lateness"]["p90_ns"] / 1e6,
    }


def main() -> None:
    """Print each round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--delay", default="3s", help="delay of replay follow in seconds, such as 3s")
    parser.add_argument(
        "--buffer", default="", help="size of nginx's log buffer, such as 64k; lines are then up to 5 s late"
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rounds = []
    with tempfile.TemporaryDirectory(prefix="replay-bench-") as name, Sink() as target:
        for number in range(given.rounds):
            rounds.append(one_round(Path(name) / str(number), target.port, given, given.seed + number))
            print(json.dumps(rounds[-1]), flush=True)
    for key in ("follow_p90_ms", "run_p90_ms"):
        print(f"{key}: median {statistics.median(one[key] for one in rounds):.3f}")


if __name__ == "__main__":
    main()
