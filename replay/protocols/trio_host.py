"""The host of protocols that are written in plain Trio. `docs/adding.md` has an example.

A protocol is a class for its connections, and a function that writes what is sent for a recorded request:

    class EchoConnection(TrioConnection):
        async def connect(self, address: Address) -> None: ...
        async def send(self, request: Request) -> Outcome: ...

    PROTOCOL = TrioProtocol("echo", EchoConnection, render=lambda row: row.target + b"\\n")

The portable engine does the rest: the schedule, the pool of connections, time limits, retries, stamps, histograms and
accounts are those of every run (docs/lane-contract.md).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from replay.errors import UsageError
from replay.lane import sizing
from replay.lane.contract import Address, LaneSpec
from replay.lane.feed import FeedWriter
from replay.lane.retries import retry_of
from replay.plan.schedule import DueBatch, Schedule
from replay.portable.engine import run_lane
from replay.portable.protocol import (
    OK,
    Connection,
    HandshakeError,
    Outcome,
    Request,
    Transport,
)
from replay.portable.turns import Turns
from replay.settings.scenario import Scenario
from replay.settings.target import Target
from replay.trace import Requests
from replay.trace.requests import Headers
from replay_native.feed.addresses import A
from replay_native.feed.ring import IDEMPOTENT, STATUS_SHIFT, WARM_UP

from .adapter import ProtocolAdapter
from .feeder import checked
from .names import FoundName, check_target, find_name, follow_name
from .protocol import Found, Protocol, TargetPlan
from .routes import route_starts
from .url import parse_url

__all__ = [
    "OK", "Address", "Connection", "HandshakeError", "Outcome", "Request", "Row", "TrioConnection", "TrioProtocol",
]  # fmt: skip

SAMPLE_ROWS = 200
"""Rows that are rendered to estimate how large requests are."""

RING_BYTES_MIN = 1 << 20


class TrioConnection(Connection):
    """One connection of the pool, made without arguments and then connected. It sends one request at a time."""

    async def connect(self, address: Address) -> None:
        """Connect to the address. OSError if that fails; the error decides the outcome of the waiting request."""

    @abstractmethod
    async def send(self, request: Request) -> Outcome:
        """Send `request.data` and await the response. Cancelled at the time limit.

        Set `request.first_byte_ns` to time.monotonic_ns() when the response begins, and count `bytes_sent` and
        `bytes_received`. Return an Outcome or raise OSError for a failure. `OK` stands for a complete response
        in a protocol without statuses.
        """


@dataclass(frozen=True, slots=True)
class Row:
    """A recorded request that is due.

    `seq` is its sequence number. `status` is the recorded status, -1 if it is not known. `at_ns` is when it was
    recorded, in nanoseconds since the epoch.
    """

    seq: int
    client: int
    method: str
    target: bytes
    route: str
    status: int
    at_ns: int
    _index: int
    _requests: Requests

    @property
    def headers(self) -> Headers:
        """The recorded headers; empty if they were not recorded."""
        place = self._requests.get(self._index).headers
        return self._requests.headers(place) if place >= 0 else ()

    @property
    def body(self) -> bytes:
        """The recorded body; empty if it was not recorded."""
        place = self._requests.get(self._index).body
        return self._requests.body(place) if place >= 0 else b""


Render = Callable[[Row], bytes]
"""Returns the bytes that are sent for a recorded request."""


class TrioProtocol(Protocol):
    """A protocol in plain Trio, for targets `SCHEME://HOST[:PORT]`.

    Without a `default_port` a URL must have a port. `connection` makes a connection that is not connected yet. With
    `has_statuses`, outcomes have statuses like those of HTTP, which are compared with the recorded ones. With
    `is_idempotent`, a request is resent once if a reused connection closes without a response. Without `by_tcp` no
    TCP connection is tried before the run.
    """

    def __init__(
        self,
        scheme: str,
        connection: Callable[[], TrioConnection],
        *,
        render: Render,
        default_port: int | None = None,
        has_statuses: bool = False,
        is_idempotent: bool = False,
        by_tcp: bool = True,
    ) -> None:
        self.scheme, self.connection, self.render = scheme, connection, render
        self.has_statuses, self.is_idempotent, self.by_tcp = has_statuses, is_idempotent, by_tcp
        self._default_port = default_port

    def parse(self, url: str) -> Target:
        """See `Protocol`."""
        target = parse_url(url, self._default_port)
        if target.base_path:
            raise UsageError(
                f"the target {url!r} has a path, which a target of {self.scheme}:// cannot have",
                hint=f"write {self.scheme}://{target.authority}",
            )
        return target

    async def find(self, target: Target, scenario: Scenario) -> Found:
        """See `Protocol`."""
        return await find_name(target, scenario)

    def plan(self, schedule: Schedule, found: Found) -> TargetPlan:
        """See `Protocol`."""
        return _TrioPlan(schedule, found, self)


class _TrioPlan(TargetPlan):
    def __init__(self, schedule: Schedule, found: Found, protocol: TrioProtocol) -> None:
        super().__init__(schedule, found)
        self._protocol = protocol

    def check(self) -> None:
        """See `TargetPlan`."""
        check_target(self.schedule, self.found)
        sizing.check_sockets(self.schedule.plan, self.schedule.scenario, len(self.found.hosts))

    async def open(self, run_id: str, first_route: int) -> ProtocolAdapter:
        """See `TargetPlan`."""
        schedule, scenario, protocol = self.schedule, self.schedule.scenario, self._protocol
        assert isinstance(self.found, FoundName)
        name = await follow_name(schedule, self.found, by_tcp=protocol.by_tcp)
        renderer = _RowRenderer(schedule, protocol)
        entries, ring_bytes = sizing.feed_size(schedule, scenario, renderer.typical_bytes(), 1)

        async def engine(spec: LaneSpec) -> None:
            await run_lane(spec, _Connecting(spec, protocol.connection))

        return ProtocolAdapter(
            engine_name="portable",
            engine=engine,
            routes=route_starts(schedule),
            renderer=renderer,
            connections=sizing.connections_for(schedule.plan, scenario, 1),
            feed=(entries, max(ring_bytes, RING_BYTES_MIN)),
            addresses=name.addresses,
            name=name,
            retry=retry_of(scenario),
        )


class _Connecting(Transport):
    """Connects to the addresses of a lane's table in turn."""

    def __init__(self, spec: LaneSpec, connection: Callable[[], TrioConnection]) -> None:
        self._turns, self._counts = Turns(spec.metrics, spec.number, spec.ask), spec.metrics.address_counts
        self._connection = connection

    async def connect(self, client: int) -> Connection:
        row, address = await self._turns.next()
        self._counts[row, A.connects] += 1
        connection = self._connection()
        connection.address = row
        try:
            await connection.connect(address)
        except BaseException:
            self._counts[row, A.connects_failed] += 1
            raise
        return connection


