"""Reads spans from OTLP's JSON (opentelemetry-proto, "JSON Protobuf Encoding").

Exporters send it, and the collector's file exporter writes it. Ids are hexadecimal. Times are strings of nanoseconds,
because 64 bits do not fit JSON's numbers. A kind is a number or its name. Names are in camel case; the names of the
.proto files are valid, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .model import NotASpan, Span, kind_of, span_id

_KINDS = ("", "internal", "server", "client", "producer", "consumer")

_OTHER_SIGNALS = ("resourceLogs", "resourceMetrics", "resourceProfiles", "resource_logs", "resource_metrics")

_VALUES = ("stringValue", "intValue", "boolValue", "doubleValue", "bytesValue")


def _get(value: dict[str, Any], camel: str, snake: str) -> Any:
    found = value.get(camel)
    return value.get(snake) if found is None else found


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise NotASpan("not a list")
    return value


def _dict(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise NotASpan("not an object")
    return value


def _value(value: Any) -> Any:
    """Return the value of an AnyValue: a scalar or a list; None for a map and for an empty value."""
    if not isinstance(value, dict):
        return value
    for camel in _VALUES:
        snake = f"{camel.removesuffix('Value')}_value"
        if (found := _get(value, camel, snake)) is not None:
            return (
                int(found)
                if camel == "intValue" and isinstance(found, str) and found.lstrip("-").isdigit()
                else found
            )
    array = _get(value, "arrayValue", "array_value")
    return [_value(each) for each in _list(_dict(array).get("values"))] if array is not None else None


def _attributes(pairs: Any) -> dict[str, Any]:
    """Convert a list of keys and values to attributes by key; the first value of a repeated key counts."""
    found: dict[str, Any] = {}
    for pair in _list(pairs):
        key = _dict(pair).get("key")
        if isinstance(key, str):
            found.setdefault(key, _value(pair.get("value")))
    return found


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return value
    return _KINDS[value] if isinstance(value, int) and 0 <= value < len(_KINDS) else ""


def _time_ns(value: Any) -> int:
    try:
        found = int(value)
    except (TypeError, ValueError, OverflowError):
        return -1
    return found if 0 < found < 1 << 63 else -1


def _span(value: Any, service: str) -> Span:
    fields = _dict(value)
    trace = _get(fields, "traceId", "trace_id")
    attributes = _attributes(fields.get("attributes"))
    links = [
        span_id(_get(link, "traceId", "trace_id"), _get(link, "spanId", "span_id"))
        for link in map(_dict, _list(fields.get("links")))
    ]
    return Span(
        id=span_id(trace, _get(fields, "spanId", "span_id")),
        parent=span_id(trace, _get(fields, "parentSpanId", "parent_span_id")),
        link=next((link for link in links if link), None),
        service=service,
        kind=kind_of(_kind(fields.get("kind")), attributes),
        name=str(fields.get("name") or ""),
        start_ns=_time_ns(_get(fields, "startTimeUnixNano", "start_time_unix_nano")),
        end_ns=_time_ns(_get(fields, "endTimeUnixNano", "end_time_unix_nano")),
        attributes=attributes,
    )


def is_another_signal(document: Any) -> bool:
    """Return whether a document holds logs, metrics or profiles, which a collector may write into the same file."""
    return isinstance(document, dict) and any(key in document for key in _OTHER_SIGNALS)


def spans_of(document: Any) -> Iterator[Span | NotASpan]:
    """Yield the spans of an ExportTraceServiceRequest (also Jaeger's API v3), with NotASpan in place of invalid ones.

    Raises NotASpan if the document is something else.
    """
    fields = _dict(document)
    if isinstance(fields.get("result"), dict):
        fields = fields["result"]
    resources = _get(fields, "resourceSpans", "resource_spans")
    if resources is None:
        raise NotASpan("no resourceSpans")
    for resource in map(_dict, _list(resources)):
        about = _attributes(_dict(resource.get("resource")).get("attributes"))
        service = str(about.get("service.name") or "")
        scopes = _get(resource, "scopeSpans", "scope_spans")
        if scopes is None:
            scopes = _get(resource, "instrumentationLibrarySpans", "instrumentation_library_spans")
        for scope in map(_dict, _list(scopes)):
            for value in _list(scope.get("spans")):
                try:
                    yield _span(value, service)
                except NotASpan as error:
                    yield error
