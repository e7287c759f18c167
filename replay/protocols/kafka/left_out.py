"""Counts what a read_committed consumer leaves out: records of aborted transactions, and transaction markers.

aiokafka skips both without notice. `counting` replaces aiokafka's reader of fetched batches with one that
counts what it skips. The class that it extends is private to aiokafka, so pyproject.toml pins aiokafka's minor
version.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka import errors as kafka_errors
from aiokafka.consumer import fetcher

READ_COMMITTED = fetcher.READ_COMMITTED


@dataclass(slots=True)
class LeftOut:
    """The numbers of skipped records and markers.

    A partition's figures are added once the end of its recording is known (`settle`).
    """

    aborted_records: int = 0
    control_batches: int = 0
    _pending: dict[TopicPartition, list[tuple[int, int, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, part: TopicPartition, offset: int, aborted_records: int, control_batches: int) -> None:
        """Note what was skipped at this offset."""
        self._pending[part].append((offset, aborted_records, control_batches))

    def settle(self, part: TopicPartition, end: int | None) -> None:
        """Count what was skipped before `end` (None: everything), and forget the rest."""
        for offset, aborted, control in self._pending.pop(part, ()):
            if end is None or offset < end:
                self.aborted_records += aborted
                self.control_batches += control


class _CountingRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """aiokafka's reader of fetched batches (as of 0.14), which also notes what it skips."""

    left_out: LeftOut
    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[ConsumerRecord]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise kafka_errors.CorruptRecordException(f"Invalid CRC - {self._tp}")
            if batch.is_control_batch:
                self._skip_control(batch)
            elif self._is_aborted(batch):
                self._skip_aborted(batch)
            else:
                for record in batch:
                    if record.offset >= self.next_fetch_offset:
                        self.next_fetch_offset = record.offset + 1
                        yield self._consumer_record(self._tp, record)
                self.next_fetch_offset = batch.next_offset

    def _is_aborted(self, batch: Any) -> bool:
        if self._isolation_level != READ_COMMITTED or batch.producer_id is None:
            return False
        self._consume_aborted_up_to(batch.base_offset)
        return batch.is_transactional and batch.producer_id in self._aborted_producers

    def _skip_control(self, batch: Any) -> None:
        """Skip a transaction marker, and note that its producer's transaction has ended."""
        if self._isolation_level == READ_COMMITTED and batch.producer_id is not None:
            self._consume_aborted_up_to(batch.base_offset)
            if self._contains_abort_marker(batch):
                self._aborted_producers.discard(batch.producer_id)
        if batch.next_offset > self.next_fetch_offset:
            self.left_out.add(self._tp, batch.base_offset, 0, 1)
        self.next_fetch_offset = batch.next_offset

    def _skip_aborted(self, batch: Any) -> None:
        for record in batch:
            if record.offset >= self.next_fetch_offset:
                self.left_out.add(self._tp, record.offset, 1, 0)
        self.next_fetch_offset = batch.next_offset


@contextlib.contextmanager
def counting(left_out: LeftOut) -> Iterator[None]:
    """Make all consumers of this process count into `left_out` while the context is open."""

    class Records(_CountingRecords):
        """The reader that counts into `left_out`."""

    Records.left_out = left_out
    before, fetcher.PartitionRecords = fetcher.PartitionRecords, Records
    try:
        yield
    finally:
        fetcher.PartitionRecords = before
