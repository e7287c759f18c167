"""The interface between the portable engine and the bytes of a protocol: connect, send one request, close.

The engine owns the schedule, the connections, time limits, stamps and accounts; a transport owns the bytes. The one for
HTTP is `replay.protocols.http1.portable`. For a protocol without connections one function is enough:

    async def send(request: Request) -> Outcome:
        await my_client.call(request.data)
        return Outcome(status=200, reusable=True)

    await run_lane(spec, Connectionless(send))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from replay_native.feed.ring import (
    EVALUATED,
    HEAD,
    IDEMPOTENT,
    PATCHES_MASK,
    PATCHES_SHIFT,
    STATUS_SHIFT,
)
from replay_native.ledger.lane_metrics import MALFORMED, REFUSED
from replay_native.ledger.record import Evaluation


@dataclass(eq=False, slots=True)
class Request:
    """One rendered request, and what the protocol has recorded about its current attempt.

    The protocol updates the request itself, so that the figures of an attempt that times out are known.
    `first_byte_ns` is the CLOCK_MONOTONIC time of the response's first bytes, -1 without any. `informational`
    counts interim responses. If `is_evaluated`, the protocol stores up to `answer_limit` of the response's
    `answer_bytes` in `answer`, and its body size in `answer_size`, for captures and checks.
    """

    data: bytes
    seq: int
    client: int
    route: int
    flags: int
    first_byte_ns: int = -1
    bytes_sent: int = 0
    bytes_received: int = 0
    informational: int = 0
    answer_limit: int = 0
    answer: bytearray = field(default_factory=bytearray)
    answer_bytes: int = 0
    answer_size: int = 0

    def forget_answer(self) -> None:
        """Clear the figures of an attempt before the next one."""
        self.first_byte_ns = -1
        self.bytes_sent = self.bytes_received = self.informational = self.answer_bytes = self.answer_size = 0
        self.answer.clear()

    @property
    def is_evaluated(self) -> bool:
        """Whether captures or checks read the response."""
        return bool(self.flags & EVALUATED)

    @property
    def patches(self) -> int:
        """How many patches follow the request's bytes in the feed."""
        return self.flags >> PATCHES_SHIFT & PATCHES_MASK

    @property
    def recorded_status(self) -> int:
        """The recorded status; 0 if unknown."""
        return self.flags >> STATUS_SHIFT

    @property
    def is_head(self) -> bool:
        """Whether the response has no body, whatever its headers say."""
        return bool(self.flags & HEAD)

    @property
    def is_idempotent(self) -> bool:
        """Whether the request may be sent more than once: on a new connection, or as a retry."""
        return bool(self.flags & IDEMPOTENT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    A complete response has a status from 200 to 599; otherwise `failure` is an index of OUTCOMES. With
    `reusable` the connection can be used for another request.

    `stale` means that the connection closed before any byte of the response. If it was a reused connection, an
    idempotent request is sent again on a new one. `unread` means that the server also stated that it had not
    read the request, so any request is sent again. `reason`, an index of `http1.REASONS`, says why the response
    was malformed, and `beginning` has its first bytes.
    """

    status: int = 0
    failure: int = 0
    reusable: bool = False
    stale: bool = False
    unread: bool = False
    reason: int = 0
    beginning: bytes = b""

    @property
    def code(self) -> int:
        """The index in `replay_native.ledger.lane_metrics.OUTCOMES`; MALFORMED for a status outside 200 to 599."""
        if self.failure:
            return self.failure
        whole = self.status // 100 - 2
        return whole if 0 <= whole < REFUSED else MALFORMED


OK = Outcome(status=200, reusable=True)
"""A complete response of a protocol without statuses; the connection may be used for another request."""


class HandshakeError(OSError):
    """Raised by `connect`: the connection was made but could not be secured."""


class Connection(ABC):
    """One connection of the pool. It sends one request at a time.

    `address` is its row of the lane's address table, -1 without one.
    """

    address: int = -1

    @abstractmethod
    async def send(self, request: Request) -> Outcome:
        """Send a request and read its response. Cancelled at the time limit.

        A failure is returned as an Outcome or raised as an OSError.
        """

    def is_open(self) -> bool:
        """Return whether the connection still seems usable, without waiting.

        The engine calls this before it reuses a connection.
        """
        return True

    def close(self, *, abort: bool = False) -> None:  # noqa: B027
        """Close the connection at once; with `abort` it may be reset."""


class Evaluated(NamedTuple):
    """The results of a response's captures and checks.

    `is_whole` is false if the response was longer than the part that was kept.
    """

    found: Evaluation = Evaluation(0, -1, 0)
    is_whole: bool = True


class Transport(ABC):
    """Makes a lane's connections and handles their responses.

    At most `answer_limit` bytes of a response are kept for captures and checks.
    """

    answer_limit: int = 0

    @abstractmethod
    async def connect(self, client: int) -> Connection:
        """Connect for a recorded client, or make a shared connection (-1).

        OSError if that fails; the error decides the outcome of the waiting request.
        """

    def fill_in(self, request: Request) -> bool:
        """Fill the client's values into a request. False if a value is missing, so that the request cannot be sent."""
        return True

    def evaluate(self, request: Request, outcome: Outcome) -> Evaluated:
        """Capture values from a complete response and check it. Called only if the request `is_evaluated`."""
        return Evaluated()

    def ended(self, request: Request, due_ns: int, outcome: Outcome) -> None:  # noqa: B027
        """Handle the end of a request, after its last attempt."""

    def sent_again(self, request: Request, tries: int, *, resent: bool) -> None:  # noqa: B027
        """Prepare a request for another send.

        `tries` is the number of its attempt. `resent` means that the same attempt is repeated on a new
        connection.
        """

    def tried_again(self, request: Request) -> None:  # noqa: B027
        """Handle the end of an attempt that will be retried: its response does not count."""


class Connectionless(Connection, Transport):
    """A transport made of one function, which manages any connections itself."""

    def __init__(self, send: Callable[[Request], Awaitable[Outcome]]) -> None:
        self._send = send

    async def connect(self, client: int) -> Connectionless:
        """Return the transport itself, because there is nothing to connect."""
        return self

    async def send(self, request: Request) -> Outcome:
        """Pass the request to the function."""
        return await self._send(request)
