"""Reads spans from Jaeger's JSON, as returned by `/api/traces` and downloaded from its page.

Times are in microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from replay.units import US_NS

from .model import NotASpan, Span, SpanId, kind_of, span_id


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _value(value: Any) -> Any:
    """Return the value of a tag.

    Jaeger writes a list as JSON text, which is parsed.
    """
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _tags(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for tag in _list(value):
        if isinstance(tag, dict) and isinstance(tag.get("key"), str):
            found.setdefault(tag["key"], _value(tag.get("value")))
    return found


def _parents(fields: dict[str, Any]) -> Iterator[tuple[str, SpanId]]:
    """Yield the references of a span, with their kinds."""
    for reference in _list(fields.get("references")):
        if isinstance(reference, dict):
            found = span_id(reference.get("traceID") or fields.get("traceID"), reference.get("spanID"))
            if found is not None:
                yield str(reference.get("refType") or ""), found
    found = span_id(fields.get("traceID"), fields.get("parentSpanID"))
    if found is not None:
        yield "CHILD_OF", found


def _time_ns(value: Any) -> int:
    return int(value) * US_NS if isinstance(value, int | float) and 0 < value < 9e15 else -1


def _span(fields: Any, services: dict[str, str]) -> Span:
    if not isinstance(fields, dict):
        raise NotASpan("not an object")
    tags = _tags(fields.get("tags"))
    parents = list(_parents(fields))
    child_of = next((of for kind, of in parents if kind == "CHILD_OF"), None)
    start_ns, took = _time_ns(fields.get("startTime")), fields.get("duration")
    took_ns = int(took) * US_NS if isinstance(took, int | float) and 0 <= took < 9e15 else -1
    return Span(
        id=span_id(fields.get("traceID"), fields.get("spanID")),
        parent=child_of or next((of for _, of in parents), None),
        link=next((of for kind, of in parents if kind != "CHILD_OF"), None),
        service=services.get(str(fields.get("processID")), ""),
        kind=kind_of(str(tags.get("span.kind", "")), tags),
        name=str(fields.get("operationName") or ""),
        start_ns=start_ns,
        end_ns=start_ns + took_ns if min(start_ns, took_ns) >= 0 else -1,
        attributes=tags,
    )


def spans_of(document: Any) -> Iterator[Span | NotASpan]:
    """Yield the spans of one response (one trace or a list of traces), with NotASpan in place of invalid ones.

    Raises NotASpan if the document is something else.
    """
    traces = document.get("data", document) if isinstance(document, dict) else document
    traces = traces if isinstance(traces, list) else [traces]
    for trace in traces:
        if not isinstance(trace, dict) or not isinstance(trace.get("spans"), list):
            raise NotASpan("no spans")
        processes = trace.get("processes")
        services = {
            name: str(process.get("serviceName") or "")
            for name, process in (processes.items() if isinstance(processes, dict) else ())
            if isinstance(process, dict)
        }
        for value in trace["spans"]:
            try:
                yield _span(value, services)
            except NotASpan as error:
                yield error
