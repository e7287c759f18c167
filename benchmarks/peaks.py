"""Whether `replay peak` finds the known capacity of an M/D/k queue, simulated and real, in twenty searches each.

All real searches take twenty minutes. `python -m benchmarks.peaks --seeds 1-4` repeats some of them, and keeps the results
of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from replay.peaks.search import Search, Trial
from replay.peaks.trial import Bench
from replay.settings.file import load
from replay.settings.kinds import Duration, Rate
from replay.units import SECOND_NS
from replay.workload.generate import generate
from replay.workload.recipe import Recipe
from tests.support.peak_data import Queue, capacity

from . import peers, results

SEARCHES = 20
SERVERS = 16
IMAGINED_WIDTH, IMAGINED_SERVICE_S, IMAGINED_SHARE, REQUESTS = 0.05, 0.020, 0.05, 400_000

WIDTH, SERVICE_S, SHARE = 0.10, 0.002, 0.20
"""The share is a fifth, because a machine that pauses for some milliseconds causes a tail that is not the queue's."""

TRIAL_S = 3.5
RANGE = 4.0
"""The ratio of the highest and the lowest load. The highest is drawn between the capacity and twice the capacity."""

THINNED = 4.0
"""The trace's rate relative to the highest load. A Poisson trace stays Poisson if it is thinned, but not if scaled up."""

QUIET_SHARE = 0.1
"""A load, relative to the capacity, at which hardly any request waits, so that time beyond the service time is lateness."""


@dataclass(frozen=True)
class Found:
    """One search: the highest load that met the objective and the lowest that missed it, relative to the known capacity.

    `took_s` and `late_us` are 0 for simulated searches.
    """

    seed: int
    verdict: str
    lower: float
    upper: float
    trials: int
    took_s: float = 0.0
    late_us: float = 0.0


@dataclass(frozen=True)
class Searches:
    """Searches for one known capacity in requests per second."""

    name: str
    width: float
    known_per_s: float
    found: list[Found] = field(default_factory=list)


def _search(search: Search, trial: Callable[[float, str], Trial]) -> None:
    while (wanted := search.next_load()) is not None:
        search.add(trial(wanted, "up"))


def imagined() -> Searches:
    """Search the capacity of a queue in virtual time, by the share of requests that wait longer than one service time."""
    known = capacity(SERVERS, IMAGINED_SERVICE_S, 1, IMAGINED_SHARE)
    found = []
    for seed in range(1, SEARCHES + 1):
        search = Search(["late"], 50.0, 5_000.0, IMAGINED_WIDTH)
        _search(search, Queue(SERVERS, IMAGINED_SERVICE_S, {"late": IMAGINED_SHARE}, seed, REQUESTS))
        bounds = search.peak()
        found.append(
            Found(seed, str(search.verdict()), bounds.lower / known, bounds.upper / known, len(search.trials))
        )
    return Searches("imagined", IMAGINED_WIDTH, known, found)


def known_per_s() -> float:
    """Return the load at which SHARE of the requests to the real queue wait longer than one service time."""
    return capacity(SERVERS, SERVICE_S, 1, SHARE)


@contextlib.contextmanager
def _queue() -> Iterator[str]:
    """Run the queue on a core of its own, with real-time priority if `chrt` is permitted, and yield its URL."""
    command = [sys.executable, "-m", "replay.staging.queue", "--servers", str(SERVERS)]
    command += ["--service", f"{1e3 * SERVICE_S:g}ms"]
    first = ["chrt", "--fifo", "1"] if os.geteuid() == 0 and shutil.which("chrt") else []
    with subprocess.Popen(
        peers.pinned(peers.SERVER_CORE, [*first, *command]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout is not None and service.stdin is not None
        with contextlib.closing(service.stdin):
            yield f"http://127.0.0.1:{service.stdout.readline().strip()}"


def real(folder: Path, seed: int) -> Found:
    """Measure the lateness of the queue as a service on loopback, then search its capacity."""
    began, known = time.monotonic(), known_per_s()
    highest = known * np.random.default_rng(seed).uniform(1.0, 2.0)
    rate = Rate(THINNED * highest)
    recipe = Recipe(rate_per_s=rate, duration_ns=Duration(round(TRIAL_S * SECOND_NS)), seed=seed)
    trace = generate(recipe, folder / "poisson.trace")
    length_ns = round(TRIAL_S * SECOND_NS)
    with _queue() as target:

        def bench(name: str, limit_s: float) -> Bench:
            slo = f"p{round(100 * (1 - SHARE))}<{1e6 * limit_s:.1f}us"
            scenario = load(None, {"target": target, "slo": [slo], "seed": seed})
            area = folder / f"{name}.area"
            area.mkdir()
            return Bench(trace, scenario, folder / name, area, trial_ns=length_ns, hold_ns=length_ns)

        quiet = bench("quiet", 1.0)(QUIET_SHARE * known / rate, "up")
        late_s = (quiet.p50_ns or 0) / SECOND_NS - SERVICE_S
        trials = bench("trials", 2 * SERVICE_S + late_s)
        search = Search(trials.goals, 1 / (THINNED * RANGE), 1 / THINNED, WIDTH)
        _search(search, trials)
    # Use the rate of the requests in the trace, which differs by chance from the rate at which they were drawn.
    rates = {trial.load: trial.rate_per_s / known for trial in search.trials}
    bounds = search.peak()
    return Found(
        seed, str(search.verdict()), rates.get(bounds.lower, 0.0), rates.get(bounds.upper, 0.0),
        len(search.trials), time.monotonic() - began, 1e6 * late_s,
    )  # fmt: skip


def _real(seeds: Sequence[int], kept: Sequence[Found] = ()) -> Searches:
    """Search with these seeds, and return the results together with the kept ones of other seeds."""
    found = {each.seed: each for each in kept}
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="replay-peaks-") as name:
            found[seed] = real(Path(name), seed)
        print(json.dumps(asdict(found[seed])), flush=True)
    return Searches("real", WIDTH, known_per_s(), [found[seed] for seed in sorted(found)])


def measure(_: Path) -> list[Searches]:
    """Make all simulated and all real searches."""
    return [imagined(), _real(range(1, SEARCHES + 1))]


def main() -> None:
    """Repeat some of the real searches, and write the results into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seeds", required=True, metavar="FIRST-LAST", help="seeds of the searches to repeat"
    )
    first, _, last = parser.parse_args().seeds.partition("-")
    before = {each["name"]: each for each in results.load()["peaks"]["results"] if "found" in each}
    kept = [Found(**each) for each in before.get("real", {"found": []})["found"]]
    made = _real(range(int(first), int(last or first) + 1), kept)
    results.keep("peaks", [before.get("imagined") or asdict(imagined()), asdict(made)])


if __name__ == "__main__":
    main()
