"""Where a value may begin in an escaped text.

In `%20joe@shop.example` and `\\njoe@shop.example` the value begins after the escape; `20joe` and `njoe` are not part of
it. A pattern that began inside an escape would change its meaning.
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
"""Matches the position after a percent-encoded byte (encoded up to four times) or after a backslash escape, but not after
a `%25` that begins a longer escape.
"""


def begins(characters: str) -> str:
    """A pattern that matches where a word of these characters (the inside of a class) begins, or after an escape."""
    return rf"(?:(?<![%\\{characters}])|{AFTER_ESCAPE}|{_IS_LITERAL})"