class _RowRenderer:
    """Writes due rows with a protocol's `render` function, one row at a time, so it is slower than a render kernel."""

    def __init__(self, schedule: Schedule, protocol: TrioProtocol) -> None:
        self._schedule, self._requests = schedule, schedule.trace.requests
        self._render = protocol.render
        self._flags = IDEMPOTENT if protocol.is_idempotent else 0
        self._has_statuses = protocol.has_statuses

    def typical_bytes(self) -> int:
        """Return twice the mean size of the first requests, at least 64 bytes, to size a feed."""
        rows = ((batch, number) for batch in self._schedule.batches() for number in range(len(batch)))
        sizes = [len(self._render(self._row(*place))) for place in islice(rows, SAMPLE_ROWS)]
        return max(64, 2 * sum(sizes) // max(len(sizes), 1))

    def render(
        self,
        batch: DueBatch,
        row: int,
        lane: int,
        lanes: int,
        start_ns: int,
        horizon_ns: int,
        writer: FeedWriter,
    ) -> int:
        """See `Renderer`. Protocols in plain Trio have one lane."""
        while row < len(batch):
            due_ns = int(batch.due_ns[row])
            if due_ns + start_ns > horizon_ns:
                break
            due = self._row(batch, row)
            data = self._render(due)
            if len(data) > writer.feed.ring.size:
                return checked(-1 - row, batch, writer)
            flags = self._flags
            if self._has_statuses and due.status > 0:
                flags |= due.status << STATUS_SHIFT
            if due_ns < self._schedule.warm_up_ns:
                flags |= WARM_UP
            if not writer.push_nowait(
                due_ns + start_ns, due.seq, data, client=due.client, route=int(batch.route[row]), flags=flags
            ):
                break
            row += 1
        return row

    def route(self, batch: DueBatch, row: int) -> int:
        """Return the row's route in the trace."""
        return int(batch.route[row])

    def _row(self, batch: DueBatch, row: int) -> Row:
        index = int(batch.request[row])
        request = self._requests.get(index)
        return Row(
            seq=batch.first_seq + row,
            client=int(batch.client[row]),
            method=self._requests.methods[request.method],
            target=request.target,
            route=self._requests.routes[request.route],
            status=int(batch.status[row]),
            at_ns=int(batch.at_ns[row]),
            _index=index,
            _requests=self._requests,
        )
