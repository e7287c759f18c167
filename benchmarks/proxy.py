"""The recording proxy beside nginx and mitmproxy, and the mirror receiver beside the plain sink.

`python -m benchmarks.proxy` prints the p50 that a proxy adds to a request (one connection, compared with no proxy), and
requests per CPU second of all processes of the proxy (16 connections). For the mirror receiver only recorded requests are
counted, including those that it writes after the load has ended. Its requests have one body of 1 kB, bodies that all
differ, or bodies and headers with secrets that all differ. `--mitmdump PATH` is the command of mitmproxy, which is left out
if it is not installed. The benchmark needs wrk and nginx.

With `--kills N` it kills the proxy and the receiver N times each at random moments (`--seed`), and checks their traces. With
`--nginx` it lets nginx mirror requests that ab sends, and compares the counts. With `--memory SECONDS` it prints the memory
of recordings of that length.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROUNDS, SECONDS = 3, 4
TO_MIRROR = 100_000
"""Requests that nginx mirrors with `--nginx`."""

SAMPLES, GROWTH_MIB = 10, 8
"""Samples of the memory with `--memory`, and by how much the last may exceed those of the first half."""

LUA = 'wrk.method = "POST"\nwrk.body = string.rep("x", 1024)\nwrk.headers["Content-Type"] = "text/plain"\n'
_NUMBERED = """
local rest = {rest}
local number = 0
wrk.headers["Content-Type"] = "application/json"
function request()
  number = number + 1
  {header}
  return wrk.format("POST", "/orders/" .. number % 1000, nil, string.format({begin}, number, number * 7919 % 1e6) .. rest)
end
"""
_WORDS = " ".join(
    f"{word}{number}" for number in range(19) for word in ("tea", "cup", "blue", "shelf", "line", "ready")
)
_REST = "'" + '", "text": "' + _WORDS + '"}' + "'"
DISTINCT = _NUMBERED.format(
    rest=_REST, header="", begin="""'{"order": "a-%06x", "price": %d, "unit": "EUR'"""
)
SECRETS = _NUMBERED.format(
    rest=_REST,
    header='wrk.headers["Authorization"] = string.format("Bearer abcd%08xefgh", number)',
    begin="""'{"email": "jo%06x@shop.example", "token": "t0k3n-%08d", "unit": "EUR'""",
)
MIRRORED = {"one body": LUA, "distinct": DISTINCT, "secrets": SECRETS}

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error;
events {{ worker_connections 1000; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 64k;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream service {{ server 127.0.0.1:{service}; keepalive 64; keepalive_requests 100000000; }}
  upstream receiver {{ server 127.0.0.1:{receiver}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}; location / {{ {rules} }}
    location = /mirrored {{
      internal; log_subrequest on; access_log {folder}/mirrored; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_pass http://receiver$request_uri;
    }}
  }}
}}
"""
TO_SERVICE = 'proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";'


def free_port() -> int:
    """Return a port of loopback on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Start a process, wait for up to 60 s until it listens on a port, and yield its pid; exit if it ends before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends_at = time.monotonic() + 60
        while time.monotonic() < ends_at:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with exit code {process.returncode}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        process.wait(120)


@contextlib.contextmanager
def nginx(folder: Path, rules: str, service: int = 1, receiver: int = 1) -> Iterator[tuple[int, int]]:
    """Run nginx with one location, and yield its port and pid."""
    port = free_port()
    place = folder / f"nginx-{port}"
    place.mkdir()
    (place / "conf").write_text(
        NGINX.format(folder=place, port=port, rules=rules, service=service, receiver=receiver)
    )
    with running(["nginx", "-c", str(place / "conf")], port) as pid:
        yield port, pid


def descendants(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end before its file is read.
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += descendants(int(child))
    return found


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and all its descendants."""
    used = 0
    for each in descendants(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        used += int(fields[11]) + int(fields[12])
    return used / os.sysconf("SC_CLK_TCK")


def load(folder: Path, port: int, connections: int, lua: str = LUA) -> tuple[int, float]:
    """Send requests by wrk for SECONDS; return their number, and p50 of their latency in us."""
    script = folder / "post.lua"
    script.write_text(lua)
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency", "-s", str(script), f"http://127.0.0.1:{port}/a"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if "Non-2xx" in done:
        raise SystemExit(f"failed requests on port {port}: {done}")
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", done).groups()  # type: ignore[union-attr]
    p50_us = float(value) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]
    return int(re.search(r"(\d+) requests in", done)[1]), p50_us  # type: ignore[index]


def figures(folder: Path, port: int, pid: int, lua: str = LUA) -> tuple[float, float]:
    """Return requests per CPU second with 16 connections, and p50 in us with one."""
    _, p50_us = load(folder, port, 1, lua)
    before_s = cpu_s(pid)
    requests, _ = load(folder, port, 16, lua)
    time.sleep(0.5)
    return requests / (cpu_s(pid) - before_s), p50_us


