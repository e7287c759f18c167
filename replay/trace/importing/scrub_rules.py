"""Rules of the user's own for what is taken out of a recording: `--scrub json:/email=email`."""

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
"""What can become of a value. `drop` takes the name out with it; `keep` leaves what would be replaced."""

EXAMPLE = "json:/email=email"
_RULE = re.compile(r"(?P<place>[^:=]+):(?P<name>.+)=(?P<how>[^=]*)", re.DOTALL)


class ScrubRule(NamedTuple):
    """What becomes of the values of one name in one kind of place."""

    place: Kind
    name: str
    how: How

    def __str__(self) -> str:
        return f"{self.place}:{self.name}={self.how}"


def parse_rule(text: str) -> ScrubRule:
    """A rule as the user writes it. UsageError names the rule, and what was probably meant."""
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--scrub {text!r} is not a rule", hint=f"write PLACE:NAME=HOW: {EXAMPLE}")
    place, how = match["place"].strip().lower(), match["how"].strip().lower()
    if place not in KINDS[:-1]:
        raise _unknown(text, "place", place, KINDS[:-1])
    if how not in HOWS:
        raise _unknown(text, "kind of replacement", how, HOWS)
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
    """All rules of a command line; of two for one value the later one counts."""
    return ScrubRules(tuple(parse_rule(text) for text in texts))


@lru_cache(1 << 10)
def _pattern(place: Kind, name: str) -> re.Pattern[str]:
    """A name with `*` for anything; in a JSON Pointer, for one step."""
    anything = "[^/]*" if place == "json" else ".*"
    text = anything.join(map(re.escape, name.split("*")))
    return re.compile(text, re.IGNORECASE if place == "header" else 0)


@dataclass(frozen=True, slots=True)
class ScrubRules:
    """The user's rules, in their order."""

    rules: tuple[ScrubRule, ...] = ()

    def has(self, *places: Kind) -> bool:
        """Whether any rule is for one of these places."""
        return any(rule.place in places for rule in self.rules)

    def of(self, place: Kind, name: str) -> ScrubRule | None:
        """The rule of a value, the last one that names it; None where none does."""
        for rule in reversed(self.rules):
            if rule.place == place and _pattern(place, rule.name).fullmatch(name):
                return rule
        return None

    def as_list(self) -> list[str]:
        """As the manifest keeps them."""
        return [str(rule) for rule in self.rules]
