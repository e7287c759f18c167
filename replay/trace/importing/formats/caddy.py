"""Caddy's JSON access log, in which `ts` is the end of a request and `duration` is in seconds."""

from __future__ import annotations

from replay.trace.importing.readers.json_logs import register
from replay_native.importing import field_spec

CADDY = register(
    "caddy",
    "Caddy's access log (JSON)",
    {
        "ts": field_spec.AT, "request.method": field_spec.METHOD_NAME, "request.uri": field_spec.TARGET,
        "request.host": field_spec.HOST, "request.client_ip": field_spec.CLIENT_NAME,
        "request.remote_ip": field_spec.CLIENT_NAME, "request.remote_addr": field_spec.CLIENT_NAME,
        "request.headers.X-Forwarded-For": field_spec.FORWARDED, "request.headers.User-Agent": field_spec.AGENT,
        "status": field_spec.STATUS_CODE, "size": field_spec.SIZE, "duration": field_spec.TOOK,
    },
    needs=("ts", "request.method", "request.uri", "duration"),
    stamp="end",
    subtracts=True,
)  # fmt: skip
