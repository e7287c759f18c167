"""Whether `replay peak` finds a capacity that is known: of an M/D/k queue, imagined and real, 20 and a few times."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from replay.peak.search import Search, Trial
from replay.peak.trial import Bench
from replay.scenario.file import load
from replay.scenario.knobs import Duration, Rate
from replay.workload.generate import generate
from replay.workload.recipe import Recipe
from tests.peak_data import Queue, capacity

IMAGINED, REAL = 20, 3
IMAGINED_WIDTH, REAL_WIDTH = 0.05, 0.10
REQUESTS = 400_000
SERVERS, SERVICE_S, SHARE = 16, 0.020, 0.05
LIMIT_MS = 1e3 * 2 * SERVICE_S + 1.5
"""A wait of one service time, the service, and what the loopback and a timer of the service take."""

RATE_PER_S, TRIAL_S = 400.0, 8.0


@dataclass(frozen=True)
class Searches:
    """Searches for one known capacity: what each found, requests a second, and how many trials it took."""

    name: str
    width: float
    known_per_s: float
    found_per_s: list[float]
    trials: list[int]

    @property
    def within(self) -> int:
        """How many are within the width asked for."""
        return sum(abs(found / self.known_per_s - 1) <= self.width for found in self.found_per_s)


def _search(search: Search, trial: Callable[[float, str], Trial]) -> None:
    while (wanted := search.next_load()) is not None:
        search.add(trial(wanted, "up"))


def imagined() -> Searches:
    """A queue in time of its own, by the share of the requests that wait for longer than one service time."""
    known = capacity(SERVERS, SERVICE_S, 1, SHARE)
    found, trials = [], []
    for seed in range(IMAGINED):
        search = Search(["late"], 50.0, 5_000.0, IMAGINED_WIDTH)
        _search(search, Queue(SERVERS, SERVICE_S, {"late": SHARE}, seed, REQUESTS))
        found.append(search.bounds("late").lower)
        trials.append(len(search.trials))
    return Searches("imagined", IMAGINED_WIDTH, known, found, trials)


def real(folder: Path) -> Searches:
    """The same queue as a service on loopback, by `p95 < 2 service times`; another trace for each search."""
    known = capacity(SERVERS, SERVICE_S, 1, SHARE)
    found, trials = [], []
    for seed in range(1, REAL + 1):
        arguments = ["--servers", str(SERVERS), "--service", f"{1e3 * SERVICE_S:g}ms"]
        with (
            tempfile.TemporaryDirectory(dir=folder) as name,
            subprocess.Popen(
                [sys.executable, "-m", "replay.staging.queue", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as service,
        ):
            assert service.stdout is not None and service.stdin is not None
            with closing(service.stdin):
                target = f"http://127.0.0.1:{service.stdout.readline().strip()}"
                search = _real_search(Path(name), target, seed)
        # What a few seconds drew of arrivals, not the rate that they were drawn at.
        best = search.peak().lower
        found.append(max(trial.rate_per_s for trial in search.trials if trial.load == best))
        trials.append(len(search.trials))
    return Searches("real", REAL_WIDTH, known, found, trials)


def _real_search(folder: Path, target: str, seed: int) -> Search:
    recipe = Recipe(rate_per_s=Rate(RATE_PER_S), duration_ns=Duration(round(TRIAL_S * 1e9)), seed=seed)
    trace = generate(recipe, folder / "poisson.trace")
    scenario = load(None, {"target": target, "slo": [f"p95<{LIMIT_MS:g}ms"], "seed": seed})
    bench = Bench(trace, scenario, folder, trial_ns=round(TRIAL_S * 1e9), hold_ns=round(TRIAL_S * 1e9))
    search = Search(bench.goals, 0.5, 8.0, REAL_WIDTH, each=bench.each)
    _search(search, bench)
    return search


def measure(folder: Path) -> list[Searches]:
    """All of them."""
    return [imagined(), real(folder)]
