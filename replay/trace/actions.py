"""Replaces the business actions of a trace by those of a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .manifest import Route
from .reader import Trace
from .route_rules import RouteRules


def rules_of(actions: Mapping[str, Sequence[str]]) -> RouteRules:
    """Return the route rules for a mapping of action names to route patterns."""
    return RouteRules(actions=tuple((name, tuple(patterns)) for name, patterns in actions.items()))


def with_actions(trace: Trace, actions: Mapping[str, Sequence[str]]) -> Trace:
    """Return the trace with the actions of a scenario placed before its own.

    See `RouteRules.before` for the order. The recording and its digest stay the same.
    """
    if not actions:
        return trace
    rules, routes = rules_of(actions), trace.manifest.routes
    named = [rules.action_of(route.route) or _kept(route, actions) for route in routes]
    if named == [route.action for route in routes]:
        return trace
    changed = [
        msgspec.structs.replace(route, action=action) for route, action in zip(routes, named, strict=True)
    ]
    return Trace(trace.path, msgspec.structs.replace(trace.manifest, routes=changed))


def _kept(route: Route, actions: Mapping[str, Sequence[str]]) -> str:
    """Return the action that the recording gives a route, or "" if the scenario defines an action of that name."""
    return "" if route.action in actions else route.action
