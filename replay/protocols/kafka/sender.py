"""Sends batches to the leaders of their partitions: a few requests in flight per broker, resent if that may help.

A partition's batches keep their order when they are resent: they are resent one at a time, oldest first, while
new ones wait. Idempotent batches keep their sequence numbers, unless the broker never accepted earlier ones.
"""

from __future__ import annotations

import asyncio
import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.conn import create_conn
from aiokafka.errors import (
    DuplicateSequenceNumber,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    NoError,
    OutOfOrderSequenceNumber,
)

from replay.units import counted

from .batch import Batch
from .failures import (
    NEVER_APPENDED,
    TOO_LARGE,
    connection_problem,
    error_of,
)
from .gate import HostRefusedError
from .splitting import halves
from .wire import Answer, ProduceConnection

IN_FLIGHT = 5
"""Requests in flight per broker, as in Java's clients.

A broker remembers the last five batches of an idempotent producer.
"""

BACKOFF_S = 0.1
IDLE_S = 60.0
"""A broker may close a connection as idle after this long without a request (connections.max.idle.ms)."""

SEQUENCE_MASK = 0x7FFFFFFF


@dataclass(slots=True)
class _Partition:
    """Batches to be sent to a partition. `again` has those to be resent, in the order of their numbers."""

    part: TopicPartition
    leader: int | None = None
    last_leader: int = -1
    waiting: deque[Batch] = field(default_factory=deque)
    again: list[Batch] = field(default_factory=list)
    again_at: float = 0.0
    in_flight: int = 0
    sequence: int = 0

    def next(self, now: float) -> Batch | None:
        """Return the batch that may be sent now; None if none may."""
        if self.again:
            return self.again[0] if not self.in_flight and now >= self.again_at else None
        return self.waiting[0] if self.waiting else None


@dataclass(slots=True)
class _Request:
    """A request in flight: its batches by partition, each with the sequence number that it was sent with."""

    batches: dict[TopicPartition, tuple[Batch, int]]
    sent_at: float


@dataclass(slots=True)
class _Node:
    """A broker. `place` is its address and id; it is kept after the cluster's metadata has dropped the broker."""

    number: int
    place: str = ""
    connection: ProduceConnection | None = None
    connecting: asyncio.Task[None] | None = None
    connect_at: float = 0.0
    sent_at: float = 0.0
    in_flight: deque[_Request] = field(default_factory=deque)


