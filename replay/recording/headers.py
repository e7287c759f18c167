"""Selects the request headers that are recorded (`--record-headers`)."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from replay.errors import UsageError

_NAME = re.compile(r"!?[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class HeaderList:
    """Patterns of header names, in lower case.

    `*` stands for any characters. A header is included if it matches a wanted pattern and no unwanted one.
    """

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> HeaderList:
        """Parse `all`, `none`, or a list such as `accept,x-*,!x-trace`. Raises UsageError if it is invalid or empty."""
        names = [name.strip().lower() for name in text.split(",") if name.strip()]
        if names == ["all"]:
            return cls(("*",), ())
        if names == ["none"]:
            return cls((), ())
        wrong = next((name for name in names if not _NAME.fullmatch(name)), None)
        if wrong is not None or not names:
            raise UsageError(
                f"--record-headers {text!r}: "
                f"{'it lists no header' if wrong is None else f'{wrong!r} is not a header name'}",
                hint="give all, none, or a list: accept,content-type,x-*,!x-trace",
            )
        wanted = tuple(name for name in names if not name.startswith("!"))
        return cls(wanted or ("*",), tuple(name[1:] for name in names if name.startswith("!")))

    def has(self, name: bytes) -> bool:
        """Return whether the list includes a header."""
        text = name.decode("latin-1").lower()
        return any(fnmatch.fnmatchcase(text, each) for each in self.wanted) and not any(
            fnmatch.fnmatchcase(text, each) for each in self.unwanted
        )
