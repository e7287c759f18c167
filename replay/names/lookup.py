"""One lookup of a name, as `getaddrinfo` of glibc would do it: the sources of nsswitch.conf in their order.

Of the sources, only the hosts file and DNS are queried. In DNS the candidates are tried one after another, in
the order that `search` and `ndots` define (resolv/res_query.c, 2.36):

- After a candidate that does not exist, or that has no address, the next one is tried. The same applies to a candidate
  for which all servers fail (SERVFAIL).
- After any other failure the search ends, and the name without a search domain is tried if it was not tried before.
- If no server can be reached for a candidate with a search domain, no other candidate is tried.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Literal

from .exchange import Client, Note, Reply
from .failures import NameFailure, Why
from .settings import Settings, address_of

LOCALHOST = ("127.0.0.1", "::1")

BUFFER_BYTES = 1_024
ADDRESS_BYTES = 40
"""Bytes that an address takes in glibc's buffer, which has BUFFER_BYTES at first.

If an answer does not fit, glibc repeats the whole lookup with a buffer twice as large: a name of 100 addresses
is looked up three times.
"""

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\.")
"""What res_hnok(3) accepts as a host name. Other names are not looked up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A name's addresses, each once, in the order of the hosts file; those from DNS with IPv4 first.

    `found` is the name that has them. `ttl_s` is None if nothing limits the validity of the answer.
    """

    addresses: tuple[str, ...]
    source: Literal["literal", "hosts", "dns"]
    found: str
    ttl_s: int | None = None


async def lookup(name: str, settings: Settings, note: Note = lambda query: None) -> Answer:
    """Return the addresses of a name. Raises NameFailure if it has none."""
    if address := address_of(name):
        return Answer((address,), "literal", name)
    lowered = name.lower()
    bare = lowered.rstrip(".")
    if lowered not in settings.hosts and (bare == "localhost" or bare.endswith(".localhost")):
        # RFC 6761, 6.3, requires loopback addresses. glibc queries DNS instead.
        return Answer(LOCALHOST, "hosts", bare)
    if bare == "invalid" or bare.endswith(".invalid"):
        # RFC 6761, 6.4: no such name exists. glibc queries DNS nevertheless.
        raise NameFailure("reserved", [], settings, 0.0)
    failure: NameFailure | None = None
    for source in settings.sources:
        if source.name == "files":
            if lowered in settings.hosts:
                return Answer(settings.hosts[lowered], "hosts", lowered)
            if source.ends_at("NOTFOUND"):
                break
        elif source.name == "dns":
            try:
                return await _ask_until_it_fits(name, settings, note)
            except NameFailure as error:
                failure = error
                if source.ends_at("UNAVAIL" if error.is_unavailable else "NOTFOUND"):
                    break
    raise failure or NameFailure("no source", [], settings, 0.0)


async def _ask_until_it_fits(name: str, settings: Settings, note: Note) -> Answer:
    """Query DNS as often as glibc would until its buffer can hold the answer."""
    import dns.exception
    import dns.name

    try:
        ascii_name = name if name.isascii() else dns.name.from_text(name).to_text(omit_final_dot=True)
    except (dns.exception.DNSException, UnicodeError):
        ascii_name = ""
    if not _HOST_NAME.fullmatch(ascii_name):
        raise NameFailure("not a name", [], settings, 0.0)
    bytes_held = BUFFER_BYTES
    while True:
        answer = await _ask_dns(ascii_name, settings, note)
        if ADDRESS_BYTES * len(answer.addresses) + len(answer.found) <= bytes_held:
            return answer
        bytes_held *= 2


async def _ask_dns(name: str, settings: Settings, note: Note) -> Answer:
    """Query the candidates one after another, until one has addresses or glibc would stop.

    Raises NameFailure if none has any.
    """
    begin = time.monotonic()
    client = Client(settings, note)
    asked: list[str] = []
    whys: list[Why] = []
    is_unavailable = False
    is_searching = True
    for candidate in settings.candidates(name):
        if candidate.is_searched and not is_searching:
            continue
        asked.append(candidate.name)
        replies = await client.ask(candidate.name)
        addresses = tuple(dict.fromkeys(a for reply in _by_kind(replies) for a in reply.addresses))
        if addresses:
            ttls = [reply.ttl_s for reply in replies if reply.ttl_s is not None]
            return Answer(addresses, "dns", candidate.name, min(ttls, default=0))
        why = _why(replies, client)
        whys.append(why)
        is_unavailable |= not replies and why != "not a name"
        if why == "NODATA" and any(reply.records for reply in replies):
            # glibc treats a name that is an alias without addresses as found, and tries no other candidate.
            break
        if candidate.is_searched:
            if why == "unreachable":
                break
            is_searching = why in ("NXDOMAIN", "NODATA", "not a name") or client.last_code == "SERVFAIL"
    order: tuple[Why, ...] = (
        "timeout", "unreachable", "malformed", "REFUSED", "SERVFAIL", "NODATA", "NXDOMAIN",
    )  # fmt: skip
    worst: Why = next((why for why in order if why in whys), "not a name")
    raise NameFailure(worst, asked, settings, time.monotonic() - begin, is_unavailable)


def _by_kind(replies: tuple[Reply, ...]) -> list[Reply]:
    return sorted(replies, key=lambda reply: reply.kind)


def _why(replies: tuple[Reply, ...], client: Client) -> Why:
    """Return why a candidate has no address."""
    if not replies:
        return client.failure
    codes = [reply.code for reply in replies]
    code = codes[-1] if codes[0] == "NOERROR" else codes[0]
    if code == "NOERROR":
        return "NODATA"
    return "NXDOMAIN" if code == "NXDOMAIN" else "SERVFAIL" if code == "SERVFAIL" else "REFUSED"
