"""Caddy's JSON access log: `ts` is the end of a request, `duration` in seconds."""

from __future__ import annotations

from replay_native import fields as kernels

from .json_logs import register

CADDY = register(
    "caddy",
    "Caddy's access log (JSON)",
    {
        "ts": kernels.AT, "request.method": kernels.METHOD_NAME, "request.uri": kernels.TARGET,
        "request.host": kernels.HOST, "request.client_ip": kernels.CLIENT_NAME,
        "request.remote_ip": kernels.CLIENT_NAME, "request.remote_addr": kernels.CLIENT_NAME,
        "request.headers.User-Agent": kernels.AGENT, "status": kernels.STATUS_CODE, "size": kernels.SIZE,
        "duration": kernels.TOOK,
    },
    needs=("ts", "request.method", "request.uri", "duration"),
    stamp="end",
    subtracts=True,
)  # fmt: skip
