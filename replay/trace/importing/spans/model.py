"""A span in the form shared by both formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["server", "client", "producer", "consumer", "internal"]

_OF_SERVERS = ("http.target", "url.path", "http.route", "http.server_name")
"""Attributes found only on server spans."""

KINDS: dict[str, Kind] = {
    "server": "server", "client": "client", "producer": "producer", "consumer": "consumer", "internal": "internal",
}  # fmt: skip

SpanId = tuple[str, str]
"""The ids of a trace and of a span in it."""


class NotASpan(ValueError):
    """A JSON value is not valid in the format."""


@dataclass(slots=True)
class Span:
    """One span. `id` is None and `end_ns` is -1 if not recorded; `parent` and `link` may belong to another trace."""

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
        """The first of these attributes that is present; None if none is."""
        for name in names:
            found = self.attributes.get(name)
            if found is not None and found != "":
                return found
        return None

    def text(self, *names: str) -> str:
        """The same, as text."""
        found = self.first(*names)
        return "" if found is None else str(found)

    def number(self, *names: str) -> int:
        """The same, as a number; -1 if it is not a number."""
        found = self.first(*names)
        try:
            return int(found) if found is not None and abs(int(found)) < 1 << 62 else -1
        except (TypeError, ValueError, OverflowError):
            return -1


def span_id(trace: Any, span: Any) -> SpanId | None:
    """The ids of a span or its parent; None if either is missing or all zeros."""
    if not isinstance(trace, str) or not isinstance(span, str) or not span.strip("0"):
        return None
    return _normal(trace), _normal(span)


def _normal(text: str) -> str:
    """Hexadecimal digits in lower case without leading zeros, since some programs write 64 bits of 128. Base64 is
    unchanged.
    """
    return text.lower().lstrip("0") if len(text) in (16, 32) or len(text) < 16 else text


def kind_of(name: str, attributes: dict[str, Any]) -> Kind:
    """The span kind of this name; if there is none, server spans are recognized by their attributes."""
    found = KINDS.get(name.removeprefix("SPAN_KIND_").lower())
    if found is not None:
        return found
    return "server" if any(name in attributes for name in _OF_SERVERS) else "internal"
