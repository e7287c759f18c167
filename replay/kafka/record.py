"""Recording from Kafka: topics as they are on the brokers, to a trace that replays record by record."""

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
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from replay.errors import InputError, UsageError
from replay.scenario.settings import Kafka
from replay.scenario.target import Target, parse_target
from replay.trace import Trace, TraceWriter
from replay.trace.dictionary import ClientTable, flatten

from .cluster import CONNECT_TIMEOUT_S, client_settings, in_own_loop, look
from .events import PRODUCE, TOPICS

NEXT_OFFSETS = "next_offsets"
"""Of a manifest's options: by topic and partition the first offset that was not recorded."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)
POLL_MS = 500
RECORDS_AT_ONCE = 5_000
SILENT_S = 30.0
"""Without any record for so long a recording ends where it is, though it has not reached its end."""

TIMESTAMP_RESOLUTION_NS = 1_000_000
FOREVER_S = 10 * 365 * 86_400.0
_SAFE = "".join(chr(byte) for byte in range(33, 127) if byte != ord("%"))


@dataclass(frozen=True, slots=True)
class Source:
    """Brokers, and topics on them."""

    target: Target
    topics: tuple[str, ...]


@dataclass(slots=True)
class Recording:
    """How it went. `complete`: every partition was read to where it was asked to."""

    trace: Trace | None = None
    records: int = 0
    complete: bool = True
    interrupted: bool = False


def parse_source(text: str) -> Source:
    """`kafka://HOST:PORT/T1,T2`, taken apart. UsageError says what is wrong with it."""
    place, _, names = text.removeprefix("kafka://").partition("/")
    if not text.startswith("kafka://"):
        raise UsageError(
            f"{text!r} is not a Kafka cluster: nothing else is recorded",
            hint="write kafka://HOST:PORT/TOPIC,TOPIC",
        )
    if not names:
        raise UsageError(f"{text!r} names no topic to record", hint="write kafka://HOST:PORT/TOPIC,TOPIC")
    targets = [parse_target(f"kafka://{place}/{name}") for name in names.rstrip("/").split(",")]
    if any(not target.base_path for target in targets):
        raise UsageError(f"{text!r} has an empty topic name", hint="write kafka://HOST:PORT/TOPIC,TOPIC")
    return Source(targets[0], tuple(dict.fromkeys(target.base_path for target in targets)))


def resume_offsets(trace: Trace, topics: Sequence[str]) -> dict[TopicPartition, int]:
    """Where an earlier recording ended. InputError where it is none of Kafka, or of none of these topics."""
    found = trace.manifest.options.get(NEXT_OFFSETS)
    if not isinstance(found, dict):
        raise InputError(f"{trace.path} is no recording of Kafka: it cannot be gone on with")
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
    progress: Callable[[int], None] = lambda records: None,
) -> Recording:  # fmt: skip
    """Record topics to the new trace `out`, in bounded memory; blocks. SIGINT and SIGTERM end it in order.

    `from_ms` None is the earliest record, `until_ms` None what is there now; both are ms since the epoch, by the
    records' own stamps. `resume` has first offsets that go before `from_ms`. TargetError where the cluster cannot be
    read, InputError where there is nothing to record, KeyboardInterrupt where a signal came before the first record.
    """
    settings = client_settings(source.target, kafka or Kafka())
    cluster = look(source.target, settings, source.topics)
    recording = Recording()
    with TraceWriter(out, overwrite=overwrite) as writer:
        tape = _Tape(writer, progress)
        work = _Work(settings, sorted(cluster.ends), from_ms, until_ms, dict(resume or {}), recording)
        ends = dict(cluster.ends) if until_ms is None else {}
        in_own_loop(source.target.authority, lambda: work.run(tape, ends), FOREVER_S)
        if recording.interrupted and not tape.records:
            raise KeyboardInterrupt
        if not tape.records:
            raise InputError(
                f"{', '.join(source.topics)}: there is nothing to record",
                hint="nothing came since the earlier recording" if resume else "see --from and --until",
            )
        manifest = writer.manifest
        manifest.importer, manifest.resolution_ns = "kafka", TIMESTAMP_RESOLUTION_NS
        manifest.options = {
            TOPICS: dict(cluster.partitions),
            NEXT_OFFSETS: _by_topic(work.next_offsets),
            "complete": recording.complete,
            "brokers": source.target.authority,
        }
        recording.records = tape.records
    recording.trace = writer.trace
    return recording


def _by_topic(offsets: Mapping[TopicPartition, int]) -> dict[str, dict[str, int]]:
    topics: dict[str, dict[str, int]] = {}
    for part, offset in sorted(offsets.items()):
        topics.setdefault(part.topic, {})[str(part.partition)] = offset
    return topics


class _Tape:
    """Writes records down."""

    def __init__(self, writer: TraceWriter, progress: Callable[[int], None]) -> None:
        self._writer, self._progress = writer, progress
        self._clients = ClientTable()
        self._method = writer.method_id(PRODUCE)
        self.records = 0

    def add(self, part: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        """Take records of one partition, in the order of their offsets."""
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
        at_ns = np.array([r.timestamp for r in records], np.int64) * TIMESTAMP_RESOLUTION_NS
        writer.add_events(at_ns, ids, clients)
        self.records += count
        self._progress(self.records)


@dataclass(slots=True)
class _Work:
    """The consuming side of a recording. `next_offsets` is how far each partition was recorded."""

    settings: dict[str, Any]
    parts: list[TopicPartition]
    from_ms: int | None
    until_ms: int | None
    resume: dict[TopicPartition, int]
    recording: Recording
    next_offsets: dict[TopicPartition, int] = field(default_factory=dict)

    async def run(self, tape: _Tape, ends: dict[TopicPartition, int]) -> None:
        """Until every partition is read to its end, the past is silent, or a signal comes."""
        consumer = AIOKafkaConsumer(
            **self.settings, enable_auto_commit=False, auto_offset_reset="earliest",
            max_poll_records=RECORDS_AT_ONCE,
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
            if self.until_ms is not None:
                found = await consumer.offsets_for_times(dict.fromkeys(self.parts, self.until_ms))
                ends |= {part: place.offset for part, place in found.items() if place}
            await self._read(consumer, tape, ends, stop)
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            await consumer.stop()
        self.recording.interrupted = stop.is_set()

    async def _seek(self, consumer: AIOKafkaConsumer) -> None:
        """Put each partition where its recording begins."""
        firsts = await consumer.beginning_offsets(self.parts)
        if self.from_ms is not None:
            ends = await consumer.end_offsets(self.parts)
            found = await consumer.offsets_for_times(dict.fromkeys(self.parts, self.from_ms))
            firsts = {part: place.offset if place else ends[part] for part, place in found.items()}
        for part in self.parts:
            self.next_offsets[part] = max(self.resume.get(part, firsts[part]), 0)
            consumer.seek(part, self.next_offsets[part])

    async def _read(
        self, consumer: AIOKafkaConsumer, tape: _Tape, ends: dict[TopicPartition, int], stop: asyncio.Event
    ) -> None:
        """Partitions without an end are open until a record of `until_ms` comes, or that moment is over."""
        open_ = {part for part in self.parts if part not in ends or self.next_offsets[part] < ends[part]}
        heard_s = time.monotonic()
        consumer.pause(*(set(self.parts) - open_))
        while open_ and not stop.is_set():
            known = len(ends)
            if not await self._end_what_is_over(consumer, ends, open_):
                break
            heard_s = heard_s if len(ends) == known else time.monotonic()
            batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_AT_ONCE)
            for part, records in batches.items():
                heard_s = time.monotonic()
                wanted = list(takewhile(lambda record: self._is_wanted(record, ends), records))
                if wanted:
                    tape.add(part, wanted)
                    self.next_offsets[part] = wanted[-1].offset + 1
                if len(wanted) < len(records):
                    open_.discard(part)
                    consumer.pause(part)
            for part in [part for part in open_ if part in ends]:
                if await consumer.position(part) >= ends[part]:
                    open_.discard(part)
                    consumer.pause(part)
            if all(part in ends for part in open_) and time.monotonic() - heard_s > SILENT_S:
                break
        self.recording.complete = not open_

    async def _end_what_is_over(
        self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], open_: set[TopicPartition]
    ) -> bool:
        """Where `until_ms` is over, the partitions' present ends are theirs; False where the broker cannot say them."""
        endless = [part for part in open_ if part not in ends]
        if endless and self.until_ms is not None and time.time() * 1_000 > self.until_ms:
            try:
                ends |= await consumer.end_offsets(endless)
            except KafkaError:
                return False
        return True

    def _is_wanted(self, record: ConsumerRecord, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether a record comes before the end that was asked for."""
        end = ends.get(TopicPartition(record.topic, record.partition))
        return (end is None or record.offset < end) and (
            self.until_ms is None or record.timestamp < self.until_ms
        )
