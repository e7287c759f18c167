"""Traefik's access log, as JSON and in its common format, whose timestamps are the start of a request.

JSON has durations in ns, and the common format in ms.
"""

from __future__ import annotations

from replay.trace.importing.readers.json_logs import register as register_json
from replay.trace.importing.readers.layout import UNITS_NS, template
from replay.trace.importing.readers.templates import NAMES, register
from replay_native.importing import field_spec

TRAEFIK_JSON = register_json(
    "traefik-json",
    "Traefik's access log as JSON",
    {
        "StartUTC": field_spec.AT, "StartLocal": field_spec.AT, "RequestMethod": field_spec.METHOD_NAME,
        "RequestPath": field_spec.TARGET, "RequestHost": field_spec.HOST, "RequestAddr": field_spec.HOST,
        "ClientHost": field_spec.CLIENT_NAME, "ClientAddr": field_spec.CLIENT_NAME,
        "DownstreamStatus": field_spec.STATUS_CODE, "DownstreamContentSize": field_spec.SIZE, "Duration": field_spec.TOOK,
        "request_X-Forwarded-For": field_spec.FORWARDED, "request_User-Agent": field_spec.AGENT,
    },
    needs=("StartUTC", "RequestMethod", "RequestPath"),
    took_unit_ns=UNITS_NS["ns"],
)  # fmt: skip

TRAEFIK = register(
    "traefik",
    "Traefik's access log (common format)",
    template(
        '$client - $user [$at] "$request" $status $bytes "$referer" "$agent" $number "$router" "$server" $took',
        NAMES,
        escapes=field_spec.LOG,
        took_unit_ns=UNITS_NS["ms"],
    ),
    rank=3,
)
