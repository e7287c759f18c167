"""User rules for routes: path templates and business actions, read from TOML.

routes = ["GET /shop/{category}/{product}", "/files/*"]

[actions]
registration = ["POST /v1/users"]
browsing = ["GET /shop/*", "GET /"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.errors import InputError, UsageError, reason_of
from replay.files import read_whole
from replay.naming import is_action_name, names_route
from replay.units import nearest

from .manifest import Route

TEMPLATES_MAX = 500
"""Maximum number of user templates: half of the number of routes that a trace can have."""

TEMPLATE_CHARS_MAX = 900

TEMPLATE_FORMS = "write GET /shop/{category}/{product}, /files/{name}.pdf or GET /static/*"

_LISTED_MAX = 3
"""Maximum number of routes that a sentence lists by name."""

_METHOD = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}")
_LITERAL = r"""[!-"$-)+-.0-:<->@-z|~]*"""
_PATH = re.compile(rf"(?:/{_LITERAL}(?:\{{\w+\}}{_LITERAL})?)+(?:(?<=/)\*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class RouteRules:
    """Path templates and business actions, which the user defines.

    The templates are tried in order, before routes are detected automatically. Each action has route patterns; a
    route belongs to the first action with a matching pattern.
    """

    templates: tuple[str, ...] = ()
    actions: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the rules in the form that the manifest keeps, or an empty dict if there are none."""
        found: dict[str, Any] = {}
        if self.templates:
            found["routes"] = list(self.templates)
        if self.actions:
            found["actions"] = {name: list(patterns) for name, patterns in self.actions}
        return found

    def split(self) -> list[tuple[bytes, bytes]]:
        """Return the method and the path of each template; an empty method means any method."""
        parts = [template.rpartition(" ") for template in self.templates]
        return [(b"" if method == "*" else method.encode(), path.encode()) for method, _, path in parts]

    def before(self, others: RouteRules) -> RouteRules:
        """Return these rules, followed by those of `others`.

        An action that both define has only the patterns of these rules.
        """
        own = {name for name, _ in self.actions}
        rest = tuple((name, patterns) for name, patterns in others.actions if name not in own)
        return RouteRules((*self.templates, *others.templates), (*self.actions, *rest))

    def action_of(self, route: str) -> str:
        """Return the action of a route, or "" if it has none."""
        for name, patterns in self.actions:
            if any(names_route(pattern, route) for pattern in patterns):
                return name
        return ""

    def idle(self, routes: Sequence[Route]) -> list[str]:
        """Return a sentence for each action pattern that matches no route, and for routes that an earlier action takes.

        For a pattern that matches no route, the sentence suggests a similar route.
        """
        labels = [route.route for route in routes]
        problems = []
        for name, patterns in self.actions:
            idle = [
                pattern for pattern in patterns if not any(names_route(pattern, label) for label in labels)
            ]
            for pattern in idle:
                guess = nearest(pattern, labels)
                more = f" (did you mean {guess!r}?)" if guess else ""
                problems.append(f"{name}: {pattern!r} is not a route of the recording{more}")
            if len(idle) < len(patterns) and not any(route.action == name for route in routes):
                problems.append(f"{name}: all its routes belong to actions above it")
            else:
                problems += self._taken(name, patterns, labels)
        return problems

    def _taken(self, name: str, patterns: Sequence[str], labels: Sequence[str]) -> list[str]:
        """Return a sentence for each earlier action that takes some of the routes that this action's patterns match."""
        taken: dict[str, list[str]] = {}
        for label in labels:
            owner = self.action_of(label)
            if owner != name and any(names_route(pattern, label) for pattern in patterns):
                taken.setdefault(owner, []).append(label)
        return [
            f"{name}: {_listed(routes)} {'belongs' if len(routes) == 1 else 'belong'} to {owner}, which is above it"
            for owner, routes in taken.items()
        ]


def _listed(labels: Sequence[str]) -> str:
    """Format a list of routes: `'GET /a', 'GET /b' and 3 more`."""
    named = ", ".join(repr(label) for label in labels[:_LISTED_MAX])
    return named if len(labels) <= _LISTED_MAX else f"{named} and {len(labels) - _LISTED_MAX} more"


def read_route_rules(path: Path) -> RouteRules:
    """Read the rules in a TOML file.

    Raises InputError if the file cannot be read, and UsageError if it is invalid.
    """
    try:
        data = tomllib.loads(read_whole(path).decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {reason_of(error)}") from None
    except RecursionError:
        raise UsageError(f"{path} cannot be read: its TOML is nested too deeply") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from None
    for key in data:
        if key not in ("routes", "actions"):
            guess = nearest(key, ("routes", "actions"))
            raise UsageError(
                f"{path}: there is no key {key!r}" + (f" (did you mean {guess!r}?)" if guess else ""),
                hint="routes is a list of templates, [actions] a table of names with lists of routes",
            )
    templates = _texts(data.get("routes", []), f"{path}: routes", "GET /shop/{category}/{product}")
    for template in templates:
        _check_template(template, f"{path}: routes")
    if len(templates) > TEMPLATES_MAX:
        raise UsageError(f"{path}: {len(templates)} routes are too many: at most {TEMPLATES_MAX}")
    actions = data.get("actions", {})
    if not isinstance(actions, dict):
        raise UsageError(f"{path}: actions is not a table", hint="write [actions], and NAME = [ROUTE, ...]")
    return RouteRules(templates, tuple((name, _action(path, name, of)) for name, of in actions.items()))


def is_template(text: str) -> bool:
    """Return whether `read_route_rules` would accept this template."""
    try:
        _check_template(text, "")
    except UsageError:
        return False
    return True


def by_precision(templates: Sequence[str]) -> list[str]:
    """Sort templates so that specific ones are tried before general ones.

    Templates without `*` at the end precede those with it; then those with fewer placeholders precede those with
    more, and longer ones precede shorter ones.
    """
    return sorted(templates, key=lambda text: (text.endswith("*"), text.count("{"), -len(text), text))


def _texts(value: Any, where: str, example: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise UsageError(f"{where} is not a list of texts", hint=f'write ["{example}"]')
    return tuple(" ".join(text.split()) for text in value)


def _check_template(template: str, where: str) -> None:
    """Raise UsageError if a template is not `METHOD /path`.

    The method may be `*` or missing. The path may have `{name}` for a segment or for a part of it, and `*` only at
    the end.
    """
    method, _, path = template.rpartition(" ")
    if not (method in ("", "*") or _METHOD.fullmatch(method)):
        raise UsageError(f"{where}: {template!r}: {method!r} is not a method", hint=TEMPLATE_FORMS)
    if not _PATH.fullmatch(path) or len(path) > TEMPLATE_CHARS_MAX:
        raise UsageError(
            f"{where}: {template!r} is not a path template of at most {TEMPLATE_CHARS_MAX} characters",
            hint=TEMPLATE_FORMS,
        )


def _action(path: Path, name: str, value: Any) -> tuple[str, ...]:
    if not is_action_name(name):
        raise UsageError(
            f"{path}: actions.{name}: an action cannot have this name",
            hint="write one word of letters, digits, _ . - (all and other are taken)",
        )
    patterns = _texts(value, f"{path}: actions.{name}", "POST /v1/users")
    if not patterns:
        raise UsageError(f"{path}: actions.{name} lists no route", hint='write ["POST /v1/users"]')
    return patterns
