"""Envoy's access log in three forms: the default text format, Istio's, and JSON.

START_TIME is the start, and DURATION is in ms.
"""

from __future__ import annotations

from replay.trace.importing.readers.json_logs import register as register_json
from replay.trace.importing.readers.layout import UNITS_NS, template
from replay.trace.importing.readers.templates import NAMES, register
from replay_native.importing import field_spec

_MS = UNITS_NS["ms"]

ENVOY = register(
    "envoy",
    "Envoy's default access log",
    template(
        '[$at] "$request" $status $flags $received $bytes $took $upstream "$forwarded" "$agent" "$id" "$host" "',
        NAMES, took_unit_ns=_MS,
    ),
    template(
        '[$at] "$request" $status $flags $details $termination "$failure" $received $bytes $took $upstream "$forwarded"'
        ' "$agent" "$id" "$host" "$address" $cluster $from $local $client ',
        NAMES, took_unit_ns=_MS,
    ),
    template(
        '[$at] "$request" $status $flags $details $termination "$failure" $received $bytes $took $upstream "$forwarded"'
        ' "$agent" "$id" "$host" "',
        NAMES, took_unit_ns=_MS,
    ),
    rank=2,
)  # fmt: skip

ENVOY_JSON = register_json(
    "envoy-json",
    "Envoy's access log as JSON",
    {
        "start_time": field_spec.AT, "method": field_spec.METHOD_NAME, "path": field_spec.TARGET,
        "response_code": field_spec.STATUS_CODE, "bytes_sent": field_spec.SIZE, "duration": field_spec.TOOK,
        "authority": field_spec.HOST, "user_agent": field_spec.AGENT, "x_forwarded_for": field_spec.FORWARDED,
        "downstream_remote_address": field_spec.CLIENT_NAME,
    },
    needs=("start_time", "method", "path", "response_code"),
    took_unit_ns=_MS,
)  # fmt: skip
