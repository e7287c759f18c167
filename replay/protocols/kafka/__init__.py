"""Kafka under the same clock: the one room that imports aiokafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.settings.target import Target

if TYPE_CHECKING:
    from replay.plan.schedule import Schedule
    from replay.protocols.adapter import Fit, Fittings
    from replay.settings.scenario import Scenario


def fit_for(*targets: Target) -> Fit | None:
    """What fits a run to these targets, each to its own; None where none of them is Kafka."""
    if not any(target.is_kafka for target in targets):
        return None
    from replay.protocols.http1.adapter import fit_http

    from .adapter import fit

    async def fit_each(schedule: Schedule, scenario: Scenario, run_id: str, first_route: int) -> Fittings:
        one = fit if schedule.target.is_kafka else fit_http
        return await one(schedule, scenario, run_id, first_route)

    return fit_each
