"""Removes clients, addresses and secrets from lines, so that they can be displayed."""

from __future__ import annotations

import re

from .people import EMAIL, JWT
from .secret_names import is_secret, is_secret_header
from .secrets import CODED, QUOTE, REDACTED, Shown, coded_marks, redacted

_IPV4 = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b")
_GROUPS = r"[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){0,6}"
_IPV6 = re.compile(
    rf"(?<![\w:])(?:(?:[0-9A-Fa-f]{{1,4}}:){{7}}[0-9A-Fa-f]{{1,4}}|{_GROUPS}::(?:{_GROUPS})?|::{_GROUPS})(?![\w:])"
)
"""An IPv6 address needs all eight groups or `::`, because a time of day has colons, too."""
_LOG_HEAD = re.compile(r"^[^\s\[{\"]\S*(?: .{0,200}?)?(?= \[)")
"""The client fields at the start of a line, before a timestamp in brackets."""
_PASSWORD = re.compile(
    rf"((?:\\{{0,4}}/|{CODED}2[Ff]){{2}})(?:(?!{CODED})[^/\s\"'@:?#\\])+{coded_marks(':')}(?!\d{{1,5}}(?![\w.-]))[^/\s\"'@]*"
)
"""A user and a password whose `@` was cut off.

If the text after the colon is a port, nothing matches.
"""
_OPAQUE = re.compile(r"(?<![\w-])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{24,}={0,2}")
_LISTED = re.compile(rf"({QUOTE})([\w.-]{{1,100}})\1(\s*,\s*)\1((?:(?!\1).)+)\1(?!\s*:)")


def scrub(text: str, *, as_it_begins: bool = False) -> str:
    """Remove the client, addresses, secrets and possible secrets from a line.

    `as_it_begins` keeps the text before a timestamp in brackets (except addresses), because it shows how a line is
    wrapped.
    """

    def listed(match: re.Match[str]) -> str:
        shown = f"{match[1]}{match[2]}{match[1]}{match[3]}{match[1]}{REDACTED}{match[1]}"
        return shown if is_secret(match[2]) or is_secret_header(match[2]) else match[0]

    text = text.replace("\0", "")
    if not as_it_begins:
        text = _LOG_HEAD.sub("- - -", text)
    text = _LISTED.sub(listed, redacted(text, Shown()))
    text = _PASSWORD.sub(rf"\1{REDACTED}", text)
    text = _OPAQUE.sub(REDACTED, JWT.sub(REDACTED, text))
    return _IPV6.sub("(address)", _IPV4.sub("(address)", EMAIL.sub("(address)", text)))


def showable(line: bytes, chars: int, *, as_it_begins: bool = False) -> str:
    """Make a line safe for a terminal: scrub it (see `scrub`), escape control characters, and cut it to `chars`."""
    text = scrub(line[: 4 * chars].decode("utf-8", "backslashreplace"), as_it_begins=as_it_begins)
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return shown if len(shown) <= chars else shown[: chars - 1] + "…"
