"""HAProxy's httplog: the accept date is the start of a request, in ms and in the proxy's own zone.

A captured `X-Forwarded-For` is the first of the headers in braces.
What is no printable ASCII, a quote or a `#` stands as `#XX` (its manual, 8.6).
"""

from __future__ import annotations

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


HAPROXY = register("haproxy", "HAProxy with option httplog", _layout("{$forwarded} "), _layout(""))
