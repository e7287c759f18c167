"""Comparisons of real builds: how often a build is judged slower than itself, and how often a slower one is found.

    python -m benchmarks.builds record FOLDER [--rounds 12]   # takes about four minutes; repeat it to add rounds
    python -m benchmarks.builds judge FOLDER                  # writes into docs/statistics.md

The builds are the built-in service, and the service with one endpoint 5, 10 and 20% slower. A round is one run of each
build, in random order. Each run has a process and a seed of its own. A session draws six runs of each of two builds,
without replacement, and applies the inference and the rule of `replay compare`. Runs can be drawn because the test
permutes their labels.
"""

from __future__ import annotations

import argparse
import datetime as dt
import itertools
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replay.comparison import statistics
from replay.comparison.decision import TOLERANCE, Options, decide
from replay.comparison.metrics import (
    DEFAULT,
    Metric,
    biggest_routes,
    family,
    parse_metric,
)
from replay.comparison.sides import Side, load_run_folder
from replay.comparison.statistics import ALPHA
from replay.engine import prepare
from replay.settings.kinds import Duration, Rate
from replay.settings.scenario import Scenario
from replay.staging import service
from replay.trace import Trace
from replay.workload.generate import generate
from replay.workload.recipe import Recipe, RequestRule
from replay_native.ground import jit

from . import page, peers

BEGIN, END = "<!-- made by python -m benchmarks.builds -->\n", "<!-- end of what builds made -->\n"
SLOWED = "GET /v1/training/plans"
OTHERS = ("/v1/payment/offers", "/v1/nutrition/foods", "/v1/profile", "/v1/training/plans/7")
SLOWDOWNS = (0.05, 0.10, 0.20)
RATE_PER_S, LENGTH_S, WARM_UP_S = 650.0, 3.2, 0.2
RUNS, A_A_RUNS, SESSIONS = 6, 12, 2_000


