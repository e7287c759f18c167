"""Onto a real Apache Kafka: bytes that Java reads, a broker that is killed in mid-run, limits, lost topics."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from replay.cli import invoke
from replay.errors import TargetError
from replay.results.document import Consumed
from replay.trace import Trace
from tests.engine.test_several_targets import check_one_timeline
from tests.protocols.test_peak_and_ab import check_peak_of_a_topic, orders
from tests.support.kafka_broker import Broker, jars
from tests.support.there import there

from .test_mock import (
    START_NS,
    http_trace,
    kafka_trace,
    read_back,
    recorded,
    replay,
)

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"), jars(tmp_path_factory.mktemp("jars")))
    broker.start()
    yield broker
    broker.stop()


def make(broker: Broker, topic: str, partitions: int = 2, **configs: str) -> str:
    """Make a topic; the URL of a target that is it."""

    async def made() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
        await admin.start()
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
        await admin.close()

    asyncio.run(made())
    return f"kafka://{broker.address}/{topic}"


def test_a_peak_of_a_topic_is_found_by_acknowledged_records(broker, tmp_path):
    make(broker, "peak")
    check_peak_of_a_topic(broker.address, orders(tmp_path), tmp_path)


@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotence", [False, True])
def test_records_come_back_byte_for_byte(broker, tmp_path, compression, idempotence):
    records = recorded()
    topic = f"same-{compression}-{idempotence}"
    document = replay(
        kafka_trace(tmp_path / "t", records), make(broker, topic), tmp_path / "run",
        kafka={"enable_idempotence": idempotence, "compression_type": compression},
    )  # fmt: skip
    assert document.accounts.ok == len(records)
    assert document.kafka is not None and document.kafka.offsets_agree
    back = read_back(broker.address, topic, len(records))
    for partition in (0, 1):
        sent = [(key, value, tuple((name.decode(), content) for name, content in headers))
                for number, key, value, headers in records if number == partition]  # fmt: skip
        assert [(r.key, r.value, r.headers) for r in back if r.partition == partition] == sent


@pytest.mark.timing
@pytest.mark.parametrize("compression", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_javas_console_consumer_reads_them(broker, tmp_path, compression):
    records = [(number % 2, b"key-%d" % number, b"value-%d" % number, ()) for number in range(100)]
    topic = f"java-{compression}"
    replay(kafka_trace(tmp_path / "t", records), make(broker, topic), tmp_path / "run",
           kafka={"compression_type": compression})  # fmt: skip
    printed = broker.java(
        "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", broker.address, "--topic", topic,
        "--from-beginning", "--max-messages", "100", "--timeout-ms", "20000", "--formatter-property", "print.key=true",
    )  # fmt: skip
    assert sorted(printed.split("\n")[:-1]) == sorted(f"key-{n}\tvalue-{n}" for n in range(100))


@pytest.mark.timing
@pytest.mark.parametrize("idempotence", [False, True])
def test_a_broker_killed_in_mid_run_and_back(broker, tmp_path, idempotence):
    topic, count = f"killed-{idempotence}", 40_000
    records = [(number % 2, b"%d" % number, b"v" * 100, ()) for number in range(count)]
    trace = kafka_trace(tmp_path / "t", records, gap_ns=200_000)
    target = make(broker, topic)

    def kill_and_restart() -> None:
        time.sleep(2.5)
        broker.kill()
        time.sleep(1)
        broker.start()

    killer = threading.Thread(target=kill_and_restart)
    killer.start()
    document = replay(trace, target, tmp_path / "run", max_wait="30s", breaker={"on": False},
                      kafka={"enable_idempotence": idempotence})  # fmt: skip
    killer.join()
    accounts = document.accounts
    assert accounts.planned == count == accounts.sent + accounts.unsent
    assert accounts.in_flight == 0 and accounts.ok + accounts.error + accounts.timeout == accounts.sent
    assert there(document.latency.response).max_ns > 1_000_000_000
    assert document.kafka is not None
    back = Counter(record.key for record in read_back(broker.address, topic, accounts.ok))
    assert sum(back.values()) >= accounts.ok
    if idempotence:
        assert max(back.values()) == 1
        assert document.kafka.offsets_agree


def test_due_to_consumed_by_a_group_of_its_own(broker, tmp_path):
    records = [(n % 2, b"%d" % n, b"v" * 100, ()) for n in range(4_000)]
    document = replay(
        kafka_trace(tmp_path / "t", records, gap_ns=500_000), make(broker, "consumed"), tmp_path / "run",
        kafka={"consume": True, "compression_type": "lz4"},
    )  # fmt: skip
    assert document.kafka is not None and document.kafka.consumed == {"end_to_end": Consumed(count=4_000)}
    assert 0 < there(document.latency.end_to_end).min_ns < there(document.latency.end_to_end).max_ns
    groups = broker.java(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        "--bootstrap-server",
        broker.address,
        "--list",
    )
    assert f"replay-{document.run_id}" in groups.split()


@pytest.mark.parametrize("gap_ns", [5_000_000, 100])
def test_one_record_over_the_limit_fails_by_name_and_the_others_do_not(broker, tmp_path, gap_ns):
    """Also where those behind it were in flight already, with sequence numbers that the broker then does not expect."""
    records = [(0, b"%d" % number, b"v" * (50_000 if number == 25 else 100), ()) for number in range(50)]
    for idempotence in (False, True):
        topic = f"limited-{gap_ns}-{idempotence}"
        target = make(broker, topic, 1, **{"max.message.bytes": "20000"})
        trace = kafka_trace(tmp_path / f"t{idempotence}", records, gap_ns=gap_ns)
        trace.manifest.options["topics"] = {"orders": 1}
        document = replay(
            trace, target, tmp_path / f"run{idempotence}",
            kafka={"enable_idempotence": idempotence, "max_batch_size": 1_000},
        )  # fmt: skip
        keys = [record.key for record in read_back(broker.address, topic, 49)]
        assert keys == [key for _, key, value, _ in records if len(value) == 100]
        assert document.kafka is not None
        assert document.kafka.errors == {"MESSAGE_SIZE_TOO_LARGE": 1}
        assert (document.accounts.ok, document.accounts.error) == (49, 1)
        assert document.accounts_detail.error["rejected"] == 1


def test_services_and_the_bus_on_one_timeline(broker, tmp_path):
    make(broker, "orders-day", 4)
    check_one_timeline(broker.address, tmp_path)


@pytest.mark.parametrize("idempotence", [False, True])
def test_a_record_without_a_key_is_nothing_for_a_compacted_topic(broker, tmp_path, idempotence):
    records = [(0, None if number == 25 else b"%d" % number, b"v" * 100, ()) for number in range(50)]
    topic = f"compacted-{idempotence}"
    target = make(broker, topic, 1, **{"cleanup.policy": "compact"})
    trace = kafka_trace(tmp_path / "t", records, gap_ns=5_000_000)
    # The broker refuses the whole batch of the record: a late run may not gather more than ten records in it.
    document = replay(
        trace, target, tmp_path / "run",
        kafka={"enable_idempotence": idempotence, "partitions": "key", "max_batch_size": 1_000},
    )  # fmt: skip
    assert document.kafka is not None and list(document.kafka.errors) == ["INVALID_RECORD"]
    assert document.accounts.ok + document.accounts.error == 50 and document.accounts.ok >= 40
    keys = [record.key for record in read_back(broker.address, topic, document.accounts.ok)]
    assert keys[0] == b"0" and keys[-1] == b"49" and len(keys) == document.accounts.ok


def test_a_topic_that_is_not_there(broker, tmp_path):
    with pytest.raises(TargetError, match="there is no topic 'nowhere'"):
        replay(http_trace(tmp_path / "t"), f"kafka://{broker.address}/nowhere", tmp_path / "run")


@pytest.mark.timing
def test_a_topic_deleted_while_it_is_written(broker, tmp_path):
    target = make(broker, "deleted", 1)
    trace = kafka_trace(tmp_path / "t", [(0, b"k", b"v", ())] * 400, gap_ns=10_000_000)

    def delete() -> None:
        async def gone() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
            await admin.start()
            await admin.delete_topics(["deleted"])
            await admin.close()

        time.sleep(1.5)
        asyncio.run(gone())

    thread = threading.Thread(target=delete)
    thread.start()
    document = replay(trace, target, tmp_path / "run", max_wait="2s", timeout="2s", breaker={"on": False})
    thread.join()
    accounts = document.accounts
    assert accounts.planned == 400 and 0 < accounts.ok < 400
    assert accounts.unsent + accounts.error + accounts.timeout == 400 - accounts.ok


def test_a_topic_recorded_and_replayed_is_the_same_topic(broker, tmp_path):
    records = recorded()
    first = kafka_trace(tmp_path / "t", records, gap_ns=2_000_000)
    replay(first, make(broker, "once"), tmp_path / "run")
    assert invoke(["record", f"kafka://{broker.address}/once", "-o", str(tmp_path / "back.trace")]) == 0
    back = Trace.open(tmp_path / "back.trace")
    assert back.rows == len(records)
    document = replay(back, make(broker, "twice"), tmp_path / "again")
    assert document.accounts.ok == len(records)
    once, twice = (read_back(broker.address, topic, len(records)) for topic in ("once", "twice"))
    for partition in (0, 1):
        of = [[r for r in side if r.partition == partition] for side in (once, twice)]
        assert Counter((r.key, r.value, r.headers) for r in of[0]) == Counter(
            (r.key, r.value, r.headers) for r in of[1]
        )
        spacing = [[r.timestamp - side[0].timestamp for r in side] for side in of]
        assert spacing[0] == pytest.approx(spacing[1], abs=2)


def test_a_recording_goes_on_where_it_ended(broker, tmp_path, capfd):
    target = make(broker, "goes-on")
    trace = kafka_trace(tmp_path / "t", [(n % 2, b"%d" % n, b"v", ()) for n in range(30)])
    replay(trace, target, tmp_path / "run1")
    assert invoke(["record", target, "-o", str(tmp_path / "one.trace")]) == 0
    replay(trace, target, tmp_path / "run2")
    assert (
        invoke(["record", target, "-o", str(tmp_path / "two.trace"), "--resume", str(tmp_path / "one.trace")])
        == 0
    )
    assert Trace.open(tmp_path / "one.trace").rows == Trace.open(tmp_path / "two.trace").rows == 30
    nothing = ["record", target, "-o", str(tmp_path / "no.trace"), "--resume", str(tmp_path / "two.trace")]
    assert invoke(nothing) == 2
    assert "no record has arrived since the earlier recording" in capfd.readouterr().err
    other = [
        "record",
        f"{target}-2",
        "-o",
        str(tmp_path / "no.trace"),
        "--resume",
        str(tmp_path / "two.trace"),
    ]
    assert invoke(other) == 2
    assert "is a recording of goes-on, not of goes-on-2" in capfd.readouterr().err


def test_a_recording_is_of_the_time_that_was_asked_for(broker, tmp_path):
    trace = kafka_trace(tmp_path / "t", [(0, b"%d" % n, b"v", ()) for n in range(100)], gap_ns=1_000_000)
    target = make(broker, "window", 2, **{"retention.ms": "-1"})
    replay(trace, target, tmp_path / "run", kafka={"timestamps": "recorded"})
    window = ["--from", "2023-11-14T22:13:20.010Z", "--until", "2023-11-14T22:13:20.060Z"]
    assert invoke(["record", target, "-o", str(tmp_path / "part.trace"), *window]) == 0
    part = Trace.open(tmp_path / "part.trace")
    assert (part.rows, part.start_ns - START_NS) == (50, 10_000_000)


@pytest.mark.timing
def test_a_time_that_is_over_is_recorded_whole_however_slow_the_broker(broker, tmp_path, monkeypatch):
    trace = kafka_trace(tmp_path / "t", [(n % 2, b"%d" % n, b"v", ()) for n in range(100)], gap_ns=1_000_000)
    target = make(broker, "slow", 2, **{"retention.ms": "-1"})
    replay(trace, target, tmp_path / "run", kafka={"timestamps": "recorded"})
    monkeypatch.setattr("replay.protocols.kafka.record.POLL_MS", 1)
    assert invoke(["record", target, "-o", str(tmp_path / "all.trace"), "--until", "2023-11-15"]) == 0
    whole = Trace.open(tmp_path / "all.trace")
    assert whole.rows == 100 and whole.manifest.options["complete"]


@pytest.mark.timing
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording_in_order(broker, tmp_path, number):
    target, out = make(broker, f"signal-{number}"), tmp_path / "t.trace"
    command = [sys.executable, "-m", "replay.cli", "record", target, "-o", str(out), "--until", "+1h"]
    replay(
        kafka_trace(tmp_path / "t", [(n % 2, b"k", b"v", ()) for n in range(20)]), target, tmp_path / "run"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as recording:
        for _ in range(300):
            if any(tmp_path.glob("t.trace.partial*/*")):
                break
            time.sleep(0.1)
        time.sleep(2)
        recording.send_signal(number)
        said, complaint = recording.communicate(timeout=20)
    assert recording.returncode == 130 and "20 records" in said and "--resume" in complaint
    assert Trace.open(out).rows == 20


@pytest.mark.timing
def test_recorded_stamps_that_the_topic_does_not_keep_are_noted(broker, tmp_path):
    trace = kafka_trace(tmp_path / "t", [(n % 2, b"k", b"v", ()) for n in range(10)])
    kept: dict[str, dict[str, Any]] = {
        "short": {"retention.ms": "1000"},
        "for-ever": {"retention.ms": "-1"},
        "compacted": {"cleanup.policy": "compact"},
    }
    for topic, configs in kept.items():
        for stamps in ("recorded", "due"):
            target = make(broker, f"{topic}-{stamps}", **configs)
            document = replay(trace, target, tmp_path / f"{topic}-{stamps}", kafka={"timestamps": stamps})
            noted = [note for note in document.notes if note.code == "OLDER_THAN_RETENTION"]
            assert len(noted) == (topic == "short" and stamps == "recorded")
            assert all("keeps records for 1 s" in note.message for note in noted)
