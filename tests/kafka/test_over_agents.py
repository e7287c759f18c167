"""Runs over agents onto Kafka: the topic holds what one process writes to it, and the figures are those of one process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.results.document import RunDocument
from replay.results.run import Run, load_run
from replay.staging.sink import Sink
from replay.trace import Trace
from tests.cluster.support import running
from tests.support.kafka_broker import Broker, jars

from .test_broker import make
from .test_mock import http_trace, kafka_trace, read_back, replay

pytestmark = pytest.mark.kafka

COUNT = 3_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("broker"), jars(tmp_path_factory.mktemp("jars")))
    broker.start()
    yield broker
    broker.stop()


def keyed(path: Path, *, gap_ns: int = 500_000) -> Trace:
    """Records of both recorded partitions; every third has no key."""
    records = [
        (n % 2, None if n % 3 == 0 else b"user %d" % (n % 50), b"%d" % n, ((b"h", b"%d" % n),))
        for n in range(COUNT)
    ]
    return kafka_trace(path, records, gap_ns)


def requests(path: Path) -> Trace:
    return http_trace(path, rows=COUNT)


Records = dict[int, list[tuple[Any, ...]]]


def by_partition(address: str, topic: str) -> Records:
    """What a topic holds, in the order of offsets."""
    found: Records = {}
    for record in read_back(address, topic, COUNT):
        found.setdefault(record.partition, []).append((record.key, record.value, record.headers))
    return found


def acknowledged_by_route(document: RunDocument) -> dict[str, int]:
    """By partition, without the name of the topic."""
    return {row.route.rpartition("/")[2]: row.outcomes.get("2xx", 0) for row in document.routes}


def over(folder: Path, trace: Trace, target: str, agents: int, *flags: str) -> tuple[Run, str]:
    """A run over agents, and what was printed."""
    how = (str(trace.path), "--target", target, "--methods", "all", "--cluster", f"local:{agents}", *flags)
    with running(folder, *how) as run:
        code, printed = run.wait()
    # A busy machine makes a run INVALID (4). Its records and accounts are the same.
    assert code in (0, 4), printed
    return load_run(run.out), printed


CASES: dict[str, tuple[Callable[[Path], Trace], int, dict[str, Any]]] = {
    "recorded": (keyed, 2, {}),
    "key": (keyed, 5, {"partitions": "key"}),
    "events": (requests, 5, {}),
    "idempotent": (keyed, 5, {"partitions": "key", "enable_idempotence": True}),
}


@pytest.mark.timing
@pytest.mark.parametrize("agents", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_topic_holds_what_one_process_writes_to_it(
    broker: Broker, tmp_path: Path, agents: int, case: str
) -> None:
    made, partitions, kafka = CASES[case]
    trace = made(tmp_path / "t.trace")
    one, many = f"one-{case}-{agents}", f"many-{case}-{agents}"
    alone = replay(trace, make(broker, one, partitions), tmp_path / "one", kafka=kafka)
    (tmp_path / "day.toml").write_text(
        "[kafka]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in kafka.items())
    )
    run, printed = over(tmp_path, trace, make(broker, many, partitions), agents, "--scenario", "day.toml")
    document = run.document
    assert by_partition(broker.address, many) == by_partition(broker.address, one)
    assert document.accounts.ok == document.accounts.planned == alone.accounts.ok == COUNT
    assert document.accounts.unsent == 0
    assert document.kafka is not None and alone.kafka is not None
    assert document.kafka.offsets_agree is alone.kafka.offsets_agree is True
    assert {(part.partition, part.acknowledged, part.moved) for part in document.kafka.partitions} == {
        (part.partition, part.acknowledged, part.moved) for part in alone.kafka.partitions
    }
    assert not [note for note in document.notes if note.code == "OFFSETS_NOT_COMPARED"]
    assert acknowledged_by_route(document) == acknowledged_by_route(alone)
    # Each agent wrote to partitions of its own; with more agents than partitions one has none.
    own = [load_run(run.folder.path / "agents" / f"agent-{n}").document.kafka for n in range(agents)]
    assert [[part.partition for part in one.partitions] for one in own if one is not None] == [
        list(range(n, partitions, agents)) for n in range(agents)
    ]
    # An agent is idle where keys put no record on its partitions, too.
    busy = {part.partition % agents for part in alone.kafka.partitions if part.acknowledged}
    assert printed.count("has nothing to send") == agents - len(busy)


@pytest.mark.timing
def test_consumers_of_agents_read_the_partitions_of_their_share(broker: Broker, tmp_path: Path) -> None:
    run, _ = over(
        tmp_path,
        keyed(tmp_path / "t.trace"),
        make(broker, "consumed", 3),
        2,
        "--consume",
        "--partitions",
        "key",
    )
    document = run.document
    assert document.kafka is not None
    consumed = document.kafka.consumed["end_to_end"]
    assert (consumed.count, consumed.missing) == (COUNT, 0)
    assert sorted(document.kafka.lag_max) == ["consumed/0", "consumed/1", "consumed/2"]


@pytest.mark.timing
def test_requests_and_records_in_one_run(broker: Broker, tmp_path: Path) -> None:
    """HTTP requests are cut by number onto two lanes of each agent, records by partition onto one."""
    target = make(broker, "both", 3)
    trace = requests(tmp_path / "t.trace")
    with Sink() as sink:
        (tmp_path / "day.toml").write_text(
            f'trace = "{trace.path}"\ntarget = "http://127.0.0.1:{sink.port}"\nmethods = "all"\nempty_bodies = true\n'
            f'[[also]]\ntarget = "{target}"\nonly = ["POST *"]\n'
        )
        with running(tmp_path, "day.toml", "--cluster", "local:2", "-t", "2") as run:
            code, printed = run.wait()
        received = sorted(sink.stamps()["seq"].tolist())
    assert code in (0, 4), printed
    document = load_run(run.out).document
    records = COUNT // 3
    assert received == list(range(COUNT)), "the first target gets every request"
    assert [target.accounts.ok for target in document.targets] == [COUNT, records]
    assert [target.lanes for target in document.targets] == [4, 2]
    assert document.targets[1].kafka is not None and document.targets[1].kafka.offsets_agree
    back = read_back(broker.address, "both", records)
    assert len({record.value for record in back}) == len(back) == records


@pytest.mark.timing
def test_an_agent_that_is_lost_leaves_its_partitions_alone(broker: Broker, tmp_path: Path) -> None:
    """Nobody writes its records: nothing comes twice, and the order of the others' partitions stays."""
    trace = keyed(tmp_path / "t.trace", gap_ns=3_000_000)
    how = (
        "--target",
        make(broker, "lost", 4),
        "--methods",
        "all",
        "--partitions",
        "key",
        "--on-lost",
        "continue",
    )
    with running(tmp_path, str(trace.path), *how, "--cluster", "local:2") as run:
        run.await_start(2)
        time.sleep(3)
        os.kill(run.agent_pids()[1], signal.SIGKILL)
        code, printed = run.wait()
    assert code in (0, 4) and "LOST agent 1" in printed, printed
    document = load_run(run.out).document
    accounts = document.accounts
    assert accounts.planned == COUNT == accounts.sent + accounts.unsent + (accounts.unknown or 0)
    back = read_back(broker.address, "lost", accounts.ok)
    values = [int(record.value) for record in back]
    assert len(set(values)) == len(values)
    for partition in range(4):
        own = [int(record.value) for record in back if record.partition == partition]
        assert own == sorted(own)
    assert document.kafka is not None and document.kafka.offsets_agree is None
    (note,) = [note for note in document.notes if note.code == "OFFSETS_NOT_COMPARED"]
    assert "agent 1" in note.message


def test_what_cannot_be_cut_is_refused(tmp_path: Path) -> None:
    trace = keyed(tmp_path / "t.trace")
    command = [
        sys.executable, "-m", "replay.cli", "run", str(trace.path), "--target", "kafka://127.0.0.1:9/orders",
        "--methods", "all", "--cluster", "local:2", "--answers", "paid", "-o", str(tmp_path / "RUN"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "--cluster with kafka.answers" in done.stderr
    assert not (tmp_path / "RUN").exists()
