"""nginx with a custom `log_format`.

nginx writes a line when a request ends. The start is the timestamp minus `$request_time`, if logged. `$msec` (1 ms)
is preferred to `$time_iso8601` and `$time_local` (1 s).
"""

from __future__ import annotations

import re
from dataclasses import replace

from replay.errors import UsageError
from replay.trace.importing.readers.layout import Layout, of_parts, without_escapes
from replay.trace.importing.readers.templates import first_named, register_own
from replay_native.importing import field_spec

VARIABLES = {
    "msec": field_spec.AT,
    "time_iso8601": field_spec.AT,
    "time_local": field_spec.AT,
    "request": field_spec.REQUEST,
    "request_method": field_spec.METHOD_NAME,
    "request_uri": field_spec.TARGET,
    "uri": field_spec.TARGET,
    "document_uri": field_spec.TARGET,
    "args": field_spec.QUERY,
    "query_string": field_spec.QUERY,
    "host": field_spec.HOST,
    "http_host": field_spec.HOST,
    "server_name": field_spec.HOST,
    "http_cf_connecting_ip": field_spec.FORWARDED,
    "http_true_client_ip": field_spec.FORWARDED,
    "http_x_forwarded_for": field_spec.FORWARDED,
    "proxy_add_x_forwarded_for": field_spec.FORWARDED,
    "http_x_real_ip": field_spec.FORWARDED,
    "proxy_protocol_addr": field_spec.FORWARDED,
    "remote_addr": field_spec.CLIENT_NAME,
    "realip_remote_addr": field_spec.CLIENT_NAME,
    "status": field_spec.STATUS_CODE,
    "body_bytes_sent": field_spec.SIZE,
    "bytes_sent": field_spec.SIZE,
    "request_time": field_spec.TOOK,
    "http_user_agent": field_spec.AGENT,
}
"""The roles of nginx's variables.

If several variables of a log have one role, the one that is listed first here is used.
"""

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_DECLARED = re.compile(r"^\s*log_format\s+\S+\s+(?:escape=(\w+)\s+)?", re.DOTALL)
_QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)


def unquoted(text: str) -> tuple[str, str]:
    """Extract the format string and the escape mode from a log_format directive or a bare string.

    The directive is `log_format name escape=... '...' '...';`.
    """
    declared = _DECLARED.match(text)
    if declared is None:
        text = without_escapes(text).strip("\n")
        return text, "json" if text.lstrip().startswith("{") else "default"
    rest = text[declared.end() :].rstrip().removesuffix(";")
    parts = [single or double for single, double in _QUOTED.findall(rest)] or [rest]
    joined = without_escapes("".join(parts))
    return joined, declared[1] or ("json" if joined.lstrip().startswith("{") else "default")


def layout_of(text: str) -> Layout:
    """Return the layout of a log_format.

    Raises UsageError if it has no time, no request, or two fields with nothing between them.
    """
    text, escape = unquoted(text)
    parts = _VARIABLE.split(text)
    literals, names = parts[0::3], [a or b for a, b in zip(parts[1::3], parts[2::3], strict=True)]
    roles = _roles(names)
    if field_spec.AT not in roles:
        raise UsageError(
            "the log_format has no time", hint="it needs $msec, $time_iso8601 or $time_local; $msec is best"
        )
    if not {field_spec.REQUEST, field_spec.TARGET} & set(roles):
        raise UsageError(
            "the log_format does not contain the request", hint="it needs $request or $request_uri"
        )
    escapes = {"json": field_spec.JSON_ESCAPES, "none": field_spec.PLAIN}.get(escape, field_spec.LOG)
    ended = of_parts(literals, roles, [f"${name}" for name in names], escapes=escapes)
    method = "" if {field_spec.REQUEST, field_spec.METHOD_NAME} & set(roles) else "GET"
    return replace(
        ended, stamp="end", subtracts=field_spec.TOOK in roles, method=method, padded=escape != "none"
    )


def _roles(names: list[str]) -> list[int]:
    """Return the role of each variable.

    `$request` is preferred to its parts, and the query of `$request_uri` to a separate one.
    """
    drop: set[str] = set()
    if "request" in names:
        drop |= {"request_method", "request_uri", "uri", "document_uri", "args", "query_string"}
    if "request_uri" in names:
        drop |= {"args", "query_string"}
    return first_named(VARIABLES, ["" if name in drop else name for name in names])


NGINX = register_own(
    "nginx",
    "an nginx log in the format of --log-format",
    "log_format",
    lambda own: "$" in own,
    layout_of,
)
