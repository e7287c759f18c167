"""Which watched figures changed first, for each trial of a peak search that missed an objective."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from replay.diagnosis.course import harm_begins
from replay.errors import InputError
from replay.results import slo
from replay.results.run import Run
from replay.results.slo import Slo
from replay.results.timeline import Second
from replay.results.watched import first_against, misses
from replay.results.windows import LEAST_WINDOW_NS, windows_of

from .search import Trial

RunOf = Callable[[str], Run]
"""Returns the run of a trial, given the name of its run folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstChange:
    """A trial that missed an objective, and the figures that changed first in it.

    `run` is its run folder. `words` are empty if it is not known what changed first. `beside` is the load of
    the trial that it was compared with; None if there is none.
    """

    run: str
    stage: str
    load: float
    words: str
    beside: float | None = None


def first_changes(trials: Sequence[Trial], above: float, run_of: RunOf) -> list[FirstChange]:
    """Return the first changes of the trials at `above` and of the holds that missed an objective.

    `above` is the lowest load that missed an objective. Trials without watched figures, and trials that the
    generator limited, are left out. Each trial is compared with the trial of the ascent that met every objective at the
    highest load up to its own.
    """
    return [
        _first_change(trial, trials, run_of)
        for trial in trials
        if trial.watched
        and not trial.ok
        and not trial.generator_limited
        and (trial.stage == "hold" or (trial.stage == "up" and math.isclose(trial.load, above)))
    ]


def _first_change(trial: Trial, trials: Sequence[Trial], run_of: RunOf) -> FirstChange:
    lower = [each for each in trials if each.stage == "up" and each.ok and each.load <= trial.load]
    beside = max(lower, key=lambda each: each.load, default=None)
    words = ""
    if beside is not None:
        run = run_of(trial.run)
        rows, missed = run.seconds(), [text for text, met in trial.passed.items() if not met]
        breach = missed_from(run, rows, slo.parse_known(missed))
        if breach is not None:
            words = first_against(rows, breach, run_of(beside.run).seconds(), trial.load / beside.load)
    return FirstChange(
        run=trial.run,
        stage=trial.stage,
        load=trial.load,
        words=words,
        beside=None if beside is None else beside.load,
    )


def missed_from(run: Run, rows: Sequence[Second], objectives: Sequence[Slo]) -> int | None:
    """Return the row from which a run misses one of these objectives; None if no second over all routes does.

    Rows have few percentiles, so the percentiles of objectives are read from the log of the run.
    """
    bad = [any(misses(row, each) for each in objectives if each.percentile is None) for row in rows]
    for each in objectives:
        if each.percentile is None or each.route:
            continue
        max_wait_ns = run.document.max_wait_ns
        windows = windows_of(run.folder, rows, each.metric, None, LEAST_WINDOW_NS, max_wait_ns)
        try:
            missed = slo.missed_at(each, windows)
        except InputError:
            continue
        bad = [is_bad or row.t_s in missed for is_bad, row in zip(bad, rows, strict=True)]
    return harm_begins(bad)
