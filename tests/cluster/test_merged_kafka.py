"""Kafka's figures of several agents become those of one run."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.cluster.merging import merge_runs
from replay.cluster.share import write_share
from replay.results.document import KafkaFigures, KafkaPartition, RunDocument
from tests.support.metrics_data import at_s, trial

from .test_merging import share

RECORDS = 10
"""Acknowledged records of each partition."""


def partition(number: int, moved: int | None = RECORDS, acknowledged: int = RECORDS) -> KafkaPartition:
    return KafkaPartition(topic="orders", partition=number, acknowledged=acknowledged, moved=moved)


def merged(
    folder: Path, *agents: list[KafkaPartition] | None, timeouts: int = 0, missing: int = 0
) -> RunDocument:
    """The merged run of agents that wrote to these partitions (None: it was killed). The last one had time-outs."""
    folders = []
    for agent, partitions in enumerate(agents):
        made = trial(folder / f"a{agent}")
        count = sum(one.acknowledged for one in partitions or [])
        count_of_all = count + (timeouts if agent == len(agents) - 1 else 0)
        write_share(
            made.folder.path, share(agent, len(agents), planned=count_of_all or 1, planned_whole=None)
        )
        made.lanes[0].many(count or 1)
        for _ in range(count_of_all - count):
            made.lanes[0].request(outcome="timeout")
        made.recorder.tick(at_s(1))
        if partitions is None:
            made.recorder.close()
        else:
            own = KafkaFigures(brokers="b:9092", partitions=partitions, missing=missing)
            made.recorder.finish(at_s(2), kafka=[own])
        folders.append(made.folder.path)
    return merge_runs(folders, folder / "whole")


@pytest.mark.parametrize(
    ("moved", "timeouts", "agrees"),
    [
        (RECORDS, 0, True),
        (RECORDS + 2, 2, True),  # records without an acknowledgement are there all the same
        (RECORDS + 3, 2, False),  # somebody else writes to the topic
        (RECORDS - 1, 5, False),  # records are missing
        (None, 0, None),  # the end of a partition could not be read
    ],
)
def test_offsets_are_compared_over_all_agents(
    tmp_path: Path, moved: int | None, timeouts: int, agrees: bool | None
) -> None:
    document = merged(tmp_path, [partition(0), partition(2)], [partition(1, moved)], timeouts=timeouts)
    assert document.kafka is not None
    assert [one.partition for one in document.kafka.partitions] == [0, 1, 2]
    assert [one.moved for one in document.kafka.partitions] == [RECORDS, moved, RECORDS]
    assert document.kafka.offsets_agree is agrees
    assert "OFFSETS_NOT_COMPARED" not in {note.code for note in document.notes}


def test_missing_records_of_one_partition_are_not_made_up_by_another(tmp_path: Path) -> None:
    document = merged(tmp_path, [partition(0, RECORDS - 1)], [partition(1, RECORDS + 1)], missing=1)
    assert document.kafka is not None and document.kafka.offsets_agree is False


@pytest.mark.parametrize(
    ("agents", "why"),
    [
        (([partition(0)], None), "the figures of agent 1 (h1) are missing"),
        (([partition(0)], [partition(0)]), "several agents wrote to the same partitions"),
    ],
)
def test_offsets_that_cannot_be_compared_are_named(
    tmp_path: Path, agents: tuple[list[KafkaPartition] | None, ...], why: str
) -> None:
    document = merged(tmp_path, *agents)
    assert document.kafka is not None and document.kafka.offsets_agree is None
    (note,) = [note for note in document.notes if note.code == "OFFSETS_NOT_COMPARED"]
    assert why in note.message
