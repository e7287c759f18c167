"""What a Kafka lane knows of its records beside the figures that every lane has."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from .batch import Batch


@dataclass(slots=True)
class TooLarge:
    """Records of a topic that it does not take even alone, and the smallest and largest of them, in bytes as a batch."""

    count: int = 0
    smallest: int = sys.maxsize
    largest: int = 0


@dataclass(slots=True)
class Outcomes:
    """What the lane knows beside its metrics: errors by name, the offsets of its records, by topic those that
    are too large, and by address why a broker was lost.
    """

    errors: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[TopicPartition] = field(default_factory=Counter)
    late: int = 0
    last_offset: dict[TopicPartition, int] = field(default_factory=dict)
    too_large: dict[str, TooLarge] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def note_too_large(self, topic: str, batch: Batch) -> None:
        """A batch of one record that its topic does not take."""
        found = self.too_large.setdefault(topic, TooLarge())
        found.count += batch.count
        found.smallest, found.largest = min(found.smallest, batch.size), max(found.largest, batch.size)
