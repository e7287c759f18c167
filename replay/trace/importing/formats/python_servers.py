"""Logs of Python's development servers, whose timestamps have no zone: they are in the zone of `--tz`, or else in UTC.

- Werkzeug (Flask's development server) and http.server of Python: `dd/Mon/yyyy HH:MM:SS` after the client.
- Django's runserver: the same timestamp at the beginning of the line, and no client.

Python's servers log when the response begins (http.server, `log_request`), so that the timestamp is taken as the
end. They colour lines, and logging may put `INFO:werkzeug:` before them; both are removed.
"""

from __future__ import annotations

import re

from replay.trace.importing.readers.layout import template
from replay.trace.importing.readers.rewritten_templates import COLOURS, register, share_of
from replay.trace.importing.readers.templates import NAMES
from replay_native.importing.field_spec import LOG

_BEFORE = re.compile(rb"^(?:[A-Z]+:(?:werkzeug|django\.server):|[A-Z]+ (?=\[\d\d/))", re.MULTILINE)
_STAMP = rb"\[\d\d/[A-Z][a-z]{2}/\d{4}[: ]\d\d:\d\d:\d\d(?:[.,]\d+)?\]"
_ANSWER = rb' ".*" (?:\d{3}|-) (?:\d+|-)(?= |$)'


_QUOTES = re.compile(
    rb'^(\S+ - - \[[^\]\n]*\] ")([^\n]*"[^\n]*)(?=" (?:\d{3}|-) (?:\d+|-)\r?$)', re.MULTILINE
)
_FLASK_BANNER = re.compile(
    rb"^(?: \* |WARNING: This is a dev|Press CTRL|Serving HTTP on )[^\n]+"
    rb"|^\S+ - - \[[^\]\n]*\] code \d{3}, message [^\n]*",
    re.MULTILINE,
)
_DJANGO_BANNER = re.compile(
    rb"^(?:(?:Not Found|Bad Request|Forbidden|Method Not Allowed|Internal Server Error|Broken pipe)\b[^\n]*: /"
    rb"|Watching for file|Performing system|System check|Django version|Starting (?:dev|ASGI)|Quit the server"
    rb"|WARNING: This is a dev|For more information on production servers"
    rb"|[A-Z][a-z]+ \d\d, \d{4} - )[^\n]*",
    re.MULTILINE,
)


def _escaped(found: re.Match[bytes]) -> bytes:
    return found[1] + found[2].replace(b'"', rb"\"")


def of_werkzeug(data: bytes) -> bytes:
    """Remove colours and the prefix of Python's logging, and escape quotes in a target, which Werkzeug decodes."""
    return _QUOTES.sub(_escaped, without_colours(data))


def without_colours(data: bytes) -> bytes:
    """Remove colours and the prefix of Python's logging from lines."""
    return _BEFORE.sub(b"", COLOURS.sub(b"", data) if b"\x1b" in data else data)


PYTHON = register(
    "python-http",
    "a log of Flask's, Werkzeug's or Python's development server",
    of_werkzeug,
    share_of(re.compile(rb"\S+ - - \[\d\d/[A-Z][a-z]{2}/\d{4} \d\d:\d\d:\d\d\]" + _ANSWER)),
    template('$client - - [$at] "$request" $status $bytes', NAMES, escapes=LOG, stamp="end"),
    banner=_FLASK_BANNER,
)

DJANGO = register(
    "django",
    "a log of Django's runserver",
    without_colours,
    share_of(re.compile(_STAMP + _ANSWER)),
    template('[$at] "$request" $status $bytes', NAMES, escapes=LOG, stamp="end"),
    banner=_DJANGO_BANNER,
)
