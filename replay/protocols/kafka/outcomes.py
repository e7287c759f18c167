"""What a Kafka lane knows about its records beyond the figures that every lane has."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from .batch import Batch


@dataclass(slots=True)
class TooLarge:
    """Records that their topic rejects even in a batch of their own.

    `smallest` and `largest` are the sizes of such batches in bytes, before compression.
    """

    count: int = 0
    smallest: int = sys.maxsize
    largest: int = 0


@dataclass(slots=True)
class Outcomes:
    """What the lane knows beyond its metrics.

    `errors` counts records by the name of their error. `late` counts records that were acknowledged after their
    time limit. `last_offset` has the last acknowledged offset of each partition. `lost` has the reasons of lost
    brokers, by address.
    """

    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[TopicPartition] = field(default_factory=Counter)
    late: int = 0
    last_offset: dict[TopicPartition, int] = field(default_factory=dict)
    too_large: dict[str, TooLarge] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def note_too_large(self, topic: str, batch: Batch) -> None:
        """Count a batch of one record that its topic rejects."""
        found = self.too_large.setdefault(topic, TooLarge())
        found.count += batch.count
        found.smallest, found.largest = min(found.smallest, batch.size), max(found.largest, batch.size)
