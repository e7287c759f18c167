"""Consumes topics from their current ends, in a thread with its own event loop.

Hosts in the source's URL are allowed; hosts that the cluster advertises need --allow, as in every other
command.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord

from replay.errors import UsageError
from replay.plan.safety import Allowed
from replay.settings.scenario import Kafka

from .cluster import COMMITTED, CONNECT_TIMEOUT_S, client_settings, close_consumer, in_own_loop, look
from .gate import Gate
from .record import FOREVER_S, Source, check_for
from .target import KafkaTarget, parse

FETCH_MS = 50
TOGETHER = 5_000
PAUSE_S = 0.02
WAITING_MAX = 200_000
"""Fetching pauses while more records than this wait to be read, so that later ones may be late."""


class Tail:
    """The records of topics from now on. It connects when it is created, and consumes until `close`.

    ReplayError if the cluster cannot be used. `failure` is the reason if it ended before `close`.
    """

    def __init__(self, source: Source, kafka: Kafka, permitted: Allowed) -> None:
        self._source = source
        self._settings = client_settings(source.target, kafka)
        check = check_for(source, permitted)
        cluster = look(source.target, self._settings, source.topics, check)
        self.topics: Mapping[str, int] = cluster.partitions
        self._ends = cluster.ends
        self._gate = Gate(check)
        self._records: deque[ConsumerRecord] = deque()
        self.failure: BaseException | None = None
        self._reads, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._consume, name="replay-topics", daemon=True)
        self._thread.start()
        self._reads.wait()
        if self.failure is not None:
            raise self.failure

    def _consume(self) -> None:
        try:
            in_own_loop(self._source.target.authority, self._gate, self._poll, FOREVER_S, strict=False)
        except BaseException as error:
            self.failure = error
        finally:
            self._reads.set()

    async def _poll(self) -> None:
        consumer = AIOKafkaConsumer(
            **self._settings, enable_auto_commit=False, auto_offset_reset="earliest",
            max_poll_records=TOGETHER, isolation_level=COMMITTED,
        )  # fmt: skip
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await consumer.start()
        try:
            consumer.assign(sorted(self._ends))
            for part, offset in self._ends.items():
                consumer.seek(part, offset)
            self._reads.set()
            while not self._stopped.is_set():
                if len(self._records) > WAITING_MAX:
                    await asyncio.sleep(PAUSE_S)
                    continue
                for records in (await consumer.getmany(timeout_ms=FETCH_MS)).values():
                    self._records.extend(records)
        finally:
            await close_consumer(consumer)

    def take(self) -> list[ConsumerRecord]:
        """Return records that have arrived and were not returned yet, in the order of each partition.

        At most TOGETHER records are returned; the rest is returned by the next call.
        """
        return [self._records.popleft() for _ in range(min(len(self._records), TOGETHER))]

    def refused(self) -> str:
        """Return why the first refused host was not connected to; empty if no host was refused."""
        found = next(iter(self._gate.refused.values()), None)
        return "" if found is None else str(found)

    def close(self) -> None:
        """Stop consuming, and wait up to 15 s for the end of the thread."""
        self._stopped.set()
        self._thread.join(timeout=15.0)


def refuse_loop(source: Source, target_url: str, topic_map: Mapping[str, str]) -> None:
    """Raise UsageError if records would be written to a followed topic.

    They would be followed again without end.
    """
    target = parse(target_url)
    if not _places(source.target) & _places(target):
        return
    goes_to = {topic: topic_map.get(topic) or target.base_path or topic for topic in source.topics}
    for topic, written in goes_to.items():
        if written in source.topics:
            raise UsageError(
                f"records of {topic!r} would be written to {written!r} on the same cluster, a topic that is followed",
                hint="give another topic in --target or kafka.topic_map, or another cluster",
            )


def _places(target: KafkaTarget) -> set[tuple[Any, ...]]:
    """Return the addresses and ports of the brokers in a URL; in place of an unknown address, the name."""
    found: set[tuple[Any, ...]] = set()
    for host, port in target.brokers:
        try:
            found |= {
                (place[4][0], port) for place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            }
        except OSError:
            found.add((host, port))
    return found
