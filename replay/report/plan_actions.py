"""Business actions in the printed plan: their requests and values, and names that match nothing."""

from __future__ import annotations

from collections.abc import Iterator

from replay.plan.schedule import Plan
from replay.settings.scenario import Scenario
from replay.trace.actions import rules_of
from replay.trace.manifest import Route
from replay.units import counted, nearest

from .business import ACTIONS_SHOWN


def actions_facts(plan: Plan, scenario: Scenario) -> list[tuple[str, str]]:
    """Return the plan's lines about at most ACTIONS_SHOWN business actions, and about names that match nothing."""
    rows: dict[str, int] = {}
    for route in plan.by_route:
        if route.action:
            rows[route.action] = rows.get(route.action, 0) + route.rows
    if not plan.by_route or not (rows or scenario.actions or scenario.values):
        return []
    words = [
        f"{name}: {counted(count, 'request')}"
        + (f", {value} each" if (value := scenario.values.get(name)) else "")
        for name, count in sorted(rows.items(), key=lambda pair: -pair[1])[:ACTIONS_SHOWN]
        if count
    ]
    if len(rows) > ACTIONS_SHOWN:
        words.append(f"{len(rows) - ACTIONS_SHOWN} more actions")
    sentences = [*words, *_amiss(plan, scenario, rows)]
    return [("actions" if number == 0 else "", text) for number, text in enumerate(sentences)]


def _amiss(plan: Plan, scenario: Scenario, rows: dict[str, int]) -> Iterator[str]:
    """Yield problems: patterns that match no route, actions without requests, and values of unknown actions."""
    rules = rules_of(scenario.actions)
    yield from rules.idle(
        [Route(route=route.route, rows=route.rows, action=route.action) for route in plan.by_route]
    )
    known = dict.fromkeys([*rows, *scenario.actions])
    yield from (f"{name}: none of its requests are sent" for name in known if not rows.get(name))
    for name, value in scenario.values.items():
        if name not in known:
            guess = nearest(name, known)
            more = f" (did you mean {guess}?)" if guess else ""
            yield f"the value {value} is not used: there is no action {name}{more}"
