"""The routes of a run, for protocols that keep the routes of the trace."""

from __future__ import annotations

from replay.plan.schedule import Schedule
from replay.results.document import RouteStart


def route_starts(schedule: Schedule) -> list[RouteStart]:
    """Return the routes of the trace, with their recorded figures."""
    recorded = {route.route: route.recorded for route in schedule.plan.by_route}
    requests = schedule.trace.requests
    named = zip(requests.routes, requests.actions, strict=True)
    return [RouteStart(name, recorded.get(name), action) for name, action in named]
