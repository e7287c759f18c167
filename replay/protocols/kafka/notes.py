"""Notes on a run against Kafka: records that its topics will not keep or accept, missing records, and lost brokers."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiokafka import TopicPartition

from replay.results.document import Note
from replay.units import MS_NS, counted, format_duration

from .cluster import TopicSettings
from .outcomes import TooLarge


def too_old(oldest_ns: int, described: Mapping[str, TopicSettings]) -> list[Note]:
    """Return notes on topics whose retention is shorter than the age of the oldest recorded timestamp."""
    age_ns = time.time_ns() - oldest_ns
    return [
        Note(
            "OLDER_THAN_RETENTION",
            f"the recorded timestamps are up to {format_duration(age_ns)} old, but the topic {topic!r} keeps records for"
            f" {format_duration(kept * MS_NS)} (retention.ms): the broker removes older records",
        )
        for topic, found in described.items()
        if (kept := found.retention_ms) is not None and age_ns > kept * MS_NS
    ]


def too_large(found: Mapping[str, TooLarge], described: Mapping[str, TopicSettings]) -> list[Note]:
    """Return notes on topics that rejected records even if each was the only one in its batch."""
    return [_too_large(topic, records, described.get(topic)) for topic, records in found.items()]


def _too_large(topic: str, records: TooLarge, settings: TopicSettings | None) -> Note:
    limit = settings.largest_bytes if settings is not None else None
    takes = f"accepts at most {limit:,} bytes" if limit else "accepts no batch that large"
    sizes = f"{records.smallest:,}"
    if records.largest > records.smallest:
        sizes += f" to {records.largest:,}"
    each = ", each" if records.count > 1 else ""
    return Note(
        "RECORDS_TOO_LARGE",
        f"{counted(records.count, 'record')} too large for the topic {topic!r}, which {takes} (max.message.bytes):"
        f" {sizes} bytes{each} in a batch of its own, before compression",
    )


def missing(by_partition: Mapping[TopicPartition, int]) -> list[Note]:
    """Return a note on acknowledged records that the partitions' end offsets do not cover."""
    if not by_partition:
        return []
    where = ", ".join(f"{part.topic}/{part.partition} ({count:,})" for part, count in by_partition.items())
    return [
        Note(
            "RECORDS_MISSING",
            f"{counted(sum(by_partition.values()), 'acknowledged record')} missing in {where}: the partition's end offset"
            " does not cover them. With acks = 1 this happens when a leader is lost before another broker has its"
            " records",
        )
    ]


def lost(brokers: Mapping[str, str]) -> list[Note]:
    """Return notes on brokers that were lost during the run."""
    return [Note("BROKER_LOST", f"the broker {place}: {why}") for place, why in brokers.items()]
