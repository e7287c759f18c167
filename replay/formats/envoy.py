"""Envoy's access log: the default text, that of Istio, and JSON. START_TIME is the start, DURATION in ms."""

from __future__ import annotations

from replay_native import fields as kernels

from .json_logs import register as register_json
from .layout import UNITS_NS, template
from .templates import NAMES, register

_MS = UNITS_NS["ms"]

ENVOY = register(
    "envoy",
    "Envoy's default access log",
    template(
        '[$at] "$request" $status $flags $received $bytes $took $upstream "$client" "$agent" "$id" "$host" "',
        NAMES, took_unit_ns=_MS,
    ),
    template(
        '[$at] "$request" $status $flags $details $termination "$failure" $received $bytes $took $upstream "$client"'
        ' "$agent" "$id" "$host" "',
        NAMES, took_unit_ns=_MS,
    ),
    rank=2,
)  # fmt: skip

ENVOY_JSON = register_json(
    "envoy-json",
    "Envoy's access log as JSON",
    {
        "start_time": kernels.AT, "method": kernels.METHOD_NAME, "path": kernels.TARGET,
        "response_code": kernels.STATUS_CODE, "bytes_sent": kernels.SIZE, "duration": kernels.TOOK,
        "authority": kernels.HOST, "user_agent": kernels.AGENT, "x_forwarded_for": kernels.CLIENT_NAME,
        "downstream_remote_address": kernels.CLIENT_NAME,
    },
    needs=("start_time", "method", "path", "response_code"),
    took_unit_ns=_MS,
)  # fmt: skip
