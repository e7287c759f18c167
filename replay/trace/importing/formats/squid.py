"""Squid's native access.log, whose timestamp is the end of the transaction, with the duration in ms after it.

`time elapsed client result/status bytes method URL user hierarchy/peer type` (wiki.squid-cache.org,
SquidFaq/SquidLogs). The duration is padded with spaces. Queries are cut off after their `?` unless the configuration
has `strip_query_terms off`; such requests are counted. Tunnels (CONNECT) have a port and no path: they are rejected
and counted.
"""

from __future__ import annotations

import re

from replay.trace.importing.readers.layout import UNITS_NS, template
from replay.trace.importing.readers.rewritten_templates import register, share_of
from replay.trace.importing.readers.templates import NAMES

_PADDED = re.compile(rb"^(\d+\.\d{3}) +(?=-?\d+ )", re.MULTILINE)

SQUID = register(
    "squid",
    "Squid's native access log",
    lambda data: _PADDED.sub(rb"\1 ", data),
    share_of(re.compile(rb"\d{9,10}\.\d{3} -?\d+ \S+ [A-Z_]+/\d{3} \d+ \S+ \S+ \S+ [A-Z_]+/\S+ \S+")),
    template(
        "$at $took $client $result/$status $bytes $method $path $user $peer",
        NAMES,
        stamp="end",
        subtracts=True,
        took_unit_ns=UNITS_NS["ms"],
    ),
    rank=2,
    cut_query=re.compile(rb"^\S+ \S+ \S+ \S+ \S+ (?!CONNECT )\S+ \S+\? ", re.MULTILINE),
)
