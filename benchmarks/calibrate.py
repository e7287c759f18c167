"""`make calibrate`: how often the decision rule is wrong, and how often it finds a slowdown, on simulated runs.

A cell of the grid has 10,000 seeded trials by default. A trial compares two builds by p50, p90 and p99 of each run, with
the inference and the rule of `replay compare`. The tables are written into docs/statistics.md between marks.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from replay.comparison import looks, statistics
from replay.comparison.decision import TOLERANCE, decide
from replay.comparison.statistics import ALPHA, Inference
from replay_native.ground import jit
from replay_native.statistics import simulate as imagine

from . import calibrate_shapes, page

BEGIN, END = "<!-- made by make calibrate -->\n", "<!-- end of what make calibrate made -->\n"
TRIALS, POWER_TRIALS = 10_000, 500
RUNS = (4, 5, 6, 8)
SHIFTS = (0.02, 0.05, 0.10, 0.15, 0.20)
BOUND = 0.055
KINDS = {"lognormal": imagine.LOGNORMAL, "bimodal": imagine.BIMODAL, "heavy tail": imagine.HEAVY}
MARGIN = math.log1p(TOLERANCE)


class Cell(NamedTuple):
    """The parameters of simulated runs: distribution, autocorrelation, and standard deviation between runs."""

    kind: str
    autocorrelation: float
    run_sd: float

    @property
    def seed(self) -> int:
        return 1_000_003 * (
            list(KINDS).index(self.kind)
            + 10 * round(10 * self.autocorrelation)
            + 1_000 * round(100 * self.run_sd)
        )


@dataclass
class Counts:
    """Numbers of trials of one cell by result.

    `slower` counts those with an interval above 0, `any_alarm` those with one that excludes 0 on either side. `found`,
    `regressed` and `passed` count the trials with a slowdown, by its size.
    """

    trials: int = 0
    regression: int = 0
    slower: int = 0
    any_alarm: int = 0
    no_regression: int = 0
    found: dict[float, int] = field(default_factory=dict)
    regressed: dict[float, int] = field(default_factory=dict)
    passed: dict[float, int] = field(default_factory=dict)


CELLS = [Cell(kind, rho, sd) for kind in KINDS for rho in (0.0, 0.8) for sd in (0.0, 0.02, 0.05)]


def imagined(cell: Cell, runs: int, state: np.ndarray, scratch: np.ndarray) -> np.ndarray:
    """Return the log quantiles of simulated runs of one build, float64[runs, 3]."""
    out = np.zeros((runs, imagine.QUANTILES))
    imagine.quantiles_of_runs(state, cell.run_sd, cell.autocorrelation, KINDS[cell.kind], scratch, out)
    return out


def verdicts(found: Inference, margin: float = MARGIN) -> list[str]:
    """Return the rule's verdict on each metric."""
    rows = zip(found.effects, found.lower, found.upper, strict=True)
    return [
        decide(float(effect), float(low), float(high), margin, base_at_least=False, new_at_least=False)
        for effect, low, high in rows
    ]


