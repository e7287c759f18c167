"""The trends of scenarios: runs of the same load in order, and the changes among them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .change_points import RUNS_MIN, Series, Step, find_steps
from .rows import Row

ROUTES_MAX = 20
P50_REQUESTS, P99_REQUESTS = 20, 1_000
"""Requests that a percentile needs in a run: 10 / (1 - p)."""

FLOOR_ALL, FLOOR_ROUTE, FLOOR_FAILED = 0.01, 0.02, 0.001
"""The smallest changes: of latencies over all routes and of a route (histograms keep 3 and 2 digits), of failed shares."""

DOUBTS = {
    "hosts": "runs of other hosts begin there, and hosts differ by as much",
    "control": "the host's control workload changed by as much",
    "build": "runs of this build were at the earlier level before",
}
Metric = Literal["p50", "p99", "failed"]


@dataclass(frozen=True)
class Moved:
    """A series that a change moved: the means before and after (ns, or a share), and the relative change (of shares: the
    difference).
    """

    route: str
    metric: Metric
    before: float
    after: float
    change: float
    t: float


@dataclass(frozen=True)
class Change:
    """A change, and the run that begins it. `doubt` says why nobody can tell whether the build did it; empty if it did."""

    run: str
    build: str
    started_ns: int
    found_run: str
    moved: list[Moved]
    doubt: str = ""

    @property
    def is_slower(self) -> bool:
        """Whether what moved most got worse."""
        return self.moved[0].change > 0


@dataclass(frozen=True)
class Trend:
    """The runs of one scenario and load. `left_out` counts those that measured nothing to compare, by verdict; `unjudged`
    are routes without enough requests or runs; `judges_p99`: whether the p99 of all requests is judged; `too_few` says
    that there are not enough runs yet.
    """

    scenario: str
    load: str
    rows: list[Row]
    changes: list[Change] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    unjudged: list[str] = field(default_factory=list)
    judges_p99: bool = False

    @property
    def builds(self) -> int:
        """Builds that ran; a run without a label counts as a separate build."""
        return len({row.build or row.name for row in self.rows})

    @property
    def hosts(self) -> int:
        """Machines that the runs were made on."""
        return len({row.host for row in self.rows})

    @property
    def too_few(self) -> bool:
        """Whether there are too few runs to find a change."""
        return len(self.rows) < RUNS_MIN


def trends_of(rows: Sequence[Row]) -> list[Trend]:
    """The trend of each scenario and load, the newest first. `rows` are in order of time."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row.problem:
            groups.setdefault((row.scenario, row.load), []).append(row)
    made = [_trend(*key, found) for key, found in groups.items()]
    return sorted(made, key=lambda trend: -(trend.rows[-1].started_ns if trend.rows else 0))


def _trend(scenario: str, load: str, found: list[Row]) -> Trend:
    rows = [row for row in found if row.is_comparable]
    left_out = Counter(row.verdict for row in found if not row.is_comparable)
    keys, unjudged = _keys(rows)
    if not keys:
        return Trend(scenario, load, rows, [], dict(left_out), unjudged)
    series = _series(rows, keys)
    changes = [_change(rows, series, keys, step, steps_after) for step, steps_after in _with_next(series)]
    return Trend(scenario, load, rows, changes, dict(left_out), unjudged, ("", "p99") in keys)


def _with_next(series: Series) -> list[tuple[Step, tuple[int, int]]]:
    """Each step with the first run of the level before it, and the end of the level after it."""
    steps = find_steps(series)
    begins = [0, *(step.at for step in steps)]
    ends = [*(step.at for step in steps[1:]), len(series.builds)]
    return [(step, (begins[number], ends[number])) for number, step in enumerate(steps)]


def _keys(rows: list[Row]) -> tuple[list[tuple[str, Metric]], list[str]]:
    """The series that are judged: over all routes, and of the largest routes; and the routes without any."""
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
    values = np.full((len(rows), len(keys)), np.nan)
    for at, row in enumerate(rows):
        by_route = {figures.route: figures for figures in row.figures}
        for number, (route, metric) in enumerate(keys):
            figures = by_route.get(route)
            if figures is None:
                continue
            if metric == "failed":
                values[at, number] = figures.failed
            elif (value := figures.p50_ns if metric == "p50" else figures.p99_ns) is not None:
                values[at, number] = math.log(value)
    floors = [
        FLOOR_FAILED if metric == "failed" else FLOOR_ROUTE if route else FLOOR_ALL for route, metric in keys
    ]
    control = [math.log(row.control_ns) if row.control_ns else math.nan for row in rows]
    return Series(
        values, [row.build for row in rows], [row.host for row in rows], np.array(control), np.array(floors)
    )


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
