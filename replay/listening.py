"""Addresses to listen on, as options and sinks take them."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

LOOPBACK = "127.0.0.1"
_FORM = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]]*)):(?P<port>\d{1,5})|(?P<alone>\d{1,5})"
)


class Listen(NamedTuple):
    """An address to listen on. Port 0 takes any free port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host == "localhost" or ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """`HOST:PORT`, `[::1]:PORT`, `:PORT` or `PORT`; without a host it is loopback. ValueError says what is wrong.

    A host is an address or `localhost`: a name would have to be looked up, and might be another machine's.
    """
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not HOST:PORT")
    host = found["six"] or found["host"] or LOOPBACK
    port = int(found["port"] or found["alone"])
    if port > 65_535:
        raise ValueError(f"{text!r}: a port is at most 65535")
    if host != "localhost":
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an address of this machine") from None
    return Listen(host, port)
