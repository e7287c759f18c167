"""Business actions in words, the same for plan, terminal and page: what failed, what it costs, and when it was worst."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from replay.money import format_money
from replay.plan.schedule import Plan
from replay.results.business_figures import ActionFigures, BusinessFigures
from replay.results.document import RunDocument
from replay.settings.scenario import Scenario
from replay.trace.actions import rules_of
from replay.trace.manifest import Route
from replay.units import counted, format_count, format_moment, nearest

ACTIONS_SHOWN = 12
MINUTES_SHOWN = 5
"""The worst intervals of each run that reports list."""


def actions_facts(plan: Plan, scenario: Scenario) -> list[tuple[str, str]]:
    """The plan's lines about business actions, and what names nothing."""
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
    said = [*words, *_amiss(plan, scenario, rows)]
    return [("actions" if number == 0 else "", text) for number, text in enumerate(said)]


def _amiss(plan: Plan, scenario: Scenario, rows: dict[str, int]) -> Iterator[str]:
    """Actions without requests, patterns that name no route, and values of no action."""
    rules = rules_of(scenario.actions)
    yield from rules.idle(
        [Route(route=route.route, rows=route.rows, action=route.action) for route in plan.by_route]
    )
    known = dict.fromkeys([*rows, *scenario.actions])
    yield from (f"{name}: no requests of it are sent" for name in known if not rows.get(name))
    for name, value in scenario.values.items():
        if name not in known:
            guess = nearest(name, known)
            more = f" (did you mean {guess}?)" if guess else ""
            yield f"the value {value} is not used: there is no action {name}{more}"


def business_words(document: RunDocument) -> list[str]:
    """A sentence for each action of a run that has values, or of which requests failed; then the sums by currency."""
    business = document.business
    if business is None:
        return []
    by_loss = _has_one_currency(business)
    order = sorted(
        business.actions,
        key=lambda action: (-(action.lost or 0.0) if by_loss else 0.0, -action.failed, action.action),
    )
    words = [action.words for action in order if action.failed or action.value][:ACTIONS_SHOWN]
    return [*words, *_sums(business), *_left_out(business.actions)] if words else []


def _has_one_currency(business: BusinessFigures) -> bool:
    """Whether losses can be compared."""
    return len(business.lost) == 1


def _sums(business: BusinessFigures) -> list[str]:
    """The losses of several actions in one currency; currencies are never added up."""
    words = []
    for currency, amount in business.lost.items():
        of = [action.action for action in business.actions if action.currency == currency and action.lost]
        if len(of) > 1:
            words.append(f"together {format_money(amount, currency)} ({', '.join(of)})")
    return words


def _left_out(actions: Sequence[ActionFigures]) -> list[str]:
    count = sum(action.not_of_target for action in actions)
    if not count:
        return []
    return [
        f"{counted(count, 'request')} of these actions failed for another reason than the target, and cost nothing here"
    ]


def worst_minutes(document: RunDocument) -> list[tuple[str, str, str, str]]:
    """The intervals with the highest losses, or the most failures: moment, action, failed, lost."""
    business = document.business
    if business is None:
        return []
    found = [(action, minute) for action in business.actions for minute in action.intervals if minute.failed]
    by_loss = _has_one_currency(business)
    found.sort(key=lambda pair: (-(pair[1].lost or 0.0) if by_loss else 0.0, -pair[1].failed, pair[1].at_ns))
    offset_s = document.recorded_clock.utc_offset_s if document.recorded_clock is not None else 0
    zone = dt.timezone(dt.timedelta(seconds=offset_s if business.clock == "recorded" else 0))
    return [
        (
            format_moment(minute.at_ns, zone),
            action.action,
            f"{format_count(minute.failed)} of {format_count(minute.requests)}",
            "" if minute.lost is None else format_money(minute.lost, action.currency),
        )
        for action, minute in found[:MINUTES_SHOWN]
    ]


def interval_words(business: BusinessFigures) -> str:
    """What an interval is."""
    minutes = business.interval_s // 60
    length = "minute" if minutes == 1 else f"{minutes} minutes"
    return f"{length} of the {business.clock} clock"
