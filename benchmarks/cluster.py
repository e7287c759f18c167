"""One trace over agents of this machine, against one process: accounts, order, percentiles, cost.

    python -m benchmarks.cluster [--rows 1000000] [--seconds 100] [--agents 4]

The sink is the witness: it stamps every request with its number. Both runs send the same trace at the same rate.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from replay.results.hlog import read_hlog
from replay.staging.sink import Sink
from replay.trace import TraceWriter

CLIENTS = 9_973
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def made_trace(path: Path, rows: int, seconds: float) -> Path:
    """A trace of so many requests of CLIENTS clients."""
    with TraceWriter(path) as writer:
        requests = np.array(
            [writer.add_request("GET", b"/items/%d" % n, None) for n in range(500)], np.uint32
        )
        numbers = np.arange(rows)
        writer.add_events(
            1_700_000_000_000_000_000 + (numbers * (seconds * 1e9 / rows)).astype(np.int64),
            requests[numbers % 500],
            (numbers * 7919 % CLIENTS).astype(np.uint32),
            np.full(rows, 200, np.int16),
            np.full(rows, -1, np.int64),
        )
    return path


def run(trace: Path, port: int, out: Path, *more: str) -> dict[str, Any]:
    """One run by the real command; its run.json."""
    command = [
        sys.executable, "-m", "replay.cli", "run", str(trace), "--target", f"http://127.0.0.1:{port}", "-q",
        "--order", "client", "-o", str(out), *more,
    ]  # fmt: skip
    began_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    print(f"{out.name}: {time.perf_counter() - began_s:.0f} s, exit code {done.returncode}")
    found: dict[str, Any] = json.loads((out / "run.json").read_text())
    return found


def witnessed(stamps: np.ndarray, rows: int) -> str:
    """What the sink says: every number exactly once, each client's requests in order."""
    in_order = stamps[np.argsort(stamps["arrival_ns"], kind="stable")]["seq"]
    once = np.array_equal(np.sort(in_order), np.arange(rows))
    by_client = in_order[np.argsort(in_order * 7919 % CLIENTS, kind="stable")]
    same = np.diff(by_client * 7919 % CLIENTS) == 0
    ordered = bool(np.all(np.diff(by_client)[same] > 0))
    return f"each number exactly once: {once}; in order inside each client: {ordered}"


def is_the_sum(whole: Path, parts: list[Path], name: str) -> bool:
    """Whether merged counts are those of the agents, bit for bit."""
    merged = read_hlog(whole / name).by_tag()
    each = [read_hlog(part / name).by_tag() for part in parts]
    return all(
        np.array_equal(found.counts, sum(one[tag].counts for one in each if tag in one))
        for tag, found in merged.items()
    )


def print_percentiles(whole: Path, parts: list[Path], alone: Path) -> None:
    """Merged percentiles, those of one process, and the averages of the agents' percentiles."""
    print("| service | merged | one process | average of the agents | its error |")
    merged = read_hlog(whole / "totals.hlog").by_tag()["service.all"].percentiles(PERCENTILES)
    single = read_hlog(alone / "totals.hlog").by_tag()["service.all"].percentiles(PERCENTILES)
    each = [
        read_hlog(part / "totals.hlog").by_tag()["service.all"].percentiles(PERCENTILES) for part in parts
    ]
    for name, one, other, average in zip(PERCENTILES, merged, single, np.mean(each, axis=0), strict=True):
        print(
            f"| p{name:g} | {one / 1e3:.1f} us | {other / 1e3:.1f} us | {average / 1e3:.1f} us | {average / one - 1:+.1%} |"
        )


def main() -> int:
    """Run both, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=100.0)
    parser.add_argument("--agents", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="replay-") as name:
        area = Path(name)
        trace = made_trace(area / "t.trace", given.rows, given.seconds)
        with Sink(capacity=given.rows + 10) as sink:
            alone = run(trace, sink.port, area / "alone", "-t", "1")
            print(witnessed(sink.stamps().copy(), given.rows))
        with Sink(capacity=given.rows + 10) as sink:
            cluster = run(trace, sink.port, area / "cluster", "--cluster", f"local:{given.agents}", "-t", "1")
            stamps = sink.stamps().copy()
            print(witnessed(stamps, given.rows))
        print(f"accounts are the same: {cluster['accounts'] == alone['accounts']}")
        parts = sorted((area / "cluster" / "agents").glob("agent-*"))
        for log in ("totals.hlog", "latency.hlog"):
            print(f"{log} is the sum of {len(parts)} agents: {is_the_sum(area / 'cluster', parts, log)}")
        print_percentiles(area / "cluster", parts, area / "alone")
        for what, document in (("alone", alone), ("cluster", cluster)):
            lateness = document["latency"]["lateness"]
            print(
                f"{what}: generator lag p90 {lateness['p90_ns'] / 1e3:.1f} us, {document['validity']['verdict']}"
            )
        for agent in cluster["agents"]:
            clock = agent["clock"]
            print(
                f"agent {agent['agent']}: clock within {clock['bound_ns'] / 1e3:.1f} us, sent {agent['accounts']['sent']:,}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
