"""Records Kafka topics into a trace that replays record by record."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from replay.errors import InputError, UsageError
from replay.plan.safety import Allowed, allowed_hosts
from replay.settings.scenario import Kafka
from replay.trace import Trace, TraceWriter
from replay.trace.dictionary import ClientTable, flatten
from replay.trace.manifest import OUT_OF_TIME_ORDER

from .cluster import (
    COMMITTED,
    CONNECT_TIMEOUT_S,
    UNCOMMITTED,
    client_settings,
    close_consumer,
    in_own_loop,
    look,
)
from .events import PRODUCE, TOPICS
from .gate import Check, Gate
from .left_out import counting
from .recording import Recording
from .target import KafkaTarget, parse

NEXT_OFFSETS = "next_offsets"
"""Key of a manifest's options: the first offset that was not recorded, by topic and partition."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_MS = 500
RECORDS_AT_ONCE = 5_000
SILENT_S = 30.0
"""Seconds without any record after which a recording ends, even if some partitions were not read to their end.

It does not end while the end of one of them is unknown, because `until_ms` has not passed.
"""

REFUSED_SILENT_S = 5.0
"""Used in place of SILENT_S, for all partitions, once the cluster has advertised a host that is not allowed."""

TIMESTAMP_RESOLUTION_NS = 1_000_000
FOREVER_S = 10 * 365 * 86_400.0
_SAFE = "".join(chr(byte) for byte in range(33, 127) if byte != ord("%"))


@dataclass(frozen=True, slots=True)
class Source:
    """Brokers, and the topics on them."""

    target: KafkaTarget
    topics: tuple[str, ...]


def parse_source(text: str) -> Source:
    """Parse `kafka://HOST:PORT/T1,T2`. UsageError if it is invalid."""
    place, _, names = text.removeprefix("kafka://").partition("/")
    if not text.startswith("kafka://"):
        raise UsageError(
            f"{text!r} is not a Kafka cluster",
            hint="write kafka://HOST:PORT/TOPIC,TOPIC, or `http` to record HTTP",
        )
    if not names:
        raise UsageError(f"{text!r} has no topic", hint="write kafka://HOST:PORT/TOPIC,TOPIC")
    targets = [parse(f"kafka://{place}/{name}") for name in names.rstrip("/").split(",")]
    if any(not target.base_path for target in targets):
        raise UsageError(f"{text!r} has an empty topic name", hint="write kafka://HOST:PORT/TOPIC,TOPIC")
    return Source(targets[0], tuple(dict.fromkeys(target.base_path for target in targets)))


