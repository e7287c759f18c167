"""A span in the form that both formats are converted to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["server", "client", "producer", "consumer", "internal"]

_HEXADECIMAL = re.compile(r"[0-9A-Fa-f]*")
_OF_SERVERS = ("http.target", "url.path", "http.route", "http.server_name")
"""Attributes that only spans of servers have."""

KINDS: dict[str, Kind] = {
    "server": "server", "client": "client", "producer": "producer", "consumer": "consumer", "internal": "internal",
}  # fmt: skip

SpanId = tuple[str, str]
"""The id of a trace, and the id of a span in it."""


class NotASpan(ValueError):
    """A JSON value is not valid in the format."""


@dataclass(slots=True)
class Span:
    """One span.

    What was not recorded is None (`id`, `parent`, `link`) or -1 (`start_ns`, `end_ns`). `parent` and `link` may belong
    to another trace.
    """

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
        """Return the value of the first of these attributes that has one; None if none has."""
        for name in names:
            found = self.attributes.get(name)
            if found is not None and found != "":
                return found
        return None

    def text(self, *names: str) -> str:
        """Return the value of the first of these attributes that has one, as text; empty if none has."""
        found = self.first(*names)
        return "" if found is None else str(found)

    def number(self, *names: str) -> int:
        """Return the value of the first of these attributes that has one, as an integer.

        The result is -1 if no attribute has a value, or if the value is too large or not a number.
        """
        found = self.first(*names)
        try:
            return int(found) if found is not None and abs(int(found)) < 1 << 62 else -1
        except (TypeError, ValueError, OverflowError):
            return -1


def span_id(trace: Any, span: Any) -> SpanId | None:
    """Return the ids of a span or its parent; None if either is missing, or the span's id is all zeros."""
    if not isinstance(trace, str) or not isinstance(span, str) or not span.strip("0"):
        return None
    return _normal(trace), _normal(span)


def _normal(text: str) -> str:
    """Return a hexadecimal id in lower case and without leading zeros; any other unchanged.

    Some programs write only 64 bits of an id that has 128. An id in base64 has other lengths, or ends with `=`.
    """
    is_hexadecimal = (len(text) <= 16 or len(text) == 32) and _HEXADECIMAL.fullmatch(text)
    return text.lower().lstrip("0") if is_hexadecimal else text


def kind_of(name: str, attributes: dict[str, Any]) -> Kind:
    """Return the span kind of this name (`SPAN_KIND_SERVER`, `server`).

    If the name is not that of a kind, a span with an attribute of servers is a server's, and any other is internal.
    """
    found = KINDS.get(name.removeprefix("SPAN_KIND_").lower())
    if found is not None:
        return found
    return "server" if any(name in attributes for name in _OF_SERVERS) else "internal"
