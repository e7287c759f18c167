"""Targets of HTTP: `http[s]://HOST[:PORT][/BASE/PATH]`."""

from __future__ import annotations

from urllib.parse import urlsplit

from replay.errors import UsageError
from replay.settings.target import Target, scheme_of, sendable

DEFAULT_PORTS = {"http": 80, "https": 443}
EXAMPLE = "write http://HOST:PORT/BASE/PATH"


def parse(url: str) -> Target:
    """A target of HTTP, taken apart. UsageError says what is wrong with it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"the target {url!r}: {error}", hint=EXAMPLE) from None
    if not host or not sendable(url):
        raise UsageError(f"the target {url!r} is not a URL", hint=EXAMPLE)
    if parts.username is not None or parts.password is not None:
        raise UsageError("the target holds a user name", hint="give -H 'Authorization: $NAME' instead")
    rest = url.partition("://")[2]
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"the target {url!r} has a query or fragment: only a base path is put before each request"
        )
    if port == 0:
        raise UsageError(f"the target {url!r}: there is no port 0", hint=EXAMPLE)
    default_port = DEFAULT_PORTS[scheme_of(url)]
    name = f"[{host}]" if ":" in host else host
    authority = name if port in (None, default_port) else f"{name}:{port}"
    return Target(url, host, port or default_port, parts.path.rstrip("/"), authority)


def is_secure(target: Target) -> bool:
    """Whether connections are made by TLS."""
    return target.scheme == "https"
