"""Whether `replay peak` finds a capacity that is known: of an M/D/k queue, imagined and real, twenty times each.

The real searches take twenty minutes: `python -m benchmarks.peaks --seeds 1-4` makes some of them, and keeps the others.
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
"""A share of a fifth, since a machine that stops for some milliseconds makes a tail that is not the queue's."""

TRIAL_S = 3.5
RANGE = 4.0
"""Between the lowest and the highest load; the highest is drawn, from the capacity to twice of it."""

THINNED = 4.0
"""How many times the highest load the trace has: a Poisson trace stays one when it is thinned, not when it is scaled up."""

QUIET_SHARE = 0.1
"""Of the capacity: a load at which nobody waits for a server, so that all above the service time is lateness."""


@dataclass(frozen=True)
class Found:
    """One search: the highest load that met the objective, the lowest that missed it, as shares of the known one."""

    seed: int
    verdict: str
    lower: float
    upper: float
    trials: int
    took_s: float = 0.0
    late_us: float = 0.0


@dataclass(frozen=True)
class Searches:
    """Searches for one known capacity, requests a second."""

    name: str
    width: float
    known_per_s: float
    found: list[Found] = field(default_factory=list)


def _search(search: Search, trial: Callable[[float, str], Trial]) -> None:
    while (wanted := search.next_load()) is not None:
        search.add(trial(wanted, "up"))


def imagined() -> Searches:
    """A queue in time of its own, by the share of the requests that wait for longer than one service time."""
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
    """The load at which SHARE of the requests to the real queue wait for longer than one service time."""
    return capacity(SERVERS, SERVICE_S, 1, SHARE)


@contextlib.contextmanager
def _queue() -> Iterator[str]:
    """The queue on a core of its own, before all others on it where that is allowed; its URL."""
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
    """The queue as a service on loopback, from its lateness to its capacity."""
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
    # Count the requests in the trace; the rate that they were drawn at differs by chance.
    rates = {trial.load: trial.rate_per_s / known for trial in search.trials}
    bounds = search.peak()
    return Found(
        seed, str(search.verdict()), rates.get(bounds.lower, 0.0), rates.get(bounds.upper, 0.0),
        len(search.trials), time.monotonic() - began, 1e6 * late_s,
    )  # fmt: skip


def _real(seeds: Sequence[int], kept: Sequence[Found] = ()) -> Searches:
    """Searches by these seeds, beside those that were made before."""
    found = {each.seed: each for each in kept}
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="replay-peaks-") as name:
            found[seed] = real(Path(name), seed)
        print(json.dumps(asdict(found[seed])), flush=True)
    return Searches("real", WIDTH, known_per_s(), [found[seed] for seed in sorted(found)])


def measure(_: Path) -> list[Searches]:
    """All of them."""
    return [imagined(), _real(range(1, SEARCHES + 1))]


def main() -> None:
    """Some of the real searches (all of them: `python -m benchmarks peaks`)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", required=True, metavar="FIRST-LAST")
    first, _, last = parser.parse_args().seeds.partition("-")
    before = {each["name"]: each for each in results.load()["peaks"]["results"] if "found" in each}
    kept = [Found(**each) for each in before.get("real", {"found": []})["found"]]
    made = _real(range(int(first), int(last or first) + 1), kept)
    results.keep("peaks", [before.get("imagined") or asdict(imagined()), asdict(made)])


if __name__ == "__main__":
    main()
