"""Kafka under the same clock: the one room that imports aiokafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.scenario.target import Target

if TYPE_CHECKING:
    from replay.engine.fittings import Fit, Fittings
    from replay.scenario.settings import Scenario
    from replay.schedule.plan import Schedule


def fit_for(*targets: Target) -> Fit | None:
    """What fits a run to these targets, each to its own; None where none of them is Kafka."""
    if not any(target.is_kafka for target in targets):
        return None
    from replay.engine.fit import fit_http

    from .fit import fit

    async def fit_each(schedule: Schedule, scenario: Scenario, run_id: str, first_route: int) -> Fittings:
        one = fit if schedule.target.is_kafka else fit_http
        return await one(schedule, scenario, run_id, first_route)

    return fit_each
