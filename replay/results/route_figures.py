"""Figures of routes, of business actions, and of the captures and checks on their responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from replay_native.ledger.lane_metrics import LaneMetrics

from .document import Recorded, RouteFigures, RouteStart, RuleFigures, SessionFigures, Started
from .measured import Measured


def route_figures(measured: Measured, started: Started) -> list[RouteFigures]:
    """Return the figures of all routes with requests; the busiest route comes first."""
    known = {route.name: route for route in started.routes}
    found = []
    for name in measured.outcomes:
        route = known.get(name, RouteStart(name))
        found.append(_figures(measured, started, name, route.recorded, route.action))
    return sorted(found, key=lambda figures: (-figures.count, figures.route))


def action_figures(measured: Measured, started: Started) -> list[RouteFigures]:
    """Return the figures of all business actions with requests; the busiest action comes first.

    If several routes of an action have recorded figures, the recorded percentiles are left out, because they cannot be
    combined.
    """
    recorded = {route.name: route.recorded for route in started.routes}
    found = []
    for action, routes in measured.actions.items():
        each = [known for known in (recorded.get(name) for name in routes) if known is not None]
        statuses: Counter[str] = Counter()
        for one in each:
            statuses.update(one.statuses)
        merged = Recorded(count=sum(one.count for one in each), statuses=dict(statuses)) if each else None
        found.append(_figures(measured, started, action, each[0] if len(each) == 1 else merged, action))
    return sorted((f for f in found if f.count), key=lambda figures: (-figures.count, figures.route))


def _figures(
    measured: Measured, started: Started, name: str, recorded: Recorded | None, action: str
) -> RouteFigures:
    outcomes: Counter[str] = Counter()
    for member in measured.members(name):
        outcomes.update(measured.outcomes.get(member, {}))
    counted = [measured.checked.get(member, (0, 0)) for member in measured.members(name)]
    total = sum(sum(outcomes.values()) for outcomes in measured.outcomes.values())
    return RouteFigures(
        route=name,
        count=outcomes.total(),
        share=round(outcomes.total() / max(total, 1), 6),
        outcomes=dict(outcomes),
        response=None if started.closed_loop else measured.latency("response", name),
        service=measured.latency("service", name),
        recorded=recorded,
        action=action,
        checked=sum(checked for checked, _ in counted),
        mismatches=sum(mismatches for _, mismatches in counted),
        worse=measured.status_count(name).differing,
        not_of_target=sum(measured.not_of_target.get(member, 0) for member in measured.members(name)),
    )


def session_figures(
    all_metrics: Sequence[LaneMetrics], started: Started, by_name: dict[str, int], measured: Measured
) -> SessionFigures | None:
    """Return the figures of captures, cookies and checks; None if the scenario has neither rules nor cookies."""
    scenario = started.scenario
    if not started.rules and not scenario.get("cookies"):
        return None
    counts = [
        sum(int(metrics.rule_counts[rule, which]) for metrics in all_metrics)
        for rule in range(len(started.rules))
        for which in (0, 1)
    ]
    return SessionFigures(
        rules=[
            RuleFigures(
                rule=name,
                good=counts[2 * number],
                missed=counts[2 * number + 1],
                refused=sum(int(metrics.rule_refused[number]) for metrics in all_metrics),
            )
            for number, name in enumerate(started.rules)
        ],
        checked=sum(checked for checked, _ in measured.checked.values()),
        mismatches=sum(mismatches for _, mismatches in measured.checked.values()),
        answers_cut=by_name["answers_cut"],
        cookies_cut=by_name["cookies_cut"],
    )
