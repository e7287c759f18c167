"""Checks of one trace sent by agents of this machine, against one process: accounts, order, sums, starts, percentiles.

    python -m benchmarks.cluster [--rows 1000000] [--seconds 200] [--agents 4] [--over local,tcp,tls]
    python -m benchmarks.cluster --skewed

`tcp` and `tls` start a Dask scheduler and its workers as processes; the TLS run sends a hundredth of the requests. The
sink stamps every request with its number. With `--skewed` one agent has a slow path and a quarter of the requests of each
other agent. The percentiles of the whole run are printed beside the average of the agents' percentiles. The exit code is
1 if a check fails. On a busy machine runs may be INVALID and latencies mean nothing, but all checks must hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import cluster_laws as laws
from replay.results.hlog import read_hlog
from replay.staging.sink import Sink
from replay.trace import TraceWriter
from tests.cluster.test_transports import dask
from tests.support.certificates import Authority

CLIENTS = 9_973
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
PATIENCE = "600s"
"""The time limit of a request, long enough for a busy machine to send every request, if late."""

SKEWED_ROWS, SKEWED_S, SLOW_MS = 40_000, 40.0, 8


class Made(NamedTuple):
    """A trace, with the due time of each request after the first, and the number of its client."""

    path: Path
    due_ns: np.ndarray
    client: np.ndarray


def made_trace(path: Path, rows: int, seconds: float) -> Made:
    """Write a trace of evenly spaced requests of CLIENTS clients."""
    numbers = np.arange(rows)
    due_ns = (numbers * (seconds * 1e9 / rows)).astype(np.int64)
    client = (numbers * 7919 % CLIENTS).astype(np.uint32)
    return _written(path, [b"/items/%d" % n for n in range(500)], numbers % 500, due_ns, client)


def skewed_trace(path: Path, agents: int) -> Made:
    """Write a trace in which the last agent has a quarter of the requests of each other agent, SLOW_MS slower."""
    draw = np.random.default_rng(1)
    weights = np.array([4.0] * (agents - 1) + [1.0])
    agent = draw.choice(agents, SKEWED_ROWS, p=weights / weights.sum())
    client = (draw.integers(0, 500, SKEWED_ROWS) * agents + agent).astype(np.uint32)
    due_ns = (np.arange(SKEWED_ROWS) * (SKEWED_S * 1e9 / SKEWED_ROWS)).astype(np.int64)
    targets = [b"/near", b"/sink/delay_ms=%d" % SLOW_MS]
    return _written(path, targets, (agent == agents - 1).astype(np.int64), due_ns, client)


def _written(
    path: Path, targets: list[bytes], which: np.ndarray, due_ns: np.ndarray, client: np.ndarray
) -> Made:
    with TraceWriter(path) as writer:
        requests = np.array([writer.add_request("GET", target, None) for target in targets], np.uint32)
        writer.add_events(
            1_700_000_000_000_000_000 + due_ns,
            requests[which],
            client,
            np.full(len(due_ns), 200, np.int16),
            np.full(len(due_ns), -1, np.int64),
        )
    return Made(path, due_ns, client)


def run(trace: Path, port: int, out: Path, *more: str) -> dict[str, Any]:
    """Run `replay run`, print how it ended, and return its run.json; exit if it failed."""
    command = [
        sys.executable, "-m", "replay.cli", "run", str(trace), "--target", f"http://127.0.0.1:{port}", "-q",
        "--order", "client", "-o", str(out), "-t", "1", "-c", "1024", "--max-wait", PATIENCE, "--timeout", PATIENCE, *more,
    ]  # fmt: skip
    began_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    took_s, verdict = time.perf_counter() - began_s, found["validity"]["verdict"]
    print(
        f"\n{out.name}: {took_s:.0f} s, exit code {done.returncode}, {verdict}, {found['accounts']}",
        flush=True,
    )
    if found["accounts"]["unsent"]:
        print(f"  unsent: {found['accounts_detail']['unsent']}", flush=True)
    return found


@contextmanager
def cluster_of(kind: str, agents: int, folder: Path) -> Iterator[list[str]]:
    """Yield the options for a run over `agents` agents, with a Dask cluster unless `kind` is "local"."""
    if kind == "local":
        yield ["--cluster", f"local:{agents}"]
    elif kind == "tcp":
        with dask(folder, agents) as at:
            yield ["--cluster", at]
    else:
        authority = Authority.create(folder)
        identity = authority.issue("dask")
        files = {"ca": authority.path, "cert": identity.cert, "key": identity.key}
        names = {"ca": "--tls-ca-file", "cert": "--tls-cert", "key": "--tls-key"}
        options = [word for key, path in files.items() for word in (names[key], str(path))]
        with dask(folder, agents, *options) as at:
            yield [
                "--cluster",
                at,
                *(w for key, path in files.items() for w in (f"--cluster-{key}", str(path))),
            ]


class Findings:
    """Prints checks, and counts those that failed."""

    def __init__(self) -> None:
        self.failed = 0

    def check(self, what: str, holds: bool) -> None:
        """Print a check and whether it holds."""
        self.failed += not holds
        print(f"  {what}: {holds}", flush=True)


def alone(trace: Made, out: Path, findings: Findings) -> dict[str, Any]:
    """Send the trace by one process, and check the sink's stamps."""
    with Sink(capacity=len(trace.due_ns) + 10) as sink:
        document = run(trace.path, sink.port, out)
        findings.check("each number exactly once", laws.once(sink.stamps(), len(trace.due_ns)))
        findings.check("in order inside each client", laws.in_order(sink.stamps(), trace.client))
    return document


