"""The part of `make calibrate` on runs of other shapes: skewed, of unequal spread or number, drifting, or one a night.

A trial draws one value per run and metric, because these tables test how runs differ, not how requests do. The three
metrics are correlated by 0.5, with a standard deviation of 1 unless stated otherwise. Only runs with different numbers of
requests draw requests.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np

from replay.comparison import statistics
from replay.comparison.statistics import ALPHA
from replay_native.ground import jit

BEGIN = "<!-- made by make calibrate: other shapes -->\n"
END = "<!-- end of other shapes -->\n"
METRICS = 3
LABELLINGS = 2_000
EFFECT_SD = 3.0
"""The size of the effect to find, in standard deviations of base's runs."""

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def _outliers(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape) + 10.0 * (rng.random((shape[0], 1)) < 0.05)


def _two_modes(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return 0.3 * rng.normal(size=shape) + 2.0 * (rng.random((shape[0], 1)) < 0.5) - 1.0


SHAPES: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t, 3 df": lambda rng, shape: rng.standard_t(3, size=shape),
    "skewed": lambda rng, shape: rng.exponential(size=shape) - 1.0,
    "two modes": _two_modes,
    "outliers": _outliers,
    "ties": lambda rng, shape: np.round(rng.normal(size=shape)),
}
NUMBERS = (
    (4, 4, 1),
    (5, 5, 1),
    (5, 5, 3),
    (8, 8, 3),
    (12, 4, 1),
    (12, 4, 2),
    (12, 4, 3),
    (4, 12, 3),
    (20, 4, 3),
    (12, 8, 2),
)
"""Numbers of runs of base and of new, and how many times as widely those of new scatter."""

TIMES = ("drift", "warm-up", "days")
NIGHT_SDS = (0.02, 0.03, 0.05)
NIGHT_DRIFTS = {"none": 0.0, "1% a night": 0.01, "3% a night": 0.03}
LENGTHS = ((1_000, 1_000), (1_000, 4_000), (1_000, 20_000))


class Cell(NamedTuple):
    """A cell: the table that it belongs to, and its parameters."""

    table: str
    names: tuple[str | int | float, ...]

    @property
    def seed(self) -> int:
        return zlib.crc32(repr(self).encode())


def cells() -> list[Cell]:
    """Return all cells, those that take longest first."""
    lengths = [Cell("lengths", (kind, *pair)) for kind in ("lognormal", "heavy tail") for pair in LENGTHS]
    numbers = [Cell("numbers", (shape, *sides)) for shape in SHAPES for sides in NUMBERS]
    times = [Cell("times", (kind, design)) for kind in TIMES for design in DESIGNS]
    nights = [Cell("nights", (sd, drift)) for sd in NIGHT_SDS for drift in NIGHT_DRIFTS]
    return [*lengths, *numbers, *times, *nights]


def measure(cell: Cell, trials: int) -> tuple[float, float]:
    """Return the share of A/A trials in which an interval excludes 0, and the share of trials that find an effect.

    In the table `lengths` the second share is of A/A trials, too: those of the percentile that is compared instead.
    """
    jit.warm(["statistics.rank", "statistics.student", "statistics.unequal"])
    rng = np.random.default_rng(cell.seed)
    measures: dict[str, Callable[..., tuple[float, float]]] = {
        "numbers": _numbers, "times": _times, "nights": _nights, "lengths": _lengths,
    }  # fmt: skip
    return measures[cell.table](rng, trials, *cell.names)


def _excluding(found: statistics.Inference) -> bool:
    return bool(((found.lower > 0) | (found.upper < 0)).any())


def _correlated(rng: np.random.Generator, draw: Draw, runs: int) -> np.ndarray:
    own, common = draw(rng, (runs, METRICS)), draw(rng, (runs, 1))
    return math.sqrt(0.5) * (own + common)


