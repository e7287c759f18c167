"""Rewrites targets with rules `FROM -> TO`: a regular expression and the replacement of its matches.

Expressions use RE2, which takes linear time. With Python's `re`, a crafted target of thirty characters could
take practically forever.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import re2

from replay.errors import UsageError

ARROW = " -> "
FORM = r"write '^/v1/ -> /v2/', or '^/users/(\d+) -> /people/\1'"


@dataclass(slots=True)
class Rewrite:
    """Rules that are applied in turn to every target, and the number of targets that each rule has matched."""

    rules: Sequence[tuple[str, Any, bytes]]
    matched: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.matched = [0] * len(self.rules)

    def __call__(self, target: bytes) -> bytes:
        """Return the rewritten target. UsageError if a rule that matches makes an invalid target."""
        for number, (text, pattern, put) in enumerate(self.rules):
            made, count = pattern.subn(lambda match, put=put: match.expand(put), target)
            self.matched[number] += count > 0
            if count and (not made.startswith(b"/") or any(not 32 < byte < 127 for byte in made)):
                raise UsageError(
                    f"--rewrite: {text!r} makes {made[:60].decode('latin-1')!r} of"
                    f" {target[:60].decode('latin-1')!r}, which is not a path",
                    hint="a path must begin with a slash and have only visible ASCII characters",
                )
            target = made
        return target

    def check(self) -> None:
        """Raise UsageError if a rule has matched nothing."""
        for (text, *_), count in zip(self.rules, self.matched, strict=True):
            if not count:
                raise UsageError(
                    f"--rewrite: {text!r} matches no request", hint="replay inspect TRACE lists the routes"
                )


def read_rewrite(texts: Sequence[str]) -> Rewrite:
    """Parse rules. UsageError if one is invalid."""
    rules = []
    for text in texts:
        pattern, arrow, put = text.partition(ARROW)
        if not arrow or not pattern:
            raise UsageError(f"--rewrite: {text!r} is not a rule", hint=FORM)
        try:
            compiled = re2.compile(pattern.encode(), options=_options())
            _check_template(put.encode(), compiled)
        except re2.error as error:
            raise UsageError(f"--rewrite: {text!r}: {_why(error, pattern)}", hint=FORM) from None
        except (re.error, IndexError) as error:
            raise UsageError(f"--rewrite: {text!r}: {error}", hint=FORM) from None
        rules.append((text, compiled, put.encode()))
    return Rewrite(rules)


def _options() -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    return options


def _why(error: Exception, pattern: str) -> str:
    """Return RE2's error message; if an unsupported feature was used, the message explains that."""
    message = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
    if re.search(r"\(\?<?[=!]|\\[1-9]", pattern):
        return f"{message}: look-around and references back to groups are not supported"
    return message


def _check_template(put: bytes, pattern: Any) -> None:
    """Raise re.error or IndexError, as Python does, if TO is invalid or refers to a group that FROM does not have."""
    names = {index: name for name, index in pattern.groupindex.items()}
    groups = [b"(?P<%s>)" % names[n] if n in names else b"()" for n in range(1, pattern.groups + 1)]
    re.compile(b"".join(groups)).sub(put, b"")
