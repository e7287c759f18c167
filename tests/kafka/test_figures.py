"""What a run says of offsets, of batches that are too large, and of brokers that are missing, against scripted brokers."""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import TargetError
from replay.protocols.kafka import cluster as clusters
from replay.protocols.kafka import record as recording
from replay.protocols.kafka.batch import Batch
from replay.protocols.kafka.splitting import Limits, halves
from replay.results.document import RunDocument
from replay_native.feed.ring import ENTRY
from replay_native.kafka import recordbatch as kernels
from tests.reference import recordbatch as naive
from tests.support.scripted_broker import (
    MESSAGE_TOO_LARGE,
    Cluster,
    ScriptedBroker,
    single,
)

from .test_mock import kafka_trace, printed, replay

KAFKA = ("RECORDS_MISSING", "RECORDS_TOO_LARGE", "BROKER_LOST")
"""Notes that only a run onto Kafka has."""


def run(
    cluster_address: str, tmp_path: Path, records: list[tuple], gap_ns: int = 1_000_000, **settings
) -> RunDocument:
    trace = kafka_trace(tmp_path / "t", records, gap_ns)
    return replay(trace, f"kafka://{cluster_address}/t", tmp_path / "run", breaker={"on": False}, **settings)


def numbered(count: int, size: int = 100, partitions: int = 1) -> list[tuple]:
    return [(number % partitions, b"%d" % number, b"v" * size, ()) for number in range(count)]


def codes(document: RunDocument) -> list[str]:
    return [note.code for note in document.notes if note.code in KAFKA]


def keys(cluster: Cluster, partition: int = 0) -> list[int]:
    """The keys of what the cluster holds, in the order of their offsets."""
    return [
        int(record.key or b"")
        for _, _, data in cluster.log[partition]
        for record in naive.records(bytes(data))
    ]


def test_a_high_watermark_that_lags_is_waited_for(tmp_path) -> None:
    """With acks=1 the end of a partition follows what was acknowledged, as followers fetch it."""
    asked = itertools.count()

    def ends(partition: int, end: int) -> int:
        return max(end - max(60 - 10 * next(asked), 0), 0) if end else 0

    _, broker = single(ends=ends)
    document = run(broker.address, tmp_path, numbered(100))
    assert document.kafka is not None and document.kafka.offsets_agree
    assert document.kafka.partitions[0].moved == 100 and document.kafka.missing == 0
    assert codes(document) == []


def test_acknowledged_records_that_are_not_there_are_missing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clusters, "STILL_S", 0.3)
    _, broker = single(ends=lambda partition, end: max(end - 7, 0))
    document = run(broker.address, tmp_path, numbered(100))
    assert document.kafka is not None and document.kafka.offsets_agree is False
    assert document.kafka.missing == 7 and "RECORDS_MISSING" in codes(document)
    words = " ".join(printed(tmp_path / "run").split())
    assert "7 acknowledged records are missing" in words and "somebody else" not in words


def test_ends_that_moved_too_far_are_somebody_elses(tmp_path) -> None:
    _, broker = single(ends=lambda partition, end: end + 3 if end else 0)
    document = run(broker.address, tmp_path, numbered(100))
    assert document.kafka is not None and document.kafka.offsets_agree is False
    assert document.kafka.missing == 0 and codes(document) == []
    words = " ".join(printed(tmp_path / "run").split())
    assert "another producer wrote to the topic too" in words and "missing" not in words


def test_one_partition_short_and_one_too_long_are_missing_records(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clusters, "STILL_S", 0.3)
    _, broker = single(partitions=2, ends=lambda partition, end: end and end + (5 if partition else -5))
    document = run(broker.address, tmp_path, numbered(100, partitions=2))
    assert document.kafka is not None and document.kafka.missing == 5
    assert document.kafka.offsets_agree is False


