"""The meaning of a name in a rule: a route, a pattern of routes with `*`, or a business action (`registration`)."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from . import units
from .errors import UsageError

RESERVED_ACTIONS = frozenset({"all", "other"})
"""Words that cannot be names of actions, because they have another meaning for routes."""

_ACTION = re.compile(r"[A-Za-z0-9_][\w.-]*")


def names_route(pattern: str, route: str) -> bool:
    """Return whether a pattern matches a route; only `*` is special, because routes may contain `[` and `?`."""
    return pattern == route or fnmatch.fnmatchcase(route, pattern.replace("[", "[[]").replace("?", "[?]"))


def is_action_name(name: str) -> bool:
    """Return whether an action may have this name: one word, which cannot be a route, and not a reserved one."""
    return _ACTION.fullmatch(name) is not None and name not in RESERVED_ACTIONS


def named_by(routes: Sequence[str], actions: Sequence[str], pattern: str, where: str) -> list[int]:
    """Return the indices of the routes that a pattern matches, directly or by their action ("" is none).

    Raises UsageError, with `where` and the most similar name if there is one, if it matches none.
    """
    named = [
        index
        for index, (route, action) in enumerate(zip(routes, actions, strict=True))
        if (action and action == pattern) or names_route(pattern, route)
    ]
    if not named:
        guess = units.nearest(pattern, [*dict.fromkeys(filter(None, actions)), *routes])
        raise UsageError(
            f"{where}: {pattern!r} is not a route of the recording"
            + ("" if " " in pattern else ", nor an action")
            + (f" (did you mean {guess!r}?)" if guess else ""),
            hint="replay inspect TRACE lists the routes; * matches any text",
        )
    return named


def first_naming(
    routes: Sequence[str], actions: Sequence[str], patterns: Sequence[str], where: Sequence[str]
) -> list[int]:
    """Return for each route the index of the first pattern that matches it or its action ("" is none).

    The index is -1 if no pattern does. Raises UsageError, with where[i], if pattern i matches no route and no action.
    """
    found = [-1] * len(routes)
    for number, pattern in reversed(list(enumerate(patterns))):
        for index in named_by(routes, actions, pattern, where[number]):
            found[index] = number
    return found
