"""Inspects a cluster: how to connect to it, which partitions its topics have, and where they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.cluster import ClusterMetadata
from aiokafka.errors import KafkaError

from replay.errors import (
    InputError,
    ReplayError,
    TargetError,
    UsageError,
    reason_of,
)
from replay.settings.headers import expand
from replay.settings.scenario import Kafka

from .failures import as_replay_error
from .gate import Check, Gate, GatedLoop
from .listener import mismatch
from .target import KafkaTarget

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_MS = 5_000
LEADER_WAIT_S = 10.0
POLL_S = 0.1
DESCRIBE_TIMEOUT_S = 5.0
STOP_S = 5.0
STILL_S = 3.0
"""End offsets that have not moved for this many seconds are final.

Followers fetch at least every 0.5 s by default (replica.fetch.wait.max.ms).
"""
SETTLE_S_MAX = 30.0
RETENTION, POLICY, LARGEST = "retention.ms", "cleanup.policy", "max.message.bytes"
COMMITTED, UNCOMMITTED = "read_committed", "read_uncommitted"

Result = TypeVar("Result")


class _Reasons(logging.Handler):
    """Keeps, for each thread, the last error that aiokafka only logs.

    It is the reason why a connection to a broker failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, BaseException] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the exception in the arguments of a log record."""
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, BaseException):
                self.last[threading.get_ident()] = argument


_REASONS = _Reasons()
_logger = logging.getLogger("aiokafka")
_logger.addHandler(_REASONS)
_logger.propagate = False


def last_reason() -> BaseException | None:
    """Return why this thread's last connection failed, if aiokafka logged it. The call clears the reason."""
    return _REASONS.last.pop(threading.get_ident(), None)


def client_settings(target: KafkaTarget, kafka: Kafka) -> dict[str, Any]:
    """Return the settings that every client of the cluster shares.

    UsageError or InputError for values that cannot be used.
    """
    settings: dict[str, Any] = {
        "bootstrap_servers": [
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in target.brokers
        ],
        "client_id": "replay",
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
    }
    if "SSL" in kafka.security_protocol:
        try:
            settings["ssl_context"] = ssl.create_default_context(cafile=kafka.ssl_cafile or None)
        except (OSError, ssl.SSLError) as error:
            why = "it holds no certificates" if isinstance(error, ssl.SSLError) else reason_of(error)
            raise InputError(
                f"kafka.ssl_cafile: {kafka.ssl_cafile}: {why}", hint="give a file of certificates in PEM"
            ) from None
    if kafka.security_protocol.startswith("SASL"):
        if not kafka.sasl_plain_username or not kafka.sasl_plain_password:
            raise UsageError(
                f"kafka.security_protocol = {kafka.security_protocol} needs a user and a password",
                hint="set kafka.sasl_plain_username and kafka.sasl_plain_password, as $NAME of the environment",
            )
        settings["sasl_mechanism"] = kafka.sasl_mechanism
        for name in ("sasl_plain_username", "sasl_plain_password"):
            settings[name] = expand(f"kafka.{name}", getattr(kafka, name), os.environ)
    return settings


@dataclass(frozen=True, slots=True)
class Cluster:
    """The hosts of all brokers, the number of partitions by topic, and the partitions' end offsets."""

    hosts: tuple[str, ...]
    partitions: dict[str, int]
    ends: dict[TopicPartition, int]

    def parts(self, topics: Sequence[str]) -> tuple[TopicPartition, ...]:
        """Return all partitions of these topics, in order."""
        return tuple(
            TopicPartition(topic, number) for topic in topics for number in range(self.partitions[topic])
        )


def in_own_loop(
    brokers: str, gate: Gate, work: Callable[[], Awaitable[Result]], timeout_s: float, *, strict: bool = True
) -> Result:
    """Run asyncio work to its end in this thread.

    ReplayError, with the reason, if the cluster cannot be used. With `strict`, LimitError as soon as the gate refuses a
    host.
    """

    async def bounded() -> Result:
        task = asyncio.current_task()
        if strict and task is not None:
            gate.on_refusal = task.cancel
        async with asyncio.timeout(timeout_s):
            return await work()

    last_reason()
    try:
        with asyncio.Runner(loop_factory=lambda: GatedLoop(gate)) as runner:
            return runner.run(bounded())
    except (Exception, asyncio.CancelledError) as error:
        if strict and gate.refused:
            raise next(iter(gate.refused.values())) from None
        if isinstance(error, ReplayError):
            raise
        raise as_replay_error(last_reason() or error, brokers) from None


def look(
    target: KafkaTarget,
    settings: dict[str, Any],
    topics: Sequence[str],
    check: Check,
) -> Cluster:
    """Connect to a cluster and inspect its topics; blocks.

    TargetError if the cluster, a topic or a leader is missing. LimitError if the cluster advertises a host that
    `check` refuses.
    """
    gate = Gate(check)
    try:
        return in_own_loop(
            target.authority,
            gate,
            lambda: _look(settings, topics),
            CONNECT_TIMEOUT_S + LEADER_WAIT_S + 2,
        )
    except TargetError as error:
        raise mismatch(target, settings["security_protocol"], gate) or error from None