def too_large(limit: int):
    return lambda count, size: MESSAGE_TOO_LARGE if size > limit else 0


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_batches_are_bounded_by_what_the_topic_takes(tmp_path, compression) -> None:
    cluster, broker = single(largest=1_000, refuse=too_large(1_000))
    document = run(
        broker.address, tmp_path, numbered(2_000), gap_ns=10_000, kafka={"compression_type": compression}
    )
    assert document.accounts.ok == 2_000 and cluster.refused == []
    assert keys(cluster) == list(range(2_000)) if compression == "none" else True


def test_a_limit_that_is_not_described_is_learned(tmp_path) -> None:
    cluster, broker = single(refuse=too_large(1_500))
    document = run(broker.address, tmp_path, numbered(3_000), gap_ns=20_000)
    assert document.accounts.ok == 3_000 and document.accounts.error == 0
    assert sorted(keys(cluster)) == list(range(3_000))
    assert cluster.refused and all(count > 1 for count, _ in cluster.refused)
    accepted = len(cluster.log[0])
    assert len(cluster.refused) < accepted, "the limit was not learned"
    assert document.kafka is not None and document.kafka.offsets_agree


def test_records_that_do_not_fit_alone_are_rejected_alone(tmp_path) -> None:
    records = [
        (0, b"%d" % number, b"v" * (5_000 if number % 100 == 50 else 100), ()) for number in range(1_000)
    ]
    cluster, broker = single(largest=1_000, refuse=too_large(1_000))
    document = run(broker.address, tmp_path, records, gap_ns=20_000)
    assert document.accounts.error == 10 and document.accounts.ok == 990
    assert document.kafka is not None and document.kafka.errors == {"MESSAGE_SIZE_TOO_LARGE": 10}
    assert Counter(keys(cluster)) == Counter(number for number in range(1_000) if number % 100 != 50)
    assert codes(document) == ["RECORDS_TOO_LARGE"]
    message = next(note.message for note in document.notes if note.code in KAFKA)
    assert (
        "10 records too large for the topic 't'" in message and "1,000 bytes" in message and "5,0" in message
    )


def test_the_same_where_the_limit_is_not_described(tmp_path) -> None:
    records = [
        (0, b"%d" % number, b"v" * (5_000 if number % 100 == 50 else 100), ()) for number in range(1_000)
    ]
    cluster, broker = single(refuse=too_large(1_000))
    document = run(broker.address, tmp_path, records, gap_ns=20_000)
    assert document.accounts.error == 10 and document.accounts.ok == 990
    assert Counter(keys(cluster)) == Counter(number for number in range(1_000) if number % 100 != 50)
    assert codes(document) == ["RECORDS_TOO_LARGE"]


def test_a_broker_that_is_lost_in_mid_run_is_named(tmp_path) -> None:
    """Two brokers; one dies, and the other takes over its partition."""
    cluster = Cluster(partitions=2)
    first, second = ScriptedBroker(cluster), ScriptedBroker(cluster)
    cluster.advertised = {1: first.place, 2: second.place}
    cluster.leader = lambda partition: partition + 1

    def refuse(count: int, size: int) -> int:
        if len(cluster.log[1]) == 20 and 2 in cluster.advertised:
            second.close()
            cluster.advertised = {1: first.place}
            cluster.leader = lambda partition: 1
        return 0

    cluster.refuse = refuse
    document = run(first.address, tmp_path, numbered(2_000, partitions=2))
    assert document.accounts.ok == 2_000
    assert codes(document) == ["BROKER_LOST"]
    message = next(note.message for note in document.notes if note.code in KAFKA)
    assert f"the broker {second.address} (id 2)" in message and first.address not in message


def test_a_missing_broker_of_several_is_named_by_itself_before_the_run(tmp_path) -> None:
    cluster, broker = single()
    gone = ScriptedBroker(cluster)
    cluster.advertised[2] = gone.place
    cluster.partitions, cluster.leader = 2, lambda partition: partition + 1
    gone.close()
    with pytest.raises(TargetError) as caught:
        run(f"{broker.address},127.0.0.1:1", tmp_path, numbered(10))
    assert f"the broker {gone.address} does not accept connections" in str(caught.value)
    assert broker.address not in str(caught.value)


