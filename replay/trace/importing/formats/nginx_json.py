"""nginx with a log_format that writes JSON (with or without `escape=json`), whose keys resemble nginx's variables.

Other keys need --columns (see `tabular`). With `--format nginx-json`, their timestamp is still taken as the end.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from replay.trace.importing.readers.fields import FieldReader
from replay.trace.importing.readers.json_logs import KeyedReader, _has
from replay.trace.importing.readers.json_objects import objects
from replay.trace.importing.readers.lines import sniffed_lines
from replay.trace.importing.readers.tabular import JsonReader
from replay.trace.importing.registry import (
    Found,
    Importer,
    Options,
    importer,
)
from replay_native.importing import field_spec

from .nginx import VARIABLES

KEYS = {
    **VARIABLES,
    "@timestamp": field_spec.AT,
    "timestamp": field_spec.AT,
    "time": field_spec.AT,
    "method": field_spec.METHOD_NAME,
    "path": field_spec.TARGET,
    "url": field_spec.TARGET,
    "x_forwarded_for": field_spec.FORWARDED,
    "xff": field_spec.FORWARDED,
    "user_agent": field_spec.AGENT,
    "agent": field_spec.AGENT,
    "ua": field_spec.AGENT,
    "remote_ip": field_spec.CLIENT_NAME,
    "client_ip": field_spec.CLIENT_NAME,
    "client": field_spec.CLIENT_NAME,
    "body_bytes": field_spec.SIZE,
    "bytes": field_spec.SIZE,
    "size": field_spec.SIZE,
}

_ONLY_NGINX = (
    "request_uri",
    "body_bytes_sent",
    "request_time",
    "time_local",
    "time_iso8601",
    "msec",
    "remote_addr",
)


_WHEN = ("msec", "time_iso8601", "time_local", "@timestamp", "timestamp", "time")
_WHAT = ("request", "request_uri", "uri", "path", "url")
_REQUEST_TIME = re.compile(r"\d+\.\d{1,3}")


def _is_nginx(value: dict[str, Any]) -> bool:
    """Return whether an object has three of nginx's variables, or nginx's `request_time` with a time and a request."""
    if sum(_has(value, name) for name in _ONLY_NGINX) >= 3:
        return True
    timed = _REQUEST_TIME.fullmatch(str(value.get("request_time", "")))
    return (
        bool(timed)
        and any(name in value for name in _WHEN)
        and any(isinstance(value.get(name), str) for name in _WHAT)
    )


def sniff(head: bytes, options: Options) -> float:
    """Return the share of the first lines that are JSON objects from nginx; 0 with `--columns`."""
    if options.columns:
        return 0.0
    having = [value for value in objects(head) if _is_nginx(value)]
    return len(having) / max(len(sniffed_lines(head)), 1)


def reader(found: Found, options: Options) -> FieldReader:
    """Return a reader of nginx's JSON, with the keys of `--columns` if given.

    The timestamp is the end in both cases.
    """
    if options.columns:
        ended = tuple((re.sub(r"^at(?=_|$)", "end", role), key) for role, key in options.columns)
        return JsonReader(found, replace(options, columns=ended))
    return KeyedReader(found, options, KEYS, stamp="end", subtracts=True)


NGINX_JSON = importer(
    Importer(
        name="nginx-json",
        title="an nginx log in JSON",
        sniff=sniff,
        reader=reader,
        rank=2,
        takes_columns=True,
    )
)
