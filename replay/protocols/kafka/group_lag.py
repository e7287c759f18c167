"""The lag of a service's consumer group, for `[[watch]] group = NAME`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient

from replay.errors import TargetError
from replay.settings.scenario import Kafka

from .cluster import client_settings, close_consumer, in_own_loop
from .gate import Check, Gate
from .target import parse

TIMEOUT_S = 5.0
"""Time limit for a sample. Each sample makes new connections, so that a broker that was lost is found again."""

CLOSE_S = 1.0


def group_lag(group: str, brokers: str, kafka: Kafka, check: Check) -> int:
    """Return how many records a group has not committed yet; blocks.

    They are counted for the topic of the URL, or else for all topics for which the group has committed offsets.
    ReplayError if the brokers cannot be queried, or if the group has committed nothing.
    """
    target = parse(brokers)
    settings = client_settings(target, kafka)

    async def ask() -> int:
        admin, consumer = (
            AIOKafkaAdminClient(**settings),
            AIOKafkaConsumer(**settings, enable_auto_commit=False),
        )
        try:
            await admin.start()
            offsets = await admin.list_consumer_group_offsets(group)
            committed = {
                part: found.offset
                for part, found in offsets.items()
                if found.offset >= 0 and target.base_path in ("", part.topic)
            }
            if not committed:
                of = f" of the topic {target.base_path!r}" if target.base_path else ""
                raise TargetError(f"the group {group!r} has committed no offset{of}", hint="check its name")
            await consumer.start()
            ends = await consumer.end_offsets(list(committed))
            return sum(max(ends[part] - offset, 0) for part, offset in committed.items())
        finally:
            await _closed(admin.close())
            await close_consumer(consumer)

    return in_own_loop(target.authority, Gate(check), ask, TIMEOUT_S)


async def _closed(closing: Awaitable[None]) -> None:
    with contextlib.suppress(Exception, asyncio.CancelledError):
        async with asyncio.timeout(CLOSE_S):
            await closing
