"""Other targets for the same requests: `FROM -> TO`, a regular expression and what takes the place of its matches."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import UsageError

ARROW = " -> "
FORM = r"write '^/v1/ -> /v2/', or '^/users/(\d+) -> /people/\1'"


@dataclass(slots=True)
class Rewrite:
    """Rules over every target, one after the other; how often each has matched."""

    rules: Sequence[tuple[str, re.Pattern[bytes], bytes]]
    matched: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.matched = [0] * len(self.rules)

    def __call__(self, target: bytes) -> bytes:
        """The target as it is to be. UsageError where it is none any more."""
        for number, (text, pattern, put) in enumerate(self.rules):
            made, count = pattern.subn(put, target)
            self.matched[number] += count > 0
            if count and (not made.startswith(b"/") or any(not 32 < byte < 127 for byte in made)):
                raise UsageError(
                    f"--rewrite: {text!r} makes {made[:60].decode('latin-1')!r} of"
                    f" {target[:60].decode('latin-1')!r}, which is no path",
                    hint="a path begins with a slash and has no blanks",
                )
            target = made
        return target

    def check(self) -> None:
        """UsageError where a rule has matched nothing."""
        for (text, *_), count in zip(self.rules, self.matched, strict=True):
            if not count:
                raise UsageError(
                    f"--rewrite: {text!r} matches no request", hint="replay inspect TRACE lists the routes"
                )


def read_rewrite(texts: Sequence[str]) -> Rewrite:
    """Rules from their text. UsageError where one is not understood."""
    rules = []
    for text in texts:
        pattern, arrow, put = text.partition(ARROW)
        if not arrow or not pattern:
            raise UsageError(f"--rewrite: {text!r} is no rule", hint=FORM)
        try:
            compiled = re.compile(pattern.encode())
            compiled.sub(put.encode(), b"")
        except (re.error, IndexError) as error:
            raise UsageError(f"--rewrite: {text!r}: {error}", hint=FORM) from None
        rules.append((text, compiled, put.encode()))
    return Rewrite(rules)
