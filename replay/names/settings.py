"""How this machine resolves names: resolv.conf(5) with its two variables, nsswitch.conf(5) and hosts(5)."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from replay.errors import UsageError

RESOLV_CONF, HOSTS, NSSWITCH = Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/nsswitch.conf")
PORT = 53
SERVERS_MAX, NDOTS_MAX, TIMEOUT_S_MAX, ATTEMPTS_MAX = 3, 15, 30, 5
"""The limits of the C library: on the number of name servers, and on the options ndots, timeout and attempts."""

Server = tuple[str, int]


STATUSES = ("SUCCESS", "NOTFOUND", "UNAVAIL", "TRYAGAIN")


class Candidate(NamedTuple):
    """An absolute name to look up, and whether it comes from the search list."""

    name: str
    is_searched: bool


@dataclass(frozen=True, slots=True)
class Source:
    """A source of nsswitch.conf, and the statuses after which the lookup ends (besides SUCCESS)."""

    name: str
    ends: frozenset[str] = frozenset()

    def ends_at(self, status: str) -> bool:
        """Return whether the lookup ends after this source with that status."""
        return status in self.ends


FILES_AND_DNS: tuple[Source, ...] = (Source("files"), Source("dns"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Name servers in order, and how to query them.

    `hosts` has addresses by name in lower case. An empty domain in `search` is the root.
    """

    servers: tuple[Server, ...] = (("127.0.0.1", PORT),)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 5.0
    attempts: int = 2
    rotate: bool = False
    by_tcp: bool = False
    edns: bool = False
    kinds: tuple[str, ...] = ("A", "AAAA")
    one_at_a_time: bool = False
    socket_for_each: bool = False
    asks_top_level: bool = True
    sources: tuple[Source, ...] = FILES_AND_DNS
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def candidates(self, name: str) -> list[Candidate]:
        """Return the absolute names to look up, in order (resolv.conf(5): ndots, search and no-tld-query)."""
        bare = name.rstrip(".")
        dots = bare.count(".")
        as_it_is = Candidate(f"{bare}.", is_searched=False)
        if name.endswith("."):
            return [as_it_is]
        searched = [
            Candidate(f"{bare}.{domain}." if domain else f"{bare}.", is_searched=True)
            for domain in self.search
        ]
        if dots >= self.ndots:
            return [as_it_is, *searched]
        is_asked = dots or not searched or self.asks_top_level
        return [*searched, as_it_is] if is_asked and "" not in self.search else searched

    @property
    def sources_left_out(self) -> tuple[str, ...]:
        """The sources of nsswitch.conf that are not queried, because only the hosts file and DNS are supported."""
        return tuple(source.name for source in self.sources if source.name not in ("files", "dns"))


def parse_server(text: str) -> Server:
    """Parse `HOST:PORT`, `HOST` or `[::1]:PORT` of a name server. UsageError if it is not an address."""
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
    nsswitch: Path = NSSWITCH,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read the machine's settings. A file that cannot be read counts as empty, as in the C library.

    `resolver` replaces the name servers, and adds DNS to sources that lack it. Raises UsageError if it is not an
    address.
    """
    environ = os.environ if environ is None else environ
    servers, search, options = _read_resolv_conf(conf)
    if "LOCALDOMAIN" in environ:
        search = environ["LOCALDOMAIN"].split()
    options += environ.get("RES_OPTIONS", "").split()
    if search is None:
        search = [domain] if (domain := socket.gethostname().partition(".")[2]) else []
    sources = _read_sources(nsswitch)
    if resolver:
        servers = [parse_server(resolver)]
        if all(source.name != "dns" for source in sources):
            sources += (Source("dns"),)
    socket_for_each = "single-request-reopen" in options
    return Settings(
        servers=tuple(servers[:SERVERS_MAX]) or (("127.0.0.1", PORT),),
        search=tuple(domain.strip(".") for domain in search),
        ndots=_option(options, "ndots", 1, 0, NDOTS_MAX),
        timeout_s=float(_option(options, "timeout", 5, 1, TIMEOUT_S_MAX)),
        attempts=_option(options, "attempts", 2, 1, ATTEMPTS_MAX),
        rotate="rotate" in options,
        by_tcp="use-vc" in options,
        edns="edns0" in options,
        kinds=("A",) if "no-aaaa" in options else ("A", "AAAA"),
        one_at_a_time=socket_for_each or "single-request" in options,
        socket_for_each=socket_for_each,
        asks_top_level=not {"no-tld-query", "no_tld_query"} & set(options),
        sources=sources,
        hosts=_read_hosts(hosts),
    )


def _read_resolv_conf(path: Path) -> tuple[list[Server], list[str] | None, list[str]]:
    """Read the servers, the search list (None if there is none) and the options.

    A keyword counts only at the start of a line.
    """
    servers: list[Server] = []
    search: list[str] | None = None
    options: list[str] = []
    for line in _lines(path):
        key, *values = line.split() if line[:1].strip() else [""]
        if key == "nameserver" and values:
            address = address_of(re.split("[;#]", values[0])[0])
            servers += [(address, PORT)] if address else []
        elif key in ("search", "domain") and values:
            # A comment after the domains is read as further domains, as in the C library.
            search = values if key == "search" else values[:1]
        elif key == "options":
            options += values
    return servers, search, options


def _read_sources(path: Path) -> tuple[Source, ...]:
    """Read the sources of the last `hosts:` line; the hosts file and DNS if there is none."""
    found = FILES_AND_DNS
    for line in _lines(path):
        database, colon, text = line.partition("#")[0].strip().partition(":")
        if not colon or database.strip() != "hosts":
            continue
        sources: list[Source] = []
        for word, actions in re.findall(r"([^\s\[\]]+)|\[([^\]]*)\]", text):
            if word:
                sources.append(Source(word))
            elif sources:
                sources[-1] = Source(sources[-1].name, _ends(actions))
        found = tuple(sources)
    return found


def _ends(actions: str) -> frozenset[str]:
    """Parse the statuses that end a lookup: `[NOTFOUND=return !UNAVAIL=return]`."""
    ends: set[str] = set()
    for negated, status, action in re.findall(r"(!?)\s*(\w+)\s*=\s*(\w+)", actions):
        meant = set(STATUSES) - {status.upper()} if negated else {status.upper()}
        ends = ends | meant if action.lower() == "return" else ends - meant
    return frozenset(ends)


def _option(options: list[str], name: str, default: int, least: int, most: int) -> int:
    """Return the number of the last valid `name:N` among the options, limited to its bounds."""
    given = [text.partition(":")[2] for text in options if text.startswith(f"{name}:")]
    numbers = [int(text) for text in given if text.isascii() and text.isdigit()]
    return min(max(numbers[-1], least), most) if numbers else default


def _lines(path: Path) -> list[str]:
    """Return the lines of a file that are neither empty nor comments; none if it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip() and line[0] not in ";#"]


def _read_hosts(path: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in _lines(path):
        address, *names = line.partition("#")[0].split() or [""]
        if _is_strict_address(address):
            for name in names:
                known = found.get(name.lower(), ())
                found[name.lower()] = known if address in known else (*known, address)
    return found


def _is_strict_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def address_of(text: str) -> str:
    """Parse an address and return its usual form, or "" if the text is not an address.

    `127.1` and `0x7f000001` are addresses, too.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        # inet_aton(3) also accepts anything that follows a space.
        return "" if text.split() != [text] else socket.inet_ntoa(socket.inet_aton(text))
    except (OSError, UnicodeError):
        return ""
