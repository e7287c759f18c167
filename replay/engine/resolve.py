"""From the target's name to the addresses that lanes connect to, each checked against what is allowed."""

from __future__ import annotations

import os
import socket

import trio

from replay.errors import TargetError
from replay.safety import check_addresses
from replay.scenario import Scenario, Target

from .contract import Address


async def resolve(target: Target, scenario: Scenario) -> tuple[Address, ...]:
    """The target's addresses, in the resolver's order, each once.

    TargetError where the name has none; LimitError where one of them is not allowed.
    """
    try:
        found = await trio.socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise TargetError(
            f"the target {target.host} has no address: {error.strerror or error}",
            hint="check the name in --target; `getent hosts NAME` asks the same resolver",
        ) from None
    hosts = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    check_addresses(target.host, hosts, scenario)
    return tuple(Address(host, target.port, ":" in host) for host in hosts)


async def check_reachable(addresses: tuple[Address, ...], timeout_s: float = 5.0) -> None:
    """One connection before the run starts: TargetError where no address takes it."""
    problem = "no answer"
    for address in addresses:
        try:
            with trio.fail_after(timeout_s):
                stream = await trio.open_tcp_stream(address.host, address.port)
                await stream.aclose()
                return
        except trio.TooSlowError:
            problem = f"no answer within {timeout_s:g} s"
        except OSError as error:
            problem = _why(error)
    place = ", ".join(f"{address.host}:{address.port}" for address in addresses)
    raise TargetError(
        f"the target {place} does not take connections: {problem}", hint="start it, or check host and port"
    )


def _why(error: OSError) -> str:
    """The reason at the bottom of what Trio raises for one or several attempts."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        elif isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        else:
            cause = cause.__cause__
    return str(error)
