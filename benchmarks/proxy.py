"""The recording proxy beside nginx and mitmproxy, and the mirror receiver beside the plain sink.

`python -m benchmarks.proxy` prints the p50 that a proxy adds to a request (one connection, compared with no proxy), and
requests per CPU second of all processes of the proxy (16 connections). For the mirror receiver only recorded requests are
counted, including those that it writes after the load has ended. Its requests have one body of 1 kB, bodies that all
differ, or bodies and headers with secrets that all differ. `--mitmdump PATH` is the command of mitmproxy, which is left out
if it is not installed. The benchmark needs wrk and nginx.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .peers import free_port
from .recorders import TO_SERVICE, cpu_s, descendants, nginx, record, running, settled, wait_for

ROUNDS, SECONDS = 3, 4
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
        wait_for(lambda: read_notes(journal).records >= warmed)
        before_s, before = cpu_s(pid), read_notes(journal).records
        requests, _ = load(folder, port, 16, lua)
        wait_for(lambda: settled(journal, before + requests))
        recorded = read_notes(journal).records - before
        found = recorded / (cpu_s(pid) - before_s), p50_us, recorded / requests
        # The recorder is killed, because making the trace would take long, and nothing needs it.
        for each in descendants(pid):
            os.kill(each, signal.SIGKILL)
        return found


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


def main() -> None:
    """Compare, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mitmdump", default=shutil.which("mitmdump") or "")
    parser.add_argument("--mirror", action="store_true", help="measure only the mirror receiver and the sink")
    given = parser.parse_args()
    compare(given.mitmdump, only_mirror=given.mirror)


if __name__ == "__main__":
    main()
