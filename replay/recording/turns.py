"""Requests with their responses, while they pass through the proxy."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import trio

from replay.trace.responses import BodyDigest

from . import framing
from .body_limits import BODY_BYTES_MAX
from .exchange import Budget, Exchange, KeptBody, Response, exchange_of
from .listening import Limits
from .receiver import BUDGET_BYTES, BodyLimit, fixed_limit

DOWN, UPGRADES = "502 of ours", "upgrades"

NOT_UNDERSTOOD, SERVICE_ENDED = "response not understood", "service ended before its response"
CLIENT_LEFT, CUT_OFF = "client left before its response", "no response until the end"
EARLY = "answered before the whole request"
"""Reasons why an exchange is recorded without a part; DOWN is another one."""

_EMPTY_DIGEST = 0xEF46DB3751D8E999
"""The XXH64 of an empty body."""


@dataclass(slots=True)
class ProxySettings:
    """The settings of a proxy.

    `response_limit` is the maximum number of bytes that are kept of a response's body; 0 keeps no bodies.
    """

    limits: Limits = field(default_factory=Limits)
    body_limit: BodyLimit = field(default_factory=lambda: fixed_limit(BODY_BYTES_MAX))
    response_limit: int = 0
    budget: Budget = field(default_factory=lambda: Budget(BUDGET_BYTES))
    tls: ssl.SSLContext | None = None


class Turn:
    """A request and its response, while either of them passes through the proxy.

    `whole` is true once the whole request has arrived. `settled` is set when it is known whether a requested
    upgrade was accepted; it is None if none was requested.
    """

    __slots__ = (
        "_keeps",
        "at_ns",
        "digest",
        "first_ns",
        "head",
        "kept",
        "response",
        "response_kept",
        "settled",
        "whole",
    )

    def __init__(self, head: framing.RequestHead, at_ns: int, settings: ProxySettings) -> None:
        self.head, self.at_ns, self.first_ns = head, at_ns, -1
        self.kept = KeptBody(settings.body_limit(head), settings.budget)
        self.response_kept = KeptBody(settings.response_limit, settings.budget)
        self.digest: BodyDigest | None = None
        self.response: framing.ResponseHead | None = None
        self.whole = False
        self._keeps = settings.response_limit > 0
        self.settled: trio.Event | None = trio.Event() if head.upgrades else None

    def keep_response(self, piece: memoryview) -> None:
        """Add a piece of the response's body to its digest, and to the kept body up to the limit."""
        if self.digest is None:
            self.digest = BodyDigest()
        self.digest.update(piece)
        self.response_kept.add(piece)

    def give_up(self) -> None:
        """Release the memory of both bodies."""
        self.kept.give_up()
        self.response_kept.give_up()

    def exchange(self, client: str, ended_ns: int) -> Exchange:
        """Return the exchange to record.

        `ended_ns` is the time at which the response was complete, or -1 if it is not complete.
        """
        exchange = exchange_of(self.head, self.at_ns, client, self.kept)
        if not self.whole:
            # The body is incomplete: the service responded before all of it had arrived, or one side disconnected.
            exchange.body = None
        if self.response is None:
            return exchange
        exchange.status = self.response.status
        exchange.first_byte_ns = max(0, self.first_ns - self.at_ns)
        exchange.took_ns = max(0, ended_ns - self.at_ns) if ended_ns >= 0 else -1
        exchange.response = Response(
            headers=self.response.headers,
            size=self.response_kept.size,
            digest=_EMPTY_DIGEST if self.digest is None else self.digest.value,
            body=bytes(self.response_kept.data) if self._keeps else None,
            cut=self._keeps and not self.response_kept.whole,
            complete=ended_ns >= 0,
        )
        return exchange