def fresh(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the state of a random generator, and scratch memory, for `imagined`."""
    return np.array([seed * 0x9E3779B97F4A7C15 % 2**64], np.uint64), np.zeros(
        imagine.INTERVALS * imagine.REQUESTS
    )


def measure(cell: Cell, trials: int = TRIALS, power_trials: int = POWER_TRIALS) -> dict[int, Counts]:
    """Return the counts of one cell by number of runs; a smaller number uses the first runs of the same trials."""
    state, scratch = fresh(cell.seed + 1)
    designs = {}
    for runs in RUNS:
        labels = np.array([0] * runs + [1] * runs, np.uint8)
        designs[runs] = labels, statistics.labellings([2 * runs], labels, 20_000)[0]
    counts = {runs: Counts() for runs in RUNS}
    for trial in range(trials):
        drawn = imagined(cell, 2 * max(RUNS), state, scratch)
        for runs, (labels, table) in designs.items():
            values = np.vstack([drawn[:runs], drawn[max(RUNS) : max(RUNS) + runs]])
            _count(counts[runs], statistics.infer_from(values, labels, [2 * runs], table, True, ALPHA))
            if trial < power_trials:
                _count_power(counts[runs], values, labels, table)
    return counts


def _count(into: Counts, found: Inference) -> None:
    said = verdicts(found)
    into.trials += 1
    into.regression += "REGRESSION" in said
    into.slower += bool((found.lower > 0).any())
    into.any_alarm += bool(((found.lower > 0) | (found.upper < 0)).any())
    into.no_regression += all(word in ("NO_REGRESSION", "IMPROVEMENT") for word in said)


def _count_power(into: Counts, values: np.ndarray, labels: np.ndarray, table: np.ndarray) -> None:
    for shift in SHIFTS:
        moved = values + math.log1p(shift) * labels[:, None]
        found = statistics.infer_from(moved, labels, [len(labels)], table, True, ALPHA)
        said = verdicts(found)
        into.found[shift] = into.found.get(shift, 0) + bool((found.lower > 0).any())
        into.regressed[shift] = into.regressed.get(shift, 0) + ("REGRESSION" in said)
        passed = all(word in ("NO_REGRESSION", "IMPROVEMENT") for word in said)
        into.passed[shift] = into.passed.get(shift, 0) + passed


class Session(NamedTuple):
    """Shares of sessions by verdict, the share with an interval that excludes 0 at any look, and the mean of the blocks."""

    regression: float
    any_alarm: float
    no_regression: float
    blocks: float


def measure_looks(cell: Cell, trials: int = TRIALS) -> Session:
    """Return the shares of A/A sessions with the looks of `replay ab`.

    `any_alarm` counts all looks, also those after the look at which the session ended.
    """
    state, scratch = fresh(cell.seed + 2)
    rng = np.random.default_rng(cell.seed)
    blocks = looks.LOOKS[-1].blocks
    pattern = np.array([[0, 1, 1, 0], [1, 0, 0, 1]], np.uint8)
    tables = [
        statistics.labellings([4] * look.blocks, np.tile(pattern[0], look.blocks), 200_000)[0]
        for look in looks.LOOKS
    ]
    totals = np.zeros(4)
    for _ in range(trials):
        labels = pattern[rng.integers(0, 2, blocks)].ravel()
        values = imagined(cell, 4 * blocks, state, scratch)
        totals += _session(values, labels, tables)
    return Session(*(float(total) / trials for total in totals))


def _session(values: np.ndarray, labels: np.ndarray, tables: Sequence[np.ndarray]) -> np.ndarray:
    ended, alarm, out = False, False, np.zeros(4)
    for look, table in zip(looks.LOOKS, tables, strict=True):
        runs = 4 * look.blocks
        found = statistics.infer_from(
            values[:runs], labels[:runs], [4] * look.blocks, table, True, look.alpha
        )
        alarm = alarm or bool(((found.lower > 0) | (found.upper < 0)).any())
        said = verdicts(found)
        passed = all(word in ("NO_REGRESSION", "IMPROVEMENT") for word in said)
        if not ended and ("REGRESSION" in said or passed or look is looks.LOOKS[-1]):
            ended = True
            out += ("REGRESSION" in said, 0, passed, look.blocks)
    out[1] = alarm
    return out


def render(grid: dict[Cell, dict[int, Counts]], sessions: dict[Cell, Session], took_s: float) -> str:
    """Return the tables of the grid in Markdown."""
    everything = [counts for rows in grid.values() for counts in rows.values()]
    worst, both = (100 * max(_share(row, name) for row in everything) for name in ("slower", "any_alarm"))
    when = f"{dt.date.today().isoformat()}, {took_s:.0f} s"
    return "\n".join(
        [
            f"{len(everything)} cells of {everything[0].trials:,} seeded A/A trials ({when}). At any tolerance",
            f"an interval is above 0 in at most **{worst:.2f}%** of a cell's trials, which bounds the false REGRESSIONs,",
            f"and excludes 0 on either side in at most **{both:.2f}%** (promised: 5%; with the noise of the trials 5.5%).",
            "",
            "Shares of trials: an interval above 0 · one that excludes 0 · REGRESSION · NO_REGRESSION"
            " (both at a tolerance of 10%).",
            "",
            *_table(
                ("requests", "autocorrelation", "run sd", *(f"{n} v {n}" for n in RUNS)),
                map(_grid_row, grid.items()),
            ),
            "",
            "Shares of trials in which every metric of the new build is slower by the percentage of the column: an interval"
            " above 0 ·",
            f"REGRESSION · NO_REGRESSION, both at a tolerance of 10% ({POWER_TRIALS} trials per cell, the mean of the six"
            " cells of a run sd).",
            "",
            *_table(("run sd", "runs", *(f"+{100 * shift:g}%" for shift in SHIFTS)), _power_rows(grid)),
            "",
            "Shares of A/A sessions of `replay ab`, at a tolerance of 10%. `excluding 0` counts intervals at any look,"
            " as if all looks were taken.",
            "",
            *_table(
                (
                    "requests",
                    "autocorrelation",
                    "run sd",
                    "REGRESSION",
                    "excluding 0",
                    "NO_REGRESSION",
                    "blocks, mean",
                ),
                map(_session_row, sessions.items()),
            ),
            "",
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _share(counts: Counts, name: str) -> float:
    return float(getattr(counts, name)) / counts.trials


def _grid_row(item: tuple[Cell, dict[int, Counts]]) -> list[str]:
    cell, rows = item
    names = {"slower": 2, "any_alarm": 2, "regression": 2, "no_regression": 0}
    shares = [
        " · ".join(f"{100 * _share(row, name):.{digits}f}%" for name, digits in names.items())
        for row in rows.values()
    ]
    return [*_cell_names(cell), *shares]


def _cell_names(cell: Cell) -> list[str]:
    return [cell.kind, f"{cell.autocorrelation:g}", f"{100 * cell.run_sd:g}%"]


def _session_row(item: tuple[Cell, Session]) -> list[str]:
    cell, s = item
    shares = [f"{100 * s.regression:.2f}%", f"{100 * s.any_alarm:.2f}%", f"{100 * s.no_regression:.0f}%"]
    return [*_cell_names(cell), *shares, f"{s.blocks:.1f}"]


def _power_rows(grid: dict[Cell, dict[int, Counts]]) -> Iterator[list[str]]:
    """Return rows by run sd and number of runs, each the mean over kinds and autocorrelations."""
    for sd in sorted({cell.run_sd for cell in grid}):
        for runs in RUNS:
            rows = [counts[runs] for cell, counts in grid.items() if cell.run_sd == sd]
            trials = len(rows) * min(POWER_TRIALS, rows[0].trials)
            texts = [
                " · ".join(
                    f"{100 * sum(by_shift.get(shift, 0) for by_shift in parts) / trials:.0f}%"
                    for parts in (
                        [r.found for r in rows],
                        [r.regressed for r in rows],
                        [r.passed for r in rows],
                    )
                )
                for shift in SHIFTS
            ]
            yield [f"{100 * sd:g}%", f"{runs} v {runs}", *texts]


def _parallel(work: Callable, cells: Sequence[Cell], *more: int) -> dict:
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        made = {cell: pool.submit(work, cell, *more) for cell in cells}
        found = {}
        for cell, future in made.items():
            found[cell] = future.result()
            print(
                f"  {cell.kind}, autocorrelation {cell.autocorrelation:g}, run sd {cell.run_sd:g}: done",
                flush=True,
            )
        return found


def main() -> None:
    """Measure, and write the tables into docs/statistics.md; exit with 1 if a cell has more false alarms than BOUND."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--only", choices=("grid", "shapes"), help="measure only this part")
    given = parser.parse_args()
    over = False
    if given.only != "shapes":
        over = _grid(given.trials)
    if given.only != "grid":
        _shapes(given.trials)
    raise SystemExit(over)


