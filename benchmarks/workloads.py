"""How fast traces are generated and transformed on disk, and in how much memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROWS, LONG_ROWS = 20_000_000, 300_000_000
ROUNDS = 3

GENERATORS = ("even", "poisson", "gamma", "week", "sessions")
TRANSFORMS = {
    "window": "window",
    "speed": "speed 2",
    "sample": "sample half of the requests",
    "sample-by-client": "sample half of the clients",
    "scale": "scale 4",
    "scale-by-route": "scale one route of two by 4",
    "scale-sessions": "scale 4, by sessions",
}

_CHILD = """
import json, sys, time
from pathlib import Path
from replay.ledger.host import peak_rss_bytes
from replay.settings.kinds import Duration, Rate, Scale
from replay.trace import Trace
from replay.workload.generate import generate
from replay.workload.recipe import Recipe, RequestRule, SessionRule
from replay.workload.transform import Transform, transform

name, rows, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
rules = (RequestRule(path="/a"), RequestRule(path="/b"))
plain = dict(rate_per_s=Rate(1e6), request=rules)
visits = SessionRule(step=tuple(RequestRule(path=f"/{n}", pause_ns=Duration(10**7)) for n in range(4)))
recipes = {
    "even": dict(plain, process="even"), "gamma": dict(plain, process="gamma", cv=2.0),
    "week": dict(plain, shape="week"), "sessions": dict(rate_per_s=Rate(2.5e5), session=(visits,)),
}
whole, part = Scale([("", 4.0)]), Scale([("GET /a", 4.0)])
transforms = {
    "window": Transform(from_ns=0), "speed": Transform(speed=2.0), "sample": Transform(sample=0.5),
    "sample-by-client": Transform(sample=0.5, sample_by="client"), "scale": Transform(scale=whole),
    "scale-by-route": Transform(scale=part), "scale-sessions": Transform(scale=whole, grow="sessions"),
}

def make(base, rows, out):
    if name in transforms:
        return transform(Trace.open(base), out, transforms[name], overwrite=True)
    recipe = Recipe(duration_ns=Duration(rows * 1_000), **recipes.get(name, plain))
    return generate(recipe, out, overwrite=True)

generate(Recipe(duration_ns=Duration(10**8), **plain), folder / "small.trace", overwrite=True)
make(folder / "small.trace", 100_000, folder / "warm.trace")
started = time.process_time()
made = make(folder / "base.trace", rows, folder / ("base.trace" if name == "base" else "made.trace"))
took_s = time.process_time() - started
read = Trace.open(folder / "base.trace").rows if name in transforms else 0
print(json.dumps([read, made.rows, took_s, peak_rss_bytes() / 2**20]))
"""


@dataclass(frozen=True)
class Workload:
    """One trace made in a process of its own; `rows_per_cpu_s` counts the rows read or written, whichever are more."""

    name: str
    rows_read: int
    rows_written: int
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
    read, written, took_s, rss_mib = json.loads(done.stdout)
    return Workload(TRANSFORMS.get(name, name), read, written, max(read, written) / took_s, rss_mib)


def measure(folder: Path, rows: int = ROWS, long_rows: int = LONG_ROWS) -> list[Workload]:
    """Measure each generator and each transform (the round with the median rate), and a long trace once."""
    _make("base", rows, folder)
    found = []
    for name in (*GENERATORS, *TRANSFORMS):
        rounds = [_make(name, rows, folder) for _ in range(ROUNDS)]
        found.append(sorted(rounds, key=lambda made: made.rows_per_cpu_s)[ROUNDS // 2])
    return [*found, _make("poisson", long_rows, folder)]
