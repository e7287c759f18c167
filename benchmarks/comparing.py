"""How long `replay compare` takes from start to exit, for two sides of eight runs of a recording with 200 routes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from replay.engine import prepare
from replay.settings.kinds import Duration, Rate
from replay.settings.scenario import Scenario
from replay.staging.sink import Sink
from replay.workload.generate import generate
from replay.workload.recipe import Recipe, RequestRule

ROUTES, RUNS, ROUNDS = 200, 8, 5
RATE_PER_S, LENGTH_S = 5_000.0, 1.0
WORDS = ("cart", "feed", "users", "search", "orders", "photos", "videos", "teams", "plans", "news")
VARIANTS = {
    "its default routes": (),
    "all 200 routes": ("--routes", str(ROUTES)),
    "and a page": ("--html=out.html",),
}


def measure(folder: Path) -> dict[str, float]:
    """Return the median seconds of each command, measured in turns, and the size of the page in MB."""
    sides = [",".join(map(str, paths)) for paths in _runs(folder)]
    taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name, more in VARIANTS.items():
            words = [sys.executable, "-m", "replay.cli", "compare", *sides, *more]
            before = time.perf_counter()
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
            taken[name].append(time.perf_counter() - before)
            assert done.returncode in (0, 99), done.stderr
    found = {f"{name}, s": statistics.median(times) for name, times in taken.items()}
    return found | {"the page, MB": (folder / "out.html").stat().st_size / 1e6}


def _runs(folder: Path) -> tuple[list[Path], list[Path]]:
    """Make real runs against the sink, the two sides in turns, and return the folders of each side."""
    paths = [
        f"/{one}/{two}" + ("/details" if deep else "") for one in WORDS for two in WORDS for deep in (0, 1)
    ]
    recipe = Recipe(
        rate_per_s=Rate(RATE_PER_S), duration_ns=Duration(round(LENGTH_S * 1e9)),
        request=tuple(RequestRule(path=path) for path in paths[:ROUTES]),
    )  # fmt: skip
    trace = generate(recipe, folder / "routes.trace", overwrite=True)
    assert len(trace.requests.routes) == ROUTES
    made: list[Path] = []
    for number in range(2 * RUNS):
        with Sink(run_s=30) as sink, tempfile.TemporaryDirectory(prefix="replay-") as area:
            scenario = Scenario(target=f"http://127.0.0.1:{sink.port}", seed=number)
            made.append(folder / f"compared-{number:02}")
            prepare(trace, scenario, area=Path(area)).run(made[-1])
    return made[::2], made[1::2]
