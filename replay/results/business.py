"""Business actions of a run: how many of their requests failed, when, and at what cost.

An action's `value` is the cost of one failed request. Losses in different currencies are never added up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from replay.errors import UsageError
from replay.ledger.catalog import FAILED
from replay.money import Money, format_money, format_rough, parse_money
from replay.units import SECOND_NS, format_share

from .action_counts import Counts
from .business_figures import ActionFigures, ActionMinute, BusinessFigures
from .figures import RouteFigures
from .started import RecordedClock, Started
from .timeline import Second

MINUTES_MAX = 1_440
"""Maximum number of intervals in run.json; for longer runs, an interval is several minutes long."""

_MINUTE_NS = 60 * SECOND_NS
_HOUR_S = 3_600.0
_ONE_IN = 0.2
"""Shares above this one are shown as percentages, smaller ones as `1 in N`."""


def values_of(scenario: Mapping[str, Any]) -> dict[str, Money]:
    """Return the cost of one failed request by action, from a saved scenario.

    Invalid values are left out, because anyone may have written the run folder.
    """
    found: dict[str, Money] = {}
    given = scenario.get("values", {})
    for action, text in given.items() if isinstance(given, dict) else ():
        try:
            found[action] = parse_money(str(text))
        except UsageError:
            continue
    return found


def recorded_hours(elapsed_s: float, warm_up_s: float, clock: RecordedClock | None) -> float:
    """Return how many hours of the recorded clock a run covers after its warm-up.

    Without a recorded clock, these are hours of the run's own clock.
    """
    speed = clock.speed if clock is not None and clock.speed > 0 else 1.0
    return max(elapsed_s - warm_up_s, 0.0) * speed / _HOUR_S


def warm_up_s(plan: Mapping[str, Any]) -> float:
    """Return the warm-up of a saved plan, in seconds."""
    return float(plan.get("warm_up_ns", 0) or 0) / SECOND_NS


def business_of(
    started: Started, rows: Sequence[Second], actions: Sequence[RouteFigures]
) -> BusinessFigures | None:
    """Return the business figures of a run, computed from the figures of its `actions`.

    Return None if the run has neither actions nor values. The intervals are computed from the timeline, so the last
    moments of a killed run are missing from them.
    """
    values = values_of(started.scenario)
    asked = started.scenario.get("actions")
    defined = dict.fromkeys(route.action for route in started.routes if route.action)
    defined |= dict.fromkeys(asked if isinstance(asked, dict) else ())
    if not defined and not values:
        return None
    clock = started.recorded_clock
    is_recorded = clock is not None and clock.speed > 0
    due_s = max((row.t_s + row.length_s for row in rows if row.planned), default=0.0)
    hours = recorded_hours(due_s, warm_up_s(started.plan), clock)
    width_ns = _width_ns(rows, clock if is_recorded else None)
    by_interval = _by_interval(rows, started, width_ns, is_recorded=is_recorded)
    figures = [
        _figures(action, values.get(action.route), hours, by_interval.get(action.route, {}))
        for action in actions
    ]
    counted = {action.route for action in actions}
    return BusinessFigures(
        clock="recorded" if is_recorded else "run",
        hours=round(hours, 6),
        interval_s=width_ns // SECOND_NS,
        actions=figures,
        lost=_by_currency(figures, "lost"),
        lost_per_hour=_by_currency(figures, "lost_per_hour"),
        without_requests=[name for name in defined if name not in counted],
        values_unused=[name for name in values if name not in defined],
    )


def _figures(
    of: RouteFigures, value: Money | None, hours: float, by_interval: Mapping[int, tuple[int, int]]
) -> ActionFigures:
    name, requests = of.route, of.count
    failed = max(sum(of.outcomes.get(outcome, 0) for outcome in FAILED) - of.not_of_target, 0)
    lost = None if value is None else value.amount * failed
    per_hour = None if lost is None or hours <= 0 else float(lost) / hours
    return ActionFigures(
        action=name,
        requests=requests,
        failed=failed,
        not_of_target=of.not_of_target,
        value="" if value is None else f"{value.amount} {value.currency}",
        currency="" if value is None else value.currency,
        lost=None if lost is None else float(lost),
        lost_per_hour=None if per_hour is None else round(per_hour, 6),
        words=words_of(name, requests, failed, value, hours),
        intervals=[
            ActionMinute(
                at_ns=at_ns,
                requests=ended,
                failed=bad,
                lost=None if value is None else float(value.amount * bad),
            )
            for at_ns, (ended, bad) in sorted(by_interval.items())
        ],
    )


def _by_currency(actions: Sequence[ActionFigures], which: str) -> dict[str, float]:
    sums: dict[str, Decimal] = {}
    for action in actions:
        amount = getattr(action, which)
        if amount is not None:
            sums[action.currency] = sums.get(action.currency, Decimal(0)) + Decimal(str(amount))
    return {currency: float(amount) for currency, amount in sums.items()}


def _width_ns(rows: Sequence[Second], clock: RecordedClock | None) -> int:
    """Return the length of an interval: one minute.

    It is longer, in whole minutes, if one row covers more than a minute or if there would be more than MINUTES_MAX
    intervals.
    """
    if not rows:
        return _MINUTE_NS
    speed = 1.0 if clock is None else clock.speed
    length_s = (rows[-1].t_s + rows[-1].length_s) * speed
    minutes = max(length_s / 60 / MINUTES_MAX, speed / 60, 1.0)
    return math.ceil(minutes) * _MINUTE_NS


def _by_interval(
    rows: Sequence[Second], started: Started, width_ns: int, *, is_recorded: bool
) -> dict[str, dict[int, tuple[int, int]]]:
    """Return the number of requests, and how many of them failed, by action and start of an interval.

    A row of the timeline counts in the interval in which the row begins.
    """
    found: dict[str, dict[int, tuple[int, int]]] = {}
    for row in rows:
        at_ns = started.start.wall_ns + round(row.t_s * SECOND_NS)
        if is_recorded and started.recorded_clock is not None:
            clock = started.recorded_clock
            at_ns = clock.start_ns + round(row.t_s * clock.speed * SECOND_NS)
        begin_ns = at_ns // width_ns * width_ns
        for action, (requests, failed) in row.actions.items():
            of_action = found.setdefault(action, {})
            before = of_action.get(begin_ns, (0, 0))
            of_action[begin_ns] = before[0] + requests, before[1] + failed
    return found


def plural(action: str) -> str:
    """Return the plural of an action: `registrations`, or `browsing requests` for a name that ends in -ing.

    A name that ends in -s stays as it is.
    """
    if action.endswith(("ing", "s")):
        return action if action.endswith("s") else f"{action} requests"
    if action.endswith(("ch", "sh", "x")):
        return f"{action}es"
    if action.endswith("y") and action[-2:-1] not in "aeiou":
        return f"{action[:-1]}ies"
    return f"{action}s"


def words_of(action: str, requests: int, failed: int, value: Money | None = None, hours: float = 0.0) -> str:
    """Return words such as `1 in 12 registrations failed (2,304), about 1,430 EUR an hour at this rate`."""
    many = plural(action)
    if not requests:
        return f"no {many}"
    if not failed:
        return f"none of {requests:,} {many} failed"
    share = failed / requests
    if failed == requests:
        words = f"all {requests:,} {many} failed"
    elif share > _ONE_IN:
        words = f"{format_share(share)} of {many} failed ({failed:,})"
    else:
        words = f"1 in {round(1 / share):,} {many} failed ({failed:,})"
    if value is None:
        return words
    if hours <= 0:
        return f"{words}, {format_money(value.amount * failed, value.currency)}"
    return f"{words}, about {format_rough(float(value.amount) * failed / hours, value.currency)} an hour at this rate"


def sentences(
    counts: Counts, scenario: Mapping[str, Any], hours: float, *, only_failed: bool = False
) -> list[str]:
    """Return a sentence for each action, or with `only_failed` for each one with failed requests.

    The action with the most failed requests comes first.
    """
    values = values_of(scenario)
    order = sorted(counts, key=lambda name: (-counts[name][1], -counts[name][0], name))
    return [
        words_of(name, *counts[name], values.get(name), hours)
        for name in order
        if counts[name][1] or not only_failed
    ]
