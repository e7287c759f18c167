"""Makes each session of a recorded client its own client (`split_clients`).

Sessions are distinguished by the values that the scenario's rules capture and set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from replay.errors import UsageError
from replay.naming import named_by
from replay.settings.scenario import Scenario
from replay.settings.session_rules import CaptureRule, SetRule, placeholders
from replay.trace import Requests, Trace
from replay.trace.places import pointer_matches
from replay.trace.proposals.splitting import Splitter, split_trace
from replay.trace.proposals.values import Given, Sent

Rule = TypeVar("Rule", SetRule, CaptureRule)


def with_split_clients(trace: Trace, scenario: Scenario, area: Path) -> Trace:
    """Return the trace with a client for each session, made in `area`.

    Raises UsageError if no rule distinguishes sessions.
    """
    in_headers = {
        name for rule in scenario.set if rule.header is not None for name, _ in placeholders(rule.text)
    }
    names = {rule.name for rule in scenario.capture if rule.name in in_headers}
    names |= {one.name for one in scenario.variable if one.by == "value"}
    if not names and not scenario.cookies:
        raise UsageError(
            "split_clients: no rule distinguishes sessions",
            hint='send a captured value in a header, or give cookies = true, or a variable by = "value"',
        )
    telling = [rule for rule in scenario.set if any(name in names for name, _ in placeholders(rule.text))]
    sets = _by_route(trace.requests, telling)
    captures = _by_route(trace.requests, [rule for rule in scenario.capture if rule.name in names])

    def is_sent(route: int, sent: Sent) -> bool:
        if sent.kind == "cookie":
            return scenario.cookies
        return any(_names(rule, sent, names) for rule in sets[route])

    def is_given(route: int, given: Given) -> bool:
        if given.finder == "cookie" and scenario.cookies:
            return True
        return any(_finds(rule, given) for rule in captures[route])

    return split_trace(trace, area / "sessions.trace", Splitter(is_sent, is_given))


def _by_route(requests: Requests, rules: Sequence[Rule]) -> list[list[Rule]]:
    """Return for each route the rules that apply to it."""
    found: list[list[Rule]] = [[] for _ in requests.routes]
    for rule in rules:
        named = set(named_by(requests.routes, requests.actions, rule.route, "route"))
        for other in getattr(rule, "without", ()):
            named -= set(named_by(requests.routes, requests.actions, other, "without"))
        for route in named:
            found[route].append(rule)
    return found


def _names(rule: SetRule, sent: Sent, names: set[str]) -> bool:
    """Return whether a rule sets the value that was sent at this place."""
    if rule.path is not None:
        path = rule.path.partition("?")[0]
        if sent.kind == "target":
            return not path.startswith("/")
        steps = path.split("/")[1:]
        number = int(sent.name) if sent.kind == "path" else len(steps)
        return number < len(steps) and any(name in names for name, _ in placeholders(steps[number]))
    if rule.header is not None:
        return sent.kind == "header" and sent.name.lower() == rule.header.lower()
    if rule.json is not None:
        return sent.kind == "json" and pointer_matches(rule.json, sent.name)
    return sent.name == (rule.form if sent.kind == "form" else rule.query if sent.kind == "query" else None)


def _finds(rule: CaptureRule, given: Given) -> bool:
    """Return whether a capture takes the value that the target issued at this place."""
    if given.finder == "location":
        return rule.as_ == "path" and (rule.header or "").lower() == "location"
    if given.finder == "header":
        return (rule.header or "").lower() == given.name.lower()
    return bool(getattr(rule, given.finder) == given.name)
