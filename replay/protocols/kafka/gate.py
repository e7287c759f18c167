"""The gate of every connection to a Kafka cluster: no socket is connected to a host that is not allowed.

A cluster's metadata decides where its clients connect: brokers, leaders and coordinators are at the addresses that it
advertises, and those may change at any time. aiokafka opens all its connections through `asyncio`'s event loop, and
sends credentials on each. So the check is in the loop, just before `connect`, and uses the resolved address. A name
that is resolved again is checked again.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from replay.errors import LimitError

Check = Callable[[str, Sequence[str]], None]
"""Called with a host and its addresses; raises LimitError if they must not be connected to."""

PLACE = "kafka_place"
"""Attribute of an OSError: the `HOST:PORT` that could not be connected to."""

_host: ContextVar[str] = ContextVar("_host", default="")
"""The host that the current task connects to, as the cluster or the user spelled it."""


class HostRefusedError(ConnectionError):
    """Raised in place of a connection to a host that is not allowed. aiokafka treats it like any failed connection."""

    def __init__(self, limit: LimitError) -> None:
        super().__init__(str(limit))
        self.limit = limit


class Gate:
    """Checks each address before a connection is made.

    `refused` has the reason by host. `on_refusal` is called at each refusal, in the thread that tried to
    connect.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self.refused: dict[str, LimitError] = {}
        self.on_refusal: Callable[[], object] = lambda: None

    def check(self, host: str, address: str) -> None:
        """Raise HostRefusedError if this address of a host is not allowed."""
        try:
            self._check(host, [address])
        except LimitError as error:
            self.refused.setdefault(host, error)
            self.on_refusal()
            raise HostRefusedError(error) from None

    def dial(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Open a blocking connection. OSError if it fails, HostRefusedError if it is not allowed."""
        failure: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            self.check(host, str(address[0]))
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(timeout_s)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
            else:
                return sock
        raise failure or OSError(f"{host} has no address")


class GatedLoop(asyncio.SelectorEventLoop):
    """An event loop that connects only to addresses that its gate allows."""

    def __init__(self, gate: Gate, selector: selectors.BaseSelector | None = None) -> None:
        super().__init__(selector)
        self._gate = gate

    async def create_connection(  # type: ignore[override]
        self, protocol_factory: Any, host: str | None = None, port: Any = None, **options: Any
    ) -> Any:
        """See asyncio."""
        token = _host.set(host or "")
        try:
            return await super().create_connection(protocol_factory, host, port, **options)
        except OSError as error:
            setattr(error, PLACE, f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}")
            raise
        finally:
            _host.reset(token)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """See asyncio. HostRefusedError if the address is not allowed: no byte is sent to it."""
        self._gate.check(_host.get() or str(address[0]), str(address[0]))
        await super().sock_connect(sock, address)
