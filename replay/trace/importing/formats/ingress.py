"""ingress-nginx: the combined format, then the request's length and duration, then lists of upstreams.

A list has one item per try.
"""

from __future__ import annotations

from dataclasses import replace

from replay.trace.importing.readers.templates import register

from .nginx import layout_of

_START = (
    '{client} - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
    " $request_length $request_time [$proxy_upstream_name] "
)

INGRESS = register(
    "ingress-nginx",
    "the access log of ingress-nginx",
    replace(layout_of(_START.format(client="$remote_addr")), subtracts=True),
    replace(layout_of(_START.format(client="$remote_addr - [$the_real_ip]")), subtracts=True),
    rank=3,
)
