"""Recorders that are killed, that nginx mirrors to, and that run for long: nothing is missing, and memory stays flat.

`--kills N` kills the proxy and the receiver N times each at random moments (`--seed`), and checks their traces.
`--nginx` lets nginx mirror requests that ab sends, and compares the counts. `--memory SECONDS` prints the memory of
recordings of that length. The benchmark needs nginx, and `--nginx` ab.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from .peers import free_port
from .recorders import TO_SERVICE, descendants, nginx, record, settled, wait_for

TO_MIRROR = 100_000
"""Requests that nginx mirrors."""

SAMPLES, GROWTH_MIB = 10, 8
"""Samples of the memory, and by how much the last may exceed those of the first half."""


def nginx_count() -> int:
    """Let nginx mirror as many requests as it can, and compare its log with what was recorded; 1 if they differ."""
    from replay.trace.journal import read_notes

    with tempfile.TemporaryDirectory() as name, nginx(Path(name), "return 200 ok;") as (service, _):
        folder, receiver = Path(name), free_port()
        with (
            record(folder, receiver, "--mirror"),
            nginx(folder, f"mirror /mirrored; {TO_SERVICE}", service, receiver) as (port, _),
        ):
            (body := folder / "body").write_bytes(b"x" * 1_024)
            # wrk breaks off its last requests. nginx does not log those, but may have mirrored them.
            command = ["ab", "-qk", "-c16", f"-n{TO_MIRROR}", "-p", str(body), f"http://127.0.0.1:{port}/a"]
            began_s = time.monotonic()
            subprocess.run(command, capture_output=True, check=True)
            took_s = time.monotonic() - began_s
            journal = folder / f"{receiver}.trace.journal"
            wait_for(lambda: settled(journal, TO_MIRROR))
            log = (folder / f"nginx-{port}" / "mirrored").read_text().splitlines()
            notes = read_notes(journal)
    answered, lost = sum('" 2' in line for line in log), sum(notes.lost.values())
    rate = f"{len(log) / took_s:,.0f} per second"
    print(f"nginx mirrored {len(log):,} of {TO_MIRROR:,} requests, {rate}; {answered:,} were answered")
    print(f"replay recorded {notes.records:,}, and counted {lost:,} as lost")
    return int(not TO_MIRROR == len(log) == answered == notes.records + lost)


def _client(port: int, done: list[float]) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as sock:
        for number in range(1_000_000):
            sock.sendall(b"POST /a/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" % number)
            data = b""
            while b"\r\n\r\n" not in data:
                if not (piece := sock.recv(4_096)):
                    return
                data += piece
            done.append(time.monotonic())
            time.sleep(0.001)


def one_kill(folder: Path, options: list[str], after_s: float) -> str:
    """Kill a recording `after_s` after its first response; return what is missing, or "" if nothing is.

    Requests that were answered more than a second before the kill must be in the trace of the journal.
    """
    from replay.trace.importing import import_files

    port, done = free_port(), list[float]()
    with record(folder, port, *options) as pid:
        client = threading.Thread(target=_client, args=(port, done))
        client.start()
        # On a busy machine the first response may take longer than `after_s`.
        wait_for(lambda: bool(done))
        time.sleep(after_s)
        for each in descendants(pid):
            os.kill(each, signal.SIGKILL)
        killed_s = time.monotonic()
        client.join()
    journal = folder / f"{port}.trace.journal"
    trace = import_files([journal], folder / f"{port}.trace")
    found = {trace.requests.get(int(row)).target for batch in trace.batches() for row in batch.request}
    safe = sum(at_s < killed_s - 1 for at_s in done)
    missing = [number for number in range(safe) if b"/a/%d" % number not in found]
    return f"{len(missing)} of {safe} requests are missing" if missing else ""


def kills(count: int, seed: int) -> int:
    """Kill each recorder `count` times, and return after how many kills requests were missing."""
    draw, complaints = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name, nginx(Path(name), "return 200 ok;") as (service, _):
        for kind, options in (
            ("proxy", ["--upstream", f"http://127.0.0.1:{service}"]),
            ("receiver", ["--mirror"]),
        ):
            for number in range(count):
                # A port may come again, and the journal of the recording before it would be in the way.
                (folder := Path(name) / f"{kind}-{number}").mkdir()
                complaint = one_kill(folder, options, draw.uniform(1.05, 2.5))
                if complaint:
                    complaints += 1
                    print(f"{kind}, kill {number} of seed {seed}: {complaint}")
            print(f"{kind}: {count} kills", flush=True)
    return complaints


def memory(length_s: float) -> int:
    """Record for a while, and print the memory of the recorder's processes; 1 if it grows in the second half."""
    grew = 0
    with tempfile.TemporaryDirectory() as name, nginx(Path(name), "return 200 ok;") as (service, _):
        for kind, options in (
            ("proxy", ["--upstream", f"http://127.0.0.1:{service}"]),
            ("receiver", ["--mirror"]),
        ):
            port, done, sizes = free_port(), list[float](), list[float]()
            with record(Path(name), port, *options) as pid:
                client = threading.Thread(target=_client, args=(port, done))
                client.start()
                for _ in range(SAMPLES):
                    time.sleep(length_s / SAMPLES)
                    sizes.append(sum(map(_own_mib, descendants(pid))))
                for each in descendants(pid):
                    os.kill(each, signal.SIGKILL)
                client.join()
            grew += sizes[-1] > max(sizes[: SAMPLES // 2]) + GROWTH_MIB
            print(f"{kind}: {len(done):,} requests, MiB:", *(f"{size:.0f}" for size in sizes), flush=True)
    return min(1, grew)


def _own_mib(pid: int) -> float:
    """Return the memory of a process that is not shared, in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in lines)}
    return (sizes["Private_Clean"] + sizes["Private_Dirty"]) / 1_024


def main() -> int:
    """Run one proof, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nginx", action="store_true", help="compare nginx's count of mirrored requests")
    parser.add_argument(
        "--memory", type=float, metavar="SECONDS", help="the memory of recordings of this length"
    )
    parser.add_argument(
        "--kills", type=int, default=100, help="kill each recorder this many times (default: 100)"
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.memory:
        return memory(given.memory)
    if given.nginx:
        return nginx_count()
    return min(1, kills(given.kills, given.seed))


if __name__ == "__main__":
    sys.exit(main())
