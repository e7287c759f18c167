"""Kafka topics as a source: the records that are written from now on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import numpy as np

from replay.errors import ReplayError, TargetError
from replay.plan.safety import Allowed
from replay.protocols.kafka.events import PRODUCE
from replay.protocols.kafka.record import Source
from replay.protocols.kafka.tail import Tail
from replay.results.document import Note
from replay.settings.scenario import Kafka
from replay.trace.dictionary import flatten
from replay.trace.importing.registry import Found, Importer, Options, Probe, Rows
from replay.trace.importing.sources import SourceFile
from replay.trace.manifest import Stamp
from replay.trace.requests import Headers
from replay.units import MS_NS, counted

from .stream import POLL_S, Stream

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

AHEAD_MAX_MS = 60_000
"""A timestamp further than this in the future must be wrong. It does not delay later records of the partition."""

_SAFE = "".join(chr(byte) for byte in range(33, 127) if byte != ord("%"))


class TopicStream(Stream):
    """Records that are written to topics from now on.

    They are consumed as soon as the object is made. Raises ReplayError if the cluster cannot be used.
    """

    kind = "kafka"

    def __init__(self, source: Source, kafka: Kafka, permitted: Allowed) -> None:
        super().__init__(f"{', '.join(source.topics)} on {source.target.authority}")
        self._consuming = Tail(source, kafka, permitted)
        self.topics = dict(self._consuming.topics)
        self.disordered = 0

    def wait_for_head(self, is_stopped: Callable[[], bool], waiting: Callable[[str], None]) -> bool:
        """Return True at once, because records need no detection of a format."""
        return True

    def _new(self) -> list[bytes]:
        return []

    def records(self) -> Iterator[list[ConsumerRecord]]:
        """Yield the records as they arrive, until `stopped` is set. Raises ReplayError if consuming failed."""
        self.in_history = False
        self.on_live()
        while not self.stopped.is_set():
            failure = self._consuming.failure
            if found := self._consuming.take():
                yield found
            elif failure is not None:
                raise (
                    failure
                    if isinstance(failure, ReplayError)
                    else TargetError(f"{self.name} can no longer be read: {failure}")
                )
            else:
                self.caught_up_ns = time.monotonic_ns()
                self.stopped.wait(POLL_S)

    def trouble(self) -> str:
        """Return which host of the cluster must not be connected to, as a sentence, or "" if there is none."""
        return self._consuming.refused()

    def notes(self) -> list[Note]:
        """Return notes about timestamps that went back, and about hosts to which connections are not allowed."""
        notes = []
        if self.disordered:
            text = f"{counted(self.disordered, 'record')} had a stamp before that of an earlier record of the partition"
            notes.append(
                Note("STAMPS_GO_BACK", f"{text}: to keep the order, the time of the earlier record was used")
            )
        if refused := self._consuming.refused():
            notes.append(Note("HOST_REFUSED", f"a part of the source was not read: {refused}"))
        return notes

    def close(self) -> None:
        """Stop consuming, and close the connections to the cluster."""
        self.stopped.set()
        self._consuming.close()


class TopicReader:
    """Converts records to rows, as `replay record` stores them, with topic, partition, key, value and headers.

    The order in a partition is kept: a record is due no earlier than the records at lower offsets, unless their
    timestamps are further than AHEAD_MAX_MS in the future.
    """

    stamp: Stamp = "start"
    subtracts = False

    def __init__(self, found: Found, options: Options) -> None:
        self._found = found
        self.disordered = 0
        self._latest_ms: dict[tuple[str, int], int] = {}
        self.methods, self.hosts = [PRODUCE], list[str]()

    def probe(self, head: bytes) -> Probe:
        """Return a resolution of 1 ns, so that the timestamps, which are in ms, are not spread.

        Spreading them would change the order of records with the same timestamp.
        """
        return Probe(None, 1)

    def read(self, file: SourceFile) -> Iterator[Rows]:
        """Yield the rows of the records as they arrive."""
        assert isinstance(file, TopicStream)
        self._found.topics = dict(file.topics)
        for records in file.records():
            self._found.rejects.lines += len(records)
            rows = self._rows(records)
            file.disordered = self.disordered
            yield rows

    def _rows(self, records: Sequence[ConsumerRecord]) -> Rows:
        count = len(records)
        data, offsets = flatten([_target(record) for record in records])
        sets: list[Headers] = [
            tuple((name.encode(), value) for name, value in record.headers) for record in records
        ]
        bodies = [record.value for record in records if record.value is not None]
        has_value = np.array([record.value is not None for record in records])
        unknown = np.full(count, -1, np.int64)
        return Rows(
            at_ns=np.array([self._at_ms(record) * MS_NS for record in records], np.int64),
            data=data,
            offsets=offsets,
            method=np.zeros(count, np.int64),
            host=unknown,
            client_hash=np.array([hash(record.key) for record in records], np.int64),
            status=unknown,
            took_ns=None,
            bytes=unknown,
            headers=np.where([bool(one) for one in sets], np.arange(count), -1),
            header_sets=sets,
            body=np.where(has_value, np.cumsum(has_value) - 1, -1),
            bodies=bodies,
        )

    def _at_ms(self, record: ConsumerRecord) -> int:
        """Return when a record was written, in ms, but no earlier than records at lower offsets (see AHEAD_MAX_MS)."""
        part, at_ms = (record.topic, record.partition), int(record.timestamp)
        latest = self._latest_ms.get(part, at_ms)
        if at_ms < latest:
            self.disordered += 1
        if at_ms < time.time() * 1_000 + AHEAD_MAX_MS:
            self._latest_ms[part] = max(at_ms, latest)
        return max(at_ms, latest)


def _target(record: ConsumerRecord) -> bytes:
    place = f"/{record.topic}/{record.partition}"
    key = "" if record.key is None else f"?key={quote_from_bytes(record.key, _SAFE)}"
    return (place + key).encode()


KAFKA = Importer(
    name="kafka", title="records of Kafka topics", sniff=lambda head, options: 0.0, reader=TopicReader
)
"""The importer of followed topics. It is not in the registry, because no file has this format."""

TopicStream.own_format = KAFKA
