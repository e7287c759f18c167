"""What a kind of target brings to a run: its engine, what writes its requests, what is known of it before and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import trio

from replay.lane.contract import Address, Engine
from replay.lane.feed import FeedWriter
from replay.lane.name_watch import NameWatch
from replay.lane.tls import Tls
from replay.plan.schedule import DueBatch, Schedule
from replay.plan.sessions import SessionSpec
from replay.results.document import (
    KafkaFigures,
    Note,
    RouteStart,
    TlsPeer,
)
from replay.settings.scenario import Scenario


class Renderer(Protocol):
    """Writes due rows into a lane's feed, as they go to the target."""

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
        """A lane's share of the rows from `row` on, up to what is due after `horizon_ns` or finds no room; the row
        to go on with. LimitError where a request is larger than the feed.
        """
        ...

    def route(self, batch: DueBatch, row: int) -> int:
        """The route of a row that never reached a feed."""
        ...


@dataclass(frozen=True, slots=True)
class Fittings:
    """What a run needs for the kind of its target. Lane i has `connections[i]`; `feed` is its entries and ring bytes.

    `name` follows the target's name during the run. `tls` is how connections are secured, `peer` who answered so;
    `portable_because` says why native lanes can't run. `tick_ns` is lateness by design, where what is due is gathered for
    so long: no fault of the generator's. `close` is called when the run is over, or did not begin; `figures` and `notes`
    after its last lane ended; `background` runs beside the lanes until then. `consumed` names the histograms that a
    consumer fills, `lag` is its lag by partition now.
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
    sessions: SessionSpec = field(default_factory=SessionSpec)
    tick_ns: int = 0
    close: Callable[[], None] = field(default=lambda: None)
    figures: Callable[[], KafkaFigures | None] = field(default=lambda: None)
    consumed: tuple[str, ...] = ()
    lag: Callable[[], dict[str, int]] = field(default=dict)
    background: Callable[[], Awaitable[None]] = field(default=trio.lowlevel.checkpoint)
    notes: Callable[[], list[Note]] = field(default=list)


Fit = Callable[[Schedule, Scenario, str, int], Awaitable[Fittings]]
"""From a schedule, its scenario, the run's id and the number of its first route to what its target needs; refuses what
may not be sent.
"""