def record(folder: Path, rounds: int) -> None:
    """Add rounds to a folder; their runs are in FOLDER/runs/BUILD/NUMBER."""
    paths = [SLOWED.partition(" ")[2], *OTHERS]
    recipe = Recipe(
        rate_per_s=Rate(RATE_PER_S), duration_ns=Duration(round(LENGTH_S * 1e9)),
        request=tuple(RequestRule(path=path) for path in paths),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    trace = generate(recipe, folder / "five.trace", overwrite=True)
    builds = {"base": ()} | {f"{100 * slow:g}%": (f"{SLOWED}={1 + slow}",) for slow in SLOWDOWNS}
    done = len(list(folder.glob("runs/base/*")))
    for number in range(done, done + rounds):
        order = list(builds)
        random.Random(number).shuffle(order)
        for build in order:
            document = _run(
                trace,
                builds[build],
                folder / "runs" / build / f"{number:03}",
                seed=len(builds) * number + order.index(build),
            )
            print(f"round {number + 1}, {build}: {document}", flush=True)


def _run(trace: Trace, slower: Sequence[str], folder: Path, seed: int) -> str:
    with service.running(seed, slower) as port, tempfile.TemporaryDirectory(prefix="replay-") as area:
        scenario = Scenario(
            target=f"http://127.0.0.1:{port}", seed=seed, warm_up_ns=Duration(round(WARM_UP_S * 1e9))
        )
        document = prepare(trace, scenario, area=Path(area)).run(folder)
    return f"{document.accounts.ok} responses, {document.validity.verdict}"


@dataclass(frozen=True)
class Figures:
    """The values of all tested metrics in every run, float64[runs, metrics] by build."""

    values: dict[str, np.ndarray]
    metrics: list[Metric]
    left_out: list[str]
    invalid: int

    @property
    def slowed(self) -> np.ndarray:
        """A mask of the metrics of the slowed route, bool[metrics]."""
        return np.array([metric.route == SLOWED for metric in self.metrics])

    @property
    def others(self) -> np.ndarray:
        """A mask of the metrics of the other routes, bool[metrics]; metrics of all requests are in neither mask."""
        return np.array([metric.route not in ("", SLOWED) for metric in self.metrics])


def figures_of(folder: Path) -> Figures:
    """Return the values that `replay compare` would test for the runs of a folder, with its defaults."""
    builds = {path.name: sorted(path.iterdir()) for path in sorted((folder / "runs").iterdir())}
    runs = {name: tuple(load_run_folder(path) for path in paths) for name, paths in builds.items()}
    base = Side("base", runs["base"])
    new = Side("new", tuple(itertools.chain(*(of for name, of in runs.items() if name != "base"))))
    made = family(base, new, [parse_metric(name) for name in DEFAULT], biggest_routes(base, new, 5))
    rows = iter(made.values)
    order = ["base", *(name for name in runs if name != "base")]
    values = {name: np.array(list(itertools.islice(rows, len(runs[name])))) for name in order}
    everyone = [*base.runs, *new.runs]
    invalid = sum(run.document is not None and run.document.validity.verdict == "INVALID" for run in everyone)
    return Figures(values, made.metrics, made.left_out, invalid)


@dataclass
class Counts:
    """Numbers of sessions by result.

    `above` counts those with an interval above 0, `excluding` those with one that excludes 0. `slowed_*` and `others_*`
    count only metrics of the slowed route and of other routes.
    """

    sessions: int = 0
    above: int = 0
    excluding: int = 0
    regression: int = 0
    no_regression: int = 0
    slowed_above: int = 0
    slowed_regression: int = 0
    others_above: int = 0

    def percent(self, name: str) -> str:
        return f"{100 * getattr(self, name) / self.sessions:.1f}%"


class Judge:
    """Judges sessions of `runs` runs per side by the inference and the rule of `replay compare`."""

    def __init__(self, figures: Figures, runs: int, tolerance: float) -> None:
        options = Options(tolerance=tolerance)
        self._margins = [options.margin(metric) for metric in figures.metrics]
        self._figures = figures
        self._labels = np.array([0] * runs + [1] * runs, np.uint8)
        self._table = statistics.labellings([2 * runs], self._labels, 20_000)[0]
        self.counts = Counts()

    def session(self, base: np.ndarray, new: np.ndarray) -> None:
        """Compare the runs of base with those of new, float64[runs, metrics] each, and count the result."""
        values = np.vstack([base, new])
        found = statistics.infer_from(values, self._labels, [len(values)], self._table, True, ALPHA)
        rows = zip(found.effects, found.lower, found.upper, self._margins, strict=True)
        said = np.array([decide(*map(float, row), base_at_least=False, new_at_least=False) for row in rows])
        above, counts = found.lower > 0, self.counts
        counts.sessions += 1
        counts.above += bool(above.any())
        counts.excluding += bool((above | (found.upper < 0)).any())
        counts.regression += "REGRESSION" in said
        counts.no_regression += all(word in ("NO_REGRESSION", "IMPROVEMENT") for word in said)
        counts.slowed_above += bool(above[self._figures.slowed].any())
        counts.slowed_regression += "REGRESSION" in said[self._figures.slowed]
        counts.others_above += bool(above[self._figures.others].any())


def same_build(figures: Figures) -> Counts:
    """Judge the first A_A_RUNS runs of base against each other, for every half of them that can be called new."""
    runs = figures.values["base"][:A_A_RUNS]
    judge = Judge(figures, len(runs) // 2, TOLERANCE)
    for chosen in itertools.combinations(range(len(runs)), len(runs) // 2):
        rest = [run for run in range(len(runs)) if run not in chosen]
        judge.session(runs[rest], runs[list(chosen)])
    return judge.counts


def slower_build(figures: Figures, slowdown: float) -> Counts:
    """Judge sessions of base against the slower build, at a tolerance of half the slowdown."""
    judge, rng = Judge(figures, RUNS, slowdown / 2), np.random.default_rng(1)
    base, new = figures.values["base"], figures.values[f"{100 * slowdown:g}%"]
    for _ in range(SESSIONS):
        judge.session(base[rng.permutation(len(base))[:RUNS]], new[rng.permutation(len(new))[:RUNS]])
    return judge.counts


def measured_change(figures: Figures, slowdown: float) -> float:
    """Return the log of the ratio by which p50 of the slowed route is higher, over all runs.

    It is less than the slowdown of the work, because a request is not work alone.
    """
    base, new = figures.values["base"].mean(axis=0), figures.values[f"{100 * slowdown:g}%"].mean(axis=0)
    return float((new - base)[figures.slowed][0])


def expected(figures: Figures, slowdown: float) -> Counts:
    """Judge sessions of base alone, with the measured change added to the slowed route: what the method should find."""
    judge, rng = Judge(figures, RUNS, slowdown / 2), np.random.default_rng(2)
    base = figures.values["base"]
    shift = measured_change(figures, slowdown) * figures.slowed
    for _ in range(SESSIONS):
        drawn = base[rng.permutation(len(base))[: 2 * RUNS]]
        judge.session(drawn[:RUNS], drawn[RUNS:] + shift)
    return judge.counts


def render(figures: Figures) -> str:
    """Return the tables in Markdown."""
    runs, same = {name: len(rows) for name, rows in figures.values.items()}, same_build(figures)
    sd = 100 * float(figures.values["base"][:, figures.slowed].std(axis=0, ddof=1)[0])
    recorded = ", ".join(f"{count} of {name}" for name, count in sorted(runs.items()))
    tested = ", ".join(f"{metric.where} {metric.name}" for metric in figures.metrics)
    return f"""\
Runs of the built-in service, each in a process of its own, {LENGTH_S:g} s at {RATE_PER_S:g} requests per second, in random
order: {recorded} ({figures.invalid} INVALID; {dt.date.today().isoformat()}, {peers.machine()}).
Tested: {tested}.
p50 of the slowed route differs by {sd:.1f}% (standard deviation) from run to run.

**A/A**: {A_A_RUNS} runs of one build, in all {same.sessions} ways to call half of them new.
An interval is above 0 in **{same.percent("above")}** of the sessions, and excludes 0 on either side in
**{same.percent("excluding")}** (promised: at most 5%).
At a tolerance of 10%, {same.percent("regression")} end as REGRESSION, and {same.percent("no_regression")} as NO_REGRESSION.

**A/B**: `{SLOWED}` is slower, with {RUNS} runs per side, at a tolerance of half the slowdown.
The {SESSIONS:,} seeded sessions are drawn from the recorded runs, so that they share runs.
The columns `expected` use runs of base alone, with the change that was measured over all runs added to one side.

| work slower by | p50 measured | interval above 0 | expected | REGRESSION | expected | another route accused |
| --- | --- | --- | --- | --- | --- | --- |
{"".join(_row(figures, slowdown) for slowdown in SLOWDOWNS)}"""


def _row(figures: Figures, slowdown: float) -> str:
    found, should = slower_build(figures, slowdown), expected(figures, slowdown)
    cells = [f"+{100 * slowdown:g}%", f"{100 * math.expm1(measured_change(figures, slowdown)):+.1f}%"]
    for name in ("slowed_above", "slowed_regression"):
        cells += [found.percent(name), should.percent(name)]
    return "| " + " | ".join([*cells, found.percent("others_above")]) + " |\n"


def main() -> None:
    """Record rounds, or judge the recorded ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("record", "judge"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=A_A_RUNS)
    options = parser.parse_args()
    jit.warm(["statistics.rank", "statistics.student", "statistics.unequal", "ledger.hdr"])
    if options.what == "record":
        record(options.folder, options.rounds)
    else:
        figures = figures_of(options.folder)
        if len(figures.values["base"]) < A_A_RUNS:
            parser.error(f"{options.folder} has fewer than {A_A_RUNS} rounds: record more")
        tables = render(figures)
        print(tables)
        page.write_between(page.STATISTICS, BEGIN, END, tables)


if __name__ == "__main__":
    main()
