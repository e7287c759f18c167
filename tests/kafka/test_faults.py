"""What befalls a partition in mid-run: no leader, another leader, errors that pass and errors that do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from replay.errors import TargetError
from replay.protocols.kafka import cluster
from replay.results.document import RunDocument
from tests.support.kafka_broker import MockCluster
from tests.support.there import there

from .test_mock import kafka_trace, read_back, replay

NOT_LEADER, NOT_ENOUGH_REPLICAS, POLICY_VIOLATION = 6, 19, 44


@pytest.fixture(scope="module")
def faulty() -> Iterator[MockCluster]:
    made = MockCluster(brokers=2)
    yield made
    made.close()


def replayed(
    faulty: MockCluster,
    topic: str,
    tmp_path: Path,
    count: int = 400,
    gap_ns: int = 2_000_000,
    address: str = "",
    **settings: object,
) -> RunDocument:
    """Numbered records onto both partitions of a topic in turns; their accounts balance."""
    records = [(number % 2, b"%d" % number, b"v", ()) for number in range(count)]
    document = replay(kafka_trace(tmp_path / "t", records, gap_ns), f"kafka://{address or faulty.address}/{topic}",
                      tmp_path / "run", breaker={"on": False}, **settings)  # fmt: skip
    accounts = document.accounts
    assert accounts.planned == count == accounts.sent + accounts.unsent
    assert accounts.sent == accounts.ok + accounts.error + accounts.timeout and accounts.in_flight == 0
    return document


def keys(faulty: MockCluster, topic: str, partition: int, count: int) -> list[int]:
    return [int(r.key) for r in read_back(faulty.address, topic, count) if r.partition == partition]


def later(delay_s: float, *steps: object) -> threading.Thread:
    """Take steps (callables) in a thread of their own, a pause before each."""

    def work() -> None:
        for step in steps:
            time.sleep(delay_s)
            step()  # type: ignore[operator]

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_partition_that_gets_no_leader_is_named(faulty, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "LEADER_WAIT_S", 0.3)
    faulty.make("leaderless", 2)
    faulty.lead("leaderless", 1, -1)
    with pytest.raises(TargetError, match="partition 1 of the topic 'leaderless' has no leader"):
        replayed(faulty, "leaderless", tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_leader_that_comes_in_a_moment_is_waited_for(faulty, tmp_path):
    faulty.make("soon", 2)
    faulty.lead("soon", 1, -1)
    thread = later(1.0, lambda: faulty.lead("soon", 1, 2))
    assert replayed(faulty, "soon", tmp_path, 20).accounts.ok == 20
    thread.join()


@pytest.mark.parametrize("idempotence", [False, True])
def test_records_wait_for_a_leader_that_went_and_came_back(faulty, tmp_path, idempotence):
    topic = f"gone-{idempotence}"
    faulty.make(topic, 2)
    faulty.lead(topic, 0, 1)
    thread = later(1.0, lambda: faulty.lead(topic, 0, -1), lambda: faulty.lead(topic, 0, 2))
    document = replayed(faulty, topic, tmp_path, 1_200, kafka={"enable_idempotence": idempotence})
    thread.join()
    assert document.accounts.ok == 1_200
    assert there(document.latency.response).max_ns > 500_000_000
    for partition in (0, 1):
        assert keys(faulty, topic, partition, 1_200) == list(range(partition, 1_200, 2))


@pytest.mark.timing
def test_a_leader_that_never_comes_back_leaves_its_records_unsent(faulty, tmp_path):
    faulty.make("lost", 2)
    faulty.lead("lost", 0, 1)
    thread = later(0.8, lambda: faulty.lead("lost", 0, -1))
    document = replayed(faulty, "lost", tmp_path, 1_000, max_wait="500ms", timeout="1s")
    thread.join()
    assert document.accounts.unsent + document.accounts.error + document.accounts.timeout > 200
    assert keys(faulty, "lost", 1, 500) == list(range(1, 1_000, 2))


def test_an_error_that_passes_is_no_error(faulty, tmp_path):
    faulty.make("passes", 2)
    faulty.fail_produce(0, NOT_ENOUGH_REPLICAS, 0, NOT_LEADER)
    document = replayed(faulty, "passes", tmp_path)
    assert document.accounts.ok == 400 and document.kafka is not None and document.kafka.errors == {}
    assert sorted(keys(faulty, "passes", 0, 400)) == list(range(0, 400, 2))


def test_an_error_that_does_not_pass_is_counted_by_its_name(faulty, tmp_path):
    faulty.make("refused", 2)
    faulty.fail_produce(0, POLICY_VIOLATION)
    document = replayed(faulty, "refused", tmp_path)
    assert document.kafka is not None and list(document.kafka.errors) == ["POLICY_VIOLATION"]
    assert document.accounts.error == document.accounts_detail.error["rejected"] > 0
    assert document.accounts.ok == 400 - document.accounts.error
