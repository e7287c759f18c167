"""Writes due rows as records. Everything that is the same for all rows is prepared once for the kernel."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from replay.errors import UsageError
from replay.lane.feed import FeedWriter
from replay.plan.schedule import DueBatch, Schedule
from replay.protocols.adapter import Renderer
from replay.protocols.feeder import checked
from replay.trace import Trace
from replay_native.feed.ring import LaneShare
from replay_native.kafka import events as kernels
from replay_native.templates.text import CLIENT, EMAIL, LITERAL, NUMBER, UUID

PRODUCE = "PRODUCE"
"""The method that a recorded Kafka record has in a trace."""

TOPICS = "topics"
"""Key of a manifest's options: the topics of a recording, each with its number of partitions."""
MARK = "X-Replay"
"""The header that identifies a record: RUN-SEQ, as in HTTP requests."""

_MARK_NAME = bytes([2 * len(MARK)]) + MARK.encode()
"""The header's name, after its length as a zigzag varint."""

_PLACEHOLDER = re.compile(r"\{(uuid|email|client|n|method|path|at_ms|path\[(\d{1,4})\])\}")
_KINDS = {
    "uuid": UUID, "email": EMAIL, "client": CLIENT, "n": NUMBER,
    "method": kernels.METHOD, "path": kernels.PATH, "at_ms": kernels.AT_MS,
}  # fmt: skip

KEY_BYTES = 4_096
"""Initial space in bytes for the key of a record while its partition is computed. It grows for a longer key."""

_NOT_READ: npt.NDArray[np.int64] = np.empty(0, np.int64)

Part = tuple[int, int, bytes]
"""A part of a template: its kind, the index of its path segment, or the bytes of a literal."""


def parse(template: str) -> list[Part]:
    """Split a template at its placeholders. Any other brace is literal text."""
    parts: list[Part] = []
    at = 0
    for match in _PLACEHOLDER.finditer(template):
        if match.start() > at:
            parts.append((LITERAL, 0, template[at : match.start()].encode()))
        if match[2]:
            parts.append((kernels.SEGMENT, int(match[2]), b""))
        else:
            parts.append((_KINDS[match[1]], 0, b""))
        at = match.end()
    if at < len(template):
        parts.append((LITERAL, 0, template[at:].encode()))
    return parts


def recorded_topics(trace: Trace) -> dict[str, int]:
    """Return the topics of a Kafka recording, with their numbers of partitions; empty for any other recording.

    UsageError if the manifest is damaged.
    """
    topics = trace.manifest.options.get(TOPICS, {})
    if not isinstance(topics, dict) or not all(isinstance(count, int) for count in topics.values()):
        raise UsageError(f"{trace.path}: its manifest has no valid list of topics", hint="record it again")
    return topics


def _bytes(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytearray(data), np.uint8)


def _flat(names: Sequence[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    encoded = [name.encode() for name in names]
    return _bytes(b"".join(encoded)), np.cumsum([0, *map(len, encoded)]).astype(np.int64)


class EventRenderer(Renderer):
    """Renders due rows as records.

    `destination` maps each recorded topic to the index of its target topic. `partitions` has the number of
    partitions of each target topic; each partition is a route. With a `mark` each record gets a header
    X-Replay, which is the mark and the sequence number. With a `trace_seed` each record gets a traceparent,
    which replaces a recorded one.
    """

    def __init__(
        self, schedule: Schedule, destination: dict[str, int], partitions: Sequence[int], keep_partition: bool,
        mark: bytes = b"", trace_seed: int = 0,
    ) -> None:  # fmt: skip
        kafka, trace = schedule.scenario.kafka, schedule.trace
        self._schedule = schedule
        self._own: Trace | None = None
        self._routed: tuple[DueBatch, npt.NDArray[np.int64]] | None = None
        self._key_space: npt.NDArray[np.uint8] = np.empty(KEY_BYTES, np.uint8)
        self._requests, self._warm_up_ns = schedule.requests_table, schedule.warm_up_ns
        key, value = parse(kafka.key), parse(kafka.value)
        literals = bytearray()
        begins, ends = [], []
        for kind, number, text in [*key, *value]:
            begins.append(number if kind == kernels.SEGMENT else len(literals))
            literals += text
            ends.append(len(literals))
        topics, topic_ends = _flat(list(destination))
        methods, method_ends = _flat(trace.requests.methods)
        self._table = kernels.EventTable(
            recorded=np.array([method == PRODUCE for method in trace.requests.methods], np.uint8),
            topics=topics,
            topic_ends=topic_ends,
            topic_target=np.array(list(destination.values()), np.int64),
            default_target=0,
            first_route=np.cumsum([0, *partitions]).astype(np.int64),
            keep_partition=keep_partition,
            kinds=np.array([kind for kind, _, _ in [*key, *value]], np.uint8),
            begins=np.array(begins, np.int64),
            ends=np.array(ends, np.int64),
            key_parts=len(key) if kafka.key else -1,
            literals=_bytes(bytes(literals)),
            methods=methods,
            method_ends=method_ends,
            headers=trace.requests.header_batches(),
            bodies=trace.requests.body_batches()[0],
            seed=schedule.scenario.seed & (2**64 - 1),
            wall_ns=time.time_ns() - time.monotonic_ns(),
            keep_time=kafka.timestamps == "recorded",
            mark=_bytes(_MARK_NAME + mark if mark else b""),
            mark_name_bytes=len(_MARK_NAME),
            trace_seed=trace_seed,
        )

    @property
    def typical_bytes(self) -> int:
        """An estimate of the bytes of a record, to size a feed."""
        _, mean, _ = self._schedule.trace.requests.body_batches()
        return max(mean, int(self._table.literals.size)) + 256

    @property
    def largest_bytes(self) -> int:
        """An estimate of the bytes of the largest record."""
        _, _, largest = self._schedule.trace.requests.body_batches()
        return max(largest, int(self._table.literals.size)) + 65_536

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
        share = LaneShare(lane, lanes, False, start_ns, self._warm_up_ns, horizon_ns)
        reached = kernels.render_events(
            batch.rows,
            batch.first_seq,
            row,
            share,
            self._requests,
            self._table_of(batch),
            writer.rings,
            self.routes(batch) if lanes > 1 else _NOT_READ,
        )
        return checked(reached, batch, writer)

    def routes(self, batch: DueBatch) -> npt.NDArray[np.int64]:
        """Return the route of each row, which is its partition among those of all topics.

        Routes are counted from this target's first route.
        """
        if self._routed is None or self._routed[0] is not batch:
            routes, row = np.empty(len(batch), np.int64), 0
            while row < len(batch):
                row = kernels.route_events(
                    batch.rows,
                    batch.first_seq,
                    row,
                    self._requests,
                    self._table_of(batch),
                    self._key_space,
                    routes,
                )
                if row < len(batch):
                    self._key_space = np.empty(2 * self._key_space.size, np.uint8)
            self._routed = batch, routes
        return self._routed[1]

    def _table_of(self, batch: DueBatch) -> kernels.EventTable:
        """Return the table, with the headers and values of a batch that has its own."""
        if batch.own is not self._own:
            self._own = batch.own
            trace = self._schedule.trace if batch.own is None else batch.own
            self._table = self._table._replace(
                headers=trace.requests.header_batches(), bodies=trace.requests.body_batches()[0]
            )
        return self._table

    def route(self, batch: DueBatch, row: int) -> int:
        """See `Renderer`."""
        return int(self.routes(batch)[row])
