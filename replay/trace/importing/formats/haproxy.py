"""HAProxy's httplog, where a request starts at the accept date, in ms and in the proxy's own time zone.

A log does not name its captured headers (in braces, separated by bars): the first one that is an address is taken as
the client, as from `X-Forwarded-For`. Quotes, `#` and all other characters that are not printable ASCII are written
as `#XX` (its manual, 8.6).
"""

from __future__ import annotations

import re

from replay.trace.importing.readers.layout import UNITS_NS, Layout, template
from replay.trace.importing.readers.templates import NAMES, register
from replay_native.importing.field_spec import HASHED

_START = (
    "$client [$at] $frontend $backend/$server $tr/$tw/$tc/$first/$took $status $bytes $cookie1 $cookie2 $state"
    " $connections $queues "
)


def _layout(captured: str) -> Layout:
    return template(
        _START + captured + '"$request"', NAMES, took_unit_ns=UNITS_NS["ms"], ported=True, escapes=HASHED
    )


_SEVERAL_CAPTURED = re.compile(rb"\{[^{}\n]*\|[^{}\n]*\} (?:\{[^{}\n]*\} )?\"[A-Z]+ ")


def _supposed(head: bytes) -> str:
    if not _SEVERAL_CAPTURED.search(head):
        return ""
    return "the log does not name its captured headers: the first of them that is an address is taken as the client"


HAPROXY = register(
    "haproxy", "an HAProxy log (option httplog)", _layout("{$forwarded} "), _layout(""), supposed=_supposed
)
