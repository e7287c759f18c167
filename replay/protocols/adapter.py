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
        """Write a lane's share of the rows from `row` on, up to `horizon_ns` or until the feed is full; returns the
        row to continue with. LimitError if a request is larger than the feed.
        """
        ...

    def route(self, batch: DueBatch, row: int) -> int:
        """The route of a row that never reached a feed."""
        ...


async def _nothing(_specs: Sequence[LaneSpec]) -> list[Note]:
    """A hook that does nothing."""
    return []


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolAdapter:
    """What a protocol supplies to a run for one target. Lane i has `connections[i]`; `feed` is its entries and ring
    bytes.

    `name` follows the target's name during the run. `tls` is how connections are secured, `peer` who responded;
    `portable_because` says why native lanes can't run. `tick_ns` is lateness by design: due requests are gathered for
    that long. `trace_seed` names the traces of its requests, 0 if they carry no traceparent. With `keeps_responses` its
    lanes can keep responses.
    `rules` labels the captures and checks that are counted. `close` is called when the run is over, or
    did not begin; `figures` and `notes` after its last lane ended; `background` runs beside the lanes until then.
    `afterwards` says what only a look at the target can tell, after a run that was not interrupted.
    `consumed` names the histograms that a consumer fills, `lag` is its lag by partition now.
    `cut` is for a protocol that decides itself which lane a row goes to: it numbers the rows of a batch, and row i goes
    to the lane of its number modulo the lanes of all processes. Such a target has one lane in each process. Without it
    rows are cut by number, or by client.
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
        """Its routes, each with whether its requests carry a traceparent."""
        return [msgspec.structs.replace(route, traced=bool(self.trace_seed)) for route in self.routes]
