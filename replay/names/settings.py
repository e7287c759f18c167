"""How this machine resolves names: resolv.conf(5) with its two variables, and hosts(5)."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import UsageError

RESOLV_CONF, HOSTS = Path("/etc/resolv.conf"), Path("/etc/hosts")
PORT = 53
SERVERS_MAX, NDOTS_MAX, TIMEOUT_S_MAX, ATTEMPTS_MAX = 3, 15, 30, 5
"""What the C library caps these at."""

Server = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Settings:
    """Servers in their order, and how they are asked. `hosts` has addresses by name in lower case."""

    servers: tuple[Server, ...] = (("127.0.0.1", PORT),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 5.0
    attempts: int = 2
    rotate: bool = False
    by_tcp: bool = False
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def candidates(self, name: str) -> list[str]:
        """The absolute names to ask for, in order (resolv.conf(5): ndots and search)."""
        bare = name.rstrip(".")
        if name.endswith("."):
            return [f"{bare}."]
        searched = [f"{bare}.{domain}." for domain in self.search]
        as_it_is = [f"{bare}."]
        return as_it_is + searched if bare.count(".") >= self.ndots else searched + as_it_is


def parse_server(text: str) -> Server:
    """`HOST:PORT`, `HOST` or `[::1]:PORT` of a name server. UsageError where it is not an address."""
    text = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        port, host = None, ""
    if not host or port == 0 or parts.path or parts.username:
        raise UsageError(
            f"{text!r} is not a name server", hint="write its address: 10.0.0.53, or 127.0.0.1:5353"
        )
    return host, port or PORT


def read_settings(
    resolver: str = "",
    *,
    conf: Path = RESOLV_CONF,
    hosts: Path = HOSTS,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The machine's settings; `resolver` is asked in place of its name servers.

    What cannot be read is as if it were not there: the C library does the same.
    """
    environ = os.environ if environ is None else environ
    servers: list[Server] = []
    search: list[str] | None = None
    options: list[str] = []
    for line in _lines(conf):
        key, *values = line.split()
        if key == "nameserver" and values and _is_address(values[0]):
            servers.append((values[0], PORT))
        elif key in ("search", "domain") and values:
            search = values if key == "search" else values[:1]
        elif key == "options":
            options += values
    if "LOCALDOMAIN" in environ:
        search = environ["LOCALDOMAIN"].split()
    options += environ.get("RES_OPTIONS", "").split()
    if search is None:
        search = [domain] if (domain := socket.gethostname().partition(".")[2]) else []
    return Settings(
        servers=(parse_server(resolver),)
        if resolver
        else tuple(servers[:SERVERS_MAX]) or (("127.0.0.1", PORT),),
        search=tuple(domain.strip(".") for domain in search if domain.strip(".")),
        ndots=_option(options, "ndots", 1, 0, NDOTS_MAX),
        timeout_s=float(_option(options, "timeout", 5, 1, TIMEOUT_S_MAX)),
        attempts=_option(options, "attempts", 2, 1, ATTEMPTS_MAX),
        rotate="rotate" in options,
        by_tcp="use-vc" in options,
        hosts=_read_hosts(hosts),
    )


def _option(options: list[str], name: str, default: int, least: int, most: int) -> int:
    """The last `name:N` among options that is a number, within bounds."""
    given = [text.partition(":")[2] for text in options if text.startswith(f"{name}:")]
    numbers = [int(text) for text in given if text.isascii() and text.isdigit()]
    return min(max(numbers[-1], least), most) if numbers else default


def _lines(path: Path) -> list[str]:
    """Lines that hold anything but comments."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.split("#")[0].split(";")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def _read_hosts(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in _lines(path):
        address, *names = line.split()
        if _is_address(address):
            for name in names:
                known = found.get(name.lower(), ())
                found[name.lower()] = known if address in known else (*known, address)
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
