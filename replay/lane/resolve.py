"""Resolves the target's name to the addresses that lanes connect to, each checked against the allowed ones."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from typing import NamedTuple

import trio

from replay.errors import TargetError
from replay.names import (
    Answer,
    NameFailure,
    Query,
    lookup,
    read_settings,
)
from replay.names.failures import show_server
from replay.plan.safety import check_addresses
from replay.settings.scenario import Scenario
from replay.settings.target import Target

from .contract import Address

REACHABLE_S = 5.0
TRIED_MAX = 12
"""Addresses of one family that are tried before the target counts as unreachable: a minute if none responds."""

OTHER_MEANS_S = 2.0


class Lookups:
    """Looks one name up repeatedly and measures it. The times are those of completed lookups."""

    def __init__(self, name: str, resolver: str) -> None:
        self.name, self._resolver = name, resolver
        self.count = self.failed = self.queries = self.ended = 0
        self.answers: Counter[str] = Counter()
        self.total_ns = self.longest_ns = 0

    async def one(self) -> Answer:
        """Look the name up with the machine's current settings. NameFailure if no address was found."""
        begin = time.monotonic_ns()
        self.count += 1
        try:
            answer = await lookup(self.name, read_settings(self._resolver), self._note)
        except NameFailure:
            self.failed += 1
            self._ended(begin)
            raise
        self._ended(begin)
        return answer

    def servers(self) -> str:
        """Return the name servers in use, for messages."""
        return " and ".join(show_server(server) for server in read_settings(self._resolver).servers)

    def _ended(self, begin_ns: int) -> None:
        took_ns = time.monotonic_ns() - begin_ns
        self.ended += 1
        self.total_ns += took_ns
        self.longest_ns = max(self.longest_ns, took_ns)

    def _note(self, query: Query) -> None:
        self.queries += 1
        self.answers[query.answer] += 1


class Reachable(NamedTuple):
    """The addresses in use, and those left out, as texts `ADDRESS (why)`."""

    addresses: tuple[Address, ...]
    left_out: tuple[str, ...]


async def resolve(target: Target, scenario: Scenario) -> tuple[Address, ...]:
    """Return the target's distinct addresses, in the order of the hosts file or, from DNS, with IPv4 first.

    TargetError if the name has none; LimitError if one is not allowed.
    """
    return (await look_up(target, scenario, Lookups(target.host, scenario.resolver)))[0]


async def look_up(target: Target, scenario: Scenario, lookups: Lookups) -> tuple[tuple[Address, ...], Answer]:
    """Resolve as `resolve` does, with these `lookups`, and also return the lookup's answer."""
    try:
        answer = await lookups.one()
    except NameFailure as error:
        hint = "" if scenario.resolver else await _by_other_means(target.host)
        raise TargetError(
            f"the target {target.host} has no address: {error}", hint=hint or error.hint
        ) from None
    check_addresses(target.host, answer.addresses, scenario)
    return places(answer, target.port), answer


async def _by_other_means(host: str) -> str:
    """Return advice for a name that this machine knows by other means (mDNS, NIS) than hosts and DNS.

    Empty if it does not know the name, or finds no address within OTHER_MEANS_S.
    """
    with trio.move_on_after(OTHER_MEANS_S), contextlib.suppress(OSError):
        found = await trio.socket.getaddrinfo(host, None)
        return (
            f"this machine finds {found[0][4][0]} for it, but not through /etc/hosts or DNS:"
            f" use that address in --target, and --host {host}"
        )
    return ""


def places(answer: Answer, port: int) -> tuple[Address, ...]:
    """Return the addresses of an answer in the form that lanes use."""
    return tuple(Address(host, port, ":" in host) for host in answer.addresses)


async def check_reachable(
    addresses: tuple[Address, ...], name: str = "", timeout_s: float = REACHABLE_S
) -> Reachable:
    """Check before the run which families of addresses accept connections. TargetError if none does.

    The addresses of a family are tried one after another until one accepts, at most TRIED_MAX of them.
    A family without a working address is left out if the other works, as in any client with Happy Eyeballs (RFC
    8305). If a family works, its failing addresses stay in use: they are the target's own behaviour.
    """
    used: list[Address] = []
    left_out: list[str] = []
    for ipv6 in (False, True):
        family = [address for address in addresses if address.ipv6 == ipv6]
        problems = [await _problem(address, timeout_s) for address in family[:1]]
        while problems and problems[-1] and len(problems) < min(len(family), TRIED_MAX):
            problems.append(await _problem(family[len(problems)], timeout_s))
        if family and not problems[-1]:
            used += family
        else:
            left_out += [
                f"{address.host} ({problem})" for address, problem in zip(family, problems, strict=False)
            ]
            if len(family) > len(problems):
                left_out.append(f"{len(family) - len(problems):,} more addresses (not tried)")
    if used:
        return Reachable(tuple(address for address in addresses if address in used), tuple(left_out))
    place = ", ".join(f"{address.host}:{address.port}" for address in addresses[:TRIED_MAX])
    if name and name != addresses[0].host:
        place = f"{name} ({place})"
    problem = left_out[0].partition("(")[2].rstrip(")") if left_out else "no answer"
    raise TargetError(
        f"the target {place} does not accept connections: {problem}",
        hint="check host and port; a firewall may drop the packets"
        if problem.startswith("no answer")
        else "start it, or check host and port",
    )


async def _problem(address: Address, timeout_s: float) -> str:
    """Return why an address does not accept a connection; empty if it does."""
    try:
        with trio.fail_after(timeout_s):
            stream = await trio.open_tcp_stream(address.host, address.port)
            await stream.aclose()
    except trio.TooSlowError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return _why(error)
    return ""


def _why(error: OSError) -> str:
    """Return the system's message for a failed connection; after several attempts, for the first one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        else:
            cause = cause.__cause__
    return str(error)
