"""The whole way onto Kafka against librdkafka's mock cluster: what arrives, what is accounted, what is refused."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from msgspec import UNSET

from replay.cli import invoke
from replay.engine import prepare
from replay.errors import (
    InputError,
    ReplayError,
    TargetError,
    UsageError,
)
from replay.protocols.kafka.target import parse as parse_target
from replay.report.console import Console
from replay.report.terminal import print_report
from replay.results.document import Consumed, RunDocument
from replay.results.run import load_run
from replay.settings.file import load
from replay.trace import Trace, TraceWriter
from replay_native.kafka.events import STICKY_RECORDS
from tests.reference import recordbatch as naive
from tests.support.there import there

confluent_kafka = pytest.importorskip(
    "confluent_kafka", reason="the mock cluster is in the confluent-kafka wheel"
)

START_NS = 1_700_000_000_000_000_000
PARTITIONS = 4
"""What the mock cluster gives a topic that is asked for."""

KEYS = [None, b"", b"user 7", bytes(range(256)), "ключ".encode(), b"100%25?key=&/x"]


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """A cluster in this process; the address of its first broker."""
    producer = confluent_kafka.Producer({"test.mock.num.brokers": 2, "bootstrap.servers": "mock"})
    brokers = [f"{broker.host}:{broker.port}" for broker in producer.list_topics(timeout=10).brokers.values()]
    yield brokers[0]
    del producer


@pytest.fixture(scope="module", autouse=True)
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """`replay demo --kafka`, which takes half a minute, beside the other tests."""
    out = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, "-m", "replay.cli", "demo", "--kafka", "--plain", "-o", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def percent(key: bytes) -> bytes:
    return b"".join(bytes([byte]) if 33 <= byte < 127 and byte != 37 else b"%%%02X" % byte for byte in key)


def kafka_trace(
    path: Path, records: Sequence[tuple[int, bytes | None, bytes | None, tuple]], gap_ns: int = 100_000
) -> Trace:
    """A recording of the topic `orders` with two partitions: (partition, key, value, headers) of each record."""
    with TraceWriter(path) as writer:
        ids = [
            writer.add_request(
                "PRODUCE",
                b"/orders/%d" % partition + (b"" if key is None else b"?key=" + percent(key)),
                headers=headers or None,
                body=value,
            )
            for partition, key, value, headers in records
        ]
        at_ns = START_NS + np.arange(len(ids)) * gap_ns
        writer.add_events(at_ns.astype(np.int64), np.array(ids, np.uint32), np.zeros(len(ids), np.uint32))
        writer.manifest.options = {"topics": {"orders": 2}}
    assert writer.trace is not None
    return writer.trace


def http_trace(path: Path, rows: int = 60) -> Trace:
    with TraceWriter(path) as writer:
        get = writer.add_request("GET", b'/v1/users/7?q="x"')
        post = writer.add_request("POST", b"/v1/orders")
        ids = np.where(np.arange(rows) % 3 == 0, post, get).astype(np.uint32)
        at_ns = (START_NS + np.arange(rows) * 1_000_000).astype(np.int64)
        writer.add_events(at_ns, ids, (np.arange(rows) % 7).astype(np.uint32))
    assert writer.trace is not None
    return writer.trace


def replay(trace: Trace, target: str, out: Path, **settings: object) -> RunDocument:
    scenario = load(None, {"target": target, "methods": "all", **settings}, {})
    with prepare(trace, scenario) as prepared:
        return prepared.run(out)


def read_back(address: str, topic: str, count: int) -> list[ConsumerRecord]:
    """All records of a topic, in the order of partitions and offsets."""

    async def read() -> list[ConsumerRecord]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest")
        await consumer.start()
        found: list[ConsumerRecord] = []
        try:
            while batches := await consumer.getmany(timeout_ms=10_000 if len(found) < count else 200):
                found += [record for batch in batches.values() for record in batch]
        finally:
            await consumer.stop()
        return sorted(found, key=lambda record: (record.partition, record.offset))

    return asyncio.run(read())


def printed(run: Path) -> str:
    """A run's report."""
    console = Console(width=100, file=io.StringIO())
    print_report(load_run(run), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def recorded() -> list[tuple[int, bytes | None, bytes | None, tuple]]:
    headers = ((b"trace", b"abc"), (b"null", None), (b"", b""), (b"\xd0\xba", bytes(range(200))))
    values = [b"v" * size for size in (0, 1, 63, 64, 5_000)] + [None]
    return [
        (number % 2, KEYS[number % len(KEYS)], values[number % 5 if KEYS[number % len(KEYS)] is None else number % 6],
         headers[: number % 5])
        for number in range(300)
    ]  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"enable_idempotence": True}, {"max_batch_size": 1_000}])
