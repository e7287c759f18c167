"""Targets of HTTP: `http[s]://HOST[:PORT][/BASE/PATH]`."""

from __future__ import annotations

from replay.protocols.url import parse_url
from replay.settings.target import Target, scheme_of

DEFAULT_PORTS = {"http": 80, "https": 443}


def parse(url: str) -> Target:
    """Parse an HTTP target. UsageError if it is invalid."""
    return parse_url(url, DEFAULT_PORTS[scheme_of(url)], no_user="give -H 'Authorization: $NAME' instead")


def is_secure(target: Target) -> bool:
    """Return whether connections use TLS."""
    return target.scheme == "https"
