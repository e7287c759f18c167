"""Runs of schedules that a test made itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from replay.engine import prepare
from replay.engine.sinks import Sink
from replay.plan.schedule import Schedule
from replay.results.document import RunDocument
from replay.settings.scenario import Scenario


def run_blocking(
    schedule: Schedule, scenario: Scenario, out: str | Path, sinks: Sequence[Sink] = ()
) -> RunDocument:
    """Run what the schedule was made of, as the library does."""
    with prepare(schedule.trace, scenario) as prepared:
        return prepared.run(out, sinks=sinks)
