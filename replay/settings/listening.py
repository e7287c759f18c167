"""Addresses to listen on, as `HOST:PORT`."""

from __future__ import annotations

import ipaddress

from replay.errors import UsageError

DEFAULT_PLACE = "127.0.0.1:8089"
_FORMS = "HOST:PORT, such as 127.0.0.1:8089 or [::1]:8089"


def parse_place(text: str) -> tuple[str, int]:
    """Host (an address or a name, in lower case, without brackets) and port. UsageError if the text has not both."""
    host, separator, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    is_number = port.isascii() and port.isdigit() and int(port) <= 65_535
    if not separator or not host or not is_number or (":" in host) != bracketed:
        raise UsageError(f"{text!r} is not an address to listen on", hint=f"write {_FORMS}")
    return host.lower(), int(port)


def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine's own, by its address or as `localhost`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_any(host: str) -> bool:
    """Whether a host stands for every address of this machine."""
    return host in ("0.0.0.0", "::")


def place_text(host: str, port: int) -> str:
    """`HOST:PORT` as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
