"""Writes due rows as HTTP requests into the lanes' feeds."""

from __future__ import annotations

import dataclasses

from replay.lane.feed import FeedWriter
from replay.plan.schedule import DueBatch, Schedule
from replay.protocols.feeder import checked
from replay.trace import Trace
from replay_native.feed.ring import LaneShare
from replay_native.http1 import render as kernels

from .render import RenderSpec, recorded_bodies
from .render_rules import header_lines
from .target import parse


class RequestRenderer:
    """Renders due rows as HTTP requests. With `by_client`, all requests of a client go to one lane."""

    def __init__(self, schedule: Schedule, render: RenderSpec, *, by_client: bool = False) -> None:
        self._by_client = by_client
        self._requests, self._warm_up_ns = schedule.requests_table, schedule.warm_up_ns
        self._schedule = schedule
        self._spec, self._table = render, render.table()
        self._own: Trace | None = None
        self._own_table = self._table

    def authorise(self, line: bytes) -> None:
        """Send this header line with every request that is rendered from now on."""
        self._spec = self._spec.authorised(line)
        self._table, self._own = self._spec.table(), None

    def _table_of(self, batch: DueBatch) -> kernels.RenderTable:
        """Return the render table, extended by the recorded hosts, headers and bodies of a batch that has its own."""
        if batch.own is None:
            return self._table
        if batch.own is not self._own:
            _, lines = header_lines(batch.own, self._schedule.scenario, parse(self._schedule.plan.target))
            own = dataclasses.replace(self._spec, recorded=recorded_bodies(batch.own), lines=lines)
            self._own, self._own_table = batch.own, own.table()
        return self._own_table

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
            batch.rows, batch.first_seq, row, share, self._requests, self._table_of(batch), writer.rings
        )
        return checked(reached, batch, writer)

    def route(self, batch: DueBatch, row: int) -> int:
        """Return the row's route in the trace."""
        return int(batch.route[row])