def test_records_come_back_byte_for_byte_in_their_partitions(mock, tmp_path, settings):
    topic, records = f"same-{len(settings)}-{settings.get('max_batch_size', 0)}", recorded()
    document = replay(
        kafka_trace(tmp_path / "t", records), f"kafka://{mock}/{topic}", tmp_path / "run", kafka=settings
    )
    assert document.accounts.ok == document.accounts.planned == len(records)
    back = read_back(mock, topic, len(records))
    for partition in (0, 1):
        sent = [(key, value, tuple((name.decode(), content) for name, content in headers))
                for number, key, value, headers in records if number == partition]  # fmt: skip
        assert [(r.key, r.value, r.headers) for r in back if r.partition == partition] == sent


def test_null_and_empty_stay_apart_from_topic_to_topic(mock, tmp_path):
    headers = ((b"null", None), (b"empty", b""), (b"null", None), (b"full", b"x" * 9))
    records = [
        (0, None, b"v", headers),
        (0, b"", b"", headers[1:]),
        (0, b"k", None, headers[:1]),
        (0, b"k", b"v", ()),
    ]
    replay(kafka_trace(tmp_path / "t", records), f"kafka://{mock}/nulls", tmp_path / "run")
    assert invoke(["record", f"kafka://{mock}/nulls", "-o", str(tmp_path / "back.trace")]) == 0
    replay(Trace.open(tmp_path / "back.trace"), f"kafka://{mock}/nulls-again", tmp_path / "again")
    back = read_back(mock, "nulls-again", len(records))
    assert [(r.key, r.value, [(name.encode(), value) for name, value in r.headers]) for r in back] == [
        (key, value, list(pairs)) for _, key, value, pairs in records
    ]


def test_partitioned_anew_a_key_goes_where_javas_clients_send_it(mock, tmp_path):
    records = [(0, b"key-%d" % (number % 40), b"v", ()) for number in range(200)]
    replay(
        kafka_trace(tmp_path / "t", records),
        f"kafka://{mock}/anew",
        tmp_path / "run",
        kafka={"partitions": "key"},
    )
    back = read_back(mock, "anew", len(records))
    assert len(back) == len(records)
    for record in back:
        assert record.partition == (naive.murmur2(record.key) & 0x7FFFFFFF) % PARTITIONS


