"""HAProxy's httplog: the accept date is the start of a request, in ms and in the proxy's own zone.

What is no printable ASCII, a quote or a `#` stands as `#XX` (its manual, 8.6).
"""

from __future__ import annotations

from replay_native.field_spec import HASHED

from .layout import UNITS_NS, template
from .templates import NAMES, register

HAPROXY = register(
    "haproxy",
    "HAProxy with option httplog",
    template(
        "$client [$at] $frontend $backend/$server $tr/$tw/$tc/$first/$took $status $bytes $cookie1 $cookie2 $state"
        ' $connections $queues "$request"',
        NAMES,
        took_unit_ns=UNITS_NS["ms"],
        ported=True,
        escapes=HASHED,
    ),
)