def resume_offsets(trace: Trace, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """Return the offsets at which an earlier recording ended.

    InputError if it is not a Kafka recording, or if it has none of these topics.
    """
    found = trace.manifest.options.get(NEXT_OFFSETS)
    if not isinstance(found, dict):
        raise InputError(f"{trace.path} is not a recording of Kafka: it cannot be continued")
    if not set(found) & set(topics):
        raise InputError(f"{trace.path} is a recording of {', '.join(found)}, not of {', '.join(topics)}")
    return {
        TopicPartition(topic, int(number)): int(offset)
        for topic, offsets in found.items()
        for number, offset in offsets.items()
    }


def record(
    source: Source, out: Path, *, from_ms: int | None = None, until_ms: int | None = None,
    resume: Mapping[TopicPartition, int] | None = None, kafka: Kafka | None = None, overwrite: bool = False,
    isolation: str = COMMITTED, permitted: Allowed | None = None,
    progress: Callable[[int], None] = lambda records: None,
) -> Recording:  # fmt: skip
    """Record topics into the new trace `out`, in bounded memory; blocks.

    `from_ms` None starts at the earliest record, and `until_ms` None ends at the current end. Both are
    milliseconds since the epoch, and are compared with the records' timestamps. `resume` has first offsets that
    override `from_ms`. Connections are made only to loopback, to `permitted` hosts, and to the hosts in the
    source's URL. SIGINT and SIGTERM stop the recording, and the trace is still complete up to that point.
    Without any record, InputError is raised, or KeyboardInterrupt after a signal. Other ReplayErrors mean that the
    cluster cannot be used.
    """
    settings = client_settings(source.target, kafka or Kafka())
    check = check_for(source, permitted or allowed_hosts(()))
    cluster = look(source.target, settings, source.topics, check)
    recording = Recording(isolation=isolation)
    gate = Gate(check)
    with TraceWriter(out, overwrite=overwrite) as writer:
        tape = _Tape(writer, progress)
        work = _Work(settings, cluster.ends, from_ms, until_ms, dict(resume or {}), gate, recording)
        with counting(recording.left_out):
            in_own_loop(source.target.authority, gate, lambda: work.run(tape), FOREVER_S, strict=False)
        recording.disordered, recording.refused = tape.disordered, tuple(gate.refused)
        if recording.interrupted and not tape.records:
            raise KeyboardInterrupt
        if not tape.records:
            raise _nothing(source, recording, resumed=bool(resume))
        manifest = writer.manifest
        manifest.importer, manifest.resolution_ns = "kafka", TIMESTAMP_RESOLUTION_NS
        manifest.options = {
            TOPICS: dict(cluster.partitions),
            NEXT_OFFSETS: _by_topic(work.next_offsets),
            "complete": recording.complete,
            "brokers": source.target.authority,
            "isolation": isolation,
            "left_out": {
                "aborted_records": recording.left_out.aborted_records,
                "control_batches": recording.left_out.control_batches,
                "open_offsets": recording.open_offsets,
            },
            OUT_OF_TIME_ORDER: recording.disordered,
        }
        recording.records = tape.records
    recording.trace = writer.trace
    return recording


def check_for(source: Source, permitted: Allowed) -> Check:
    """Return the check of the hosts that a recording connects to.

    Hosts in the source's URL need no --allow, because reading is not a load; advertised hosts do.
    """
    named = {host for host, _ in source.target.brokers}

    def check(host: str, addresses: Sequence[str]) -> None:
        if host.lower().rstrip(".") not in named:
            permitted.check(host, addresses, advertised=True)

    return check


def _nothing(source: Source, recording: Recording, *, resumed: bool) -> InputError:
    """Return the error for a recording without a record."""
    if recording.refused:
        hosts = ", ".join(recording.refused)
        return InputError(
            f"{', '.join(source.topics)}: no record was read; the cluster advertised {hosts}, not listed in --allow",
            hint="--allow HOST permits connections to a host",
        )
    if recording.open_offsets or recording.left_out.aborted_records:
        hint = f"--isolation {UNCOMMITTED} also records open and aborted transactions"
    elif resumed:
        hint = "no record has arrived since the earlier recording"
    else:
        hint = "the topics have no records, or none between --from and --until"
    return InputError(f"{', '.join(source.topics)}: there is nothing to record", hint=hint)


def _by_topic(offsets: Mapping[TopicPartition, int]) -> dict[str, dict[str, int]]:
    topics: dict[str, dict[str, int]] = {}
    for part, offset in sorted(offsets.items()):
        topics.setdefault(part.topic, {})[str(part.partition)] = offset
    return topics


class _Tape:
    """Writes records into a trace."""

    def __init__(self, writer: TraceWriter, progress: Callable[[int], None]) -> None:
        self._writer, self._progress = writer, progress
        self._clients = ClientTable()
        self._method = writer.method_id(PRODUCE)
        self._latest_ms: dict[TopicPartition, int] = {}
        self.records = 0
        self.disordered: dict[str, int] = {}

    def add(self, part: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Add records of one partition, in offset order."""
        writer, prefix = self._writer, f"/{part.topic}/{part.partition}".encode()
        keyed = prefix + b"?key="
        targets = [
            prefix if r.key is None else keyed + quote_from_bytes(r.key, _SAFE).encode() for r in records
        ]
        bodies = [-1 if r.value is None else writer.add_body(r.value) for r in records]
        headers = [
            writer.add_headers(tuple((name.encode(), value) for name, value in r.headers))
            if r.headers
            else -1
            for r in records
        ]
        count = len(records)
        data, offsets = flatten(targets)
        ids = writer.add_requests(
            data, offsets, np.full(count, self._method, np.int64), np.full(count, -1, np.int64),
            np.array(headers, np.int64), np.array(bodies, np.int64),
        )  # fmt: skip
        clients = self._clients.number(np.array([hash(r.key) for r in records], np.int64))
        stamps = np.array([r.timestamp for r in records], np.int64)
        self._note_order(part, stamps)
        writer.add_events(stamps * TIMESTAMP_RESOLUTION_NS, ids, clients)
        self.records += count
        self._progress(self.records)

    def _note_order(self, part: TopicPartition, stamps: npt.NDArray[np.int64]) -> None:
        """Count records with an earlier timestamp than a record at a lower offset of their partition."""
        least = int(stamps[0])
        latest = np.maximum.accumulate(np.concatenate(([self._latest_ms.get(part, least)], stamps)))
        early = int(np.count_nonzero(stamps < latest[:-1]))
        self._latest_ms[part] = int(latest[-1])
        if early:
            name = f"{part.topic}/{part.partition}"
            self.disordered[name] = self.disordered.get(name, 0) + early


@dataclass(slots=True)
class _Work:
    """The consuming side of a recording.

    `next_offsets` has the offset after the last recorded one, by partition. `stopped` has the partitions in
    which a record beyond the end was read.
    """

    settings: dict[str, Any]
    highs: dict[TopicPartition, int]
    from_ms: int | None
    until_ms: int | None
    resume: dict[TopicPartition, int]
    gate: Gate
    recording: Recording
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)
    stopped: set[TopicPartition] = field(default_factory=set)

    @property
    def parts(self) -> list[TopicPartition]:
        """All partitions, in order."""
        return sorted(self.highs)

    async def run(self, tape: _Tape) -> None:
        """Run until every partition is read to its end, until no more records arrive, or until a signal arrives."""
        consumer = AIOKafkaConsumer(
            **self.settings, enable_auto_commit=False, auto_offset_reset="earliest",
            max_poll_records=RECORDS_AT_ONCE, isolation_level=self.recording.isolation,
        )  # fmt: skip
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await consumer.start()
        for number in SIGNALS:
            loop.add_signal_handler(number, stop.set)
        try:
            consumer.assign(self.parts)
            await self._seek(consumer)
            ends = await self._ends(consumer)
            await self._read(consumer, tape, ends, stop)
            self._count_open(consumer, ends)
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            await close_consumer(consumer)
        self.recording.interrupted = stop.is_set()

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        """Move each partition to the start of its recording."""
        firsts = await consumer.beginning_offsets(self.parts)
        if self.from_ms is not None:
            ends = await consumer.end_offsets(self.parts)
            found = await consumer.offsets_for_times(dict.fromkeys(self.parts, self.from_ms))
            firsts = {part: place.offset if place else ends[part] for part, place in found.items()}
        for part in self.parts:
            self.next_offsets[part] = max(self.resume.get(part, firsts[part]), 0)
            consumer.seek(part, self.next_offsets[part])

    async def _ends(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Return the end of each partition's recording, as far as it is known.

        With `until_ms` the end is the first record at that time or later. The broker is not asked for it,
        because its answer may be a transaction marker with an unrelated timestamp.
        """
        if self.until_ms is not None:
            return {}
        readable = await consumer.end_offsets(self.parts)
        return {part: min(readable[part], high) for part, high in self.highs.items()}

    def _count_open(self, consumer: AIOKafkaConsumer, ends: Mapping[TopicPartition, int]) -> None:
        """Count the offsets that a read_committed consumer did not reach because transactions were open."""
        if self.recording.isolation != COMMITTED:
            return
        for part in set(ends) - self.stopped:
            high = self.highs[part] if self.until_ms is None else consumer.highwater(part) or self.highs[part]
            self.recording.open_offsets += max(high - max(ends[part], self.next_offsets[part]), 0)

    async def _read(
        self, consumer: AIOKafkaConsumer, tape: _Tape, ends: dict[TopicPartition, int], stop: asyncio.Event
    ) -> None:
        """Read records into the tape until every partition has reached its end.

        Partitions whose end is not known are read until a record of `until_ms` or later arrives, or until that
        time has passed.
        """
        open_ = {part for part in self.parts if part not in ends or self.next_offsets[part] < ends[part]}
        heard_s = time.monotonic()
        consumer.pause(*(set(self.parts) - open_))
        while open_ and not stop.is_set():
            known = len(ends)
            if not await self._end_what_is_over(consumer, ends, open_):
                break
            heard_s = heard_s if len(ends) == known else time.monotonic()
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_AT_ONCE)
            left_out = self.recording.left_out
            for part, records in batches.items():
                heard_s = time.monotonic()
                wanted = list(takewhile(lambda record: self._is_wanted(record, ends), records))
                if wanted:
                    tape.add(part, wanted)
                    self.next_offsets[part] = wanted[-1].offset + 1
                if len(wanted) < len(records):
                    self.stopped.add(part)
                    left_out.settle(part, records[len(wanted)].offset)
                    open_.discard(part)
                    consumer.pause(part)
            for part in self.parts:
                left_out.settle(part, ends.get(part))
            for part in [part for part in open_ if part in ends]:
                if await consumer.position(part) >= ends[part]:
                    open_.discard(part)
                    consumer.pause(part)
            silent_s = time.monotonic() - heard_s
            if (self.gate.refused and silent_s > REFUSED_SILENT_S) or (
                silent_s > SILENT_S and all(part in ends for part in open_)
            ):
                break
        self.recording.complete = not open_

    async def _end_what_is_over(
        self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], open_: set[TopicPartition]
    ) -> bool:
        """Use the partitions' current ends once `until_ms` has passed; False if the broker cannot report them."""
        endless = [part for part in open_ if part not in ends]
        if endless and self.until_ms is not None and time.time() * 1_000 > self.until_ms:
            try:
                ends |= await consumer.end_offsets(endless)
            except KafkaError:
                return False
        return True

    def _is_wanted(self, record: ConsumerRecord, ends: Mapping[TopicPartition, int]) -> bool:
        """Return whether a record lies before the requested end."""
        end = ends.get(TopicPartition(record.topic, record.partition))
        return (end is None or record.offset < end) and (
            self.until_ms is None or record.timestamp < self.until_ms
        )