def over(
    kind: str, trace: Made, agents: int, out: Path, single: dict[str, Any], findings: Findings
) -> dict[str, Any]:
    """Send the trace over agents, and check the run against that of one process."""
    folder = out.with_name(f"{out.name}-machines")
    folder.mkdir()
    with Sink(capacity=len(trace.due_ns) + 10) as sink, cluster_of(kind, agents, folder) as words:
        document = run(trace.path, sink.port, out, *words)
        stamps = sink.stamps().copy()
    findings.check(f"{agents} agents", len(laws.folders_of(out)) == len(document["agents"]) == agents)
    findings.check("each number exactly once", laws.once(stamps, len(trace.due_ns)))
    findings.check("in order inside each client", laws.in_order(stamps, trace.client))
    findings.check(
        "accounts are those of one process", document["accounts"] == single["accounts"] | {"unknown": 0}
    )
    findings.check("accounts are the sums of the agents'", laws.counters_are_the_sum(out))
    for log in laws.LOGS:
        findings.check(f"{log} is the sum of the agents', bit for bit", laws.is_the_sum(out, log))
    for start in laws.starts(out, stamps, trace.due_ns, trace.client):
        findings.check(
            f"agent {start.agent}: its earliest request arrived {start.earliest_ns / 1e3:+.1f} us after its due time; the"
            f" bound is {start.bound_ns / 1e3:.1f} us, and its fastest response took {start.latency_ns / 1e3:.1f} us",
            start.holds,
        )
    return document


def print_percentiles(run: Path, single: Path) -> None:
    """Print percentiles of the merged run and of one process, and the average of the agents' percentiles."""

    def of(folder: Path) -> list[int]:
        return read_hlog(folder / "totals.hlog").by_tag()["service.all"].percentiles(PERCENTILES)

    print("\n| service | merged | one process | average of the agents | its error |")
    each = [of(folder) for folder in laws.folders_of(run)]
    for name, one, other, average in zip(
        PERCENTILES, of(run), of(single), np.mean(each, axis=0), strict=True
    ):
        cells = (
            f"p{name:g}",
            *(f"{ns / 1e6:.3f} ms" for ns in (one, other, average)),
            f"{average / one - 1:+.1%}",
        )
        print(f"| {' | '.join(cells)} |")


def main() -> int:
    """Run the checks, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--over", default="local,tcp,tls", help="clusters to use, separated by commas")
    parser.add_argument("--skewed", action="store_true", help="compare percentiles if one agent is slower")
    given = parser.parse_args()
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="replay-") as name:
        area = Path(name)
        if given.skewed:
            trace = skewed_trace(area / "t.trace", given.agents)
            single = alone(trace, area / "alone", findings)
            over("local", trace, given.agents, area / "local", single, findings)
            print_percentiles(area / "local", area / "alone")
            return int(findings.failed > 0)
        for kind in given.over.split(","):
            small = kind == "tls"
            rows, seconds = (given.rows // 100, given.seconds / 10) if small else (given.rows, given.seconds)
            place = area / ("small" if small else "large")
            if not place.exists():
                place.mkdir()
                trace = made_trace(place / "t.trace", rows, seconds)
                single = alone(trace, place / "alone", findings)
            over(kind, trace, given.agents, place / kind, single, findings)
            print_percentiles(place / kind, place / "alone")
    print(f"\n{findings.failed} checks failed")
    return int(findings.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
