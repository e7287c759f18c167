"""Figures of both sides over the time of their runs: the median and the range over the runs of a side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from replay.results.document import RecordedClock
from replay.results.timeline import Second

from .sides import Side, SideRun

Values = Mapping[str | None, Callable[[Second], float | None]]
"""Functions that return the value of a figure in a second, by the name of a watched figure, or by None for the
latency."""


class Spread(NamedTuple):
    """A figure in one step of time: median, lowest and highest over the runs of a side."""

    middle: float
    low: float
    high: float


Course = list[tuple[float, Spread | None]]
"""A figure over time: pairs of the middle of a step (s since the start), and its spread, or None if no run has a
value."""


def courses_of(side: Side, values: Values, step_s: float) -> dict[str | None, Course]:
    """Return each figure in steps of `step_s`.

    If a step contains several seconds of a run, the value farthest from 0 counts.
    """
    found: dict[str | None, dict[int, list[float]]] = {name: {} for name in values}
    for run in side.runs:
        for name, by_step in _of_run(run, values, step_s).items():
            for step, value in by_step.items():
                found[name].setdefault(step, []).append(value)
    return {name: _course(by_step, step_s) for name, by_step in found.items()}


def _of_run(run: SideRun, values: Values, step_s: float) -> dict[str | None, dict[int, float]]:
    found: dict[str | None, dict[int, float]] = {name: {} for name in values}
    for row in run.seconds():
        step = int((row.t_s + row.length_s / 2) / step_s)
        for name, value_of in values.items():
            value = value_of(row)
            if value is not None and abs(value) >= abs(found[name].get(step, 0.0)):
                found[name][step] = value
    return found


def _course(by_step: Mapping[int, Sequence[float]], step_s: float) -> Course:
    made: Course = []
    for step in range(max(by_step, default=-1) + 1):
        values = by_step.get(step)
        spread = Spread(statistics.median(values), min(values), max(values)) if values else None
        made.append(((step + 0.5) * step_s, spread))
    return made


def clock_of(*sides: Side) -> RecordedClock | None:
    """Return the recorded clock of the runs; None if they have none, or different ones."""
    clocks = [
        None if run.document is None else run.document.recorded_clock for side in sides for run in side.runs
    ]
    return clocks[0] if clocks and all(clock == clocks[0] for clock in clocks) else None


def length_s(*sides: Side) -> float:
    """Return the length of the longest run in seconds; 0 if all runs are logs."""
    lengths = [run.document.duration_s for side in sides for run in side.runs if run.document is not None]
    return max(lengths, default=0.0)