def mirror_figures(folder: Path, lua: str) -> tuple[float, float, float]:
    """Return recorded requests per CPU second, p50 in us with one connection, and the recorded share of the requests."""
    from replay.trace.journal import read_notes

    port = free_port()
    with record(folder, port, "--mirror") as pid:
        journal = folder / f"{port}.trace.journal"
        warmed, p50_us = load(folder, port, 1, lua)
        _wait_for(lambda: read_notes(journal).records >= warmed)
        before_s, before = cpu_s(pid), read_notes(journal).records
        requests, _ = load(folder, port, 16, lua)
        _wait_for(lambda: _settled(journal, before + requests))
        recorded = read_notes(journal).records - before
        found = recorded / (cpu_s(pid) - before_s), p50_us, recorded / requests
        # The recorder is killed, because making the trace would take long, and nothing needs it.
        for each in descendants(pid):
            os.kill(each, signal.SIGKILL)
        return found


def _settled(journal: Path, requests: int) -> bool:
    """Return whether at least `requests` requests are recorded or counted as lost.

    There may be more, because wrk does not count the requests that it aborts at its end.
    """
    from replay.trace.journal import read_notes

    notes = read_notes(journal)
    return notes.records + sum(notes.lost.values()) >= requests


def _wait_for(happened: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 60
    while not happened() and time.monotonic() < ends_at:
        time.sleep(0.1)
    time.sleep(0.5)


@contextlib.contextmanager
def record(folder: Path, port: int, *options: str) -> Iterator[int]:
    """Run `replay record http` with a journal of its own, and yield its pid."""
    out = folder / f"{port}.trace"
    command = [
        sys.executable,
        "-m",
        "replay.cli",
        "record",
        "http",
        "--listen",
        f"127.0.0.1:{port}",
        "-o",
        str(out),
    ]
    with running([*command, *options], port) as pid:
        while not Path(f"{out}.journal").exists():
            time.sleep(0.02)
        yield pid


def one_round(folder: Path, mitmdump: str) -> dict[str, tuple[float, ...]]:
    """Measure each proxy once; return requests per CPU second and the added p50 in us."""
    found: dict[str, tuple[float, ...]] = {}
    with nginx(folder, "return 200 ok;") as (service, _):
        _, direct_us = load(folder, service, 1)
        with nginx(folder, TO_SERVICE, service) as (port, pid):
            found["nginx"] = figures(folder, port, pid)
        port = free_port()
        with record(folder, port, "--upstream", f"http://127.0.0.1:{service}") as pid:
            found["replay record"] = figures(folder, port, pid)
        if mitmdump:
            port = free_port()
            command = [
                mitmdump,
                "-q",
                "--mode",
                f"reverse:http://127.0.0.1:{service}",
                "-p",
                str(port),
                "-w",
                str(folder / "m"),
            ]
            with running(command, port) as pid:
                found["mitmdump"] = figures(folder, port, pid)
    return {name: (rate, p50_us - direct_us) for name, (rate, p50_us) in found.items()}


def mirror_round(folder: Path) -> dict[str, tuple[float, ...]]:
    """Measure the mirror receiver with each kind of bodies, and the sink with the same requests.

    One request costs both of them more CPU time if wrk, which makes the bodies, sends fewer per second.
    """
    found: dict[str, tuple[float, ...]] = {}
    for kind, lua in MIRRORED.items():
        found[f"mirror, {kind}"] = mirror_figures(folder, lua)
        port = free_port()
        with running([sys.executable, "-m", "replay.staging.sink", "--port", str(port)], port) as pid:
            found[f"sink, {kind}"] = figures(folder, port, pid, lua)
    return found


def compare(mitmdump: str, *, only_mirror: bool) -> None:
    """Measure and print medians; the share is the rate relative to that of the sink in the same round."""
    rounds: dict[str, list[tuple[float, ...]]] = {}
    shares: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            found = {} if only_mirror else one_round(Path(name), mitmdump)
            found |= mirror_round(Path(name))
        for name, each in found.items():
            rounds.setdefault(name, []).append(each)
            kind = name.partition(", ")[2] or "one body"
            shares.setdefault(name, []).append(each[0] / found[f"sink, {kind}"][0])
    print("program           requests per CPU second   of the sink's   p50 (proxies: added)   recorded")
    for name, values in rounds.items():
        rate, p50_us, *recorded = (statistics.median(column) for column in zip(*values, strict=True))
        share = statistics.median(shares[name])
        last = f"{recorded[0]:10.0%}" if recorded else ""
        print(f"{name:17} {rate:23,.0f}   {share:13.2f}   {p50_us:17,.0f} us   {last}")


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
            _wait_for(lambda: _settled(journal, TO_MIRROR))
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
        _wait_for(lambda: bool(done))
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
    """Compare, or kill; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mitmdump", default=shutil.which("mitmdump") or "")
    parser.add_argument("--mirror", action="store_true", help="measure only the mirror receiver and the sink")
    parser.add_argument(
        "--nginx", action="store_true", help="only compare nginx's count of mirrored requests"
    )
    parser.add_argument(
        "--memory", type=float, metavar="SECONDS", help="only the memory of recordings of this length"
    )
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.memory:
        return memory(given.memory)
    if given.nginx:
        return nginx_count()
    if given.kills:
        return min(1, kills(given.kills, given.seed))
    compare(given.mitmdump, only_mirror=given.mirror)
    return 0


if __name__ == "__main__":
    sys.exit(main())
