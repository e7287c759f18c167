"""A Kafka lane: a thread with its own asyncio loop that keeps the lane's contract (docs/lane-contract.md).

Every tick takes the due records from the feed, appends each to the open batch of its partition, and sends what the
brokers accept now. `wait` ends when the brokers accept the record's batch, `sent` is just before the batch's first
send, and `done` is the broker's acknowledgement.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition

from replay.errors import EngineError
from replay.lane.contract import LaneSpec
from replay.lane.polls import Polls, is_own
from replay_native.feed.ring import ENTRY, WARM_UP
from replay_native.ground import shared
from replay_native.kafka import produce
from replay_native.ledger.lane_metrics import (
    C,
    Control,
    State,
    Stop,
)

from .batch import RECORDS_MAX, Batch, Rooms
from .failures import (
    TOO_LARGE,
    name_of,
    outcome_of,
    status_of,
)
from .gate import Check, Gate
from .loop import NEVER_NS, PreciseSelector, run_precisely
from .outcomes import Outcomes
from .sender import Sender
from .splitting import Limits

HEARTBEAT_NS = 100_000_000
EXPIRE_NS = 10_000_000
"""Interval between checks for records that have waited too long."""

TAKEN_AT_ONCE = 16_384
WAITING_BYTES_MAX = 256 << 20
"""Bytes of records that may wait for the sender. Above this limit, the oldest batches are given up (`unsent_limit`)."""

CLOSED_LOOP_BYTES = 8 << 20
"""In a closed loop, no more records are taken while this many bytes wait."""

SPANS_A_WAIT = 20
"""A waiting batch collects records for about `max_wait` divided by this number.

Records that are given up together have therefore waited for about the same time.
"""

STOP_S = 2.0

Acknowledged = Callable[[int, int, Batch], None]
"""Called with the partition's index, the offset of the first record, and a batch that was acknowledged."""


@dataclass(frozen=True, slots=True)
class LanePlan:
    """What a Kafka lane needs besides its spec: the producer's settings, and the partition of each route.

    `partitions[i]` is the destination of route `first_route` + i, in batches of at most `batch_bytes[i]`. The
    lane connects only to hosts that `check` accepts.
    """

    producer: dict[str, Any]
    partitions: tuple[TopicPartition, ...]
    batch_bytes: tuple[int, ...]
    check: Check
    first_route: int = 0
    tick_ns: int = 1_000_000
    compression: str | None = None
    connect_timeout_s: float = 10.0
    acknowledged: Acknowledged | None = None


class KafkaLane:
    """A lane that connects when it is created, and runs when it receives its spec (`run`).

    `ready` is done when the lane has connected, or has failed to.
    """

    def __init__(self, plan: LanePlan) -> None:
        self.plan = plan
        self.outcomes = Outcomes()
        self.gate = Gate(plan.check)
        self.ready: Future[None] = Future()
        self.ended: Future[None] = Future()
        self._spec: Future[LaneSpec | None] = Future()
        self._thread = Thread(target=self._main, name="kafka-lane", daemon=True)
        self._thread.start()

    def run(self, spec: LaneSpec) -> None:
        """Run the lane to its end; blocks. EngineError if the lane failed."""
        self._spec.set_result(spec)
        self.ended.result()

    def close(self) -> None:
        """Close a lane, and wait up to STOP_S for its thread to end. A lane that has run is closed already."""
        if not self._spec.done():
            self._spec.set_result(None)
        self._thread.join(STOP_S)

    def _main(self) -> None:
        try:
            run_precisely(self._live, self.gate)
        except BaseException as error:
            if not self.ready.done():
                self.ready.set_exception(error)
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    async def _live(self, selector: PreciseSelector) -> None:
        plan = self.plan
        producer = AIOKafkaProducer(**plan.producer)
        sender: Sender | None = None
        try:
            async with asyncio.timeout(plan.connect_timeout_s):
                await producer.start()
                for topic in dict.fromkeys(part.topic for part in plan.partitions):
                    await producer.partitions_for(topic)
                sender = Sender(producer, plan.producer, plan.partitions, self.outcomes.lost)
                await sender.connect()
            self.ready.set_result(None)
            spec = await asyncio.wrap_future(self._spec)
            if spec is not None:
                await _Running(self, spec, sender, selector).run()
        finally:
            if sender is not None:
                sender.close()
            await _stopped(producer)