class Sender:
    """Sends batches.

    A batch that was `settled` meanwhile is resent only if its sequence numbers would otherwise be missing.
    """

    def __init__(
        self, producer: AIOKafkaProducer, settings: dict[str, Any], parts: tuple[TopicPartition, ...],
        lost: dict[str, str],
    ) -> None:  # fmt: skip
        """Prepare to send with the producer's `settings`.

        `lost` receives the reason, by address, when a broker is lost.
        """
        self._lost_brokers = lost
        self._client, self._ids, self._settings = producer.client, producer._txn_manager, settings
        self._acks = -1 if settings["acks"] == "all" else int(settings["acks"])
        self._timeout_ms = int(settings["request_timeout_ms"])
        self._loop = asyncio.get_running_loop()
        self._partitions = [_Partition(part) for part in parts]
        self._index = {part: number for number, part in enumerate(parts)}
        self._nodes: dict[int, _Node] = {}
        self._busy: dict[int, None] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._closed = False
        self._find_leaders()

    def report(
        self,
        sending: Callable[[list[Batch], int], None],
        ended: Callable[[Batch, Exception | None, int], None],
        split: Callable[[Batch, tuple[Batch, Batch]], None],
    ) -> None:
        """Set the callbacks.

        `sending(batches, bytes)` is called just before a send, with the batches that were never sent before.
        `ended(batch, error, offset)` is called when the broker acknowledged a batch (offset -1: unknown) or the batch
        failed for good. `split(batch, halves)` is called when two halves replace a batch.
        """
        self._sending, self._ended, self._split = sending, ended, split

    async def connect(self) -> None:
        """Connect to every leader. Raises the first KafkaError or OSError."""
        for number in {p.leader for p in self._partitions if p.leader is not None}:
            node = self._node(number)
            node.connection = await self._connected(node)

    def put(self, batch: Batch) -> None:
        """Enqueue a batch. Records may be added to it until it is sent."""
        self._partitions[batch.index].waiting.append(batch)
        self._busy[batch.index] = None

    def withdraw(self, batch: Batch) -> None:
        """Remove a batch that was not sent yet."""
        self._partitions[batch.index].waiting.remove(batch)

    def flush(self) -> None:
        """Send what can be sent now."""
        while self._busy and not self._closed:
            requests = self._gather()
            if not requests:
                return
            for node, batches in requests.items():
                self._send(self._nodes[node], batches)

    def check(self) -> None:
        """Close connections whose oldest request has not been answered within the request timeout."""
        now = self._loop.time()
        for node in self._nodes.values():
            if (
                node.connection
                and node.in_flight
                and now - node.in_flight[0].sent_at > self._timeout_ms / 1e3
            ):
                node.connection.close()

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        for task in (self._refreshing, *(node.connecting for node in self._nodes.values())):
            if task is not None:
                task.cancel()
        for node in self._nodes.values():
            if node.connection is not None:
                node.connection.close()

    def _gather(self) -> dict[int, list[Batch]]:
        """Return at most one batch of each partition, grouped by the brokers that accept another request."""
        now = self._loop.time()
        found: dict[int, list[Batch]] = {}
        for index in list(self._busy):
            partition = self._partitions[index]
            while self._ids is None and partition.again and partition.again[0].settled:
                partition.again.pop(0)
            batch = partition.next(now)
            if batch is None:
                if not partition.again:
                    del self._busy[index]
                continue
            if partition.leader is None:
                self._refresh()
                continue
            node = self._node(partition.leader)
            if node.connection is None:
                self._reconnect(node, now)
            elif not node.connection.clogged and len(node.in_flight) < IN_FLIGHT:
                found.setdefault(node.number, []).append(batch)
        return found

    def _send(self, node: _Node, batches: list[Batch]) -> None:
        assert node.connection is not None
        for batch in batches:
            partition = self._partitions[batch.index]
            if partition.again:
                partition.again.pop(0)
            else:
                partition.waiting.popleft()
                self._number(batch, partition)
            partition.in_flight += 1
        data = [(self._partitions[batch.index].part, batch.sealed()) for batch in batches]
        self._sending(
            [batch for batch in batches if batch.sent_ns < 0], sum(len(sealed) for _, sealed in data)
        )
        request = _Request(
            {self._partitions[batch.index].part: (batch, batch.sequence) for batch in batches},
            self._loop.time(),
        )
        node.in_flight.append(request)
        node.sent_at = request.sent_at
        node.connection.send(data)

    def _number(self, batch: Batch, partition: _Partition) -> None:
        """Assign the sequence numbers of an idempotent producer at the first send."""
        if self._ids is not None:
            batch.producer_id, batch.epoch = self._ids.producer_id, self._ids.producer_epoch
            batch.sequence = partition.sequence
            partition.sequence = (partition.sequence + batch.count) & SEQUENCE_MASK

    def _answered(self, node: _Node, answers: list[Answer]) -> None:
        request = node.in_flight.popleft()
        for answer in answers:
            found = request.batches.pop(answer.part, None)
            if found is not None:
                self._answer(*found, answer)
        for batch, sequence in request.batches.values():
            self._failed(batch, sequence, KafkaConnectionError("the broker left a batch out of its answer"))
        self.flush()

    def _answer(self, batch: Batch, sequence: int, answer: Answer) -> None:
        error = error_of(answer.code)
        if error is NoError:
            self._partitions[batch.index].in_flight -= 1
            self._ended(batch, None, answer.offset)
        elif error is DuplicateSequenceNumber:
            self._partitions[batch.index].in_flight -= 1
            self._ended(batch, None, -1)
        else:
            self._failed(batch, sequence, error())

    def _failed(self, batch: Batch, sequence: int, error: Exception) -> None:
        """Handle a failed batch: resend it, or report that it has finally failed."""
        partition = self._partitions[batch.index]
        partition.in_flight -= 1
        batch.error = error
        if getattr(error, "invalid_metadata", False):
            partition.leader = None
            self._refresh()
        if isinstance(error, TOO_LARGE) and batch.count > 1:
            self._halve(batch, partition)
        elif self._may_help(batch, sequence, error):
            if batch.settled and self._ids is None:
                return
            bisect.insort(partition.again, batch, key=lambda one: one.number)
            partition.again_at = self._loop.time() + (BACKOFF_S if batch.sequence == sequence else 0)
            self._busy[batch.index] = None
        else:
            if isinstance(error, NEVER_APPENDED):
                self._close_gap(batch, partition)
            self._ended(batch, error, -1)

    def _halve(self, batch: Batch, partition: _Partition) -> None:
        """Replace a batch that is too large by two halves with its sequence numbers, since each record may fit."""
        parts = halves(batch)
        self._split(batch, parts)
        for half in parts:
            bisect.insort(partition.again, half, key=lambda one: one.number)
        self._busy[batch.index] = None

    def _may_help(self, batch: Batch, sequence: int, error: Exception) -> bool:
        """Return whether to resend a batch.

        A batch that is out of order because an earlier batch failed is resent, too.
        """
        if isinstance(error, OutOfOrderSequenceNumber):
            again = self._partitions[batch.index].again
            return batch.sequence != sequence or bool(again and again[0].number < batch.number)
        return bool(getattr(error, "retriable", False))

    def _close_gap(self, batch: Batch, partition: _Partition) -> None:
        """Renumber later batches, because the broker never used this batch's sequence numbers."""
        if self._ids is None:
            return
        flying = [r.batches[partition.part][0] for node in self._nodes.values() for r in node.in_flight
                  if partition.part in r.batches]  # fmt: skip
        for later in (*partition.again, *flying):
            if later.number > batch.number:
                later.sequence = (later.sequence - batch.count) & SEQUENCE_MASK
        partition.sequence = (partition.sequence - batch.count) & SEQUENCE_MASK

    def _node(self, number: int) -> _Node:
        return self._nodes.setdefault(number, _Node(number))

    async def _connected(self, node: _Node) -> ProduceConnection:
        broker = self._client.cluster.broker_metadata(node.number)
        if broker is None:
            raise NodeNotReadyError(f"broker {node.number} is not known any more")
        node.place = f"{broker.host}:{broker.port} (id {node.number})"
        client, settings = self._client, self._settings
        secured = {name: settings[name] for name in ("ssl_context", "sasl_mechanism", "sasl_plain_username",
                                                    "sasl_plain_password") if name in settings}  # fmt: skip
        made = await create_conn(
            broker.host, broker.port, client_id=client._client_id, security_protocol=settings["security_protocol"],
            request_timeout_ms=client._request_timeout_ms, **secured,
        )  # fmt: skip
        return ProduceConnection(
            made, self._acks, self._timeout_ms,
            lambda answers: self._answered(node, answers), self.flush, lambda error: self._lost(node, error),
        )  # fmt: skip

    def _reconnect(self, node: _Node, now: float) -> None:
        if node.connecting is None and now >= node.connect_at:
            node.connecting = self._loop.create_task(self._connect_again(node))

    async def _connect_again(self, node: _Node) -> None:
        try:
            node.connection = await self._connected(node)
        except (OSError, KafkaError, TimeoutError) as error:
            if not isinstance(error, HostRefusedError):
                self._note_lost(node, f"connecting to it failed: {connection_problem(error)}")
            node.connect_at = self._loop.time() + BACKOFF_S
            self._forget_leader(node)
        finally:
            node.connecting = None
        self.flush()

    def _lost(self, node: _Node, error: Exception) -> None:
        """Resend the requests in flight, in order, because it is unknown whether the broker has received them."""
        node.connection = None
        node.connect_at = self._loop.time() + BACKOFF_S
        requests = list(node.in_flight)
        if not self._closed and (requests or self._loop.time() - node.sent_at < IDLE_S):
            unanswered = f" with {counted(len(requests), 'request')} unanswered" if requests else ""
            self._note_lost(node, f"the connection ended{unanswered}")
        node.in_flight.clear()
        for request in requests:
            for batch, sequence in request.batches.values():
                self._failed(batch, sequence, error)
        if not self._closed:
            self._forget_leader(node)

    def _note_lost(self, node: _Node, why: str) -> None:
        """Note that a broker was lost, with the first reason."""
        self._lost_brokers.setdefault(node.place or f"id {node.number}", why)

    def _forget_leader(self, node: _Node) -> None:
        for partition in self._partitions:
            if partition.leader == node.number:
                partition.leader = None
        self._refresh()

    def _find_leaders(self) -> None:
        for partition in self._partitions:
            if partition.leader is None:
                leader = self._client.cluster.leader_for_partition(partition.part)
                if leader is not None and leader >= 0:
                    partition.leader = partition.last_leader = leader

    def _note_leaderless(self, partition: _Partition) -> None:
        """If the last leader of a partition is lost, note that no other broker has taken over."""
        node = self._nodes.get(partition.last_leader)
        if node is not None and node.connection is None:
            name = f"{partition.part.topic}/{partition.part.partition}"
            self._note_lost(node, f"it led {name}, and no broker does now")

    def _refresh(self) -> None:
        """Request the cluster's metadata to find the leaders, unless such a request is already in flight."""
        if self._refreshing is None and not self._closed:
            self._refreshing = self._loop.create_task(self._ask_leaders())

    async def _ask_leaders(self) -> None:
        try:
            await asyncio.sleep(BACKOFF_S)
            await self._client.force_metadata_update()
            self._find_leaders()
        except KafkaError:
            pass
        finally:
            self._refreshing = None
        for partition in self._partitions:
            if partition.leader is None:
                self._refresh()
                self._note_leaderless(partition)
        self.flush()
