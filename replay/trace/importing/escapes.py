"""Patterns for where a value may begin in an escaped text.

In `%20joe@shop.example` and `\\njoe@shop.example` the value begins after the escape; `20joe` and `njoe` are not part
of it. A match that began inside an escape would change the escape's meaning.
"""

from __future__ import annotations

_HEX = "[0-9A-Fa-f]"
_PERCENT = tuple(rf"%{'25' * times}{_HEX}{{2}}" for times in range(4))
_BACKSLASH = (r"\\[bfnrtv]", rf"\\u{_HEX}{{4}}", rf"\\x{_HEX}{{2}}")

_AFTER_PERCENT = "|".join(rf"(?<={escape})" for escape in _PERCENT)
_AFTER_BACKSLASH = "|".join(rf"(?<={escape})" for escape in _BACKSLASH)
_IS_LITERAL = rf"(?<=%)(?!{_HEX}{{2}})|(?<=\\)(?![bfnrtv]|u{_HEX}{{4}}|x{_HEX}{{2}})"
_NOT_NESTED = rf"(?!(?<=%25){_HEX}{{2}}|(?<=%2525){_HEX}{{2}}|(?<=%252525){_HEX}{{2}})"

AFTER_ESCAPE = rf"(?:(?:{_AFTER_PERCENT}){_NOT_NESTED}|{_AFTER_BACKSLASH})"
"""Matches the position after a percent-encoded byte (encoded up to four times) or after a backslash escape.

It does not match after a `%25` that begins a longer escape.
"""


def begins(characters: str) -> str:
    """Return a pattern for the position where a word of these characters begins, including after an escape.

    It also matches after a `%` or backslash that begins no escape. `characters` is the inside of a character class.
    """
    return rf"(?:(?<![%\\{characters}])|{AFTER_ESCAPE}|{_IS_LITERAL})"
