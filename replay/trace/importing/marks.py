"""The secrets of one text: each is marked when it is found, and all are replaced after the whole text was searched.

A mark is a word that the search for secrets skips, so that no value is found or replaced twice.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from replay.trace.places import Kind, json_leaves

from .people import card, fake, iban, phone
from .pseudonyms import Pseudonyms
from .scrub_rules import How
from .secret_names import secret_key
from .secrets import REDACTED

_FIRST = 0xF0000
MARKS_MAX = 0xFFFD
"""How many values of one text get a mark.

One fixed word replaces all further values, except kept ones.
"""

_MARK = re.compile(f"(?:{REDACTED})?([\U000f0000-\U000fffff])")
"""Matches a mark, even without the word before it, which may have become part of another value."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
PERSON = ("(e-mail)", "(token)", "(phone)", "(card)", "(iban)")
"""The names of values that were found by their form, in changes and counts."""


class Change(NamedTuple):
    """A change made to a value: its place, the name beside it, and the action."""

    place: str
    name: str
    how: str


class Marks:
    """The secrets of one text in one place, as a `secrets.Instead` that inserts marks."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._found: list[tuple[str, How]] = []
        self.changes: list[Change] = []

    def mark(self, text: str, name: str, how: How = "pseudonym", place: Kind | str = "") -> str:
        """Return a mark for a value, and count the value unless it is kept.

        Beyond MARKS_MAX values, a kept value is returned unchanged, and one fixed word for any other.
        """
        if how != "keep":
            shown = name if name in PERSON or place else secret_key(name) or name.lower()
            self.changes.append(Change(place or self._place, shown, "fake" if name in PERSON else how))
        if len(self._found) >= MARKS_MAX:
            return text if how == "keep" else REDACTED
        self._found.append((self._unmarked(text), how))
        return REDACTED + chr(_FIRST + len(self._found) - 1)

    def dropped(self, name: str, place: Kind) -> None:
        """Count a value that is removed together with its name."""
        self.changes.append(Change(place, name, "drop"))

    def value(self, text: str, name: str) -> str:
        """Mark a value that is secret because of the name beside it."""
        return self.mark(text, name)

    def credentials(self, scheme: str, text: str) -> str:
        """Mark a scheme and its credentials as one value."""
        return self.mark(scheme + text, "authorization")

    def structure(self, text: str, name: str, quote: str) -> str:
        """Mark each string and number in a JSON text separately, or the whole text if none is found in it.

        A text without letters and digits, such as an empty object, is returned unchanged.
        """
        pieces, at = [], 0
        for leaf in json_leaves(text):
            if leaf.end > leaf.begin and (leaf.quoted or _NUMBER.fullmatch(leaf.value)):
                pieces += [text[at : leaf.begin], self.mark(text[leaf.begin : leaf.end], name)]
                at = leaf.end
        if not pieces and re.search(r"[\w]", text):
            return self.mark(text, name)
        return "".join([*pieces, text[at:]])

    def bare(self, text: str, name: str, quote: str) -> str:
        """Mark an unquoted value, and add quotes unless it is a number."""
        mark = self.mark(text, name)
        return mark if _NUMBER.fullmatch(text) else f"{quote}{mark}{quote}"

    def user_info(self, text: str) -> None:
        """Count the user info of a URL, which the caller removes."""
        self.changes.append(Change(self._place, "user info", "drop"))

    def person(self, text: str, what: str) -> str:
        """Mark a value that was found by its form."""
        return self.mark(text, what)

    def _unmarked(self, text: str) -> str:
        return _MARK.sub(lambda match: self._found[ord(match[1]) - _FIRST][0], text)

    @property
    def secrets(self) -> list[str]:
        """The values that are replaced (all except the kept ones)."""
        return [text for text, how in self._found if how != "keep"]

    def resolved(self, text: str, pseudonyms: Pseudonyms) -> str:
        """Return the text with each mark replaced."""
        if not self._found:
            return text
        return _MARK.sub(lambda match: replaced(pseudonyms, *self._found[ord(match[1]) - _FIRST]), text)


def replaced(pseudonyms: Pseudonyms, text: str, how: How) -> str:
    """Return the replacement of a value.

    If the value does not have the form that `how` needs, its own form decides.
    """
    if how == "keep":
        return text
    digits = sum(char.isdigit() for char in text)
    if how == "phone" and digits >= 7:
        return phone(pseudonyms, text)
    if how == "card" and digits >= 13 and text[0] in "23456":
        return card(pseudonyms, text)
    if how == "iban" and re.match(r"[A-Z]{2}\d\d[A-Z0-9]", text):
        return iban(pseudonyms, text)
    return fake(pseudonyms, text)
