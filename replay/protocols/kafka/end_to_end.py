"""Joins produced records with those that a consumer received, to measure latencies beyond the broker.

One is from due to consumed, the other from due to a pipeline's answer. The consumer is a process of its own
(`consumer`). All joining (`joins`) happens on one thread beside the lane's.
"""

from __future__ import annotations

import contextlib
import pickle
import selectors
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Thread

import numpy as np
from aiokafka import TopicPartition

from replay.errors import ReplayError, TargetError
from replay.plan.safety import Allowed
from replay.results.document import Consumed
from replay.settings.scenario import Kafka
from replay_native.feed.ring import WARM_UP
from replay_native.kafka import produce
from replay_native.kafka.recordbatch import HEADER_BYTES
from replay_native.ledger import hdr
from replay_native.ledger.lane_metrics import LaneMetrics, T

from .batch import Batch
from .consumer import (
    FAILED,
    FRAME,
    READY,
    REFUSED,
    Order,
)
from .joins import Answers, Offsets
from .target import KafkaTarget

START_S = 20.0
PAUSE_S = 0.02
READ_BYTES = 1 << 18
STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledged batch. Due times of the warm-up are negated. `records` is set only if answers are expected."""

    index: int
    first: int
    dues: np.ndarray
    records: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Seen:
    """Records of one partition that the consumer received together."""

    index: int
    count: int
    first: int
    end: int
    high: int
    seen_ns: int
    known_by: bytes


@dataclass(slots=True)
class _Sum:
    """One histogram, and the records that are missing from it.

    `at_least_ns` is the shortest time for which a missing record was awaited.
    """

    which: int
    count: int = 0
    missing: int = 0
    at_least_ns: int | None = None

    def add(self, metrics: LaneMetrics, latencies: np.ndarray) -> None:
        self.count += len(latencies)
        hdr.record_all(metrics.totals[self.which], hdr.HALF_3, np.ascontiguousarray(latencies, np.int64))

    def lack(self, metrics: LaneMetrics, waited: np.ndarray) -> None:
        """Count records that never arrived, with the time for which they were awaited."""
        if len(waited):
            self.missing += len(waited)
            least = int(waited.min())
            self.at_least_ns = least if self.at_least_ns is None else min(least, self.at_least_ns)
            hdr.record_all(metrics.totals[self.which], hdr.HALF_3, np.ascontiguousarray(waited, np.int64))


class Watch:
    """Consumes in a separate process, and joins consumed records with produced ones.

    The lane's thread calls `acknowledged`; other threads call the other methods.
    """

    def __init__(
        self, target: KafkaTarget, kafka: Kafka, group: str, own: Sequence[TopicPartition],
        answers: Sequence[TopicPartition], timeout_ns: int, allowed: Allowed,
    ) -> None:  # fmt: skip
        """Start the consumer and wait until it has reached the end of its partitions; blocks.

        ReplayError if the consumer fails or does not become ready.
        """
        self._own = own if kafka.consume else ()
        self._parts = [*self._own, *answers]
        name = "" if kafka.answers_by == "key" else kafka.answers_by
        self._name = np.frombuffer(bytearray(name.encode()), np.uint8)
        self._timeout_ns = timeout_ns
        self._acks: deque[Ack] = deque()
        self._offsets = [Offsets() for _ in self._own]
        self._answers = Answers() if answers else None
        self._sums = {"end_to_end": _Sum(T.end_to_end_all)} if self._own else {}
        self._sums |= {"answer": _Sum(T.answer_all)} if answers else {}
        self._positions = [0] * len(self._parts)
        self._highs = [0] * len(self._parts)
        self._lag_max = [0] * len(self._parts)
        self._owed = 0
        self._metrics: LaneMetrics | None = None
        self._ready, self._ending = Event(), Event()
        self.problem: ReplayError | None = None
        self.refused: set[str] = set()
        order = Order(target, kafka, group, tuple(self._parts), len(self._own), kafka.answers_by, allowed)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "replay.protocols.kafka.consumer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._thread = Thread(target=self._main, name="kafka-watch", daemon=True)
        self._begin(pickle.dumps(order))

    def _begin(self, order: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(len(order).to_bytes(8, "little") + order)
            self._process.stdin.flush()
        self._thread.start()
        if not self._ready.wait(START_S) and self.problem is None:
            self.problem = TargetError(
                "the consumer did not become ready", hint="check the logs of the brokers"
            )
        if self.problem is not None:
            self.close()
            raise self.problem

    @property
    def kinds(self) -> tuple[str, ...]:
        """The histograms that the consumer fills."""
        return tuple(self._sums)

    def record_into(self, metrics: LaneMetrics) -> None:
        """Set the metrics to record into. No record is acknowledged before this call."""
        self._metrics = metrics

    def acknowledged(self, index: int, first: int, batch: Batch) -> None:
        """Receive an acknowledged batch, whose records have the offsets from `first` on in partition `index`."""
        rows = batch.rows
        dues = np.where(rows["flags"] & WARM_UP, -rows["due_ns"], rows["due_ns"])
        records = batch.buffer[HEADER_BYTES : batch.size].copy() if self._answers is not None else None
        self._acks.append(Ack(index, first, dues, records))

    def lag(self) -> dict[str, int]:
        """Count the records that the consumer has not received yet, by `topic/partition`."""
        pairs = zip(self._parts, self._highs, self._positions, strict=True)
        return {f"{part.topic}/{part.partition}": max(high - at, 0) for part, high, at in pairs}

    def finish(self, wait_s: float, hurry: Callable[[], bool]) -> None:
        """Wait for records that have not arrived when the lane has ended, then stop the consumer; blocks.

        The wait ends after `wait_s` seconds, when `hurry()` is true, or when the consumer has failed.
        """
        deadline = time.monotonic() + wait_s
        while (self._acks or self._owed) and time.monotonic() < deadline:
            if hurry() or self.problem is not None:
                break
            time.sleep(PAUSE_S)
        self.close()

    def figures(self) -> tuple[dict[str, Consumed], dict[str, int]]:
        """Return the results by histogram, and the greatest lag by partition; valid after `finish`."""
        consumed = {
            kind: Consumed(
                count=found.count,
                missing=found.missing,
                at_least_ns=found.at_least_ns,
                strange=self._answers.strange if self._answers is not None and kind == "answer" else 0,
            )
            for kind, found in self._sums.items()
        }
        names = [f"{part.topic}/{part.partition}" for part in self._parts]
        return consumed, dict(zip(names, self._lag_max, strict=True))

    def close(self) -> None:
        """Stop the consumer. Closing it again has no effect."""
        self._ending.set()
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _main(self) -> None:
        try:
            self._follow()
            self._join()
            self._give_up(time.monotonic_ns())
        except Exception as error:
            self.problem = TargetError(f"consumed records could not be joined with produced ones: {error!r}")
        self._ready.set()

    def _follow(self) -> None:
        """Read frames until the consumer ends."""
        stream = self._process.stdout
        assert stream is not None
        held = b""
        with selectors.DefaultSelector() as selector, stream:
            selector.register(stream, selectors.EVENT_READ)
            while True:
                if selector.select(PAUSE_S):
                    data = stream.read1(READ_BYTES)  # type: ignore[attr-defined]
                    if not data:
                        break
                    held = self._frames(held + data)
                self._join()
        if not self._ending.is_set() and self.problem is None:
            self.problem = TargetError("the consumer ended unexpectedly", hint="its message is above")

    def _frames(self, data: bytes) -> bytes:
        """Handle complete frames, and return the rest of the data."""
        at = 0
        while len(data) - at >= FRAME.size:
            index, count, first, end, high, seen_ns, more = FRAME.unpack_from(data, at)
            if len(data) - at - FRAME.size < more:
                break
            at += FRAME.size + more
            self._frame(Seen(index, count, first, end, high, seen_ns, data[at - more : at]))
        return data[at:]

    def _frame(self, seen: Seen) -> None:
        if seen.index == READY:
            self._ready.set()
        elif seen.index == FAILED:
            self.problem = pickle.loads(seen.known_by)
        elif seen.index == REFUSED:
            self.refused.add(seen.known_by.decode())
        else:
            index = seen.index
            self._highs[index] = max(self._highs[index], seen.high)
            self._lag_max[index] = max(self._lag_max[index], self._highs[index] - self._positions[index])
            self._positions[index] = seen.end
            if not seen.count:
                self._lag_max[index] = 0
            elif index < len(self._own):
                self._offsets[index].seen.append((seen.first, seen.end, seen.seen_ns))
            else:
                self._came(seen)

    def _came(self, seen: Seen) -> None:
        assert self._answers is not None
        lengths = array("i", seen.known_by[: 4 * seen.count])
        at, found = 4 * seen.count, []
        for length in lengths:
            if length < 0:
                self._answers.strange += 1
                continue
            found.append(self._answers.came(seen.known_by[at : at + length], seen.seen_ns))
            at += length
        self._add("answer", np.array([latency for latency in found if latency is not None], np.int64))

    def _join(self) -> None:
        """Join the records that both sides have delivered so far."""
        while self._acks:
            ack = self._acks.popleft()
            if ack.index < len(self._own):
                self._offsets[ack.index].acks.append((ack.first, ack.dues))
                self._highs[ack.index] = max(self._highs[ack.index], ack.first + len(ack.dues))
            if ack.records is not None:
                self._sent(ack)
        now = time.monotonic_ns()
        for offsets in self._offsets:
            for latencies in offsets.join():
                self._add("end_to_end", latencies)
            while offsets.skipped:
                self._lack("end_to_end", offsets.skipped.pop(), now)
            while offsets.seen and offsets.seen[0][2] < now - 2 * self._timeout_ns:
                offsets.seen.popleft()
        owed = sum(len(dues) for offsets in self._offsets for _, dues in offsets.acks)
        if self._answers is not None:
            self._lack("answer", np.array(self._answers.expire(now - self._timeout_ns), np.int64), now)
            owed += self._answers.owed
        self._owed = owed

    def _sent(self, ack: Ack) -> None:
        assert ack.records is not None and self._answers is not None
        spans = np.empty((len(ack.dues), 2), np.int64)
        produce.correlations(ack.records, self._name, spans)
        data, found = ack.records.tobytes(), []
        for (begin, end), due in zip(spans.tolist(), ack.dues.tolist(), strict=True):
            if begin >= 0:
                found.append(self._answers.sent(data[begin:end], due))
        self._add("answer", np.array([latency for latency in found if latency is not None], np.int64))

    def _add(self, kind: str, latencies: np.ndarray) -> None:
        if self._metrics is not None and len(latencies):
            self._sums[kind].add(self._metrics, latencies)

    def _lack(self, kind: str, dues: np.ndarray, now: int) -> None:
        if self._metrics is not None:
            self._sums[kind].lack(self._metrics, now - dues[dues > 0])

    def _give_up(self, now: int) -> None:
        """Count everything that is still missing as never received."""
        for offsets in self._offsets:
            for _, dues in offsets.acks:
                self._lack("end_to_end", dues, now)
        if self._answers is not None:
            self._lack("answer", np.array(self._answers.expire(1 << 62), np.int64), now)
