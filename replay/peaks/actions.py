"""Computes the load up to which each business action meets its objectives, from the trials of a search."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from replay.ledger.catalog import FAILED
from replay.results import slo
from replay.results.business import plural
from replay.settings.scenario import Scenario
from replay.units import format_share, to_datetime

from .search import Trial

LIMIT = 0.01
"""The share of an action's requests that may fail if no objective limits errors."""

_WEEK = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionHold:
    """The highest load at which an action met its objectives.

    An action meets them at a load if, in most trials at it, at most `limit` of its requests failed, every
    objective on the action was met, and statuses alone did not fail the trial. `holds` is the highest load such
    that the action met them at it and at all lower loads that were tried (0: not even at the lowest). `fails_at`
    is the lowest load at which it missed them (None: it never did).
    """

    action: str
    holds: float
    fails_at: float | None
    limit: float
    words: str


def limit_of(action: str, goals: Sequence[str]) -> float:
    """Return the strictest limit on the share of errors of an action or of all requests; LIMIT if no objective has one."""
    limits = [
        each.limit
        for each in map(slo.parse, goals)
        if each.percentile is None and each.route in ("", action) and each.outcomes == FAILED
    ]
    return min(limits, default=LIMIT)


def action_holds(trials: Sequence[Trial], goals: Sequence[str], of: str) -> list[ActionHold]:
    """Return the holds of each action in the ascending trials, the first action to fail first.

    `of` describes load 1 in words, such as `last Monday`.
    """
    up = [trial for trial in trials if trial.stage == "up" and not trial.generator_limited]
    found = []
    for action in dict.fromkeys(name for trial in up for name in trial.actions):
        limit = limit_of(action, goals)
        by_load: dict[float, list[bool]] = {}
        for trial in up:
            if action in trial.actions:
                by_load.setdefault(trial.load, []).append(_is_met(trial, action, limit))
        missed = [load for load, met in by_load.items() if 2 * sum(met) <= len(met)]
        fails_at = min(missed, default=None)
        below = [load for load in by_load if fails_at is None or load < fails_at]
        holds = max(below, default=0.0)
        words = _words(action, holds, fails_at, max(by_load), limit, of)
        found.append(ActionHold(action=action, holds=holds, fails_at=fails_at, limit=limit, words=words))
    return sorted(found, key=lambda hold: (hold.fails_at or float("inf"), hold.holds, hold.action))


def _is_met(trial: Trial, action: str, limit: float) -> bool:
    requests, failed = trial.actions[action]
    named = [met for goal, met in trial.passed.items() if slo.parse(goal).route == action]
    return failed <= limit * requests and all(named) and not trial.status_failure


def _words(action: str, holds: float, fails_at: float | None, highest: float, limit: float, of: str) -> str:
    """Return a sentence for reports: `payments hold up to 2.6 times last Monday`."""
    many = plural(action)
    if fails_at is None:
        return f"{many} hold up to {highest:.3g} times {of} at least, the highest load that was tried"
    if not holds:
        why = f"more than {format_share(limit)} failed, one of their objectives was missed, or statuses failed the trial"
        return f"{many} do not hold at {fails_at:.3g} times {of}, the lowest load that was tried: {why}"
    return f"{many} hold up to {holds:.3g} times {of}"


def load_words(scenario: Scenario, at_ns: int, zone: dt.tzinfo, now_ns: int) -> str:
    """Describe load 1: the day of the recording, or the scenario's own load if the scenario changes it."""
    changed = (scenario.rate_per_s, scenario.peak_per_s, scenario.compress_to_ns)
    if any(value is not None for value in changed) or scenario.scale:
        return "the load of the scenario"
    if float(scenario.speed) != 1.0 or scenario.sample is not None:
        return "the load of the scenario"
    day = to_datetime(at_ns, zone)
    ago = (to_datetime(now_ns, zone).date() - day.date()).days
    return f"last {day:%A}" if 0 < ago <= _WEEK else f"{day:%A, %Y-%m-%d}"
