"""How fast traces are generated and transformed, to disk, and in how much memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROWS = (5_000_000, 50_000_000)
BASE_ROWS, ROUNDS = 20_000_000, 3

_CHILD = """
import json, resource, sys, time
from pathlib import Path
from replay.knobs import Duration, Rate, Scale
from replay.trace import Trace
from replay.workload.generate import generate
from replay.workload.recipe import Recipe
from replay.workload.transform import Transform, transform

name, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
scale = Scale([("", 4.0)])
wanted = {"speed": Transform(speed=2.0), "sample": Transform(sample=0.5), "scale": Transform(scale=scale)}.get(name)
process = "poisson" if wanted or name == "base" else name

def make(base, rows, out):
    if wanted:
        return transform(Trace.open(base), out, wanted, overwrite=True)
    return generate(Recipe(rate_per_s=Rate(1e6), duration_ns=Duration(rows * 1_000), process=process), out, overwrite=True)

generate(Recipe(rate_per_s=Rate(1e6), duration_ns=Duration(10**8)), folder / "small.trace", overwrite=True)
make(folder / "small.trace", 100_000, folder / "warm.trace")
started = time.process_time()
made = make(folder / "base.trace", rows, folder / ("base.trace" if name == "base" else "made.trace"))
took_s = time.process_time() - started
rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([made.rows, took_s, rss_kib / 1024]))
"""


@dataclass(frozen=True)
class Workload:
    """One trace made in a process of its own."""

    name: str
    rows: int
    rows_per_cpu_s: float
    peak_rss_mib: float


def _make(name: str, rows: int, folder: Path) -> Workload:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, name, str(rows), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    written, took_s, rss_mib = json.loads(done.stdout)
    return Workload(name, written, written / took_s, rss_mib)


def measure(folder: Path, rows: tuple[int, ...] = ROWS) -> list[Workload]:
    """Each generator in each size, and each transform; the median of the rounds."""
    _make("base", BASE_ROWS, folder)
    wanted = [(name, count) for name in ("even", "poisson", "gamma") for count in rows]
    wanted += [(name, BASE_ROWS) for name in ("speed", "sample", "scale")]
    found = [[_make(name, count, folder) for _ in range(ROUNDS)] for name, count in wanted]
    return [sorted(each, key=lambda made: made.rows_per_cpu_s)[ROUNDS // 2] for each in found]
