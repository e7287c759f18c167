"""Produce requests and their answers, byte for byte those of aiokafka's own protocol structs."""

from __future__ import annotations

import struct

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.produce import ProduceRequest
from hypothesis import given
from hypothesis import strategies as st

from replay.protocols.kafka.wire import (
    HIGHEST,
    LOWEST,
    Answer,
    produce_answers,
    produce_request,
)

topics = st.text("abc.é", min_size=1, max_size=20)
batches = st.dictionaries(
    st.builds(TopicPartition, topics, st.integers(0, 2**31 - 1)), st.binary(max_size=50), max_size=6
)
versions = st.integers(LOWEST, HIGHEST)


def by_topic(rows: dict) -> list[tuple[str, list]]:
    found: dict[str, list] = {}
    for part, row in rows.items():
        found.setdefault(part.topic, []).append((part.partition, *row))
    return list(found.items())


@given(versions, st.integers(0, 2**31 - 1), st.sampled_from([1, -1]), batches)
def test_requests_are_those_of_aiokafka(version, correlation, acks, batches):
    frame = produce_request(
        version,
        correlation,
        b"replay",
        acks,
        5_000,
        [(part, memoryview(data)) for part, data in batches.items()],
    )
    theirs = ProduceRequest(
        transactional_id=None, required_acks=acks, timeout=5_000,
        topics=by_topic({part: (data,) for part, data in batches.items()}),
    ).prepare({0: (version, version)})  # fmt: skip
    header = theirs.build_request_header(correlation_id=correlation, client_id="replay")
    assert frame[4:] == header.encode() + theirs.encode()
    assert struct.unpack(">i", frame[:4]) == (len(frame) - 4,)


@given(
    versions, st.integers(0, 2**31 - 1),
    st.dictionaries(st.builds(TopicPartition, topics, st.integers(0, 100)),
                    st.tuples(st.integers(-1, 100), st.integers(-1, 2**62)), max_size=6),
)  # fmt: skip
def test_answers_are_read_as_aiokafka_writes_them(version, correlation, said):
    request = ProduceRequest(transactional_id=None, required_acks=1, timeout=1, topics=[]).prepare(
        {0: (version, version)}
    )
    more = (-1, 0) if version >= 5 else (-1,)
    rows = by_topic({part: (code, offset, *more) for part, (code, offset) in said.items()})
    frame = struct.pack(">i", correlation) + request.RESPONSE_TYPE(topics=rows, throttle_time_ms=0).encode()
    found = produce_answers(version, memoryview(frame))
    assert found[0] == correlation
    assert sorted(found[1]) == sorted(Answer(part, code, offset) for part, (code, offset) in said.items())


@pytest.mark.parametrize("cut", range(8, 40))
def test_half_an_answer_is_none(cut):
    whole = struct.pack(">iih1siihqqq", 1, 1, 1, b"t", 1, 0, 0, 5, -1, 0)
    assert produce_answers(7, memoryview(whole)) == (1, [Answer(TopicPartition("t", 0), 0, 5)])
    with pytest.raises((struct.error, ValueError)):
        produce_answers(7, memoryview(whole[: min(cut, len(whole) - 1)]))
