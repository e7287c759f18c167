"""Rules that leave fields out of the verdict: `[[ignore]]` of a scenario, or of a file of such rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from replay.naming import names_route
from replay.settings.ignore_rules import IgnoreRule

_INDEX = re.compile(r"/\d+(?=/|$)")


class IgnoredField(NamedTuple):
    """A field that differs and was left out, with the rule that matched."""

    route: str
    field: str
    rule: IgnoreRule


class Ignoring:
    """The rules of a comparison, and the fields that each rule left out."""

    def __init__(self, rules: Sequence[IgnoreRule]) -> None:
        self.rules = tuple(dict.fromkeys(rules))
        self.left_out: dict[tuple[str, str], IgnoredField] = {}
        self._used: set[IgnoreRule] = set()

    def takes(self, route: str, field: str) -> bool:
        """Return whether a rule ignores this field, and record the match."""
        for rule in self.rules:
            if names_route(rule.route, route) and _names_field(rule.field, field):
                self.left_out[route, field] = IgnoredField(route, field, rule)
                self._used.add(rule)
                return True
        return False

    def unused(self) -> list[str]:
        """Return notes on rules that left out nothing."""
        return [
            f"[[ignore]] route = {rule.route!r}, field = {rule.field!r} matches no field that differs, or only fields"
            " that an earlier rule ignores"
            for rule in self.rules
            if rule not in self._used
        ]


def _names_field(pattern: str, field: str) -> bool:
    """Return whether a rule's field is this one or contains it.

    An index matches every element, because elements share a field.
    """
    for text in dict.fromkeys((pattern, _INDEX.sub("/*", pattern))):
        if names_route(text, field) or (text.startswith("/") and names_route(f"{text}/*", field)):
            return True
    return False
