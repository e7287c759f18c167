"""A trace context in the headers of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.results.run import load_run
from replay.results.traces import seed_of, trace_id
from tests import naive_trace_context as naive

from .test_mock import http_trace, kafka_trace, mock, read_back, replay

__all__ = ["mock"]

OLD = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
HEADERS = (
    (b"first", b"1"),
    (b"traceparent", OLD),
    (b"empty", b""),
    (b"tracestate", b"x=1"),
    (b"traceparent2", b"2"),
)


@pytest.mark.parametrize("marked", [False, True])
def test_a_record_has_a_context_of_its_own_in_place_of_the_recorded_one(
    mock: str, tmp_path: Path, marked: bool
) -> None:
    records = [(0, b"k", b"v", HEADERS), (0, b"k", None, HEADERS[1:2]), (1, None, b"w", ())] * 2
    topic = f"traced{marked}"
    kafka = {"answers_by": "X-Replay"} if marked else {}
    trace = kafka_trace(tmp_path / "t.trace", records)
    document = replay(trace, f"kafka://{mock}/{topic}", tmp_path / "run", traceparent=True, kafka=kafka)
    assert document.accounts.ok == len(records)
    seed = seed_of(document.run_id)
    found = read_back(mock, topic, len(records))
    own = [dict(record.headers)["traceparent"] for record in found]
    assert sorted(own) == sorted(naive.traceparent(seed, seq) for seq in range(len(records)))
    rest = [
        [pair for pair in record.headers if pair[0] not in ("X-Replay", "traceparent")] for record in found
    ]
    whole = [(name.decode(), value) for name, value in HEADERS if name not in (b"traceparent", b"tracestate")]
    assert sorted(rest) == sorted([whole, [], []] * 2)
    for sample in load_run(tmp_path / "run").samples():
        assert sample.trace_id == trace_id(seed, sample.seq)


def test_without_it_records_keep_their_context(mock: str, tmp_path: Path) -> None:
    trace = kafka_trace(tmp_path / "t.trace", [(0, b"k", b"v", HEADERS)])
    replay(trace, f"kafka://{mock}/untraced", tmp_path / "run")
    (record,) = read_back(mock, "untraced", 1)
    assert [(name.encode(), value) for name, value in record.headers] == list(HEADERS)
    assert not any(sample.trace_id for sample in load_run(tmp_path / "run").samples())


def test_requests_that_become_events_have_one_too(mock: str, tmp_path: Path) -> None:
    trace = http_trace(tmp_path / "t.trace", rows=6)
    document = replay(trace, f"kafka://{mock}/events-traced", tmp_path / "run", traceparent=True)
    seed = seed_of(document.run_id)
    found = read_back(mock, "events-traced", 6)
    assert sorted(record.headers[0][1] for record in found) == sorted(
        naive.traceparent(seed, seq) for seq in range(6)
    )
