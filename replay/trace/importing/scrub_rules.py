"""User rules for the removal of secrets: `--scrub json:/email=email`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from replay import units
from replay.errors import UsageError
from replay.trace.places import KINDS, Kind

How = Literal["pseudonym", "drop", "keep", "email", "phone", "card", "iban"]
HOWS: tuple[How, ...] = get_args(How)
"""The actions for a value.

`drop` removes it together with its name, and `keep` leaves it unchanged. All others replace it.
"""

EXAMPLE = "json:/email=email"
_RULE = re.compile(r"(?P<place>[^:=]+):(?P<name>.+)=(?P<how>[^=]*)", re.DOTALL)


class ScrubRule(NamedTuple):
    """The action for the values of one name in one kind of place."""

    place: Kind
    name: str
    how: How

    def __str__(self) -> str:
        return f"{self.place}:{self.name}={self.how}"


def parse_rule(text: str) -> ScrubRule:
    """Parse a rule.

    Raises UsageError if it is invalid.
    """
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--scrub {text!r} is not a rule", hint=f"write PLACE:NAME=HOW, such as {EXAMPLE}")
    place, how = match["place"].strip().lower(), match["how"].strip().lower()
    if place not in KINDS[:-1]:
        raise _unknown(text, "place", place, KINDS[:-1])
    if how not in HOWS:
        raise _unknown(text, "action", how, HOWS)
    name = match["name"].strip()
    if place == "json" and not name.startswith("/"):
        raise UsageError(
            f"--scrub {text!r}: {name!r} is not a JSON Pointer",
            hint=f"write json:/{name.replace('.', '/')}={how}",
        )
    return ScrubRule(place, name, how)  # type: ignore[arg-type]


def _unknown(text: str, what: str, given: str, known: tuple[str, ...]) -> UsageError:
    guess = units.nearest(given, known)
    meant = f" (did you mean {guess}?)" if guess else ""
    return UsageError(
        f"--scrub {text!r}: there is no {what} {given!r}{meant}", hint=f"known: {', '.join(known)}"
    )


def parse_rules(texts: Iterable[str]) -> ScrubRules:
    """Parse all rules of a command line.

    If several rules match a value, the last one applies. Raises UsageError for an invalid rule.
    """
    return ScrubRules(tuple(parse_rule(text) for text in texts))


@lru_cache(1 << 10)
def _pattern(place: Kind, name: str) -> re.Pattern[str]:
    """Return a pattern for a name in which `*` stands for any text; in a JSON Pointer, for any text without a slash."""
    anything = "[^/]*" if place == "json" else ".*"
    text = anything.join(map(re.escape, name.split("*")))
    return re.compile(text, re.IGNORECASE if place == "header" else 0)


@dataclass(frozen=True, slots=True)
class ScrubRules:
    """The user's rules, in order."""

    rules: tuple[ScrubRule, ...] = ()

    def has(self, *places: Kind) -> bool:
        """Return whether any rule applies to one of these places."""
        return any(rule.place in places for rule in self.rules)

    def of(self, place: Kind, name: str) -> ScrubRule | None:
        """Return the last rule that matches a value; None if none does."""
        for rule in reversed(self.rules):
            if rule.place == place and _pattern(place, rule.name).fullmatch(name):
                return rule
        return None

    def as_list(self) -> list[str]:
        """Return the rules in the form that the manifest stores."""
        return [str(rule) for rule in self.rules]
