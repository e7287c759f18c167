"""What a run over 100 agents would need, from measured parts: clocks, reports, merging, shipping (docs/scale.md).

    python -m benchmarks.cluster_scale [--agents 100] [--rate 10000000] [--seed 1]

Clocks and networks are simulated. The costs of real reports, pieces and run folders are measured.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from replay.cluster.clock import PeerClock
from replay.cluster.merging import merge_runs
from replay.cluster.messages import PIECE_BYTES, Counts, FileOffer, Report, decode, encode
from replay.cluster.reports import Reports
from replay.cluster.share import Share, read_share, write_share
from replay.cluster.shipping import read_piece
from replay.ledger.catalog import each_second
from replay.ledger.histogram import NS_2, NS_3
from replay.plan.schedule import make_schedule
from replay.results.hlog import tag_of
from replay.settings.scenario import Scenario
from replay_native.ground.jit import warm
from tests.support.metrics_data import START, at_s, trial
from tests.support.trace_data import Row, write_trace

MS = 1_000_000
ROUTES = 50
SECONDS = 30
"""Length of the runs whose folders are merged."""


class Link(NamedTuple):
    """A network: each way takes `base_us` plus a lognormal delay with the median `median_us`."""

    name: str
    base_us: float
    median_us: float
    sigma: float


LINKS = (
    Link("one rack", 30, 20, 0.7),
    Link("one region", 300, 100, 1.0),
    Link("two continents", 40_000, 1_500, 1.0),
)


def clock_errors(link: Link, agents: int, exchanges: int, draw: random.Random) -> tuple[float, float, float]:
    """Return the median and the largest error of the clock estimates, and the largest bound, in microseconds.

    Each agent's clock has an offset and drifts by up to 50 ppm.
    """
    errors, bounds = [], []
    for _ in range(agents):
        lead_ns, ppm = draw.randint(-(10**12), 10**12), draw.uniform(-50, 50)
        clock, now_ns = PeerClock(), 0
        for _ in range(exchanges):
            there_ns, back_ns = (
                round((link.base_us + draw.lognormvariate(0, link.sigma) * link.median_us) * 1e3)
                for _ in range(2)
            )
            came_ns = now_ns + there_ns
            shown_ns = lead_ns + came_ns + round(came_ns * ppm / 1e6)
            clock.add(now_ns, shown_ns, shown_ns, came_ns + back_ns)
            now_ns += 250 * MS
        found = clock.estimate(now_ns)
        true_ns = lead_ns + round(now_ns * ppm / 1e6)
        errors.append(abs(found.offset_ns - true_ns) / 1e3)
        bounds.append(found.bound_ns / 1e3)
    return float(np.median(errors)), max(errors), max(bounds)


def report_of(rate_per_s: int, generator: np.random.Generator) -> Report:
    """Return an agent's report of one second with `rate_per_s` requests."""
    histograms = []
    for tag in each_second(closed_loop=False, tls=False, consumed=()):
        histograms.append(_counts(tag, rate_per_s, NS_3.half, generator))
    for number in range(ROUTES // 10):
        tag = tag_of("response", f"GET /route/{number}", "2xx")
        histograms.append(_counts(tag, 10 * rate_per_s // ROUTES, NS_2.half, generator))
    totals = dict.fromkeys((f"counter_{number}" for number in range(60)), 10**9)
    routes = {f"GET /route/{number}": {"2xx": rate_per_s // ROUTES} for number in range(ROUTES)}
    return Report(
        epoch="e" * 16,
        number=1,
        at_s=1.0,
        totals=totals,
        counters=totals,
        routes=routes,
        histograms=histograms,
    )


def _counts(tag: str, values: int, half: int, generator: np.random.Generator) -> Counts:
    at_ns = (generator.lognormal(1.5, 0.8, values) * 1e6).astype(np.int64)
    shift = np.maximum(np.floor(np.log2(at_ns)).astype(np.int64) - half, 0)
    places = (shift << half) + (at_ns >> shift)
    at, counts = np.unique(places, return_counts=True)
    return Counts(tag, 0.0, 1.0, at.astype("<i4").tobytes(), counts.astype("<u8").tobytes())


def cost_of_reports(rate_per_s: int, seed: int) -> tuple[int, float]:
    """Return the bytes of a report, and the CPU time in ms that the coordinator needs to decode and add it."""
    data = encode(report_of(rate_per_s, np.random.default_rng(seed)))
    sums, count = Reports(), 20
    began_s = time.process_time()
    for _ in range(count):
        found = decode(data)
        assert isinstance(found, Report)
        sums.add(found)
    return len(data), (time.process_time() - began_s) / count * 1e3


def cost_of_merging(agents: int) -> tuple[float, float, int, int]:
    """Merge `agents` folders of SECONDS each; return wall time, CPU time, bytes per folder, and peak memory.

    Times are in s. The peak memory in bytes is that of this process since its start.
    """
    with tempfile.TemporaryDirectory(prefix="replay-") as name:
        area = Path(name)
        made = trial(area / "agent-0")
        write_share(area / "agent-0", _share(0, agents))
        for second in range(SECONDS):
            for _ in range(3):
                made.lanes[0].many(300, seed=second)
            made.recorder.tick(at_s(second + 1))
        made.recorder.finish(at_s(SECONDS))
        planned = 900 * SECONDS
        folders = [area / "agent-0"]
        for agent in range(1, agents):
            folders.append(area / f"agent-{agent}")
            shutil.copytree(folders[0], folders[-1])
        for agent, folder in enumerate(folders):
            write_share(folder, _share(agent, agents, planned))
        size = sum(path.stat().st_blocks * 512 for path in folders[0].rglob("*") if path.is_file())
        assert read_share(folders[0]).planned == planned
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        document = merge_runs(folders, area / "whole")
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        assert document.accounts.sent == planned * agents
        return wall_s, cpu_s, size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _share(agent: int, agents: int, planned: int = 0) -> Share:
    return Share(
        run_id="r", epoch="e", agent=agent, agents=agents, first_lane=agent, after_lane=agent + 1, of_lanes=agents,
        planned=planned, planned_whole=planned * agents, instant_ns=START.monotonic_ns, start_ns=START.monotonic_ns,
    )  # fmt: skip


def cost_of_shipping() -> float:
    """Return the bytes per second that one core reads, encodes and decodes."""
    pieces = 64
    with tempfile.TemporaryDirectory(prefix="replay-") as name:
        (Path(name) / "columns").write_bytes(np.random.default_rng(1).bytes(pieces * PIECE_BYTES))
        offer = FileOffer("columns", pieces * PIECE_BYTES)
        began_s = time.process_time()
        for number in range(pieces):
            piece = read_piece(Path(name), {offer.name: offer.size}, offer.name, number * PIECE_BYTES)
            decode(encode(piece))
        return pieces * PIECE_BYTES / (time.process_time() - began_s)


def rows_per_second() -> float:
    """Return the rows of a trace per second that one core schedules; each agent reads the rows of all agents."""
    rows = 300_000
    with tempfile.TemporaryDirectory(prefix="replay-") as name:
        trace = write_trace(Path(name) / "t.trace", [Row(number * 1_000) for number in range(rows)])
        schedule = make_schedule(trace, Scenario(target="http://127.0.0.1:1"))
        best_s = float("inf")
        for _ in range(5):
            began_s = time.process_time()
            assert sum(len(batch) for batch in schedule.batches()) == rows
            best_s = min(best_s, time.process_time() - began_s)
    return rows / best_s


def average_of_percentiles(seed: int) -> list[tuple[str, float, float, float]]:
    """Return (percentile, true ms, average of the agents' ms, error) for four agents, one of them slower."""
    generator = np.random.default_rng(seed)
    agents = [generator.lognormal(1.5, 0.5, 200_000) for _ in range(3)]
    agents.append(generator.lognormal(1.5, 0.5, 50_000) * 4)
    rows = []
    for percentile in (50.0, 90.0, 99.0, 99.9):
        true = float(np.percentile(np.concatenate(agents), percentile))
        average = float(np.mean([np.percentile(agent, percentile) for agent in agents]))
        rows.append((f"p{percentile:g}", true, average, average / true - 1))
    return rows


def main() -> int:
    """Print all tables, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--rate", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    warm(["ledger.hdr", "ledger.hdr_decode", "ledger.record"])
    draw = random.Random(given.seed)
    print(
        f"clocks of {given.agents} agents, microseconds\n| network | exchanges | error p50 | error max | bound max |"
    )
    for link in LINKS:
        for exchanges in (8, 64):
            median, most, bound = clock_errors(link, given.agents, exchanges, draw)
            print(f"| {link.name} | {exchanges} | {median:.1f} | {most:.1f} | {bound:.1f} |")
    size, cpu_ms = cost_of_reports(given.rate // given.agents, given.seed)
    print(
        f"\na report of {given.rate // given.agents:,} requests: {size:,} bytes, {cpu_ms:.2f} ms of the coordinator's CPU"
    )
    print(
        f"{given.agents} agents: {size * given.agents / 1e6:.1f} MB/s, {cpu_ms * given.agents / 1e3:.0%} of a core"
    )
    for agents in (4, given.agents):
        wall_s, cpu_s, folder, memory = cost_of_merging(agents)
        print(
            f"merging {agents} folders of {SECONDS} s ({folder / 1e6:.1f} MB each): {wall_s:.1f} s, {cpu_s:.1f} s of CPU, "
            f"{memory / 1e6:.0f} MB of memory at most"
        )
    rate = cost_of_shipping()
    print(f"shipping: {rate / 1e6:,.0f} MB/s per core")
    print(f"planning: {rows_per_second() / 1e6:,.1f} M rows/s per core")
    print("\n| percentile | of all requests | average of four agents | error |")
    for name, true, average, error in average_of_percentiles(given.seed):
        print(f"| {name} | {true:.2f} ms | {average:.2f} ms | {error:+.0%} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
