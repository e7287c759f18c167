"""Addresses to listen on or to connect to, as `HOST:PORT`."""

from __future__ import annotations

import ipaddress
from typing import Literal

from replay.errors import UsageError

DEFAULT_PLACE = "127.0.0.1:8089"
_FORMS = "HOST:PORT, such as 127.0.0.1:8089 or [::1]:8089"


def parse_place(text: str, purpose: Literal["listen on", "connect to"] = "listen on") -> tuple[str, int]:
    """Parse `HOST:PORT` into host and port.

    The host is an address or a name, in lower case, without brackets. UsageError if the text is invalid. Port 0,
    which means any free port, is valid only to listen on.
    """
    host, separator, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    is_number = port.isascii() and port.isdigit() and int(port) <= 65_535
    if is_number and purpose == "connect to":
        is_number = int(port) > 0
    if not separator or not host or not is_number or (":" in host) != bracketed:
        raise UsageError(f"{text!r} is not an address to {purpose}", hint=f"write {_FORMS}")
    return host.lower(), int(port)


def is_loopback_host(host: str) -> bool:
    """Return whether a host is a loopback address or `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Return whether a host means every IPv4 or every IPv6 address of this machine."""
    return host in ("0.0.0.0", "::")


def place_text(host: str, port: int) -> str:
    """Return `HOST:PORT` as it appears in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
