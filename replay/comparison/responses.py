"""Compares the kept responses of the runs of a comparison, in addition to its verdict on speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from replay.differences.findings import Differences
from replay.differences.judging import Options, RunsOfSide, compare_responses
from replay.differences.reading import KeptRun
from replay.errors import InputError, ReplayError
from replay.results.answers import Answers

from .sides import Side


def runs_of(side: Side) -> RunsOfSide:
    """Return the runs of a side with their responses. Raise InputError if a run is a log of another program."""
    runs = []
    for run in side.runs:
        if run.document is None:
            raise InputError(f"{run.name} is a log: it holds no responses", hint="give run folders")
        runs.append(KeptRun(Path(run.name), run.document))
    return RunsOfSide(side.label, tuple(runs), side.set_aside)


def responses_of(
    base: Side, new: Side, fail_on: Sequence[str], alpha: float
) -> tuple[Differences | None, list[str]]:
    """Compare both sides' responses, and return the result and notes.

    The result is None if not all runs kept responses, or if these cannot be compared. A note contains the reason,
    unless no run kept responses.
    """
    runs = [*base.runs, *new.runs]
    kept = [run.document is not None and bool(Answers(run.name)) for run in runs]
    if not any(kept):
        return None, []
    if not all(kept):
        return None, [
            f"responses are not compared: {runs[kept.index(False)].name} kept none, {runs[kept.index(True)].name} did"
        ]
    try:
        # The comparison of speed already lists the runs that were set aside, so they are not listed twice.
        old, now = (runs_of(replace(side, set_aside=())) for side in (base, new))
        return compare_responses(old, now, Options(fail_on=fail_on, alpha=alpha)), []
    except ReplayError as error:
        return None, [f"responses are not compared: {error}"]