def _numbers(
    rng: np.random.Generator, trials: int, shape: str, base: int, new: int, times: int
) -> tuple[float, float]:
    labels = np.array([0] * base + [1] * new, np.uint8)
    table, exact = statistics.labellings([base + new], labels, LABELLINGS)
    scale, alarms, found = np.where(labels, float(times), 1.0)[:, None], 0, 0
    for _ in range(trials):
        values = scale * _correlated(rng, SHAPES[shape], base + new)
        for moved, shift in ((0, 0.0), (1, EFFECT_SD)):
            judged = statistics.infer_from(
                values + shift * labels[:, None], labels, [base + new], table, exact, ALPHA
            )
            alarms += _excluding(judged) and not moved
            found += bool((judged.lower > 0).any()) and bool(moved)
    return alarms / trials, found / trials


DESIGNS = ("3 blocks of ABBA", "6 v 6 in random order", "5 blocks of 1 new in 3")


def _times(rng: np.random.Generator, trials: int, kind: str, design: str) -> tuple[float, float]:
    """Measure a design of runs in turns while the level changes.

    It drifts by a standard deviation from run to run, the first runs are slower, or each day (four runs) has its own level.
    """
    sizes = {"3 blocks of ABBA": [4] * 3, "6 v 6 in random order": [12], "5 blocks of 1 new in 3": [3] * 5}[
        design
    ]
    runs = sum(sizes)
    at = np.arange(runs)[:, None]
    alarms = found = 0
    for _ in range(trials):
        labels = np.concatenate([_labels(rng, design, size) for size in sizes])
        if kind == "drift":
            level = 1.0 * at
        elif kind == "warm-up":
            level = 5.0 * np.exp(-at / 1.5)
        else:
            level = np.repeat(rng.normal(0, 3, (runs // 3 + 1, 1)), 4, axis=0)[:runs]
        values = _correlated(rng, SHAPES["normal"], runs) + level
        alarms += _excluding(statistics.infer(values, labels.tolist(), sizes))
        found += bool(
            (statistics.infer(values + EFFECT_SD * labels[:, None], labels.tolist(), sizes).lower > 0).any()
        )
    return alarms / trials, found / trials


def _labels(rng: np.random.Generator, design: str, size: int) -> np.ndarray:
    if size == 4:
        return np.array([0, 1, 1, 0] if rng.random() < 0.5 else [1, 0, 0, 1], np.uint8)
    return rng.permutation(
        [0] * (size - size // (3 if size == 3 else 2)) + [1] * (size // (3 if size == 3 else 2))
    ).astype(np.uint8)


def _nights(rng: np.random.Generator, trials: int, sd: float, drift: str) -> tuple[float, float]:
    """Measure seven nights against the seven before, one run a night, by session; the effect is a slowdown of 20%."""
    labels = [0] * 7 + [1] * 7
    level = NIGHT_DRIFTS[drift] * np.arange(14)[:, None]
    alarms = found = 0
    for _ in range(trials):
        values = sd * _correlated(rng, SHAPES["normal"], 14) + level
        alarms += _excluding(statistics.infer(values, labels, trend=True))
        slower = values + math.log(1.2) * np.array(labels)[:, None]
        found += bool((statistics.infer(slower, labels, trend=True).lower > 0).any())
    return alarms / trials, found / trials


def _lengths(rng: np.random.Generator, trials: int, kind: str, base: int, new: int) -> tuple[float, float]:
    """Return the A/A alarms of p99 for sides whose numbers of requests differ, and of the percentile compared instead."""
    labels = np.array([0] * 8 + [1] * 8, np.uint8)
    table, exact = statistics.labellings([16], labels, LABELLINGS)
    substitute = substitute_of(base, new)
    alarms = [0, 0]
    for _ in range(trials):
        values = np.array(
            [_quantiles(rng, kind, base if not label else new, (99.0, substitute)) for label in labels]
        )
        for at in (0, 1):
            column = np.ascontiguousarray(values[:, at : at + 1])
            alarms[at] += _excluding(statistics.infer_from(column, labels, [16], table, exact, ALPHA))
    return alarms[0] / trials, alarms[1] / trials


def substitute_of(base: int, new: int) -> float:
    """Return the percentile that `replay compare` uses if p99 was requested."""
    from replay.comparison.metrics import BIAS_MAX, SUBSTITUTES, shift_of

    return next(p for p in SUBSTITUTES if p <= 99 and shift_of(p, [[base], [new]]) <= BIAS_MAX)


def _quantiles(
    rng: np.random.Generator, kind: str, requests: int, percentiles: Sequence[float]
) -> list[float]:
    """Return log quantiles of one run, by the ranks of Java's HdrHistogram; runs differ by 2%."""
    logs = 0.5 * rng.normal(size=requests) if kind == "lognormal" else rng.exponential(1 / 1.5, requests)
    ranks = [math.ceil(p * requests / 100 - 1e-9) - 1 for p in percentiles]
    logs.partition(sorted(set(ranks)))
    level = 0.02 * rng.normal()
    return [float(logs[rank]) + level for rank in ranks]


def run(trials: int) -> dict[Cell, tuple[float, float]]:
    """Measure all cells, with one process per core."""
    with ProcessPoolExecutor() as pool:
        made = {cell: pool.submit(measure, cell, trials) for cell in cells()}
        found = {}
        for cell, future in made.items():
            found[cell] = future.result()
            print(f"  {cell.table}: {', '.join(map(str, cell.names))}: {_pair(found[cell], 1)}", flush=True)
        return found


def render(found: dict[Cell, tuple[float, float]], trials: int, when: str) -> str:
    """Return the tables of other shapes in Markdown."""
    return "\n".join(
        [
            f"Runs of other shapes, {trials:,} seeded trials per cell ({when}; 5% has a standard error of"
            f" {100 * math.sqrt(0.05 * 0.95 / trials):.1f} points). In a cell: A/A intervals that exclude 0 · an effect of"
            f" {EFFECT_SD:g} standard deviations of base that is found.",
            "",
            *_grid(found),
            "",
            "The level changes while builds take turns: it drifts by a standard deviation from run to run, the first runs"
            " are slower by up to five, or each four runs have a level of their own (three standard deviations).",
            "",
            *_table(("", *DESIGNS), _rows(found, "times", TIMES, DESIGNS)),
            "",
            "Seven nights against the seven before, tested by session, with a drift. The effect is a slowdown of 20%.",
            "",
            *_table(
                ("nights differ by", *(f"drift {drift}" for drift in NIGHT_DRIFTS)),
                _rows(found, "nights", NIGHT_SDS, tuple(NIGHT_DRIFTS), lambda sd: f"{100 * float(sd):g}%"),
            ),
            "",
            "Sides of 8 runs whose numbers of requests differ, A/A intervals that exclude 0: of p99 · of the percentile"
            " that is compared instead.",
            "",
            *_table(
                (
                    "requests",
                    *(f"{base:,} v {new:,} (p{substitute_of(base, new):g})" for base, new in LENGTHS),
                ),
                _length_rows(found),
            ),
            "",
        ]
    )


def _grid(found: dict[Cell, tuple[float, float]]) -> list[str]:
    rows = [
        [
            f"{base} v {new}, {times} x",
            *(_pair(found[Cell("numbers", (shape, base, new, times))]) for shape in SHAPES),
        ]
        for base, new, times in NUMBERS
    ]
    return _table(("runs, spread of new", *SHAPES), rows)


def _rows(
    found: dict[Cell, tuple[float, float]],
    table: str,
    down: Sequence[str | float],
    across: Sequence[str],
    name: Callable[[str | float], str] = str,
) -> Iterator[list[str]]:
    for one in down:
        yield [name(one), *(_pair(found[Cell(table, (one, two))]) for two in across)]


def _length_rows(found: dict[Cell, tuple[float, float]]) -> Iterator[list[str]]:
    for kind in ("lognormal", "heavy tail"):
        yield [kind, *(_pair(found[Cell("lengths", (kind, *pair))], 1) for pair in LENGTHS)]


def _pair(shares: tuple[float, float], digits: int = 0) -> str:
    return f"{100 * shares[0]:.1f}% · {100 * shares[1]:.{digits}f}%"


def _table(head: Sequence[str], rows: Iterator[list[str]] | list[list[str]]) -> list[str]:
    return ["| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows)]
