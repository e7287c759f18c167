"""`replay follow kafka://`: records of topics, as they are written, onto topics of another name or cluster."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord

from replay.cli import invoke
from replay.protocols.kafka.record import parse_source
from replay.protocols.kafka.tail import refuse_loop
from replay.trace.importing.registry import Found, Options

from .test_mock import read_back

confluent_kafka = pytest.importorskip(
    "confluent_kafka", reason="the mock cluster is in the confluent-kafka wheel"
)

Record = tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...]]


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """A cluster in this process; the address of its first broker."""
    producer = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
    yield next(f"{one.host}:{one.port}" for one in producer.list_topics(timeout=10).brokers.values())
    del producer


def write(address: str, topic: str, records: Sequence[Record], stamps_ms: Sequence[int | None] = ()) -> None:
    """Write records one by one, in order."""

    async def send() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=address)
        await producer.start()
        for at, (partition, key, value, headers) in enumerate(records):
            await producer.send_and_wait(
                topic, value, key, partition, stamps_ms[at] if stamps_ms else None, list(headers)
            )
        await producer.stop()

    asyncio.run(send())


def follow(
    tmp_path: Path, source: str, target: str, *words: str, length_s: float = 7.0
) -> subprocess.Popen[str]:
    """The command, once its run has begun."""
    command = [sys.executable, "-m", "replay.cli", "follow", source, "--target", target, "--methods", "all"]
    command += ["--delay", "1s", "-d", f"{length_s:g}s", "-o", "run", "--plain", *words]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "started.json").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.6)
    return process


def ended(tmp_path: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    """run.json of a command that ended well."""
    said, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 4), said
    document: dict[str, Any] = json.loads((tmp_path / "run" / "run.json").read_text())
    return document


def content(records: Sequence[ConsumerRecord], partition: int) -> list[Any]:
    return [(r.key, r.value, tuple(r.headers)) for r in records if r.partition == partition]


@pytest.mark.whole
def test_records_arrive_once_whole_and_in_the_order_of_their_partition(mock, tmp_path):
    write(mock, "source", [(0, b"before", b"is not followed", ())])
    values = [b"", None, b"v", b"w" * 5_000]
    records: list[Record] = [
        (
            n % 3,
            [None, b"", b"k %25"][n % 3],
            values[n % 4 if n % 3 else 2],
            (("trace", b"%d" % n), ("null", None))[: n % 3],
        )
        for n in range(120)
    ]
    process = follow(tmp_path, f"kafka://{mock}/source", f"kafka://{mock}/copy")
    write(mock, "source", records)
    document = ended(tmp_path, process)
    back = read_back(mock, "copy", len(records))
    for partition in range(3):
        assert content(back, partition) == [record[1:] for record in records if record[0] == partition]
    source = document["source"]
    assert source["entries"] == document["accounts"]["planned"] == document["accounts"]["ok"] == 120
    assert source["format"] == "kafka" and source["delay_ns"] == 10**9 and source["late_at_source"] == 0
    assert [route["route"] for route in document["routes"]] == [f"PRODUCE copy/{n}" for n in range(3)]


@pytest.mark.whole
def test_each_record_is_due_after_its_stamp_and_a_late_one_is_counted(mock, tmp_path):
    process = follow(tmp_path, f"kafka://{mock}/stamped", f"kafka://{mock}/stamped-copy")
    now_ms = int(time.time() * 1_000)
    write(mock, "stamped", [(0, b"on time", b"", ()), (1, b"late", b"", ())], [now_ms, now_ms - 60_000])
    document = ended(tmp_path, process)
    assert document["source"]["entries"] == 2 and document["source"]["late_at_source"] == 1
    (on_time,) = [r for r in read_back(mock, "stamped-copy", 1) if r.key == b"on time"]
    assert 1_000 <= on_time.timestamp - now_ms < 3_000


def test_a_partition_keeps_its_order_where_stamps_go_back():
    from replay.following.topics import TopicReader

    reader = TopicReader(Found(), Options())
    now_ms = int(time.time() * 1_000)
    stamps = [0, 5, 3, 9 * 10**9, 6, 4]

    def record(offset: int, at_ms: int, partition: int = 0) -> ConsumerRecord:
        return ConsumerRecord("t", partition, offset, now_ms + at_ms, 0, b"k", b"v", None, 1, 1, ())

    rows = reader._rows([record(at, stamp) for at, stamp in enumerate(stamps)])
    assert [at // 10**6 - now_ms for at in rows.at_ns] == [0, 5, 5, 9 * 10**9, 6, 6]
    assert reader.disordered == 2
    assert [at // 10**6 - now_ms for at in reader._rows([record(0, 1, 1)]).at_ns] == [1]


@pytest.mark.parametrize(
    ("target", "topic_map", "loops"),
    [
        ("kafka://127.0.0.1:9092/other", {}, False),
        ("kafka://127.0.0.1:9092", {}, True),
        ("kafka://localhost:9092/a", {}, True),
        ("kafka://127.0.0.1:9093/a", {}, False),
        ("kafka://127.0.0.1:9092/other", {"a": "b"}, True),
    ],
)
def test_a_topic_is_not_followed_onto_itself(target, topic_map, loops):
    source = parse_source("kafka://127.0.0.1:9092/a,b")
    if not loops:
        refuse_loop(source, target, topic_map)
        return
    with pytest.raises(Exception, match="is followed"):
        refuse_loop(source, target, topic_map)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "http://127.0.0.1:9"), "its records are not HTTP requests"),
        (
            ("--target", "kafka://127.0.0.1:9/b", "--from", "beginning"),
            "can only be followed from its current end",
        ),
        (("--target", "kafka://127.0.0.1:9/b", "--keep", "a.trace"), "replay record"),
        (("--target", "kafka://127.0.0.1:1/b"), "127.0.0.1:1"),
        (("--target", "kafka://127.0.0.1:1/a"), "on the same cluster"),
    ],
)
def test_what_cannot_be_followed_is_refused(words, said, capsys):
    assert invoke(["follow", "kafka://127.0.0.1:1/a", "--methods", "all", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_log_does_not_go_to_kafka(tmp_path, capsys):
    (tmp_path / "a.log").write_text("")
    log = str(tmp_path / "a.log")
    assert invoke(["follow", log, "--methods", "all", "--target", "kafka://127.0.0.1:1/a"]) == 2
    assert "only http:// and https:// targets can receive this source" in capsys.readouterr().err
