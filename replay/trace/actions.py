"""A trace with other business actions: those of a scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .manifest import Route
from .reader import Trace
from .route_rules import RouteRules


def rules_of(actions: Mapping[str, Sequence[str]]) -> RouteRules:
    """The rules of actions that are given by name."""
    return RouteRules(actions=tuple((name, tuple(patterns)) for name, patterns in actions.items()))


def with_actions(trace: Trace, actions: Mapping[str, Sequence[str]]) -> Trace:
    """The trace with these actions before its own (see `RouteRules.before`). The recording and its digest stay."""
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
    """The recording's own action of a route; none if an action of this name has been given other routes."""
    return "" if route.action in actions else route.action
