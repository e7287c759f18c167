"""The lag of a service's own consumers, watched on a real Apache Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from replay.cli import invoke
from replay.plan.safety import allowed_hosts
from replay.settings.groups.output import Watch
from replay.staging.sink import Sink as Target
from replay.watching.sources import SampleError, source_of
from tests.support.kafka_broker import Broker, jars

from .test_broker import make

pytestmark = pytest.mark.kafka

NOBODY = allowed_hosts(())


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"), jars(tmp_path_factory.mktemp("jars")))
    broker.start()
    yield broker
    broker.stop()


def produce(broker: Broker, topic: str, count: int) -> None:
    async def made() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=broker.address)
        await producer.start()
        for number in range(count):
            await producer.send_and_wait(topic, b"x", partition=number % 2)
        await producer.stop()

    asyncio.run(made())


def commit(broker: Broker, group: str, offsets: dict[TopicPartition, int]) -> None:
    async def made() -> None:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.address, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        consumer.assign(list(offsets))
        await consumer.commit(offsets)
        await consumer.stop()

    asyncio.run(made())


def sample(broker: Broker, group: str, topic: str = "") -> float | dict[str, float]:
    return source_of(Watch(name="lag", group=group, brokers=f"kafka://{broker.address}/{topic}"), NOBODY)()


def test_the_lag_is_what_the_group_has_not_committed(broker: Broker) -> None:
    for topic in ("orders", "mails"):
        make(broker, topic)
        produce(broker, topic, 30)
    commit(broker, "billing", {TopicPartition("orders", 0): 10, TopicPartition("orders", 1): 15})
    assert sample(broker, "billing") == 5
    commit(broker, "billing", {TopicPartition("mails", 0): 0})
    assert sample(broker, "billing") == 20, "over all topics"
    assert sample(broker, "billing", "mails") == 15 and sample(broker, "billing", "orders") == 5
    produce(broker, "orders", 8)
    assert sample(broker, "billing", "orders") == 13


def test_a_group_that_has_committed_nothing_has_no_lag(broker: Broker) -> None:
    with pytest.raises(SampleError, match="the group 'nobody' has committed no offset"):
        sample(broker, "nobody")
    make(broker, "audits")
    produce(broker, "audits", 2)
    commit(broker, "auditing", {TopicPartition("audits", 0): 1})
    with pytest.raises(SampleError, match="has committed no offset of the topic 'orders'"):
        sample(broker, "auditing", "orders")


def test_brokers_beyond_this_machine_are_not_asked() -> None:
    watch = Watch(name="lag", group="billing", brokers="kafka://192.0.2.1:9092")
    with pytest.raises(SampleError, match=r"192\.0\.2\.1 .*not allowed"):
        source_of(watch, NOBODY)()


def test_a_run_onto_http_records_the_lag_of_a_group(broker: Broker, tmp_path: Path) -> None:
    make(broker, "parcels")
    produce(broker, "parcels", 12)
    commit(broker, "shipping", {TopicPartition("parcels", 0): 2, TopicPartition("parcels", 1): 2})
    lines = (
        f'1.1.1.1 - - [10/Oct/2025:13:55:{n:02d} +0000] "GET /sink/a HTTP/1.1" 200 1\n' for n in range(12)
    )
    (tmp_path / "access.log").write_text("".join(lines))
    with Target() as target:
        (tmp_path / "day.toml").write_text(
            f'target = "http://127.0.0.1:{target.port}"\ntrace = "access.log"\n'
            f'[[watch]]\nname = "shipping"\ngroup = "shipping"\nbrokers = "kafka://{broker.address}/parcels"\n'
        )
        invoke(["run", str(tmp_path / "day.toml"), "-o", str(tmp_path / "run"), "--plain"])
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    values = [value for value in document["watched"]["shipping"] if value is not None]
    assert values and set(values) == {8.0}
    assert document["watches"][0]["source"] == "group"
