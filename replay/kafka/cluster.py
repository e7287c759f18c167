"""Looking at a cluster: how it is connected to, which partitions its topics have, and where they end."""

from __future__ import annotations

import asyncio
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

from replay.errors import InputError, ReplayError, TargetError, UsageError, reason_of
from replay.scenario.headers import expand
from replay.scenario.settings import Kafka
from replay.scenario.target import Target

from .failures import told
from .listener import mismatch

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_MS = 5_000
LEADER_WAIT_S = 10.0
POLL_S = 0.1
RETENTION, POLICY = "retention.ms", "cleanup.policy"

Result = TypeVar("Result")


class _Reasons(logging.Handler):
    """Keeps, by thread, the last error that aiokafka only logs: why a broker could not be connected to."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, BaseException] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Take the exception out of a message's arguments."""
        for argument in record.args if isinstance(record.args, tuple) else ():
            if isinstance(argument, BaseException):
                self.last[threading.get_ident()] = argument


_REASONS = _Reasons()
_logger = logging.getLogger("aiokafka")
_logger.addHandler(_REASONS)
_logger.propagate = False


def last_reason() -> BaseException | None:
    """Why this thread's last connection failed, as far as aiokafka said; forgotten when asked."""
    return _REASONS.last.pop(threading.get_ident(), None)


def client_settings(target: Target, kafka: Kafka) -> dict[str, Any]:
    """What every client of the cluster is made with. UsageError or InputError for what cannot be used."""
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
    """What was found: hosts of all brokers, and by topic how many partitions it has."""

    hosts: tuple[str, ...]
    partitions: dict[str, int]
    ends: dict[TopicPartition, int]

    def parts(self, topics: Sequence[str]) -> tuple[TopicPartition, ...]:
        """All partitions of these topics, in order."""
        return tuple(
            TopicPartition(topic, number) for topic in topics for number in range(self.partitions[topic])
        )


def in_own_loop(brokers: str, work: Callable[[], Awaitable[Result]], timeout_s: float) -> Result:
    """Run asyncio work to its end in this thread. A ReplayError says why the cluster cannot be used."""

    async def bounded() -> Result:
        async with asyncio.timeout(timeout_s):
            return await work()

    last_reason()
    try:
        return asyncio.run(bounded())
    except Exception as error:
        raise told(last_reason() or error, brokers) from None


def look(target: Target, settings: dict[str, Any], topics: Sequence[str]) -> Cluster:
    """Connect, and look at the topics; blocks. TargetError where the cluster, a topic or a leader is not there."""
    try:
        return in_own_loop(
            target.authority, lambda: _look(settings, topics), CONNECT_TIMEOUT_S + LEADER_WAIT_S + 2
        )
    except TargetError as error:
        raise mismatch(target, settings["security_protocol"]) or error from None


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
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> list[TopicPartition]:
    """All partitions of a topic, once each has a leader."""
    client, waited_s = consumer._client, 0.0
    client.add_topic(topic)
    while True:
        await client.force_metadata_update()
        found = client.cluster.partitions_for_topic(topic) or set()
        led = client.cluster.available_partitions_for_topic(topic) or set()
        if found and led == found:
            return [TopicPartition(topic, number) for number in sorted(found)]
        if topic in client.cluster.unauthorized_topics:
            raise TargetError(f"the topic {topic!r} may not be used by this user", hint="ask for the right")
        if waited_s >= (LEADER_WAIT_S if found else LEADER_WAIT_S / 5):
            break
        await asyncio.sleep(POLL_S)
        waited_s += POLL_S
    if not found:
        raise TargetError(f"there is no topic {topic!r}", hint="make it, or check its name")
    raise TargetError(
        f"partition {min(found - led)} of the topic {topic!r} has no leader", hint="try again in a moment"
    )


def retentions_ms(target: Target, settings: dict[str, Any], topics: Sequence[str]) -> dict[str, int]:
    """By topic after how long its records are removed; blocks. Not those that keep all, or that are not told of."""

    async def ask() -> dict[str, int]:
        admin = AIOKafkaAdminClient(**settings)
        try:
            await admin.start()
            wanted = dict.fromkeys((RETENTION, POLICY))
            asked = [ConfigResource(ConfigResourceType.TOPIC, topic, wanted) for topic in topics]
            found = {}
            for answer in await admin.describe_configs(asked):
                for _, _, _, topic, configs in answer.resources:
                    given = {name: value for name, value, *_ in configs}
                    if "delete" in given.get(POLICY, "") and int(given.get(RETENTION, -1)) >= 0:
                        found[topic] = int(given[RETENTION])
            return found
        finally:
            await admin.close()

    try:
        return in_own_loop(target.authority, ask, CONNECT_TIMEOUT_S)
    except ReplayError:
        return {}


def ends_of(
    target: Target, settings: dict[str, Any], parts: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where partitions end now; blocks. A ReplayError where they cannot be asked."""

    async def ask() -> dict[TopicPartition, int]:
        consumer = AIOKafkaConsumer(**settings, enable_auto_commit=False)
        try:
            await consumer.start()
            found: dict[TopicPartition, int] = await consumer.end_offsets(list(parts))
            return found
        finally:
            await consumer.stop()

    return in_own_loop(target.authority, ask, CONNECT_TIMEOUT_S)
