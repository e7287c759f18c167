"""Target URLs that name one host: `SCHEME://HOST[:PORT][/PATH]`."""

from __future__ import annotations

from urllib.parse import urlsplit

from replay.errors import UsageError
from replay.settings.target import Target, scheme_of, sendable
from replay.shown import without_user


def parse_url(url: str, default_port: int | None, *, no_user: str = "") -> Target:
    """Parse a URL. UsageError if it is invalid.

    Without a `default_port` the URL must contain a port. `no_user` is the hint for a URL that contains a user
    name.
    """
    example = f"write {scheme_of(url)}://HOST:PORT/PATH"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(without_user(f"the target {url!r}: {error}"), hint=example) from None
    if not host or not sendable(url):
        raise UsageError(
            without_user(
                f"the target {url!r} is not a URL: it has no host, or a character besides visible ASCII"
            ),
            hint=example,
        )
    if parts.username is not None or parts.password is not None:
        raise UsageError("the target contains a user name", hint=no_user or example)
    rest = url.partition("://")[2]
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"the target {url!r} has a query or fragment, which a target cannot have",
            hint="give at most a base path, which is put before the path of each request",
        )
    if port == 0:
        raise UsageError(f"the target {url!r}: there is no port 0", hint=example)
    if port is None and default_port is None:
        raise UsageError(f"the target {url!r} has no port", hint=example)
    name = f"[{host}]" if ":" in host else host
    authority = name if port in (None, default_port) else f"{name}:{port}"
    return Target(url, host, port or default_port or 0, parts.path.rstrip("/"), authority)