def _grid(trials: int) -> bool:
    """Measure the grid and sessions of `replay ab`; return whether the false alarms of any exceed BOUND."""
    jit.warm(["statistics.rank", "statistics.student", "statistics.unequal", "statistics.simulate"])
    started = time.perf_counter()
    grid = _parallel(measure, CELLS, trials)
    sessions = _parallel(
        measure_looks,
        [cell for cell in CELLS if cell.kind == "lognormal" and cell.autocorrelation > 0],
        trials,
    )
    tables = render(grid, sessions, time.perf_counter() - started)
    print(tables)
    page.write_between(page.STATISTICS, BEGIN, END, tables)
    over = [counts.any_alarm / counts.trials for rows in grid.values() for counts in rows.values()]
    over += [session.any_alarm for session in sessions.values()]
    return bool(max(over) > BOUND)


def _shapes(trials: int) -> None:
    """Measure runs of other shapes, which show where the promise ends and therefore have no bound."""
    started = time.perf_counter()
    found = calibrate_shapes.run(trials)
    when = f"{dt.date.today().isoformat()}, {time.perf_counter() - started:.0f} s"
    tables = calibrate_shapes.render(found, trials, when)
    print(tables)
    page.write_between(page.STATISTICS, calibrate_shapes.BEGIN, calibrate_shapes.END, tables)


if __name__ == "__main__":
    main()
