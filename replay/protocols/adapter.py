"""What a protocol supplies to a run: engine, renderer, connection counts and hooks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import trio

from replay.lane.contract import (
    Address,
    Engine,
    LaneSpec,
    Retry,
    SessionTables,
)
from replay.lane.feed import FeedWriter
from replay.lane.name_watch import NameWatch
from replay.lane.tls import Tls
from replay.plan.schedule import DueBatch
from replay.results.document import (
    KafkaFigures,
    Note,
    RouteStart,
    TlsPeer,
)


class Renderer(Protocol):
    """Writes due rows into a lane's feed, in the form that the target receives."""

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
        """Write a lane's share of the rows from `row` on, and return the row to continue with.

        It stops before the first row that is due after `horizon_ns`, or when the feed is full. LimitError if a request
        is larger than the feed.
        """
        ...

    def route(self, batch: DueBatch, row: int) -> int:
        """Return the route of a row that never reached a feed."""
        ...


async def _nothing(_specs: Sequence[LaneSpec]) -> list[Note]:
    """Return no notes: the default of `ProtocolAdapter.afterwards`."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolAdapter:
    """What a protocol supplies to a run for one target.

    `connections[i]` is the number of connections of lane i. `feed` is the number of entries and the ring bytes
    of each lane's feed.

    `name` follows the target's name during the run. `tls` says how connections are secured, and `peer`
    describes the TLS server that responded. `portable_because` says why native lanes cannot run.

    `tick_ns` is intended lateness: due requests are collected for that long before they are sent. `trace_seed`
    is the seed of the requests' trace ids, 0 if they have no traceparent. With `keeps_responses` its lanes can
    keep responses. `rules` has the labels of the captures and checks that are counted.

    `close` is called when the run ends, also if the run could not begin. `figures` and `notes` are called after
    the last lane has ended. `background` runs beside the lanes until then. `afterwards` examines the target
    after a run that was not interrupted, and returns notes.

    `consumed` lists the histograms that a consumer fills. `lag` returns the consumer's current lag by
    partition.

    `cut` is for a protocol that assigns rows to lanes itself. It returns a number for each row of a batch, and
    the row goes to the lane of that number modulo the lanes of all processes. Such a target has one lane in
    each process. Without `cut`, rows are assigned by sequence number or by client.
    """

    engine_name: Literal["native", "portable", "kafka"]
    engine: Engine
    routes: list[RouteStart]
    renderer: Renderer
    connections: list[int]
    feed: tuple[int, int]
    addresses: tuple[Address, ...] = ()
    name: NameWatch | None = None
    tls: Tls | None = None
    peer: TlsPeer | None = None
    portable_because: str = ""
    sessions: SessionTables | None = None
    rules: list[str] = field(default_factory=list)
    retry: Retry | None = None
    trace_seed: int = 0
    tick_ns: int = 0
    keeps_responses: bool = False
    close: Callable[[], None] = field(default=lambda: None)
    figures: Callable[[], KafkaFigures | None] = field(default=lambda: None)
    consumed: tuple[str, ...] = ()
    lag: Callable[[], dict[str, int]] = field(default=dict)
    cut: Callable[[DueBatch], npt.NDArray[np.int64]] | None = None
    background: Callable[[], Awaitable[None]] = field(default=trio.lowlevel.checkpoint)
    notes: Callable[[], list[Note]] = field(default=list)
    afterwards: Callable[[Sequence[LaneSpec]], Awaitable[list[Note]]] = field(default=_nothing)

    def started_routes(self) -> list[RouteStart]:
        """Return the routes, each with whether its requests have a traceparent."""
        return [msgspec.structs.replace(route, traced=bool(self.trace_seed)) for route in self.routes]
