"""Exchanges: a received request and, behind a proxy, its response, as passed to the recorder and other users."""

from __future__ import annotations

import ipaddress
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from replay.trace.requests import Headers

from .framing import RequestHead

_FORWARDED_FOR = re.compile(rb"(?:^|[;,])[ \t]*for=\"?(\[[0-9A-Fa-f:.]+\]|[^\";,\s]+)", re.IGNORECASE)
_PORT = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}):\d+|\[([^\]]+)\](?::\d+)?")


class Response(msgspec.Struct, array_like=True):
    """A recorded response.

    `size` is the length of the body as received, without its transfer coding, and `digest` is its XXH64. `body` is
    None if it was not kept; with `cut`, it is only the beginning. `complete` is false if the body did not arrive
    completely, or if its framing was malformed.
    """

    headers: Headers
    size: int
    digest: int
    body: bytes | None = None
    cut: bool = False
    complete: bool = True


class Exchange(msgspec.Struct, array_like=True):
    """A request as sent, with its response if one arrived. -1 means unknown.

    `at_ns` is when the first byte of the request was read, in ns since the Unix epoch. `first_byte_ns` and
    `took_ns` are the times from then to the first and the last byte of the response. `headers` are complete and in
    order. `client` is the address of the original client. `body` is None if it was not kept whole; `body_bytes` is
    the size of what was received of it.
    """

    at_ns: int
    method: str
    target: bytes
    host: str
    headers: Headers
    client: str
    body: bytes | None = b""
    body_bytes: int = 0
    status: int = -1
    took_ns: int = -1
    first_byte_ns: int = -1
    response: Response | None = None


@dataclass(slots=True)
class Accounts:
    """Counts of requests and of their results, by name.

    `counts["requests"]` is the number of requests with a valid head. Each of them is either passed on or counted in
    `lost`; `incomplete` counts those that were passed on without a part.

    `refused` counts requests for which RefusedError was raised, by reason. A request that is refused because of its
    body also counts in `requests`, and in `lost` unless it was already passed on.
    """

    counts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    incomplete: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class Budget:
    """A memory limit that all bodies of a receiver or a proxy share."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max, self.used = bytes_max, 0

    def take(self, count: int) -> bool:
        """Reserve this many bytes, and return whether they were available."""
        if self.used + count > self._bytes_max:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """Release this many bytes that `take` reserved."""
        self.used -= count


class KeptBody:
    """The beginning of a body, limited in size and by available memory, and the number of bytes received.

    `whole` is false if any received byte was not kept, and `starved` is true if memory was short.
    """

    __slots__ = ("_budget", "_limit", "data", "size", "starved", "whole")

    def __init__(self, limit: int, budget: Budget) -> None:
        self._limit, self._budget = limit, budget
        self.data, self.size, self.whole, self.starved = bytearray(), 0, True, False

    def add(self, piece: memoryview) -> None:
        """Add the next piece up to the limit, or nothing if memory is short.

        Once a byte was not kept, further pieces only count in `size`.
        """
        self.size += len(piece)
        if not self.whole:
            return
        room = self._limit - len(self.data)
        if len(piece) > room:
            self.whole, piece = False, piece[: max(room, 0)]
        if self._budget.take(len(piece)):
            self.data += piece
        else:
            self.whole, self.starved = False, True

    def give_up(self) -> None:
        """Release the memory of the body, which was passed on or will not be recorded."""
        self._budget.give_back(len(self.data))
        self.data = bytearray()


class Clock:
    """A wall clock that never jumps: the wall clock's time at the start plus the time elapsed since.

    If the system's clock is set during a recording, order and intervals stay correct.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    @property
    def offset_ns(self) -> int:
        """Return the difference between this clock and the monotonic clock, in ns."""
        return self._offset_ns

    def now_ns(self) -> int:
        """Return the present time in ns since the Unix epoch."""
        return time.monotonic_ns() + self._offset_ns

    def set_by_ns(self) -> int:
        """Return how far the system's wall clock is ahead of this one; it is about 0 unless that clock was set."""
        return time.time_ns() - self.now_ns()


class Clients:
    """Determines the address of the client that sent a request.

    It is the address that the peer forwards if the peer is on this machine or in a private network, otherwise the
    peer's own.
    """

    def __init__(self) -> None:
        self._is_proxy: dict[str, bool] = {}

    def of(self, peer: str, headers: Headers) -> str:
        """Return the client's address: the one that a trusted peer forwards, otherwise the peer's own."""
        return (forwarded_client(headers) or peer) if self.is_proxy(peer) else peer

    def is_proxy(self, peer: str) -> bool:
        """Return whether a peer is trusted to forward the address of another client."""
        is_proxy = self._is_proxy.get(peer)
        if is_proxy is None:
            if len(self._is_proxy) > 1 << 16:
                self._is_proxy.clear()
            is_proxy = self._is_proxy[peer] = _is_near(peer)
        return is_proxy


def _is_near(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return True
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_private or address.is_link_local


def forwarded_client(headers: Headers) -> str:
    """Return the client in the first of X-Forwarded-For, Forwarded and X-Real-IP that has one, or "" if none has."""
    found = {"x-forwarded-for": "", "forwarded": "", "x-real-ip": ""}
    for name, value in headers:
        if len(name) not in (9, 15) or value is None:
            continue
        lowered = name.lower()
        if lowered == b"x-forwarded-for":
            found["x-forwarded-for"] = found["x-forwarded-for"] or value.partition(b",")[0].decode("latin-1")
        elif lowered == b"x-real-ip":
            found["x-real-ip"] = found["x-real-ip"] or value.decode("latin-1")
        elif lowered == b"forwarded" and (named := _FORWARDED_FOR.search(value)):
            found["forwarded"] = found["forwarded"] or named[1].decode("latin-1")
    return next((_plain(text.strip()) for text in found.values() if text.strip()), "")


def _plain(address: str) -> str:
    """Return an address without brackets, and without the port of an IPv4 or a bracketed address."""
    match = _PORT.fullmatch(address)
    return (match[1] or match[2]) if match else address


def exchange_of(head: RequestHead, at_ns: int, client: str, kept: KeptBody) -> Exchange:
    """Return the exchange that consists of a request's head and body."""
    return Exchange(
        at_ns=at_ns,
        method=head.method.decode("latin-1"),
        target=head.target,
        host=head.host.decode("latin-1").lower(),
        headers=head.headers,
        client=client,
        body=bytes(kept.data) if kept.whole else None,
        body_bytes=kept.size,
    )
