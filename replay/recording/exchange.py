"""A request that was received and, behind a proxy, its response: what the recorder and other users get."""

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
    """What came back. `size` counts the body without its transfer coding; `body` is None where it was not kept, `cut` where
    it is only the beginning. `complete` is false where the connection broke off.
    """

    headers: Headers
    size: int
    digest: int
    body: bytes | None = None
    cut: bool = False
    complete: bool = True


class Exchange(msgspec.Struct, array_like=True):
    """A request as it was sent, with its response where one came. -1 is unknown.

    `at_ns` is when its first byte was read, ns since the Unix epoch; `first_byte_ns` and `took_ns` count from there to the
    first and last byte of the response. `headers` are all of them, in their order. `client` is the address of who asked
    first. `body` is None where it was not kept, `body_bytes` its whole size.
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
    """What came, and what became of it, each by its words.

    `counts["requests"]` are requests with a good head; each of them is handed over, or in `lost`. `incomplete` are those
    that were handed over without a part. `refused` were answered by us, never passed on, and are no requests.
    """

    counts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    incomplete: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class Budget:
    """Memory for bodies: those that are being received and those that wait to be written."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max, self.used = bytes_max, 0

    def take(self, count: int) -> bool:
        """Take so many bytes; False where there are not so many left."""
        if self.used + count > self._bytes_max:
            return False
        self.used += count
        return True

    def give_back(self, count: int) -> None:
        """Give so many bytes back."""
        self.used -= count


class KeptBody:
    """The beginning of a body, up to a limit and as far as there is memory, and the size of all of it."""

    __slots__ = ("_budget", "_limit", "data", "size", "starved", "whole")

    def __init__(self, limit: int, budget: Budget) -> None:
        self._limit, self._budget = limit, budget
        self.data, self.size, self.whole, self.starved = bytearray(), 0, True, False

    def add(self, piece: memoryview) -> None:
        """Take the next piece."""
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
        """Free what was kept: it will not be recorded."""
        self._budget.give_back(len(self.data))
        self.data = bytearray()


class Clock:
    """Wall-clock time that never jumps: the wall clock at the start, and the time that has passed since.

    A recording whose clock is set in the middle keeps its order and its distances. `set_by_ns` says by how much it was set.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """Now, ns since the Unix epoch."""
        return time.monotonic_ns() + self._offset_ns

    def set_by_ns(self) -> int:
        """How far the wall clock is now ahead of this one."""
        return time.time_ns() - self.now_ns()


class Clients:
    """Finds out who asked: the peer, or whom the peer names where it is a proxy on this machine or a private network."""

    def __init__(self) -> None:
        self._is_proxy: dict[str, bool] = {}

    def of(self, peer: str, headers: Headers) -> str:
        """The address of the client."""
        is_proxy = self._is_proxy.get(peer)
        if is_proxy is None:
            if len(self._is_proxy) > 1 << 16:
                self._is_proxy.clear()
            is_proxy = self._is_proxy[peer] = _is_near(peer)
        return (forwarded_client(headers) or peer) if is_proxy else peer


def _is_near(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return True
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_private or address.is_link_local


def forwarded_client(headers: Headers) -> str:
    """The first client that a proxy names: in X-Forwarded-For, Forwarded or X-Real-IP. Empty where none does."""
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
    """An address without its port and brackets."""
    match = _PORT.fullmatch(address)
    return (match[1] or match[2]) if match else address


def exchange_of(head: RequestHead, at_ns: int, client: str, kept: KeptBody) -> Exchange:
    """The request of a head and its body."""
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
