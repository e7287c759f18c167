"""A client's cookie jar in plain Python, with the rules of `replay_native.http1.cookies`."""

from __future__ import annotations

import re

from replay_native.http1.cookies import YEAR_OF_ENDS

_YEAR = re.compile(rb"(?<![0-9])[0-9]{4}(?![0-9])")
_BLANKS = b" \t"


def cookie_parts(value: bytes) -> tuple[bytes, bytes, list[bytes]] | None:
    """Parse a Set-Cookie value into name, value and attributes; None if it is not a cookie."""
    pair, *attributes = value.split(b";")
    name, equals, text = pair.partition(b"=")
    name, text = name.strip(_BLANKS), text.strip(_BLANKS)
    sound = equals and name and all(byte >= 32 and byte != 127 for byte in pair.strip(_BLANKS))
    return (name, text, attributes) if sound else None


def is_ended(attributes: list[bytes]) -> bool:
    """Return whether the attributes delete the cookie. Max-Age takes precedence; of Expires, only the year counts."""
    ended = False
    for attribute in attributes:
        name, _, value = attribute.partition(b"=")
        name, value = name.strip(_BLANKS).lower(), value.strip(_BLANKS)
        if name == b"max-age":
            return value != b"" and (value.startswith(b"-") or not value.strip(b"0"))
        if name == b"expires":
            year = _YEAR.search(value)
            ended = year is not None and int(year[0]) < YEAR_OF_ENDS
    return ended


class Jar:
    """The cookies of one client, in order of arrival."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._cookies: dict[bytes, bytes] = {}

    def put(self, header: bytes) -> bool:
        """Add a Set-Cookie value. False if the jar would become too long; it then stays as it was.

        A value that is not a cookie is ignored.
        """
        parts = cookie_parts(header)
        if parts is None:
            return True
        name, value, attributes = parts
        kept = {key: text for key, text in self._cookies.items() if key != name}
        if not is_ended(attributes):
            kept[name] = value
            if len(_text(kept)) > self._most:
                return False
        self._cookies = kept
        return True

    @property
    def text(self) -> bytes:
        """The value of a Cookie header; empty without cookies."""
        return _text(self._cookies)


def _text(cookies: dict[bytes, bytes]) -> bytes:
    return b"; ".join(name + b"=" + value for name, value in cookies.items())
