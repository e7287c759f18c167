"""Traefik's access log, JSON and its own common format: the stamp is the start; durations are ns in JSON."""

from __future__ import annotations

from replay_native import fields as kernels

from .json_logs import register as register_json
from .layout import UNITS_NS, template
from .templates import NAMES, register

TRAEFIK_JSON = register_json(
    "traefik-json",
    "Traefik's access log as JSON",
    {
        "StartUTC": kernels.AT, "StartLocal": kernels.AT, "RequestMethod": kernels.METHOD_NAME,
        "RequestPath": kernels.TARGET, "RequestHost": kernels.HOST, "RequestAddr": kernels.HOST,
        "ClientHost": kernels.CLIENT_NAME, "ClientAddr": kernels.CLIENT_NAME,
        "DownstreamStatus": kernels.STATUS_CODE, "DownstreamContentSize": kernels.SIZE, "Duration": kernels.TOOK,
        "request_User-Agent": kernels.AGENT,
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
        escapes=kernels.LOG,
        took_unit_ns=UNITS_NS["ms"],
    ),
    rank=3,
)
