"""Headers that a scenario may set, and values from environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping

from replay.errors import UsageError

MANAGED_HEADERS = (
    "content-length",
    "transfer-encoding",
    "connection",
    "expect",
    "upgrade",
    "te",
    "trailer",
    "x-replay",
)
"""Headers that frame a request on its connection, and X-Replay. Only the engine sets them."""

OF_TRACE_CONTEXT = ("traceparent", "tracestate")
"""The headers of W3C Trace Context.

A new traceparent replaces both, because the recorded tracestate belongs to the recorded trace.
"""

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VARIABLE = re.compile(r"\$(?:(\$)|\{(\w+)\}|([A-Za-z_]\w*))")


def parse_header(text: str) -> tuple[str, str]:
    """Parse `Name: value` into (name, value). UsageError if the text is not a valid header."""
    name, separator, value = text.partition(":")
    if not separator:
        raise UsageError(f"the header {name!r} has no value", hint="write -H 'Name: value'")
    check_header_name(name.strip())
    return name.strip(), value.strip()


def check_header_name(name: str) -> None:
    """Raise UsageError if a header of this name cannot be set."""
    if not HEADER_NAME.fullmatch(name):
        raise UsageError(f"{name!r} is not a header's name", hint="write a name such as X-Request-Id")
    if name.lower() == "host":
        raise UsageError("Host cannot be set as a header", hint="use --host NAME")
    if name.lower() in MANAGED_HEADERS:
        raise UsageError(f"only replay itself may set {name}")


def expand(what: str, value: str, environ: Mapping[str, str]) -> str:
    """Replace $NAME and ${NAME} by environment variables, and $$ by a dollar sign; strip spaces at both ends.

    UsageError if a variable is not set, or if the result cannot be sent in a header. `what` describes the value in
    the message.
    """

    def variable(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        key = match[2] or match[3]
        if key not in environ:
            raise UsageError(
                f"{what}: the environment variable {key} is not set",
                hint=f"export {key}, or write $$ for $",
            )
        return environ[key]

    expanded = _VARIABLE.sub(variable, value)
    if not all(
        character == "\t" or " " <= character <= "~" or "\xa0" <= character <= "\xff"
        for character in expanded
    ):
        raise UsageError(
            f"{what} contains a character that cannot be sent (a line break or another control character, or one beyond"
            " Latin-1)"
        )
    return expanded.strip()
