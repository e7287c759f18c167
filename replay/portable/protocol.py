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
    """One rendered request, and what its protocol notes of it on the way, so that a time-out finds it.

    `first_byte_ns` is CLOCK_MONOTONIC when the answer's first bytes were read, -1 without any;
    `informational` counts answers that were not the last. Where `is_evaluated` the protocol leaves the answer's bytes, up
    to `answer_limit` of its `answer_bytes`, and the size of its body, for captures and checks.
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
        """Forget what is left of an attempt, before the next one."""
        self.first_byte_ns = -1
        self.bytes_sent = self.bytes_received = self.informational = self.answer_bytes = self.answer_size = 0
        self.answer.clear()

    @property
    def is_evaluated(self) -> bool:
        """Captures or checks look at its answer."""
        return bool(self.flags & EVALUATED)

    @property
    def patches(self) -> int:
        """How many patches stand behind its bytes, as they came by the feed."""
        return self.flags >> PATCHES_SHIFT & PATCHES_MASK

    @property
    def recorded_status(self) -> int:
        """What the recording says that it was answered with; 0: it says nothing."""
        return self.flags >> STATUS_SHIFT

    @property
    def is_head(self) -> bool:
        """Its answer has no body, whatever its headers say."""
        return bool(self.flags & HEAD)

    @property
    def is_idempotent(self) -> bool:
        """It may be sent once more where a reused connection was closed under it."""
        return bool(self.flags & IDEMPOTENT)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended: a whole answer has a status from 200 to 599, else `failure` is an index of
    OUTCOMES.

    `reusable`: the connection may carry another request. `stale`: it ended before any byte of the answer; where it
    had served before, an idempotent request is sent once more on a new one. `unread`: the server said so, and that it
    had not read the request, so any request is sent once more. `reason`, an index of `http1.REASONS`: why the answer
    was malformed, and `beginning` its first bytes.
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
        """Its index in `replay_native.ledger.lane_metrics.OUTCOMES`."""
        if self.failure:
            return self.failure
        whole = self.status // 100 - 2
        return whole if 0 <= whole < REFUSED else MALFORMED


OK = Outcome(status=200, reusable=True)
"""A whole response, of a protocol that has no statuses; the connection may carry another request."""


class HandshakeError(OSError):
    """Raised by `connect`: a connection was there, but could not be secured."""


class Connection(ABC):
    """One connection of the pool. It carries one request at a time. `address` is its row of the lane's address table,
    -1 where it has none.
    """

    address: int = -1

    @abstractmethod
    async def send(self, request: Request) -> Outcome:
        """Send a request and read its response. A failure is an Outcome, or an OSError. Cancelled at the time limit."""

    def is_open(self) -> bool:
        """Whether it still looks usable, without waiting: asked before it is used again."""
        return True

    def close(self, *, abort: bool = False) -> None:  # noqa: B027
        """Give it back at once; with `abort` the other side may learn it by a reset."""


class Evaluated(NamedTuple):
    """What was found in a response. `is_whole` is false where the response was longer than what is kept of it."""

    found: Evaluation = Evaluation(0, -1, 0)
    is_whole: bool = True


class Transport(ABC):
    """How the connections of a lane are made, and what becomes of responses. `answer_limit` bytes of each are kept."""

    answer_limit: int = 0

    @abstractmethod
    async def connect(self, client: int) -> Connection:
        """Make a connection for a recorded client, or for everybody (-1).

        OSError says why not; the request that waits for it gets the outcome of its errno.
        """

    def fill_in(self, request: Request) -> bool:
        """Put the client's values into a request; False where one of them is not there, so that it cannot be sent."""
        return True

    def evaluate(self, request: Request, outcome: Outcome) -> Evaluated:
        """Take values from a whole response and check it by rules, where the request `is_evaluated`."""
        return Evaluated()

    def ended(self, request: Request, due_ns: int, outcome: Outcome) -> None:  # noqa: B027
        """A request has ended."""

    def tried_again(self, request: Request) -> None:  # noqa: B027
        """A request will be tried again: nothing counts of the response that it has."""


class Connectionless(Connection, Transport):
    """A transport that is one function, which keeps connections, if it has any, to itself."""

    def __init__(self, send: Callable[[Request], Awaitable[Outcome]]) -> None:
        self._send = send

    async def connect(self, client: int) -> Connectionless:
        """Nothing to connect."""
        return self

    async def send(self, request: Request) -> Outcome:
        """Hand the request to the function."""
        return await self._send(request)
