"""`replay follow kafka://` on a real Apache Kafka: committed records alone, in order, from one topic to another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.kafka_broker import Broker, jars

from .test_broker import make
from .test_follow import Record, content, ended, follow, write
from .test_mock import read_back
from .test_recording import transaction

pytestmark = [pytest.mark.kafka, pytest.mark.whole]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("broker"), jars(tmp_path_factory.mktemp("jars")))
    made.start()
    yield made
    made.stop()


def test_committed_records_arrive_in_the_order_of_their_partition(broker, tmp_path):
    source, target = make(broker, "followed"), make(broker, "followed-copy")
    records: list[Record] = [(n % 2, b"k%d" % n, b"v" * n, ()) for n in range(60)]
    process = follow(tmp_path, source, target, length_s=9.0)
    write(broker.address, "followed", records)

    async def in_transactions() -> None:
        for key, how in (("gone", "abort"), ("kept", "commit")):
            await (await transaction(broker, "followed", [key], how)).stop()

    asyncio.run(in_transactions())
    document = ended(tmp_path, process)
    back = read_back(broker.address, "followed-copy", len(records))
    assert content(back, 1) == [record[1:] for record in records if record[0] == 1]
    assert content(back, 0)[:30] == [record[1:] for record in records if record[0] == 0]
    # The aborted record is not read. The committed record has an old timestamp, so it is due with the one before it. If
    # the transactions took longer than the delay, it is late.
    assert document["source"]["entries"] == 61 and document["kafka"]["offsets_agree"]
    assert document["accounts"]["ok"] + document["source"]["late_at_source"] == 61
    assert any(note["code"] == "STAMPS_GO_BACK" for note in document["notes"])
