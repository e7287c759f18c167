"""Texts about business actions: what failed, what it cost, and when it was worst."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from replay.money import format_money
from replay.results.business_figures import ActionFigures, BusinessFigures
from replay.results.document import RunDocument
from replay.units import counted, format_count, format_moment

ACTIONS_SHOWN = 12
MINUTES_SHOWN = 5
"""How many of a run's worst intervals a report lists."""


def business_words(document: RunDocument) -> list[str]:
    """Return a sentence for each action of a run that has a value or failed requests, at most ACTIONS_SHOWN.

    If there is one, the sums by currency follow, and the number of failed requests for which the target is not to
    blame.
    """
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
    """Return whether all losses are in one currency, so that they can be compared."""
    return len(business.lost) == 1


def _sums(business: BusinessFigures) -> list[str]:
    """Return the summed loss of each currency in which several actions lost money.

    Amounts of different currencies are never added.
    """
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
        f"{counted(count, 'request')} of these actions failed for reasons other than the target: they are not counted"
    ]


def worst_minutes(document: RunDocument) -> list[tuple[str, str, str, str]]:
    """Return the intervals with the highest losses, or with the most failures, as (time, action, failed, lost).

    There are at most MINUTES_SHOWN. Losses decide if all are in one currency, otherwise failures.
    """
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
    """Return the name of the intervals in which failures are counted, such as `minute of the recorded clock`."""
    minutes = business.interval_s // 60
    length = "minute" if minutes == 1 else f"{minutes} minutes"
    return f"{length} of the {business.clock} clock"