async def _stopped(producer: AIOKafkaProducer) -> None:
    """Close the producer, whatever its state."""
    try:
        async with asyncio.timeout(STOP_S):
            await producer.stop()
    except (Exception, asyncio.CancelledError):
        producer._closed = True


class _Running:
    """One run of a lane, on its loop."""

    def __init__(self, owner: KafkaLane, spec: LaneSpec, sender: Sender, selector: PreciseSelector) -> None:
        self._plan, self._outcomes, self._spec = owner.plan, owner.outcomes, spec
        self._metrics, self._feed, self._control = spec.metrics, spec.feed, spec.metrics.control
        self._counters = spec.metrics.counters
        self._sender, self._selector = sender, selector
        self._loop = asyncio.get_running_loop()
        self._lane = np.zeros(produce.LANE_WORDS, np.int64)
        routes = spec.metrics.slots.shape[0]
        self._counts = np.zeros(routes + 1, np.int64)
        self._rows = np.zeros(TAKEN_AT_ONCE, ENTRY)
        self._open: list[Batch | None] = [None] * len(owner.plan.partitions)
        self._waiting: deque[Batch] = deque()
        self._in_flight: dict[Batch, None] = {}
        self._waiting_rows = self._waiting_bytes = self._made = 0
        self._rooms, self._limits = Rooms(), Limits(owner.plan.batch_bytes)
        self._draining = False
        self._starved = False
        self._expire_ns = 0
        self._over: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Run until every record is settled after the end of the feed or Stop.DRAIN, or until Stop.ABANDON."""
        control = self._control
        self._sender.report(self._sending, self._ended, self._halved)
        self._loop.set_exception_handler(lambda _, context: self._fail(context.get("exception")))
        shared.write_word(control, Control.STATE, State.RUNNING)
        self._counters[C.connects] = self._counters[C.open] = self._counters[C.open_max] = 1
        self._counters[C.cpu_first_ns] = time.thread_time_ns()
        self._selector.idle_ns = 0
        self._selector.tick = self._tick
        self._selector.polls = Polls(self._metrics)
        self._loop.add_reader(self._spec.wake_fd, self._woken)
        state = -errno.EIO
        try:
            self._tick()
            await self._over
            state = State.ENDED
        finally:
            self._loop.remove_reader(self._spec.wake_fd)
            self._selector.tick_at_ns = NEVER_NS
            self._selector.polls = None
            self._counters[C.open] = 0
            self._note_time()
            shared.write_word(control, Control.STATE, state)

    def _woken(self) -> None:
        """Handle a signal of the control plane: run a tick if the feed was empty, in a closed loop, or to stop."""
        os.read(self._spec.wake_fd, 8)
        if (
            self._starved
            or self._spec.closed_loop
            or shared.read_word(self._control, Control.STOP) != Stop.RUN
        ):
            self._tick()

    def _note_time(self) -> None:
        self._counters[C.cpu_last_ns] = time.thread_time_ns()
        self._counters[C.idle_ns] = self._selector.idle_ns

    def _tick(self) -> None:
        try:
            self._turn()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException | None) -> None:
        if not self._over.done():
            self._over.set_exception(EngineError(f"the Kafka lane failed: {error!r}"))

    def _turn(self) -> None:
        """Obey STOP, take up due records, give up those that waited too long, and set the next tick."""
        if self._over.done():
            return
        now = time.monotonic_ns()
        stop = shared.read_word(self._control, Control.STOP)
        if stop != Stop.RUN and not self._draining:
            self._drain(now)
        if stop == Stop.ABANDON:
            self._over.set_result(None)
            return
        took = 0 if self._draining else self._take_due(now)
        self._sender.flush()
        if now >= self._expire_ns:
            self._expire_ns = now + EXPIRE_NS
            self._expire(now)
        if self._finished():
            self._over.set_result(None)
            return
        self._counters[C.loops] += 1
        shared.write_word(self._control, Control.HEARTBEAT_NS, now)
        self._sleep(now, took)

    def _sleep(self, now: int, took: int) -> None:
        """Set the time of the next tick: when the next request is due, or when a heartbeat or a time-out check is.

        If requests were taken or are due, the next tick is at least one tick interval away, unless a check is due
        earlier.
        """
        until = now + (EXPIRE_NS if self._waiting or self._in_flight else HEARTBEAT_NS)
        due = -1 if self._draining else int(self._lane[produce.NEXT_DUE_NS])
        self._starved = due < 0 and shared.read_word(self._control, Control.FEED_END) == 0
        if due >= 0:
            if self._spec.closed_loop:
                due = now
            until = min(until, max(due, now + self._plan.tick_ns if took or due <= now else due))
        self._selector.tick_at_ns = until

    def _take_due(self, now: int) -> int:
        total = 0
        while not self._spec.closed_loop or self._waiting_bytes < CLOSED_LOOP_BYTES:
            count = produce.take_up(
                self._metrics, self._feed, self._lane, now, self._counts, self._rows, self._spec.closed_loop
            )
            if not count:
                break
            if self._starved and not total and not self._spec.closed_loop:
                self._counters[C.underruns] += int(self._rows["due_ns"][:count].min() < now)
            total += int(count)
            self._append(int(count), now)
            if count < len(self._rows):
                break
        return total

    def _append(self, count: int, now: int) -> None:
        """Put rows, sorted by route, into the batches of their partitions; then free their space in the rings."""
        edges, first_route = self._counts.tolist(), self._plan.first_route
        for index in range(len(self._open)):
            begin, end = edges[first_route + index : first_route + index + 2]
            if begin < end:
                self._add(index, self._rows[begin:end], now)
        entries = self._feed.entries
        last = entries[(int(self._lane[produce.TAKEN]) - 1) % entries.size]
        produce.release(self._control, self._lane[produce.TAKEN], last["offset"] + last["length"])
        self._waiting_rows += count
        self._count_waiting()
        while self._waiting_bytes > WAITING_BYTES_MAX and len(self._waiting) > 1:
            self._give_up(self._waiting[0], C.unsent_limit)

    def _add(self, index: int, rows: np.ndarray, now: int) -> None:
        at = 0
        while at < len(rows):
            batch = self._open[index]
            if batch is None or not batch.is_open:
                batch = self._new_batch(index, int(rows[at]["length"]))
            before = batch.size
            at = batch.add(rows, self._feed.ring, at, self._limits[index], now)
            self._waiting_bytes += batch.size - before
            if at < len(rows):
                batch.close()
                self._open[index] = None

    def _new_batch(self, index: int, least_bytes: int) -> Batch:
        """Start a batch for a partition. The sender may send it at any time from now on."""
        self._made += 1
        room = self._rooms.take(self._limits[index], least_bytes)
        batch = Batch(index, self._made * RECORDS_MAX, room, self._plan.compression)
        batch.lost_ns = int(self._counters[C.lost_ns])
        self._open[index] = batch
        self._waiting.append(batch)
        self._sender.put(batch)
        return batch

    def _count_waiting(self) -> None:
        self._counters[C.waiting] = self._waiting_rows
        self._counters[C.waiting_max] = max(int(self._counters[C.waiting_max]), self._waiting_rows)

    def _no_longer_waits(self, batch: Batch) -> None:
        if self._waiting[0] is batch:
            self._waiting.popleft()
        else:
            self._waiting.remove(batch)
        if self._open[batch.index] is batch:
            self._open[batch.index] = None
        self._waiting_rows -= batch.count
        self._waiting_bytes -= batch.size
        self._count_waiting()

    def _sending(self, batches: list[Batch], size: int) -> None:
        """Record a request of this many bytes, in which these batches are sent for the first time."""
        now = time.monotonic_ns()
        self._counters[C.bytes_sent] += size
        for batch in batches:
            self._no_longer_waits(batch)
            self._in_flight[batch] = None
            batch.sent_ns = now
            produce.sent(self._metrics, batch.rows, now, self._spec.closed_loop)

    def _ended(self, batch: Batch, error: Exception | None, offset: int) -> None:
        """Handle a batch that the broker acknowledged, or that has finally failed."""
        if error is None:
            self._limits.took(batch)
        if error is None and offset >= 0:
            self._note_offsets(batch, offset)
        if not batch.settled:
            self._settle(batch, error)
        elif error is None:
            self._outcomes.late += batch.count
        self._rooms.give_back(self._limits[batch.index], batch.room)
        if self._draining or self._spec.closed_loop or not (self._in_flight or self._due_later()):
            self._loop.call_soon(self._tick)

    def _due_later(self) -> bool:
        """Return whether a tick will follow anyway, because the feed has more rows."""
        return bool(self._lane[produce.NEXT_DUE_NS] >= 0)

    def _halved(self, batch: Batch, parts: tuple[Batch, Batch]) -> None:
        """Replace a batch that was too large by its two halves, and limit later batches of its partition."""
        self._limits.refused(batch)
        if not batch.settled:
            order = [part for one in self._in_flight for part in (parts if one is batch else (one,))]
            self._in_flight = dict.fromkeys(order)
        self._rooms.give_back(self._limits[batch.index], batch.room)

    def _settle(self, batch: Batch, error: Exception | None) -> None:
        batch.settled = True
        del self._in_flight[batch]
        outcome = status = 0
        if error is not None:
            self._outcomes.errors[name_of(error)] += batch.count
            if isinstance(error, TOO_LARGE):
                self._outcomes.note_too_large(self._plan.partitions[batch.index].topic, batch)
            outcome, status = outcome_of(error), status_of(error)
        now = time.monotonic_ns()
        produce.done(self._metrics, batch.rows, outcome, batch.sent_ns, now, status, self._spec.closed_loop)
        self._note_time()

    def _note_offsets(self, batch: Batch, offset: int) -> None:
        part = self._plan.partitions[batch.index]
        self._outcomes.acknowledged[part] += batch.count
        self._outcomes.last_offset[part] = offset + batch.count - 1
        if self._plan.acknowledged is not None:
            self._plan.acknowledged(batch.index, offset, batch)

    def _give_up(self, batch: Batch, reason: int) -> None:
        """Count the records of a batch that was never sent as unsent."""
        self._sender.withdraw(batch)
        self._no_longer_waits(batch)
        batch.settled = True
        batch.close()
        if reason != C.unsent_interrupted:
            self._count_own(batch)
        produce.unsent(self._metrics, batch.rows, reason, self._spec.max_wait_ns)
        self._rooms.give_back(self._limits[batch.index], batch.room)

    def _count_own(self, batch: Batch) -> None:
        """Attribute unsent records to the generator, not to the brokers, if the lane itself delayed them.

        It did if it lost time, or if it took the records up late.
        """
        due_ns = int(batch.rows["due_ns"][0])
        own_ns = batch.taken_first_ns - due_ns + int(self._counters[C.lost_ns]) - batch.lost_ns
        if is_own(own_ns, time.monotonic_ns() - due_ns):
            self._counters[C.unsent_own] += batch.count
            measured = batch.rows[batch.rows["flags"] & WARM_UP == 0]
            np.add.at(self._metrics.route_own, measured["route"], 1)

    def _expire(self, now: int) -> None:
        """Give up batches that have waited for max_wait, and time out those not acknowledged within the time limit."""
        while self._waiting and self._waited(self._waiting[0], now):
            self._give_up(self._waiting[0], C.unsent_max_wait)
        while self._in_flight:
            batch = next(iter(self._in_flight))
            if now - batch.sent_ns < self._spec.timeout_ns:
                break
            self._settle(batch, batch.error or TimeoutError())
        self._sender.check()

    def _waited(self, batch: Batch, now: int) -> bool:
        """Return whether even the batch's last record has waited for max_wait.

        The batch is closed some time after its first record, so that later records are put into another batch.
        """
        if batch.is_open and now - batch.taken_first_ns > self._spec.max_wait_ns // SPANS_A_WAIT:
            batch.close()
        return now - batch.taken_last_ns >= self._spec.max_wait_ns

    def _drain(self, now: int) -> None:
        """Stop taking up records, but let those in flight finish.

        Records that are due by now count as planned and unsent, as do the waiting ones.
        """
        self._draining = True
        while not self._spec.closed_loop:
            count = produce.take_up(
                self._metrics, self._feed, self._lane, now, self._counts, self._rows, False
            )
            if not count:
                break
            produce.unsent(
                self._metrics, self._rows[:count].copy(), C.unsent_interrupted, self._spec.max_wait_ns
            )
        while self._waiting:
            self._give_up(self._waiting[0], C.unsent_interrupted)

    def _finished(self) -> bool:
        if self._waiting or self._in_flight:
            return False
        if self._draining:
            return True
        ended = shared.read_word(self._control, Control.FEED_END) == 1
        return bool(ended and shared.read_word(self._control, Control.FEED_TAIL) == self._lane[produce.TAKEN])
