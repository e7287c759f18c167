"""The trends of scenarios: runs of the same load in order, or searches for the peak, and the changes among them.

Trials of a search, runs of `replay ab` and other runs in subfolders have rows, but no trend. The loads of trials differ,
and the runs of a session are made within minutes of each other, so they are not independent samples of a build.
`parts_of` counts them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from .change_points import RUNS_MIN, Series, Step, find_steps
from .finding import KINDS, Kind
from .rows import Row

ROUTES_MAX = 20
P50_REQUESTS, P99_REQUESTS = 20, 1_000
"""Number of requests that a route must have in nine of ten of its runs for a percentile to be judged: 10 / (1 - p)."""

FLOOR_ALL, FLOOR_ROUTE, FLOOR_FAILED, FLOOR_PEAK = 0.01, 0.02, 0.001, 0.02
"""The smallest changes that count: of latencies over all routes and of one route (histograms keep 3 and 2 digits), of
failed shares, and of peaks (the default of `--width`).
"""

DOUBTS = {
    "hosts": "runs of other hosts begin there, and hosts differ by as much",
    "control": "the host's control workload changed there, too",
    "build": "earlier runs of this build were at the previous level",
}
TREND_KINDS: tuple[Kind, ...] = ("run", "peak")
Metric = Literal["p50", "p99", "failed", "peak"]
_PEAK: list[tuple[str, Metric]] = [("", "peak")]


@dataclass(frozen=True)
class Moved:
    """A series that a change moved.

    `before` and `after` are means (ns, a share, or requests per second). `change` is relative; for shares it is the
    difference.
    """

    route: str
    metric: Metric
    before: float
    after: float
    change: float
    t: float

    @property
    def is_worse(self) -> bool:
        """Whether latencies or failures increased, or the peak decreased."""
        return self.change < 0 if self.metric == "peak" else self.change > 0


@dataclass(frozen=True)
class Change:
    """A lasting change of a trend.

    `run` is the first run after the change, `found_run` the run with which it was first found. `doubt` is the reason
    why it may have another cause than the build; empty if nothing suggests one.
    """

    run: str
    build: str
    started_ns: int
    found_run: str
    moved: list[Moved]
    doubt: str = ""

    @property
    def is_slower(self) -> bool:
        """Whether the series that moved most got worse."""
        return self.moved[0].is_worse


@dataclass(frozen=True)
class Trend:
    """The runs of one scenario and load, or its searches for the peak (`kind`).

    `left_out` counts, by verdict, the results that cannot be compared. `unjudged` lists routes that are not among the
    ROUTES_MAX largest, or have too few requests or runs. `judges_p99`: whether the p99 of all requests is judged.
    """

    scenario: str
    load: str
    rows: list[Row]
    changes: list[Change] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    unjudged: list[str] = field(default_factory=list)
    judges_p99: bool = False
    kind: Kind = "run"

    @property
    def builds(self) -> int:
        """The number of builds. A run without a label counts as a separate build."""
        return len({row.build or row.name for row in self.rows})

    @property
    def hosts(self) -> int:
        """The number of machines on which the runs were made."""
        return len({row.host for row in self.rows})

    @property
    def too_few(self) -> bool:
        """Whether there are too few runs to find a change."""
        return len(self.rows) < RUNS_MIN


def trends_of(rows: Sequence[Row]) -> list[Trend]:
    """Return the trend of each scenario and load, the newest first. `rows` are in the order of time."""
    groups: dict[tuple[str, str, Kind], list[Row]] = {}
    for row in rows:
        if not row.problem and row.kind in TREND_KINDS:
            groups.setdefault((row.scenario, row.load, row.kind), []).append(row)
    made = [_trend(*key, found) for key, found in groups.items()]
    return sorted(made, key=lambda trend: -(trend.rows[-1].started_ns if trend.rows else 0))


def parts_of(rows: Sequence[Row], scenario: str = "") -> dict[Kind, int]:
    """Return the number of readable results of each kind without a trend, for one scenario if one is given."""
    kinds = Counter(row.kind for row in rows if not row.problem and scenario in ("", row.scenario))
    return {kind: kinds[kind] for kind in KINDS if kind not in TREND_KINDS and kinds[kind]}


def _trend(scenario: str, load: str, kind: Kind, found: list[Row]) -> Trend:
    rows = [row for row in found if row.is_comparable]
    left_out = Counter(row.verdict for row in found if not row.is_comparable)
    keys, unjudged = _keys(rows) if kind == "run" else (_PEAK[: len(rows)], [])
    trend = Trend(scenario, load, rows, [], dict(left_out), unjudged, ("", "p99") in keys, kind)
    if not keys:
        return trend
    series = _series(rows, keys)
    changes = [_change(rows, series, keys, step, steps_after) for step, steps_after in _with_next(series)]
    return replace(trend, changes=changes)


def _with_next(series: Series) -> list[tuple[Step, tuple[int, int]]]:
    """Return each step with the first run of the level before it, and the end of the level after it."""
    steps = find_steps(series)
    begins = [0, *(step.at for step in steps)]
    ends = [*(step.at for step in steps[1:]), len(series.builds)]
    return [(step, (begins[number], ends[number])) for number, step in enumerate(steps)]


def _keys(rows: list[Row]) -> tuple[list[tuple[str, Metric]], list[str]]:
    """Return the series to judge (of all routes together, and of the largest), and the routes that have none."""
    requests: dict[str, list[int]] = {}
    for row in rows:
        for figures in row.figures:
            requests.setdefault(figures.route, []).append(figures.requests)
    total = {route: sum(counts) for route, counts in requests.items()}
    largest = sorted((route for route in total if route), key=lambda route: (-total[route], route))
    keys: list[tuple[str, Metric]] = [("", "failed")] if rows else []
    judged = set()
    for route in ["", *largest[:ROUTES_MAX]]:
        counts = sorted(requests.get(route, []))
        middle = counts[len(counts) // 10] if counts else 0
        for metric, needed in (("p50", P50_REQUESTS), ("p99", P99_REQUESTS)):
            if len(counts) >= 0.5 * len(rows) and middle >= needed:
                keys.append((route, metric))  # type: ignore[arg-type]
                judged.add(route)
    return keys, [route for route in largest if route not in judged]


def _series(rows: list[Row], keys: Sequence[tuple[str, Metric]]) -> Series:
    values = np.array([[_value(row, *key) for key in keys] for row in rows])
    floors = [_floor(*key) for key in keys]
    control = [math.log(row.control_ns) if row.control_ns else math.nan for row in rows]
    return Series(
        values, [row.build for row in rows], [row.host for row in rows], np.array(control), np.array(floors)
    )


def _value(row: Row, route: str, metric: Metric) -> float:
    """Return the value of a run in a series: a share, or a logarithm; NaN if it has none."""
    if metric == "peak":
        return _log(row.peak_per_s)
    figures = next((figures for figures in row.figures if figures.route == route), None)
    if figures is None:
        return math.nan
    if metric == "failed":
        return figures.failed
    return _log(figures.p50_ns if metric == "p50" else figures.p99_ns)


def _log(value: float | None) -> float:
    return math.log(value) if value else math.nan


def _floor(route: str, metric: Metric) -> float:
    if metric == "peak":
        return FLOOR_PEAK
    return FLOOR_FAILED if metric == "failed" else FLOOR_ROUTE if route else FLOOR_ALL


def _change(
    rows: list[Row], series: Series, keys: Sequence[tuple[str, Metric]], step: Step, around: tuple[int, int]
) -> Change:
    order = np.argsort(-np.nan_to_num(np.abs(step.t)))
    largest = float(np.nanmax(np.abs(step.t)))
    moved: list[Moved] = []
    for number in order:
        t = float(np.nan_to_num(step.t[number]))
        if moved and abs(t) < max(4.0, largest / 3):
            break
        route, metric = keys[number]
        before = float(np.nanmean(series.values[around[0] : step.at, number]))
        after = float(np.nanmean(series.values[step.at : around[1], number]))
        size = float(step.sizes[number])
        if metric != "failed":
            before, after, size = math.exp(before), math.exp(after), math.expm1(size)
        moved.append(Moved(route, metric, before, after, size, t))
    row = rows[step.at]
    return Change(
        row.name, row.build, row.started_ns, rows[step.found].name, moved, DOUBTS.get(step.doubt, "")
    )
