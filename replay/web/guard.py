"""Checks every request to a server of pages, and defines the headers of every answer.

- Host must be a name or address of this server. If a foreign page's name was redirected to this server (DNS
  rebinding), the browser sends that name instead. The port is not checked, because a tunnel has another port.
- Origin, if it is sent, must be the server itself. For private paths, Sec-Fetch-Site, if it is sent, must be
  same-origin or none.
- Private paths need the key, in a header. The live page itself is not private, because it contains no data of a run.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from replay.settings.listening import is_any, is_loopback_host

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
STRICT = "default-src 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of every answer that has none of its own."""

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class Refusal(NamedTuple):
    """The reason why a request is refused."""

    status: int
    words: str


class Guard:
    """Checks requests.

    `host` is the address on which the server listens. `names` are further names in links to it. `key` is needed for
    private paths.
    """

    def __init__(self, host: str, names: Iterable[str] = (), key: str = "") -> None:
        self._key = key
        self._names = {_plain(host), *(_plain(name) for name in names)}
        if is_loopback_host(host) or is_any(host):
            self._names |= set(LOOPBACK_NAMES)

    def refusal(
        self, method: str, headers: Mapping[str, list[str]], server: str, *, is_private: bool, scheme: str
    ) -> Refusal | None:
        """Return why a request is refused; None if it is accepted.

        `server` is the local address of the connection.
        """
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0], server):
            return Refusal(421, "this server has another name: open the link that replay printed")
        origins = headers.get("origin", [])
        if any(origin.lower() != f"{scheme}://{hosts[0].lower()}" for origin in origins):
            return Refusal(403, "the request came from another page")
        if method not in ("GET", "HEAD"):
            return Refusal(405, "this page can only be read")
        if not is_private:
            return None
        if any(site not in ("same-origin", "none") for site in headers.get("sec-fetch-site", [])):
            return Refusal(403, "the request came from another page")
        return (
            None
            if self._has_key(headers.get("authorization", []))
            else Refusal(401, "the key is missing or wrong")
        )

    def _is_ours(self, host: str, server: str) -> bool:
        name = _plain(_without_port(host))
        return name in self._names or (_is_address(name) and name == _plain(server))

    def _has_key(self, given: list[str]) -> bool:
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(" ")
        return scheme.lower() == "bearer" and secrets.compare_digest(key.strip().encode(), self._key.encode())


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _plain(host: str) -> str:
    name = host.strip().lower().strip("[]").rstrip(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    return str(getattr(address, "ipv4_mapped", None) or address)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
