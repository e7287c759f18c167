"""A span as both formats have it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["server", "client", "producer", "consumer", "internal"]

_OF_SERVERS = ("http.target", "url.path", "http.route", "http.server_name")
"""Attributes that only the spans of servers have."""

KINDS: dict[str, Kind] = {
    "server": "server", "client": "client", "producer": "producer", "consumer": "consumer", "internal": "internal",
}  # fmt: skip

SpanId = tuple[str, str]
"""The ids of a trace and of a span in it."""


class NotASpan(ValueError):
    """A JSON value is not what the format says."""


@dataclass(slots=True)
class Span:
    """One span. `id` is None and `end_ns` is -1 where they are not recorded; `parent` and `link` may be of another trace."""

    id: SpanId | None
    parent: SpanId | None
    link: SpanId | None
    service: str
    kind: Kind
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any] = field(default_factory=dict)

    def first(self, *names: str) -> Any:
        """The first of these attributes that it has; None where it has none."""
        for name in names:
            found = self.attributes.get(name)
            if found is not None and found != "":
                return found
        return None

    def text(self, *names: str) -> str:
        """The same as text."""
        found = self.first(*names)
        return "" if found is None else str(found)

    def number(self, *names: str) -> int:
        """The same as a number; -1 where it is none."""
        found = self.first(*names)
        try:
            return int(found) if found is not None and abs(int(found)) < 1 << 62 else -1
        except (TypeError, ValueError, OverflowError):
            return -1


def span_id(trace: Any, span: Any) -> SpanId | None:
    """The ids of a span, or of the parent that is named; None where either is missing or nothing but zeros."""
    if not isinstance(trace, str) or not isinstance(span, str) or not span.strip("0"):
        return None
    return _normal(trace), _normal(span)


def _normal(text: str) -> str:
    """Hexadecimal digits in lower case and without leading zeros: some programs write 64 bits of 128. Base64 as it is."""
    return text.lower().lstrip("0") if len(text) in (16, 32) or len(text) < 16 else text


def kind_of(name: str, attributes: dict[str, Any]) -> Kind:
    """The kind of this name; where it names none, the spans of servers are told by their attributes."""
    found = KINDS.get(name.removeprefix("SPAN_KIND_").lower())
    if found is not None:
        return found
    return "server" if any(name in attributes for name in _OF_SERVERS) else "internal"