def test_records_without_a_key_share_the_partition_of_their_millisecond(mock, tmp_path):
    trace = kafka_trace(tmp_path / "t", [(0, None, b"%d" % n, ()) for n in range(4_000)], gap_ns=50_000)
    replay(trace, f"kafka://{mock}/keyless", tmp_path / "run", kafka={"partitions": "key"})
    back = read_back(mock, "keyless", 4_000)
    of_ms: dict[int, set[int]] = {}
    for record in back:
        of_ms.setdefault(int(record.value) * 50_000 // 1_000_000, set()).add(record.partition)
    assert sum(len(partitions) > 1 for partitions in of_ms.values()) <= 4_000 // STICKY_RECORDS
    assert min(Counter(record.partition for record in back)[n] for n in range(PARTITIONS)) > 400


def test_create_time_is_when_a_record_was_due(mock, tmp_path):
    records = [(0, b"k", b"v", ())] * 50
    document = replay(
        kafka_trace(tmp_path / "t", records, 2_000_000), f"kafka://{mock}/due", tmp_path / "run"
    )
    back = read_back(mock, "due", 50)
    first_ms = document.start.wall_ns / 1e6
    assert [record.timestamp - back[0].timestamp for record in back] == pytest.approx(range(0, 100, 2), abs=1)
    assert back[0].timestamp == pytest.approx(first_ms, abs=50)


def test_create_time_can_be_the_recorded_one(mock, tmp_path):
    records = [(0, b"k", b"v", ())] * 20
    replay(kafka_trace(tmp_path / "t", records), f"kafka://{mock}/then", tmp_path / "run",
           kafka={"timestamps": "recorded"})  # fmt: skip
    stamps = [record.timestamp for record in read_back(mock, "then", 20)]
    assert stamps == [(START_NS + number * 100_000) // 1_000_000 for number in range(20)]


def test_requests_become_events_by_a_mapping(mock, tmp_path):
    value = '{"m":"{method}","p":"{path}","c":{client},"n":{n},"at":{at_ms}}'
    replay(http_trace(tmp_path / "t"), f"kafka://{mock}/events", tmp_path / "run",
           kafka={"key": "{path[2]}/{path[9]}", "value": value})  # fmt: skip
    back = read_back(mock, "events", 60)
    by_number = {}
    for record in back:
        by_number[json.loads(record.value)["n"]] = (record.key, json.loads(record.value))
    assert by_number[0] == (
        b"orders/",
        {"m": "POST", "p": "/v1/orders", "c": 0, "n": 0, "at": START_NS // 10**6},
    )
    assert by_number[1] == (
        b"users/", {"m": "GET", "p": '/v1/users/7?q="x"', "c": 1, "n": 1, "at": START_NS // 10**6 + 1},
    )  # fmt: skip
    assert len(by_number) == 60


@pytest.mark.parametrize("compression", ["gzip", "snappy", "lz4", "zstd"])
def test_batches_can_be_compressed(mock, tmp_path, compression):
    records = recorded()
    replay(kafka_trace(tmp_path / "t", records), f"kafka://{mock}/{compression}", tmp_path / "run",
           kafka={"compression_type": compression})  # fmt: skip
    assert len(read_back(mock, compression, len(records))) == len(records)


def test_topics_can_be_mapped_and_kept(mock, tmp_path):
    trace = kafka_trace(tmp_path / "t", [(0, b"k", b"v", ())] * 10)
    replay(trace, f"kafka://{mock}/", tmp_path / "kept")
    replay(trace, f"kafka://{mock}/", tmp_path / "mapped", kafka={"topic_map": {"orders": "elsewhere"}})
    assert len(read_back(mock, "orders", 10)) == len(read_back(mock, "elsewhere", 10)) == 10


def test_a_closed_loop_sends_all_as_fast_as_it_can(mock, tmp_path):
    document = replay(kafka_trace(tmp_path / "t", [(0, b"k", b"v", ())] * 500), f"kafka://{mock}/max",
                      tmp_path / "run", rate="max")  # fmt: skip
    assert document.accounts.ok == 500 and document.closed_loop


def test_the_report_says_what_was_acknowledged(mock, tmp_path):
    document = replay(http_trace(tmp_path / "t"), f"kafka://{mock}/told", tmp_path / "run")
    text = printed(tmp_path / "run")
    assert "acknowledged 60" in text and "PRODUCE told/" in text
    assert document.kafka is not None and document.kafka.offsets_agree
    assert document.generator.engine == "kafka"


@pytest.mark.timing
@pytest.mark.whole
def test_due_to_consumed_is_measured_of_every_record(mock, tmp_path):
    trace = kafka_trace(
        tmp_path / "t", [(n % 2, b"%d" % n, b"v", ()) for n in range(2_000)], gap_ns=1_000_000
    )
    document = replay(
        trace, f"kafka://{mock}/consumed", tmp_path / "run", kafka={"consume": True}, warm_up="500ms",
        slo=["p99 end_to_end < 1h"],
    )  # fmt: skip
    assert document.accounts.ok == 2_000 and document.kafka is not None
    assert document.kafka.consumed["end_to_end"] == Consumed(count=1_500)
    response, felt = document.latency.response, document.latency.end_to_end
    assert there(felt).count == 1_500 and there(felt).min_ns > 0 and there(response).count == 1_500
    run = load_run(tmp_path / "run")
    assert run.measured.latency("end_to_end") == felt
    assert {name.partition("/")[0] for row in run.seconds() for name in row.lag} == {"consumed"}
    assert sum(row.end_to_end_p99_ns is not None for row in run.seconds()) > 0
    assert document.slo[0].passed
    assert "end to end" in printed(tmp_path / "run") and "1,500 were consumed" in printed(tmp_path / "run")


@contextmanager
def pipeline(address: str, source: str, sink: str, delay_s: float, every: int = 1) -> Iterator[None]:
    """Somebody's service: reads a topic, and answers each record (or each so many) on another, key and headers kept."""
    stop, there = threading.Event(), threading.Event()

    async def work() -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=address)
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await consumer.start()
        await producer.start()
        await producer.partitions_for(sink)
        parts = [TopicPartition(source, number) for number in sorted(await producer.partitions_for(source))]
        consumer.assign(parts)
        await consumer.seek_to_end(*parts)
        for part in parts:
            await consumer.position(part)
        there.set()
        count, answers = 0, []

        async def answer(record: ConsumerRecord) -> None:
            await asyncio.sleep(delay_s)
            await producer.send(sink, b"answer", key=record.key, headers=list(record.headers))

        while not stop.is_set():
            for records in (await consumer.getmany(timeout_ms=50)).values():
                for record in records:
                    count += 1
                    if count % every == 0:
                        answers.append(asyncio.create_task(answer(record)))
        await asyncio.gather(*answers)
        await consumer.stop()
        await producer.stop()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    try:
        assert there.wait(20)
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.timing
@pytest.mark.whole
@pytest.mark.parametrize("by", ["key", "X-Replay", "id"])
def test_a_pipelines_answers_are_known_by_key_or_header(mock, tmp_path, by):
    records = [(n % 2, b"%d" % (n if by == "key" else 0), b"v", ((b"id", b"%d" % n),)) for n in range(300)]
    trace = kafka_trace(tmp_path / "t", records, gap_ns=3_000_000)
    with pipeline(mock, f"asked-{by}", f"answered-{by}", delay_s=0.05):
        document = replay(
            trace, f"kafka://{mock}/asked-{by}", tmp_path / "run",
            kafka={"answers": f"answered-{by}", "answers_by": by},
        )  # fmt: skip
    assert document.kafka is not None
    assert document.kafka.consumed == {"answer": Consumed(count=300)}
    assert there(document.latency.answer).min_ns > 50_000_000
    assert document.latency.end_to_end is UNSET
    headers = {name for record in read_back(mock, f"asked-{by}", 300) for name, _ in record.headers}
    assert headers == {"id", *(["X-Replay"] if by == "X-Replay" else [])}


@pytest.mark.timing
@pytest.mark.whole
def test_answers_that_never_came_are_counted_as_long_as_they_were_waited_for(mock, tmp_path):
    records = [(0, b"%d" % n, b"v", ()) for n in range(100)]
    with pipeline(mock, "half-asked", "half-answered", delay_s=0, every=2):
        document = replay(
            kafka_trace(tmp_path / "t", records, gap_ns=5_000_000), f"kafka://{mock}/half-asked", tmp_path / "run",
            kafka={"answers": "half-answered"}, timeout="2s",
        )  # fmt: skip
    assert document.kafka is not None
    found = document.kafka.consumed["answer"]
    assert (found.count, found.missing) == (50, 50) and (found.at_least_ns or 0) > 1_900_000_000
    assert there(document.latency.answer).count == 100
    assert (
        "p99_ns" in there(document.latency.answer).at_least
        and "p50_ns" not in there(document.latency.answer).at_least
    )
    assert "50 were not consumed by the end" in printed(tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kafka": {"consume": True}, "rate": "max"}, "closed loop"),
        ({"kafka": {"answers": "same"}}, "the topic to which the run writes"),
    ],
)
def test_an_end_that_cannot_be_measured_is_refused(mock, tmp_path, settings, words):
    with pytest.raises(UsageError, match=words):
        replay(http_trace(tmp_path / "t"), f"kafka://{mock}/same", tmp_path / "run", **settings)


def test_a_broker_that_is_down_is_said_before_anything_is_sent(tmp_path):
    with pytest.raises(TargetError, match="does not accept connections"):
        replay(http_trace(tmp_path / "t"), "kafka://127.0.0.1:1/x", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"kafka": {"acks": 0}}, UsageError, "acks = 0 is refused"),
        ({"methods": "GET,HEAD"}, UsageError, "is a write"),
        ({"kafka": {"topic_map": {"a": "b"}}}, UsageError, "no topic 'a'"),
        ({"kafka": {"security_protocol": "SASL_PLAINTEXT"}}, UsageError, "needs a user"),
        ({"kafka": {"security_protocol": "SSL", "ssl_cafile": "no.pem"}}, InputError, "no.pem"),
    ],
)
def test_what_cannot_be_is_refused_in_words(mock, tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        replay(http_trace(tmp_path / "t"), f"kafka://{mock}/x", tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_partition_that_is_not_there_is_refused_or_the_key_decides(mock, tmp_path):
    trace = kafka_trace(tmp_path / "t", [(9, b"k", b"v", ())] * 5)
    trace.manifest.options["topics"] = {"orders": 10}
    with pytest.raises(UsageError, match="10 partitions"):
        replay(trace, f"kafka://{mock}/few", tmp_path / "run", kafka={"partitions": "recorded"})
    assert replay(trace, f"kafka://{mock}/few", tmp_path / "run2").accounts.ok == 5


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("kafka://", "not a broker"), ("kafka://h:99999/t", "[Pp]ort"), ("kafka://h/a/b", "not a valid topic"),
        ("kafka://u:p@h/t", "user name"), ("kafka://h,/t", "not a broker"),
    ],
)  # fmt: skip
def test_a_target_that_is_none(url, words):
    with pytest.raises(ReplayError, match=words):
        parse_target(url)


def test_a_target_taken_apart():
    target = parse_target("kafka://one:9093,[::1]/events")
    assert target.brokers == (("one", 9093), ("::1", 9092)) and target.base_path == "events"
    assert parse_target("kafka://one").base_path == ""


@pytest.mark.timing
@pytest.mark.whole
def test_the_demo_names_its_broker(demo):
    said, wrong = demo.communicate(timeout=120)
    assert demo.returncode == 0, wrong
    assert "mock cluster" in said and "PRODUCE evening/0" in said
    assert "the offsets agree" in said
