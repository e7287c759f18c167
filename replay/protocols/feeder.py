"""Keeps every lane's feed filled ahead of time, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import trio

from replay.errors import LimitError
from replay.lane.contract import LaneRange, LaneSpec
from replay.lane.feed import AHEAD_NS, FeedWriter
from replay.plan.schedule import DueBatch, Schedule
from replay.units import SECOND_NS
from replay_native.feed.ring import TAIL
from replay_native.ledger import record
from replay_native.ledger.lane_metrics import C

from .adapter import Renderer

PAUSE_S = 0.02
"""Seconds between two polls of feeds that are full, or filled up to the horizon."""


def checked(reached: int, batch: DueBatch, writer: FeedWriter) -> int:
    """Return the row that a rendering kernel reached. LimitError if it found a request larger than the ring."""
    if reached < 0:
        raise LimitError(
            f"request {batch.first_seq - 1 - reached} is larger than a lane's feed"
            f" ({writer.feed.ring.size:,} bytes)",
            hint="remove the request from the trace, or its body from the scenario",
        )
    return int(reached)


class Feeder:
    """Renders due rows into the lanes' feeds.

    Row i of the run goes to lane i % lanes. If lanes assign by client, every row of client i goes to lane i %
    lanes. With `share` the lanes are part of a larger run, and the rows of its other lanes are skipped.

    In a run with several targets, `first_seq` and `first_route` are added to this target's sequence and route
    numbers. `cut` numbers the rows if the protocol assigns them to lanes (see `ProtocolAdapter`). `fed` is set
    when the first AHEAD_NS of the run are in the rings, when the rings are full, or when feeding has ended.
    """

    def __init__(
        self, schedule: Schedule, renderer: Renderer, lanes: Sequence[LaneSpec], closed_loop: bool,
        first_seq: int = 0, first_route: int = 0, share: LaneRange | None = None,
        cut: Callable[[DueBatch], npt.NDArray[np.int64]] | None = None,
    ) -> None:  # fmt: skip
        self._schedule = schedule
        self._lanes = lanes
        self._closed_loop = closed_loop
        self._renderer = renderer
        self._first_seq, self._first_route = first_seq, first_route
        self._share = share or LaneRange(0, len(lanes), len(lanes))
        self._cut = cut
        self.writers = [FeedWriter(spec) for spec in lanes]
        self.fed = trio.Event()
        self.stop_ns: int | None = None
        self.limit: Callable[[], int] = lambda: 1 << 62
        """Returns an instant; rows that are due later are not fed for now."""

    async def run(self, start_ns: int) -> None:
        """Feed until the schedule ends or `stop_at` is called, then mark the end of every feed."""
        async with aclosing(self._schedule.arriving()) as batches:
            async for arrived in batches:
                batch = self._numbered(arrived)
                await self._feed_batch(batch, start_ns)
                if self.stop_ns is not None:
                    self._give_up_rest(batch, start_ns)
                    break
        self.fed.set()
        for writer in self.writers:
            writer.end()

    def lanes_of(self, batch: DueBatch) -> npt.NDArray[np.int64]:
        """Return the lane of each row, among the lanes of all processes."""
        if self._cut is not None:
            numbers = self._cut(batch)
        elif self._lanes[0].by_client:
            numbers = batch.client.astype(np.int64)
        else:
            numbers = batch.first_seq + np.arange(len(batch), dtype=np.int64)
        return numbers % self._share.of

    def due_by_second(self) -> list[int]:
        """Count the requests of this process that are due in each second of the run.

        The method reads the whole schedule, and blocks.
        """
        first, after = self._share.first, self._share.first + self._share.count
        counts = np.zeros(0, np.int64)
        for arrived in self._schedule.batches():
            lanes = self.lanes_of(self._numbered(arrived))
            own = arrived.due_ns[(lanes >= first) & (lanes < after)]
            found = np.bincount(own // SECOND_NS, minlength=len(counts))
            found[: len(counts)] += counts
            counts = found
        return [int(count) for count in counts]

    def stop_at(self, stop_ns: int) -> None:
        """Stop feeding. Requests that are due by `stop_ns` and were not fed are counted as unsent."""
        self.stop_ns = stop_ns
        self._schedule.stop()

    def _numbered(self, batch: DueBatch) -> DueBatch:
        """Return the batch with its sequence numbers in this run."""
        return replace(batch, first_seq=batch.first_seq + self._first_seq) if self._first_seq else batch

    def _render(self, batch: DueBatch, lane: int, start_ns: int, horizon_ns: int) -> int:
        """Render as many rows as fit, with the route numbers of this run, and return the row to continue with."""
        writer = self.writers[lane]
        first = int(writer.tails[TAIL])
        reached = self._renderer.render(
            batch,
            self._rows[lane],
            self._share.first + lane,
            self._share.of,
            start_ns,
            horizon_ns,
            writer,
        )
        if self._first_route:
            entries = writer.feed.entries
            entries["route"][np.arange(first, writer.tails[TAIL]) % entries.size] += np.uint32(
                self._first_route
            )
        return reached

    async def _feed_batch(self, batch: DueBatch, start_ns: int) -> None:
        self._rows = [0] * len(self.writers)
        while self.stop_ns is None:
            horizon_ns = (1 << 62) if self._closed_loop else time.monotonic_ns() + AHEAD_NS
            horizon_ns = min(horizon_ns, self.limit())
            for lane, writer in enumerate(self.writers):
                before = self._rows[lane]
                if before < len(batch):
                    self._rows[lane] = self._render(batch, lane, start_ns, horizon_ns)
                    writer.publish()
            if min(self._rows) >= len(batch):
                await trio.lowlevel.checkpoint()
                return
            self.fed.set()
            await trio.sleep(PAUSE_S)

    def _give_up_rest(self, batch: DueBatch, start_ns: int) -> None:
        """Count the requests of a batch that were due by the stop but reached no feed as planned and unsent.

        A closed loop has no due times, so nothing is counted.
        """
        assert self.stop_ns is not None
        if self._closed_loop:
            return
        owners = self.lanes_of(batch)
        for lane, spec in enumerate(self._lanes):
            for row in range(self._rows[lane], len(batch)):
                if owners[row] != self._share.first + lane:
                    continue
                due_ns = int(batch.due_ns[row]) + start_ns
                if due_ns > self.stop_ns:
                    break
                spec.metrics.counters[C.planned] += 1
                route = self._first_route + self._renderer.route(batch, row)
                request = record.Request(0, route, batch.first_seq + row, int(batch.client[row]), due_ns, -1)
                record.record_unsent(spec.metrics, C.unsent_interrupted, request, spec.max_wait_ns)
