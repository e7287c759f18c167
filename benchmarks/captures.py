"""Packet captures: megabytes per CPU second of `replay import`, and of tshark for the same requests.

python -m benchmarks.captures --exchanges 20000 --bytes 2000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.packets import Connection, Frame, pcap, request, response

EXCHANGES_OF_A_CONNECTION = 20


def capture(exchanges: int, size: int) -> bytes:
    """Return a capture of overlapping keep-alive connections, with response bodies of `size` bytes."""
    frames: list[Frame] = []
    for number in range(0, exchanges, EXCHANGES_OF_A_CONNECTION):
        connection = Connection(
            source=f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            at_ns=1_700_000_000_000_000_000 + number * 9_000,
        ).open()
        for each in range(EXCHANGES_OF_A_CONNECTION):
            body = (b'{"id": %d, "text": "%s"}' % (number + each, b"as usual " * size))[:size]
            connection.ask(request(f"/items/{number + each}", Accept="application/json"))
            connection.answer(response(body=body))
        frames += connection.close().frames()
    return pcap(sorted(frames, key=lambda frame: frame.at_ns))


def cpu_s(words: list[str]) -> tuple[float, str]:
    """Run a command; return its CPU seconds and its standard output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def main() -> None:
    """Measure `replay import` on a capture, and tshark on the same one if it is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exchanges", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "day.pcap"
        path.write_bytes(capture(options.exchanges, options.bytes))
        megabytes = path.stat().st_size / 1e6
        words = [
            sys.executable,
            "-m",
            "replay.cli",
            "import",
            os.fspath(path),
            "-o",
            f"{folder}/day.trace",
            "--json",
        ]
        for name in ("warm", "replay"):  # The first round compiles the kernels.
            taken_s, said = cpu_s([*words, "--force"] if name == "replay" else words)
        found = json.loads(said)
        print(f"capture {megabytes:,.1f} MB, {options.exchanges:,} exchanges")
        print(f"replay  {megabytes / taken_s:6.1f} MB per CPU second, {found['rows']:,} requests")
        if shutil.which("tshark"):
            fields = [
                "-T",
                "fields",
                "-e",
                "http.request.method",
                "-e",
                "http.request.uri",
                "-e",
                "http.time",
            ]
            taken_s, said = cpu_s(["tshark", "-r", os.fspath(path), "-Y", "http", *fields])
            count = sum(line.startswith("GET") for line in said.splitlines())
            print(f"tshark  {megabytes / taken_s:6.1f} MB per CPU second, {count:,} requests")


if __name__ == "__main__":
    main()
