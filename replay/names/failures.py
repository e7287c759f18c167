"""Why a name has no address: one message for each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from replay.units import counted, format_duration

from .settings import Server, Settings

Why = Literal[
    "NXDOMAIN", "NODATA", "SERVFAIL", "REFUSED", "timeout", "unreachable", "malformed", "not a name", "reserved",
    "no source",
]  # fmt: skip


def show_server(server: Server) -> str:
    """Return `HOST:PORT` of a name server."""
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class NameFailure(Exception):
    """A name has no address.

    `why` is the case. `str()` is the message with the queries and servers, and `hint` is the advice.
    `is_unavailable` means that for some candidate no server gave an answer, which nsswitch.conf calls UNAVAIL.
    """

    def __init__(
        self,
        why: Why,
        asked: Sequence[str],
        settings: Settings,
        took_s: float,
        is_unavailable: bool = False,
    ) -> None:
        self.why, self.asked, self.is_unavailable = why, tuple(asked), is_unavailable
        servers = " and ".join(show_server(server) for server in settings.servers)
        asked_servers = f"the name server{'s' if len(settings.servers) > 1 else ''} {servers}"
        names = ", ".join(name.rstrip(".") for name in asked)
        took = format_duration(round(took_s * 1e9))
        message, self.hint = {
            "NXDOMAIN": (
                f"there is no such name (NXDOMAIN, according to {servers}, for {names})",
                "check its spelling",
            ),
            "NODATA": (
                f"the name exists, but has no {' or '.join(settings.kinds)} record"
                f" (according to {servers}, for {names})",
                "give a host that has an address",
            ),
            "SERVFAIL": (
                f"{asked_servers} failed to look it up (SERVFAIL or a similar error): the name itself may be right",
                "try again, or ask another server: --resolver HOST:PORT",
            ),
            "REFUSED": (
                f"{asked_servers} refused to answer for it (REFUSED or a similar error)",
                "ask a server that answers here: --resolver HOST:PORT",
            ),
            "timeout": (
                f"no answer from {asked_servers} in {took} ({counted(settings.attempts, 'attempt')})",
                "check the network and nameserver in /etc/resolv.conf, or ask another server: --resolver HOST:PORT",
            ),
            "unreachable": (
                f"{asked_servers} cannot be reached: nothing listens there, or no route leads there",
                "check nameserver in /etc/resolv.conf, or ask another server: --resolver HOST:PORT",
            ),
            "malformed": (
                f"the answer of {asked_servers} is not a DNS message",
                "check nameserver in /etc/resolv.conf, or ask another server: --resolver HOST:PORT",
            ),
            "reserved": (
                "no name that ends in .invalid has an address, and no server is queried (RFC 6761)",
                "give a host that exists",
            ),
            "no source": (
                "the sources in /etc/nsswitch.conf do not have it, and DNS is not queried",
                "add it to /etc/hosts, or change the hosts line of /etc/nsswitch.conf so that DNS is queried",
            ),
            "not a name": (
                "it is not a valid host name (letters, digits, - and _; labels of at most 63 bytes, 253 in all)",
                "check its spelling",
            ),
        }[why]
        super().__init__(message)
