"""Converts a span's attributes to its request.

The attributes follow OpenTelemetry's semantic conventions for HTTP and Kafka, old and new. HTTP became stable in 1.23
(`http.request.method`, `url.path`); before that the names were `http.method` and `http.target`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_from_bytes

from .model import Span

PRODUCE = "PRODUCE"
"""The method of a Kafka record, whose target is `/topic/partition?key=...`."""

_METHOD_OF_NAME = re.compile(r"(?:HTTP )?(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)(?:\s|$)")
_HOLE_IN_ROUTE = re.compile(r"[{<*:\[(]")
_ROUTE_SEGMENT = re.compile(r":(\w+)|<(?:\w+:)?(\w+)>|\{(\w+)(?::[^{}]*)?\}|\[(\w+)\]")
_DEFAULT_PORTS = {"80", "443", "-1"}
_REQUEST_HEADER, _RESPONSE_HEADER = "http.request.header.", "http.response.header."
_KEY_SAFE = "".join(chr(byte) for byte in range(33, 127) if byte != ord("%"))
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


class Unusable(Exception):
    """The span has no request that can be replayed.

    The text is the reason.
    """


@dataclass(slots=True)
class Asked:
    """The request of a span.

    `route` is a path template. `from_route` means that the path was taken from it, and `from_name` that the method
    was taken from the span's name.
    """

    method: str
    target: bytes
    host: str = ""
    client: bytes = b""
    status: int = -1
    size: int = -1
    headers: Sequence[tuple[bytes, bytes]] = ()
    response_headers: Sequence[tuple[bytes, bytes]] = ()
    route: str = ""
    from_route: bool = False
    from_name: bool = False
    body_bytes: int = -1
    messages: int = 1


def asked(span: Span) -> Asked:
    """Return the request of a server's span, or the record of a producer's or consumer's span.

    Raises Unusable if there is none.
    """
    if span.kind in ("client", "internal"):
        raise Unusable("client or internal span")
    if span.text("messaging.system"):
        return _record(span)
    if span.kind != "server":
        raise Unusable("message of another system")
    return _request(span)


def _request(span: Span) -> Asked:
    if span.text("rpc.system", "rpc.system.name") and not span.text(
        "url.path", "http.target", "url.full", "http.url"
    ):
        raise Unusable("remote procedure call")
    route = span.text("http.route")
    target, from_route = _target(span, route)
    method, from_name = _method(span)
    if not any(name.startswith(("http.", "url.")) for name in span.attributes):
        raise Unusable("server span without HTTP")
    if not method:
        raise Unusable("no method")
    if not target:
        raise Unusable("no path")
    headers = _headers(span, _REQUEST_HEADER)
    agent = span.text("user_agent.original", "http.user_agent")
    if agent and not any(name == b"user-agent" for name, _ in headers):
        headers.append((b"user-agent", agent.encode()))
    status = span.number("http.response.status_code", "http.status_code")
    return Asked(
        method=method,
        target=target,
        host=_host(span, headers),
        client=span.text(
            "client.address", "http.client_ip", "network.peer.address", "net.sock.peer.addr", "net.peer.ip"
        ).encode(),
        status=status if 100 <= status <= 999 else -1,
        size=max(span.number("http.response.body.size", "http.response_content_length"), -1),
        headers=headers,
        response_headers=_headers(span, _RESPONSE_HEADER),
        route=template_of(route),
        from_route=from_route,
        from_name=from_name,
        body_bytes=span.number("http.request.body.size", "http.request_content_length"),
    )


def _method(span: Span) -> tuple[str, bool]:
    """Return the method, and whether it was taken from the span's name."""
    method = span.text("http.request.method", "http.method")
    if method == "_OTHER":
        method = span.text("http.request.method_original")
    if method:
        return method.upper(), False
    named = _METHOD_OF_NAME.match(span.name)
    return (named[1], True) if named else ("", False)


def _target(span: Span, route: str) -> tuple[bytes, bool]:
    """Return the target (path and query, or a whole URL), and whether it comes from a route without parameters.

    The target is empty if it is unknown.
    """
    path, query = span.text("url.path"), span.text("url.query").removeprefix("?")
    if path:
        return f"{path}?{query}".encode() if query else path.encode(), False
    found = span.text("http.target", "url.full", "http.url")
    if found:
        return found.encode(), False
    literal = route.startswith("/") and not _HOLE_IN_ROUTE.search(route)
    return (route.encode(), True) if literal else (b"", False)


def _host(span: Span, headers: Sequence[tuple[bytes, bytes]]) -> str:
    named = next((value for name, value in headers if name == b"host"), b"").decode("latin-1")
    host = named or span.text("http.host")
    if host:
        return host.lower()
    host = span.text("server.address", "http.server_name", "net.host.name")
    port = span.text("server.port", "net.host.port")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"{host}:{port}".lower() if host and port and port not in _DEFAULT_PORTS else host.lower()


def _texts(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def _headers(span: Span, prefix: str) -> list[tuple[bytes, bytes]]:
    """Return the recorded headers, each of which is an attribute with one value or a list of values.

    Older instrumentations wrote `_` for `-` in the names of headers.
    """
    found = []
    for name, value in span.attributes.items():
        if name.startswith(prefix) and value is not None:
            header = name.removeprefix(prefix).replace("_", "-").lower()
            found += [(header.encode(), text.encode()) for text in _texts(value)]
    return found


def template_of(route: str) -> str:
    """Convert a framework's route (`:id`, `<int:id>`, `[id]`) to a replay template (`/users/{id}`).

    The result is empty if the route does not begin with a slash.
    """
    if not route.startswith("/"):
        return ""
    return _ROUTE_SEGMENT.sub(lambda found: f"{{{next(filter(None, found.groups()))}}}", route)


def _record(span: Span) -> Asked:
    """Return a Kafka record without its value.

    Raises Unusable if the message is of another system, or if it has no valid topic.
    """
    if span.text("messaging.system") != "kafka" or span.kind == "server":
        raise Unusable("message of another system")
    topic = span.text("messaging.destination.name", "messaging.destination", "messaging.kafka.topic")
    if not _TOPIC.fullmatch(topic):
        raise Unusable("no topic")
    partition = span.number(
        "messaging.destination.partition.id",
        "messaging.kafka.destination.partition",
        "messaging.kafka.partition",
    )
    target = f"/{topic}/{max(partition, 0)}"
    key = span.text("messaging.kafka.message.key", "messaging.kafka.message_key")
    if key:
        target += f"?key={quote_from_bytes(key.encode(), _KEY_SAFE)}"
    messages = span.number("messaging.batch.message_count")
    return Asked(method=PRODUCE, target=target.encode(), client=key.encode(), messages=max(messages, 1))