async def close_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer in any state.

    aiokafka raises if fetching has failed, but the records that were read are still valid.
    """
    with contextlib.suppress(Exception, asyncio.CancelledError):
        async with asyncio.timeout(STOP_S):
            try:
                await consumer.stop()
            finally:
                await consumer._client.close()


async def _look(settings: dict[str, Any], topics: Sequence[str]) -> Cluster:
    consumer = AIOKafkaConsumer(**settings, enable_auto_commit=False)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await consumer.start()
        parts = [part for topic in topics for part in await _partitions(consumer, topic)]
        ends = await consumer.end_offsets(parts) if parts else {}
        cluster = consumer._client.cluster
        counts = {topic: sum(part.topic == topic for part in parts) for topic in topics}
        return Cluster(tuple(sorted({node.host for node in cluster.brokers()})), counts, ends)
    finally:
        await close_consumer(consumer)


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """Return all partitions of a topic once each has a leader."""
    client, waited_s = consumer._client, 0.0
    client.add_topic(topic)
    while True:
        await client.force_metadata_update()
        found = client.cluster.partitions_for_topic(topic) or set()
        led = client.cluster.available_partitions_for_topic(topic) or set()
        if found and led == found:
            return [TopicPartition(topic, number) for number in sorted(found)]
        if topic in client.cluster.unauthorized_topics:
            raise TargetError(
                f"the topic {topic!r} is not accessible to this user", hint="request the permission"
            )
        if waited_s >= (LEADER_WAIT_S if found else LEADER_WAIT_S / 5):
            break
        await asyncio.sleep(POLL_S)
        waited_s += POLL_S
    if not found:
        raise TargetError(f"there is no topic {topic!r}", hint="create it, or check its name")
    raise _leaderless(client.cluster, topic, min(found - led))


def _leaderless(cluster: ClusterMetadata, topic: str, number: int) -> TargetError:
    """Return the error for a partition without a leader; it lists the brokers that are missing."""
    known = {node.nodeId for node in cluster.brokers()}
    replicas = cluster._partitions[topic][number].replicas
    absent = [str(node) for node in replicas if node not in known]
    which, are = ("broker", "is") if len(absent) == 1 else ("brokers", "are")
    named = f"{which} {' and '.join(absent)}"
    missing = f": of its replicas, {named} {are} not in the cluster" if absent else ""
    hint = f"start {named}, or wait" if absent else "try again in a moment"
    return TargetError(f"partition {number} of the topic {topic!r} has no leader{missing}", hint=hint)


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """A topic's settings as the brokers report them.

    `retention_ms` is how long records are kept, None if they are not removed by age. `largest_bytes` limits a
    batch. Both are None if the brokers do not report them.
    """

    retention_ms: int | None = None
    largest_bytes: int | None = None


def settings_of(
    target: KafkaTarget, settings: dict[str, Any], topics: Sequence[str], check: Check
) -> dict[str, TopicSettings]:
    """Return the settings of topics; blocks.

    Topics that the brokers do not describe to this user are missing from the result. It is empty if the brokers cannot
    be queried.
    """

    async def ask() -> dict[str, TopicSettings]:
        admin = AIOKafkaAdminClient(**settings)
        try:
            await admin.start()
            wanted = dict.fromkeys((RETENTION, POLICY, LARGEST))
            asked = [ConfigResource(ConfigResourceType.TOPIC, topic, wanted) for topic in topics]
            return {
                topic: _topic_settings({name: value for name, value, *_ in configs})
                for answer in await admin.describe_configs(asked)
                for code, _, _, topic, configs in answer.resources
                if not code
            }
        finally:
            await admin.close()

    try:
        return in_own_loop(target.authority, Gate(check), ask, DESCRIBE_TIMEOUT_S)
    except ReplayError:
        return {}


def _topic_settings(given: dict[str, str]) -> TopicSettings:
    """Parse a topic's settings. A value that is not a number, or is negative, gives None.

    The retention is also None if the clean-up policy does not delete records.
    """

    def number(name: str) -> int:
        text = given.get(name) or ""
        return int(text) if text.isdigit() else -1

    kept_ms = number(RETENTION) if "delete" in (given.get(POLICY) or "") else -1
    largest = number(LARGEST)
    return TopicSettings(kept_ms if kept_ms >= 0 else None, largest if largest > 0 else None)


def settled_ends(
    target: KafkaTarget, settings: dict[str, Any], least: dict[TopicPartition, int], check: Check
) -> dict[TopicPartition, int]:
    """Return the partitions' end offsets, once each has reached `least` or all have stopped moving; blocks.

    After SETTLE_S_MAX, the last ones that the brokers reported are returned. A partition's end is its high watermark,
    which moves when followers fetch: with acks=1 it may lag behind the acknowledged records. ReplayError if the brokers
    cannot be queried.
    """

    async def ask() -> dict[TopicPartition, int]:
        consumer = AIOKafkaConsumer(**settings, enable_auto_commit=False)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await consumer.start()
                ends: dict[TopicPartition, int] = await consumer.end_offsets(list(least))
            return await _settled(consumer, ends, least)
        finally:
            await close_consumer(consumer)

    return in_own_loop(
        target.authority, Gate(check), ask, CONNECT_TIMEOUT_S + SETTLE_S_MAX + CONNECT_TIMEOUT_S
    )


async def _settled(
    consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int], least: dict[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Return the end offsets once they have settled, or the last ones that the brokers reported."""
    loop = asyncio.get_running_loop()
    begin = moved_at = loop.time()
    while any(ends[part] < end for part, end in least.items()):
        now = loop.time()
        if now - moved_at >= STILL_S or now - begin >= SETTLE_S_MAX:
            break
        await asyncio.sleep(POLL_S)
        try:
            found = await consumer.end_offsets(list(least))
        except KafkaError:
            continue
        if found != ends:
            ends, moved_at = found, loop.time()
    return ends
