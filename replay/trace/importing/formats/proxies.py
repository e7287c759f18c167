"""nginx inside other products that define their own log_format.

nginx writes a line when a request ends.

- Nginx Proxy Manager (its docker image, log_format proxy and standard): no duration.
- Apache APISIX (conf/config.yaml.example, access_log_format): `$request_time` in s.
"""

from __future__ import annotations

from replay.trace.importing.readers.layout import template
from replay.trace.importing.readers.templates import NAMES, register
from replay_native.importing.field_spec import LOG

NGINX_PROXY_MANAGER = register(
    "nginx-proxy-manager",
    "an access log of Nginx Proxy Manager",
    template(
        '[$at] $cache $upstream $status - $method $scheme $host "$path" [Client $client] [Length $bytes] [Gzip $gzip]'
        ' [Sent-to $server] "$agent"',
        NAMES, escapes=LOG, stamp="end",
    ),
    template(
        '[$at] $status - $method $scheme $host "$path" [Client $client] [Length $bytes] [Gzip $gzip] "$agent"',
        NAMES, escapes=LOG, stamp="end",
    ),
    rank=2,
)  # fmt: skip

APISIX = register(
    "apisix",
    "an access log of Apache APISIX",
    template(
        '$client - $user [$at] $host "$request" $status $bytes $took "$referer" "$agent" $upstream_addr $upstream_status'
        ' $upstream_time "',
        NAMES,
        escapes=LOG,
        stamp="end",
        subtracts=True,
    ),
    rank=2,
)
