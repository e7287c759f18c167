"""One lookup: A and AAAA of each candidate at once, server after server, until one has addresses."""

from __future__ import annotations

import ipaddress
import itertools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.inet
import dns.message
import dns.name
import dns.rcode
import trio

from .failures import NameFailure, Why
from .settings import Server, Settings

KINDS = ("A", "AAAA")
LOCALHOST = ("127.0.0.1", "::1")

_NEXT_SERVER = ("SERVFAIL", "REFUSED", "NOTIMP", "FORMERR", "timeout", "unreachable", "malformed")
_rotations = itertools.count()


@dataclass(frozen=True, slots=True)
class Query:
    """One question put to one server. `answer` is its code in capitals, or timeout, unreachable, malformed, or unanswered
    where the lookup was broken off; `ttl_s` of the addresses, None without any. `by_tcp`: it came by TCP. `sent` is
    how often it was asked: twice where the answer did not fit a datagram.
    """

    name: str
    kind: str
    server: Server
    took_ns: int
    answer: str
    addresses: tuple[str, ...] = ()
    ttl_s: int | None = None
    by_tcp: bool = False
    sent: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """A name's addresses, IPv6 after IPv4, each once. `found` is the name that had them; `ttl_s` is None where nothing
    limits it.
    """

    addresses: tuple[str, ...]
    source: Literal["literal", "hosts", "dns"]
    found: str
    ttl_s: int | None = None


Note = Callable[[Query], None]
"""Called with each query when it ended."""


async def lookup(name: str, settings: Settings, note: Note = lambda query: None) -> Answer:
    """The addresses of a name. NameFailure where it has none."""
    bare = name.rstrip(".").lower()
    try:
        return Answer((str(ipaddress.ip_address(bare)),), "literal", name)
    except ValueError:
        pass
    if bare in settings.hosts:
        return Answer(settings.hosts[bare], "hosts", bare)
    if bare == "localhost" or bare.endswith(".localhost"):
        return Answer(LOCALHOST, "hosts", bare)
    if bare == "invalid" or bare.endswith(".invalid"):
        # RFC 6761, 6.3 and 6.4: nobody is asked for these.
        raise NameFailure("reserved", [], settings, 0.0)
    return await _ask_dns(name, settings, note)


async def _ask_dns(name: str, settings: Settings, note: Note) -> Answer:
    """Candidate after candidate. Only NXDOMAIN, NODATA and SERVFAIL lead on to the next one, as in the C library."""
    begin = time.monotonic()
    asked: list[str] = []
    whys: list[Why] = []
    none: Why = "not a name"
    for candidate in settings.candidates(name):
        asked.append(candidate)
        queries = await _ask_both(candidate, settings, note)
        addresses = tuple(dict.fromkeys(address for query in queries for address in query.addresses))
        if addresses:
            ttls = [query.ttl_s for query in queries if query.ttl_s is not None]
            return Answer(addresses, "dns", candidate, min(ttls, default=0))
        whys.append(_why(queries))
        if whys[-1] not in ("NXDOMAIN", "NODATA", "SERVFAIL", "not a name"):
            break
    order: tuple[Why, ...] = (
        "timeout",
        "unreachable",
        "malformed",
        "REFUSED",
        "SERVFAIL",
        "NODATA",
        "NXDOMAIN",
    )
    why = next((why for why in order if why in whys), none)
    raise NameFailure(why, asked, settings, time.monotonic() - begin)


def _why(queries: list[Query]) -> Why:
    """What the two answers for one candidate amount to: what went wrong comes before what is not there."""
    answers = {query.answer for query in queries}
    known: tuple[Why, ...] = ("timeout", "unreachable", "malformed", "SERVFAIL", "REFUSED", "not a name")
    for why in known:
        if why in answers:
            return why
    if answers == {"NXDOMAIN"}:
        return "NXDOMAIN"
    return "NODATA" if answers <= {"NOERROR", "NXDOMAIN"} else "SERVFAIL"


async def _ask_both(candidate: str, settings: Settings, note: Note) -> list[Query]:
    """A and AAAA of one name, at once."""
    found: dict[str, Query] = {}

    async def one(kind: str) -> None:
        found[kind] = await _ask(candidate, kind, settings, note)

    async with trio.open_nursery() as nursery:
        for kind in KINDS:
            nursery.start_soon(one, kind)
    return [found[kind] for kind in KINDS]


async def _ask(candidate: str, kind: str, settings: Settings, note: Note) -> Query:
    """Server after server, all of them again at each attempt; the last answer where none is good."""
    query = Query(candidate, kind, settings.servers[0], 0, "not a name")
    first = next(_rotations) // len(KINDS) if settings.rotate else 0
    try:
        message = dns.message.make_query(dns.name.from_text(candidate), kind, id=random.getrandbits(16))
    except (dns.exception.DNSException, UnicodeError):
        return query
    for _ in range(settings.attempts):
        for turn in range(len(settings.servers)):
            server = settings.servers[(first + turn) % len(settings.servers)]
            begin = time.monotonic_ns()
            try:
                query = await _exchange(message, candidate, kind, server, settings)
            except trio.Cancelled:
                note(Query(candidate, kind, server, time.monotonic_ns() - begin, "unanswered"))
                raise
            note(query)
            if query.answer not in _NEXT_SERVER:
                return query
    return query


async def _exchange(
    message: dns.message.Message, candidate: str, kind: str, server: Server, settings: Settings
) -> Query:
    """One question to one server, by a datagram from a socket of its own, by TCP where the answer is cut short."""
    begin = time.monotonic_ns()
    host, port = server
    backend = dns.asyncbackend.get_backend("trio")
    by_tcp, sent = settings.by_tcp, 1
    reply: dns.message.Message | None = None
    try:
        with trio.fail_after(settings.timeout_s):
            if not by_tcp:
                try:
                    reply = await _by_datagram(message, server, backend)
                except dns.message.Truncated:
                    by_tcp, sent = True, 2
            if reply is None:
                reply = await dns.asyncquery.tcp(message, host, settings.timeout_s, port, backend=backend)
        answer, addresses, ttl_s = _read(reply)
    except (trio.TooSlowError, dns.exception.Timeout):
        answer, addresses, ttl_s = "timeout", (), None
    except (dns.exception.DNSException, EOFError):
        answer, addresses, ttl_s = "malformed", (), None
    except OSError:
        answer, addresses, ttl_s = "unreachable", (), None
    return Query(candidate, kind, server, time.monotonic_ns() - begin, answer, addresses, ttl_s, by_tcp, sent)


async def _by_datagram(message: dns.message.Message, server: Server, backend: Any) -> dns.message.Message:
    """From a connected socket, so that a port nobody listens on is known at once."""
    host, port = server
    family = dns.inet.af_for_address(host)
    async with await backend.make_socket(family, 2, 0, None, (host, port)) as sock:
        await sock.sendto(message.to_wire(), None, None)
        reply, *_ = await dns.asyncquery.receive_udp(
            sock, None, None, raise_on_truncation=True, ignore_errors=True, query=message
        )
    assert isinstance(reply, dns.message.Message)
    return reply


def _read(reply: dns.message.Message) -> tuple[str, tuple[str, ...], int | None]:
    """Code, addresses and TTL of an answer, along its chain of names."""
    code = dns.rcode.to_text(reply.rcode())
    if code != "NOERROR":
        return code, (), None
    assert isinstance(reply, dns.message.QueryMessage)
    chain = reply.resolve_chaining()
    if chain.answer is None:
        return code, (), None
    return code, tuple(record.address for record in chain.answer), chain.minimum_ttl
