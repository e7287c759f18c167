"""Recording from a real Apache Kafka: transactions, order; and batches that a topic finds too large."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from replay.cli import invoke
from replay.plan.safety import allowed_hosts
from replay.protocols.kafka import adapter as fit
from replay.protocols.kafka.cluster import client_settings, look, settings_of
from replay.protocols.kafka.target import parse as parse_target
from replay.settings.scenario import Kafka
from replay.trace import Trace
from tests.support.kafka_broker import Broker, jars

from .test_broker import make
from .test_mock import kafka_trace, read_back, replay

pytestmark = pytest.mark.kafka

START_MS = 1_700_000_000_000
KEPT = {"retention.ms": "-1"}
"""For topics whose records are stamped long ago."""

MARKERS = 3
"""Transactions that ended, of the topic that `transactions` writes."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"), jars(tmp_path_factory.mktemp("jars")))
    made.start()
    yield made
    made.stop()


async def transaction(broker: Broker, topic: str, keys: list[str], how: str) -> AIOKafkaProducer:
    """Write records in one transaction, and `commit` or `abort` it, or leave it `open`."""
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.address,
        transactional_id=f"{topic}-{keys[0]}",
        transaction_timeout_ms=600_000,
    )
    await producer.start()
    await producer.begin_transaction()
    for number, key in enumerate(keys):
        await producer.send_and_wait(
            topic, b"v", key=key.encode(), partition=0, timestamp_ms=START_MS + number
        )
    if how == "commit":
        await producer.commit_transaction()
    elif how == "abort":
        await producer.abort_transaction()
    return producer


async def plain(broker: Broker, topic: str, stamps: dict[str, int], partition: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=broker.address)
    await producer.start()
    for key, stamp in stamps.items():
        await producer.send_and_wait(topic, b"v", key=key.encode(), partition=partition, timestamp_ms=stamp)
    await producer.stop()


def keys(path: Path) -> list[str]:
    """The keys of a recording, in the order in which they are replayed."""
    trace = Trace.open(path)
    targets = [
        trace.requests.get(int(number)).target for batch in trace.batches() for number in batch.request
    ]
    return [target.decode().partition("key=")[2] for target in targets]


@pytest.fixture(scope="module")
def transactions(broker: Broker) -> Iterator[str]:
    """A topic with plain, committed, aborted and, last, open records: p0-1, c0-2, a0-4, b0-1 (aborted), p2, o0-1 (open)."""
    topic = "transactions"
    make(broker, topic, 1, **KEPT)

    async def work() -> None:
        await plain(broker, topic, {"p0": START_MS, "p1": START_MS + 1})
        for prefix, count, how in (("c", 3, "commit"), ("a", 5, "abort"), ("b", 2, "abort")):
            made = await transaction(broker, topic, [f"{prefix}{number}" for number in range(count)], how)
            await made.stop()
        await plain(broker, topic, {"p2": START_MS + 20})
        open_ = await transaction(broker, topic, ["o0", "o1"], "open")
        await plain(broker, topic, {"p3": START_MS + 30})
        open_._closed = True
        open_._sender._sender_task.cancel()
        await open_.client.close()

    asyncio.run(work())
    yield topic


COMMITTED = ["p0", "p1", "c0", "c1", "c2", "p2"]


def record(broker: Broker, topic: str, out: Path, *more: str) -> int:
    return invoke(["record", f"kafka://{broker.address}/{topic}", "-o", str(out), *more])


def test_only_what_was_committed_is_recorded(broker, transactions, tmp_path, capfd) -> None:
    out = tmp_path / "t.trace"
    assert record(broker, transactions, out) == 0
    assert sorted(keys(out)) == sorted(COMMITTED)
    said = capfd.readouterr().err
    assert "left out: 7 records of aborted transactions" in said and "3 control batches" in said
    assert "not read: 3 offsets from the first open transaction on" in said
    options = Trace.open(out).manifest.options
    assert options["isolation"] == "read_committed"
    assert options["left_out"] == {"aborted_records": 7, "control_batches": MARKERS, "open_offsets": 3}


def test_all_of_it_is_recorded_on_demand(broker, transactions, tmp_path, capfd) -> None:
    out = tmp_path / "t.trace"
    assert record(broker, transactions, out, "--isolation", "read_uncommitted") == 0
    assert len(keys(out)) == len(COMMITTED) + 7 + 3
    said = capfd.readouterr().err
    assert "left out: 3 control batches" in said and "not read" not in said
    left_out = Trace.open(out).manifest.options["left_out"]
    assert left_out == {"aborted_records": 0, "control_batches": MARKERS, "open_offsets": 0}


def test_bounds_by_time_leave_out_no_less(broker, transactions, tmp_path, capfd) -> None:
    out = tmp_path / "t.trace"
    assert (
        record(broker, transactions, out, "--from", "2023-11-14T22:13:20", "--until", "2023-11-14T22:13:21")
        == 0
    )
    assert sorted(keys(out)) == sorted(COMMITTED)
    assert "7 records of aborted transactions" in capfd.readouterr().err