def test_a_bootstrap_broker_that_is_gone_does_not_hide_what_is_wrong(tmp_path) -> None:
    """The first broker of the URL is down; what stops the run is the topic, which is not there."""
    _, broker = single(topic="other")
    with pytest.raises(TargetError, match="there is no topic 't'"):
        run(f"127.0.0.1:1,{broker.address}", tmp_path, numbered(10))


def test_the_broker_that_a_leaderless_partition_waits_for_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clusters, "LEADER_WAIT_S", 0.3)
    _, broker = single(leader=lambda partition: -1, replicas=[7])
    with pytest.raises(TargetError, match="of its replicas, broker 7 is not in the cluster"):
        run(broker.address, tmp_path, numbered(10))


def made(tails: list[bytes], stamps: list[int]) -> Batch:
    ring = np.zeros(1 << 16, np.uint8)
    rows, at = np.zeros(len(tails), ENTRY), 0
    for row, (tail, stamp) in enumerate(zip(tails, stamps, strict=True)):
        ring[at : at + len(tail)] = np.frombuffer(tail, np.uint8)
        rows[row]["offset"], rows[row]["length"], rows[row]["state"], rows[row]["seq"] = (
            at,
            len(tail),
            stamp,
            row,
        )
        at += len(tail)
    room = np.empty(1 << 17, np.uint8), np.empty(len(tails), ENTRY)
    batch = Batch(0, 5 << 14, room, None)
    assert batch.add(rows, ring, 0, 1 << 17, 1) == len(tails)
    batch.producer_id, batch.epoch, batch.sequence = 9, 1, 40
    return batch


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 10**12)), min_size=2, max_size=60))
def test_halves_hold_the_records_of_the_whole(records) -> None:
    tails = [naive.tail(naive.Record(b"k", value)) for value, _ in records]
    batch = made(tails, [stamp for _, stamp in records])
    parts = halves(batch)
    whole = naive.records(bytes(batch.sealed()))
    back = [record for part in parts for record in naive.records(bytes(part.sealed()))]
    assert back == whole and len(whole) == len(records)
    assert [part.count for part in parts] == [len(records) // 2, len(records) - len(records) // 2]
    assert [part.sequence for part in parts] == [40, 40 + parts[0].count]
    assert batch.number == parts[0].number < parts[1].number < 6 << 14
    assert [int(seq) for part in parts for seq in part.rows["seq"]] == list(range(len(records)))


def test_a_limit_falls_to_what_was_taken_and_no_further() -> None:
    limits = Limits([1_000_000, 1_000_000])
    small, large = made([b"x" * 2_000], [0]), made([b"x" * 5_000, b"y" * 5_000], [0, 0])
    limits.took(small)
    for _ in range(5):
        limits.refused(large)
    assert limits[0] == large.size // 2 and limits[1] == 1_000_000
    for _ in range(5):
        limits.refused(small)
    assert limits[0] == small.size
    assert small.size > kernels.HEADER_BYTES


def test_a_recording_keeps_what_it_has_where_the_cluster_leads_elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(recording, "REFUSED_SILENT_S", 0.5)
    cluster, broker = single()
    run(broker.address, tmp_path, numbered(40), gap_ns=5_000_000)
    broker.close()

    class Leaving(ScriptedBroker):
        """Gives one batch, and is then elsewhere."""

        def _read(self, partition: int, first: int) -> tuple:
            code, end, stable, aborted, _ = super()._read(partition, first)
            if first:
                cluster.advertised = {1: ("192.0.2.7", 9_092)}
                for connection in self.connections:
                    connection.shutdown(socket.SHUT_RDWR)
            at, count, data = cluster.log[partition][0]
            return code, end, stable, aborted, data if first < at + count else b""

    leaving = Leaving(cluster)
    cluster.advertised = {1: leaving.place}
    source = recording.parse_source(f"kafka://{leaving.address}/t")
    done = recording.record(source, tmp_path / "out.trace")
    assert 0 < done.records < 40 and not done.complete
    assert done.refused == ("192.0.2.7",)
    assert any("not read from 192.0.2.7" in remark for remark in done.remarks())
    assert done.trace is not None and done.trace.rows == done.records
