"""Writes due rows as HTTP requests into the lanes' feeds."""

from __future__ import annotations

from replay.lane.feed import FeedWriter
from replay.plan.schedule import DueBatch, Schedule
from replay.protocols.feeder import checked
from replay_native.feed.ring import LaneShare
from replay_native.http1 import render as kernels

from .render import RenderSpec


class RequestRenderer:
    """Renders due rows as HTTP requests. With `by_client` all of a client's requests go to one lane."""

    def __init__(self, schedule: Schedule, render: RenderSpec, *, by_client: bool = False) -> None:
        self._by_client = by_client
        self._requests, self._warm_up_ns = schedule.requests_table, schedule.warm_up_ns
        self._spec, self._table = render, render.table()

    def authorise(self, line: bytes) -> None:
        """Send this header line with every request that is rendered from now on."""
        self._table = self._spec.authorised(line).table()

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
        """See `Renderer`."""
        share = LaneShare(lane, lanes, self._by_client, start_ns, self._warm_up_ns, horizon_ns)
        reached = kernels.render_rows(
            batch.rows, batch.first_seq, row, share, self._requests, self._table, writer.rings
        )
        return checked(reached, batch, writer)

    def route(self, batch: DueBatch, row: int) -> int:
        """The route of the trace."""
        return int(batch.route[row])
