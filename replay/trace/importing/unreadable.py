"""Common files that cannot be imported directly: what each is, and how to convert it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from replay.errors import InputError

_POSTMAN = "..|objects|.request?|objects|{method, url: (.url.raw? // .url)}"


def _jq(program: str) -> str:
    return f"jq -c {shlex.quote(program)} {{}} | replay import -"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A kind of file, recognized by searching its head for `pattern`.

    `way` is the command that converts it, with {} for the name of the file, or other advice.
    """

    kind: str
    pattern: re.Pattern[bytes]
    way: str


UNREADABLE = (
    Unreadable(
        "a collection of Postman, which has no times",
        re.compile(
            rb'\A\s*\{[\s\S]{0,4096}schema\.(?:getpostman|postman)\.com/json/collection|\A\s*\{\s*"info"\s*:\s*\{[^}]*"_postman_id"'
        ),
        _jq(_POSTMAN),
    ),
    Unreadable(
        "a log of uvicorn, which has no times",
        re.compile(
            rb'^(?:\x1b\[\d+m)?INFO(?:\x1b\[0m)?:\s+\S+:\d+ - "(?:\x1b\[1m)?[A-Z]+ [^"\n]+ HTTP/[\d.]+',
            re.MULTILINE,
        ),
        "add times to its access log: in uvicorn's --log-config, give the formatter uvicorn.logging.AccessFormatter the fmt"
        " '%(client_addr)s - - [%(asctime)s] \"%(request_line)s\" %(status_code)s -' and the datefmt '%d/%b/%Y:%H:%M:%S %z';"
        " or import the log of the proxy in front of it",
    ),
    Unreadable(
        "a log of Amazon API Gateway whose paths are templates (resourcePath)",
        re.compile(
            rb'\A(?=[^\n]*"(?:httpMethod|requestId|requestTime)")(?![^\n]*"path")[^\n]*"resourcePath"\s*:'
        ),
        'add "path":"$context.path" to the stage\'s log format; or take the templates as paths:'
        " replay import --columns at=requestTime,method=httpMethod,path=resourcePath",
    ),
    Unreadable("a JSON array, not JSON Lines", re.compile(rb'\A\s*\[\s*\{\s*"'), _jq(".[]")),
    Unreadable(
        "JSON over several lines, not JSON Lines",
        re.compile(rb'\A\s*\{[ \t]*\r?\n\s*"[^"\n]*"[ \t]*:'),
        _jq("."),
    ),
)


def _quoted(name: str) -> str:
    """Return the name of a file for a command; FILE for standard input, which must be saved first."""
    return "FILE" if name == "standard input" else shlex.quote(name)


_RETURNS_ALONE = re.compile(rb"\A(?:\xef\xbb\xbf)?[^\r\n{\[][^\r\n]*\r(?!\n)[^\r\n]+\r(?!\n)[^\n]*\Z")


def refuse_line_ends(name: str, head: bytes) -> None:
    """Raise InputError if lines end in a carriage return alone, because the whole file would be read as one line."""
    if _RETURNS_ALONE.match(head):
        raise InputError(
            f"{name} has lines that end in a carriage return alone",
            hint=f"tr '\\r' '\\n' < {_quoted(name)} | replay import -",
        )


def refuse_unreadable(name: str, head: bytes) -> None:
    """Raise InputError with advice on conversion if a head is of one of the kinds in UNREADABLE."""
    for known in UNREADABLE:
        if known.pattern.search(head):
            raise InputError(
                f"{name} is {known.kind}",
                hint=known.way.replace("{}", _quoted(name), 1) if "{}" in known.way else known.way,
            )
