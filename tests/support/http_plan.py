"""HTTP requests as a scenario plans them, without a target that runs."""

from __future__ import annotations

from replay.plan.schedule import Schedule
from replay.protocols.http1.adapter import HttpPlan
from replay.protocols.http1.render import RenderSpec
from replay.protocols.protocol import Found
from replay.protocols.registry import parse_target


def http_plan(schedule: Schedule) -> HttpPlan:
    """What HTTP makes of a schedule. UsageError where a request cannot be written."""
    return HttpPlan(schedule, Found(parse_target(schedule.plan.target), ("127.0.0.1",)))


def render_of(schedule: Schedule) -> RenderSpec:
    """How its requests are written."""
    return http_plan(schedule).render


def checked(schedule: Schedule) -> Schedule:
    """The schedule, if all of its requests can be written."""
    http_plan(schedule)
    return schedule
