"""Usual names of table columns and JSON keys by role, and special meanings of names in known tools."""

from __future__ import annotations

USUAL_NAMES = {
    "at_ns": ("at_ns", "timestamp_ns", "time_ns", "ts_ns"),
    "at_us": ("at_us", "timestamp_us", "ts_us"),
    "at_ms": ("at_ms", "timestamp_ms", "time_ms", "ts_ms"),
    "at": (
        "at", "timestamp", "time", "ts", "@timestamp", "datetime", "date_time",
        "arrival", "arrival_time", "arrived_at", "period", "invocation_time", "timestamputc", "request_time_utc",
    ),
    "end": ("end", "end_time", "end_timestamp", "finished_at", "event.end"),
    "method": (
        "method", "http_method", "request_method", "verb", "http.request.method", "http.method", "request.method",
        "req.method", "requestmethod",
    ),
    "path": (
        "path", "target", "url", "uri", "request_uri", "request_url", "request_path", "http_path", "endpoint",
        "url.original", "url.full", "http.request.url", "http.url", "http.target", "request.url", "request.uri", "req.url",
        "request.path", "url.path", "original_url", "requesturl",
    ),
    "query": ("query", "query_string", "querystring", "url.query", "args"),
    "request": ("request",),
    "host": ("host", "http_host", "authority", "domain", "url.domain", "server_name", "vhost", "request.host"),
    "forwarded": ("x_forwarded_for", "x-forwarded-for", "http_x_forwarded_for", "forwarded_for", "xff"),
    "client": (
        "client", "client_ip", "remote_addr", "ip", "clientip", "client.ip", "source.ip", "remote_ip", "source_ip",
        "client_addr", "client_address", "remote_address", "client.address", "source.address", "request.remote_addr",
        "client_id", "user_id",
    ),
    "status": (
        "status", "status_code", "http_status", "response_code", "statuscode", "responsecode", "response_status",
        "http.response.status_code", "http.status_code", "response.status", "response.status_code", "res.statuscode",
    ),
    "bytes": (
        "bytes", "bytes_sent", "body_bytes_sent", "response_bytes", "response_size", "http.response.body.bytes",
        "http.response.bytes",
    ),
    "took_ns": ("took_ns", "duration_ns", "latency_ns", "elapsed_ns", "response_time_ns", "event.duration"),
    "took_us": ("took_us", "duration_us", "latency_us", "elapsed_us", "response_time_us"),
    "took_ms": (
        "took_ms", "duration_ms", "latency_ms", "elapsed_ms", "response_time_ms", "request_time_ms", "time_taken_ms",
    ),
    "took_s": (
        "took_s", "duration_s", "latency_s", "elapsed_s", "response_time_s", "duration_seconds", "latency_seconds",
        "elapsed_seconds",
    ),
    "took": ("took", "duration", "latency", "elapsed", "response_time"),
    "agent": ("agent", "user_agent", "http_user_agent", "user_agent.original"),
}  # fmt: skip
"""Column names by role, in any case, which are found without configuration.

`took` has no unit: only values with a unit are read.
"""

START_NAMES = {
    "at_ns": ("start_ns", "start_time_ns"),
    "at_us": ("start_us", "start_time_us"),
    "at_ms": ("start_ms", "start_time_ms"),
    "at": (
        "start_time", "starttime", "start_timestamp", "started", "started_at", "request_start", "event.start",
    ),
}  # fmt: skip
"""Names that explicitly mean the start.

If one of them is present, a `timestamp` is when the line was written.
"""

MAKERS: tuple[tuple[frozenset[str], dict[str, str]], ...] = (
    (
        frozenset({"attack", "seq", "code", "latency", "url"}),
        {"status": "code", "took_ns": "latency", "bytes": "bytes_in"},
    ),
    (
        frozenset({"timestamp", "elapsed", "label", "responsecode"}),
        {"at_ms": "timestamp", "took_ms": "elapsed"},
    ),
    (
        frozenset({"controller", "action", "format", "duration"}),
        {"end": "@timestamp", "took_ms": "duration"},
    ),
)
"""The meaning of names in known tools, each recognized by a combination of names in lower case.

They are vegeta's results, JMeter's results and lograge's JSON.
"""
