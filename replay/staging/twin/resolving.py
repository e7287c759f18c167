"""Names in a twin: the name server with its quota, and the resolver of each service.

The server is the project's own DNS server. Lookups are those of `replay.names`, which models the C library.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode

from replay.names.exchange import Query
from replay.names.failures import NameFailure
from replay.names.lookup import lookup
from replay.names.settings import Settings
from replay.staging.dns_server import DnsServer

from .clock import clock_ns
from .policies import Quota
from .spec import DNS, Dns
from .world import Address, World

HOST = "127.0.0.1"


class NameLookupError(Exception):
    """A name could not be looked up."""


class QuotaServer(DnsServer):
    """A DNS server that answers SERVFAIL beyond its quota of queries per second.

    `on_query` is called for each query, with whether it was within the quota. Two threads call it, one query at a
    time.
    """

    def __init__(
        self,
        settings: Dns,
        on_query: Callable[[bool], None],
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__()
        self._settings, self._on_query, self._monotonic_ns = settings, on_query, monotonic_ns
        self._quota = Quota()
        self._one_query = threading.Lock()

    def _reply(self, data: bytes, by_tcp: bool) -> bytes | None:
        with self._one_query:
            is_within = self._quota.admit(self._settings.quota, self._monotonic_ns())
            self._on_query(is_within)
        if is_within:
            # The list of queries is only for tests, and it would grow for hours in a twin.
            self.asked.clear()
            return super()._reply(data, by_tcp)
        return servfail(data)


def servfail(data: bytes) -> bytes | None:
    """Return the SERVFAIL answer to a query; None if the query is too short."""
    if len(data) < 12:
        return None
    flags = bytes((0x80 | (data[2] & 0x79), 0x80 | dns.rcode.SERVFAIL))
    return data[:2] + flags + data[4:6] + b"\0\0\0\0\0\0" + _question(data)


def _question(data: bytes) -> bytes:
    """Return the bytes of a query's first question."""
    at = 12
    while at < len(data) and data[at]:
        at += data[at] + 1
    return data[12 : at + 5]


class Resolver:
    """Looks up names for one service, with its cache. Without [dns], all addresses are known."""

    def __init__(self, world: World, service: str) -> None:
        self._world, self._service = world, service
        self._cached: dict[str, tuple[str, int]] = {}
        if world.twin.dns is not None:
            world.figures.declare(
                f"{service}.lookups",
                f"{service}.lookup_failures",
                f"{service}.lookup_hits",
                f"{service}.dns_queries",
            )

    async def address_of(self, service: str, name: str, otherwise: str) -> str:
        """Return the address of a service; `otherwise` if there is no [dns].

        `name` is the name to look up; if it is empty, it follows from `dns.names`. Raises NameLookupError if it cannot
        be looked up.
        """
        given = self._world.twin.dns
        if given is None or self._world.dns is None:
            return otherwise
        name = name or name_of(given, service)
        now_ns = clock_ns()
        figures = self._world.figures
        if given.cache_ns and name in self._cached and now_ns - self._cached[name][1] < given.cache_ns:
            figures.count(f"{self._service}.lookup_hits")
            return self._cached[name][0]
        figures.count(f"{self._service}.lookups")
        try:
            answer = await lookup(name, settings_of(given, self._world.dns), self._note)
        except NameFailure as error:
            figures.count(f"{self._service}.lookup_failures")
            raise NameLookupError(f"{name}: {error.why}") from None
        self._cached[name] = answer.addresses[0], now_ns
        return answer.addresses[0]

    def _note(self, query: Query) -> None:
        self._world.figures.count(f"{self._service}.dns_queries")


def name_of(given: Dns, service: str) -> str:
    """Return the name of a service as calls write it."""
    return {
        "short": service,
        "relative": f"{service}.{given.domain}",
        "absolute": f"{service}.{given.domain}.",
    }[given.names]


def settings_of(given: Dns, server: Address) -> Settings:
    """Return the resolver's settings, in terms of resolv.conf."""
    return Settings(
        servers=(server,), search=given.search, ndots=given.ndots, timeout_s=given.timeout_s,
        attempts=given.attempts,
    )  # fmt: skip


def watch_quota(world: World) -> Callable[[bool], None]:
    """Return a function that counts queries, and those that the quota refuses."""
    assert world.twin.dns is not None
    given, figures = world.twin.dns, world.figures
    figures.declare(f"{DNS}.queries", f"{DNS}.refused")
    figures.limit(f"{DNS}.queries_per_s", lambda: given.quota)

    def on_query(is_within: bool) -> None:
        figures.count(f"{DNS}.queries")
        if not is_within:
            figures.count(f"{DNS}.refused")
            world.log.note(DNS, "quota_hit", f"{given.quota:,} queries were answered within the last second")

    return on_query