def test_a_recording_that_is_resumed_counts_nothing_twice(broker, tmp_path) -> None:
    topic = "resumed"
    make(broker, topic, 1, **KEPT)

    async def work(prefix: str, how: str) -> None:
        await (await transaction(broker, topic, [f"{prefix}0", f"{prefix}1"], how)).stop()

    asyncio.run(work("c", "commit"))
    asyncio.run(work("a", "abort"))
    asyncio.run(work("d", "commit"))
    first, second = tmp_path / "1.trace", tmp_path / "2.trace"
    assert record(broker, topic, first) == 0
    asyncio.run(work("b", "abort"))
    asyncio.run(work("e", "commit"))
    assert record(broker, topic, second, "--resume", str(first)) == 0
    assert keys(first) == ["c0", "d0", "c1", "d1"] and keys(second) == ["e0", "e1"]
    counted = [Trace.open(path).manifest.options["left_out"]["aborted_records"] for path in (first, second)]
    assert counted == [2, 2]


def test_a_topic_of_aborted_records_alone_says_so(broker, tmp_path, capfd) -> None:
    topic = "aborted"
    make(broker, topic, 1, **KEPT)

    async def work() -> None:
        await (await transaction(broker, topic, ["a0"], "abort")).stop()

    asyncio.run(work())
    assert record(broker, topic, tmp_path / "t.trace") == 2
    said = capfd.readouterr().err
    assert "nothing to record" in said and "--isolation read_uncommitted" in said


def test_records_out_of_time_order_are_counted_and_the_plan_says_it(broker, tmp_path, capfd) -> None:
    topic = "disordered"
    make(broker, topic, 2, **KEPT)
    asyncio.run(plain(broker, topic, {"a": START_MS, "b": START_MS + 50, "c": START_MS + 10, "d": START_MS + 50,
                                      "e": START_MS + 20}))  # fmt: skip
    asyncio.run(plain(broker, topic, {"f": START_MS, "g": START_MS + 1}, 1))
    out = tmp_path / "t.trace"
    assert record(broker, topic, out) == 0
    assert "out of time order: 2 records" in capfd.readouterr().err
    assert Trace.open(out).manifest.options["out_of_time_order"] == {f"{topic}/0": 2}
    arguments = ["run", str(out), "--target", f"kafka://{broker.address}", "--methods", "all", "--dry-run"]
    assert invoke(arguments) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "by time, not by offset: 2 records are stamped earlier than a record at a lower offset" in printed


@pytest.mark.timing
def test_records_in_time_order_keep_the_order_of_their_offsets(broker, tmp_path, capfd) -> None:
    topic = f"ordered-{time.monotonic_ns()}"
    make(broker, topic, 1, **KEPT)
    asyncio.run(plain(broker, topic, {f"{number}": START_MS + number // 4 for number in range(40)}))
    out = tmp_path / "t.trace"
    assert record(broker, topic, out) == 0
    assert "time order" not in capfd.readouterr().err
    assert keys(out) == [str(number) for number in range(40)]
    assert (
        invoke(["run", str(out), "--target", f"kafka://{broker.address}", "--methods", "all", "--dry-run"])
        == 0
    )
    assert "by offset in each partition" in capfd.readouterr().out


@pytest.mark.timing
@pytest.mark.parametrize("described", [True, False])
@pytest.mark.parametrize("idempotence", [False, True])
def test_records_that_fit_are_taken_by_a_topic_with_small_batches(
    broker, tmp_path, idempotence, described, monkeypatch
) -> None:
    topic = f"small-{time.monotonic_ns()}"
    target = make(broker, topic, 1, **{"max.message.bytes": "2000"})
    if not described:
        monkeypatch.setattr(fit, "settings_of", lambda *_: {})
    records = [(0, b"%d" % number, b"v" * 100, ()) for number in range(12_000)]
    trace = kafka_trace(tmp_path / "t", records, gap_ns=100_000)
    document = replay(trace, target, tmp_path / "run", kafka={"enable_idempotence": idempotence})
    assert document.accounts.ok == 12_000
    assert document.kafka is not None and document.kafka.errors == {} and document.kafka.offsets_agree
    back = [int(record.key) for record in read_back(broker.address, topic, 12_000)]
    assert back == list(range(12_000)) if described or idempotence else sorted(back) == list(range(12_000))


def test_settings_of_a_topic_are_described(broker) -> None:
    made = make(broker, "described", 1, **{"max.message.bytes": "2000", "retention.ms": "60000"})
    target = parse_target(made)
    settings, check = client_settings(target, Kafka()), allowed_hosts(()).check
    found = settings_of(target, settings, ["described"], check)["described"]
    assert (found.largest_bytes, found.retention_ms) == (2_000, 60_000)
    assert settings_of(target, settings, ["absent"], check) == {}
    assert look(target, settings, ["described"], check).partitions == {"described": 1}
