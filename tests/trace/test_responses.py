"""Recorded responses: what is written is read back by event, sorted with the events; a trace without any stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.errors import InputError
from replay.trace import (
    BodyDigest,
    DerivedTraceWriter,
    RecordedResponse,
    Trace,
    TraceWriter,
    body_digest,
    media_type,
    sorting,
)
from replay.trace.columns import EVENT_SCHEMA, WIDE_EVENT_SCHEMA, read_events
from replay.workload.transform import Transform, transform
from tests.reference.checksum import xxh64
from tests.support.trace_data import Row, write_trace

START_NS = 1_700_000_000_000_000_000

JSON = RecordedResponse(
    "application/json", ((b"Content-Type", b"application/json; charset=utf-8"),), 11, 77, b'{"a": "b"}\n'
)
CUT = RecordedResponse("text/html", (), 1_000_000, 5, b"<html>", cut=True)
BARE = RecordedResponse(size=12)


def write(path: Path, rows: list[tuple[int, RecordedResponse | None, int]], *, per_call: int = 7) -> Trace:
    """A trace of these events: stamp, response, time to the first byte. Calls take so many rows each."""
    with TraceWriter(path) as writer:
        request = writer.add_request("GET", b"/")
        for first in range(0, len(rows), per_call):
            part = rows[first : first + per_call]
            ids = [-1 if response is None else writer.add_response(response) for _, response, _ in part]
            wide = any(index >= 0 for index in ids) or any(after >= 0 for *_, after in part)
            writer.add_events(
                np.array([START_NS + at for at, *_ in part], np.int64),
                np.full(len(part), request, np.uint32),
                np.zeros(len(part), np.uint32),
                response=np.array(ids) if wide else None,
                first_byte_ns=np.array([after for *_, after in part]) if wide else None,
            )
    assert writer.trace is not None
    return writer.trace


def read(trace: Trace) -> list[tuple[int, RecordedResponse | None, int]]:
    """What `write` was given, as the trace has it."""
    stamps, firsts = list[int](), list[int]()
    for batch in trace.batches():
        stamps += (batch.at_ns - START_NS).tolist()
        firsts += [-1] * len(batch) if batch.first_byte_ns is None else batch.first_byte_ns.tolist()
    return list(zip(stamps, trace.recorded_responses(), firsts, strict=True))


RESPONSES = st.none() | st.builds(
    RecordedResponse,
    type=st.sampled_from(["", "text/html", "application/json"]),
    headers=st.lists(st.tuples(st.binary(min_size=1, max_size=4), st.binary(max_size=4)), max_size=2).map(
        tuple
    ),
    size=st.integers(-1, 1 << 40).filter(bool),
    digest=st.integers(0, (1 << 64) - 1),
    body=st.none() | st.binary(min_size=1, max_size=9),
    cut=st.booleans(),
)


@given(st.lists(st.tuples(st.integers(0, 40), RESPONSES, st.integers(-1, 9)), min_size=1, max_size=60))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_responses_are_read_back_with_their_events(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, RecordedResponse | None, int]]
) -> None:
    patch = pytest.MonkeyPatch()
    patch.setattr(sorting, "WINDOW_ROWS", 2)  # Several sorted runs are merged.
    patch.setattr(sorting, "MERGE_ROWS_OF_RUN_MIN", 3)
    patch.setattr(sorting, "MERGE_ROWS", 3)
    patch.setattr(sorting, "BATCH_ROWS", 16)
    try:
        trace = write(tmp_path_factory.mktemp("t") / "t.trace", rows)
    finally:
        patch.undo()
    expected = sorted(rows, key=lambda row: row[0])
    assert read(trace) == expected
    assert [trace.response(event) for event in range(trace.rows)] == [response for _, response, _ in expected]
    manifest, responses = trace.manifest, [response for _, response, _ in rows if response is not None]
    kept = [response for response in responses if response.body is not None]
    assert (manifest.responses, manifest.response_bodies) == (len(responses), len(kept))
    assert manifest.response_bodies_cut == sum(response.cut for response in kept)


def test_a_trace_without_responses_is_one_of_the_format_before(tmp_path: Path) -> None:
    trace = write(tmp_path / "t.trace", [(number, None, -1) for number in range(20)])
    manifest = json.loads((trace.path / "manifest.json").read_text())
    assert manifest["format_version"] == 2
    assert not [key for key in manifest if "response" in key]
    assert {path.name for path in trace.path.iterdir()} == {
        "manifest.json",
        "events-000000.arrow",
        "requests.arrow",
    }
    assert trace.response(3) is None
    assert set(trace.recorded_responses()) == {None}
    (batch,) = trace.batches()
    assert batch.response is None


def test_a_file_whose_events_have_no_response_keeps_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa

    monkeypatch.setattr(sorting, "BATCH_ROWS", 10)
    trace = write(tmp_path / "t.trace", [(number, JSON if number > 12 else None, -1) for number in range(30)])
    schemas = [pa.ipc.open_file(trace.path / segment.file).schema for segment in trace.manifest.segments]
    assert schemas == [EVENT_SCHEMA, WIDE_EVENT_SCHEMA, WIDE_EVENT_SCHEMA]
    assert [trace.response(event) is not None for event in range(30)] == [event > 12 for event in range(30)]
    assert "response" not in read_events(trace.path / "events-000000.arrow")[0]
    with pytest.raises(IndexError):
        trace.response(30)
    with pytest.raises(IndexError):
        trace.response(-1)


def test_equal_responses_are_kept_once(tmp_path: Path) -> None:
    trace = write(tmp_path / "t.trace", [(number, (JSON, CUT, BARE)[number % 3], 5) for number in range(90)])
    assert len(trace.responses) == 3
    manifest = trace.manifest
    assert (manifest.responses, manifest.response_bodies, manifest.response_bodies_cut) == (90, 60, 30)
    assert manifest.format_version == 3


def test_an_empty_body_needs_no_entry(tmp_path: Path) -> None:
    empty = RecordedResponse("text/plain", (), 0, body_digest(b""), b"")
    trace = write(tmp_path / "t.trace", [(0, empty, -1)])
    assert trace.response(0) == empty
    assert trace.manifest.response_bodies == 0


def test_transforms_keep_the_responses_of_the_events_that_stay(tmp_path: Path) -> None:
    rows: list[tuple[int, RecordedResponse | None, int]] = [
        (number * 1_000_000_000, (JSON, None, CUT)[number % 3], number) for number in range(30)
    ]
    trace = write(tmp_path / "t.trace", rows)
    part = transform(
        trace,
        tmp_path / "part.trace",
        Transform(from_ns=START_NS + 3_000_000_000, until_ns=START_NS + 9_000_000_000),
    )
    assert [row[1:] for row in read(part)] == [row[1:] for row in rows[3:9]]
    assert (part.manifest.responses, part.manifest.response_bodies_cut) == (4, 2)
    fast = transform(trace, tmp_path / "fast.trace", Transform(speed=2))
    assert [row[1:] for row in read(fast)] == [row[1:] for row in rows]
    with DerivedTraceWriter(tmp_path / "d.trace", trace, []) as writer:
        writer.add_batch(replace(next(trace.batches())[1:2], first_byte_ns=None))
    assert writer.trace is not None
    assert read(writer.trace) == [(1_000_000_000, None, -1)]
    assert writer.trace.manifest.format_version == 2


@pytest.mark.parametrize("name", ["responses.arrow", "response-headers.arrow", "response-bodies.arrow"])
def test_damage_is_noticed(tmp_path: Path, name: str) -> None:
    trace = write(tmp_path / "t.trace", [(0, JSON, -1), (1, CUT, 3)])
    data = bytearray((trace.path / name).read_bytes())
    data[len(data) // 2] ^= 1
    (trace.path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        list(Trace.open(trace.path).recorded_responses())
    (trace.path / name).write_bytes(data[:-1])
    with pytest.raises(InputError, match=name):
        Trace.open(trace.path)


@given(st.lists(st.binary(max_size=70), max_size=6))
@settings(deadline=None)
def test_digests_are_xxh64(pieces: list[bytes]) -> None:
    digest = BodyDigest()
    for piece in pieces:
        digest.update(piece)
    assert digest.value == body_digest(b"".join(pieces)) == xxh64(b"".join(pieces))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"Application/JSON; charset=utf-8", "application/json"),
        (b"text/html", "text/html"),
        (b"", ""),
        (None, ""),
        (b"\xff\x00", ""),
        (b" image/png ;q=1", "image/png"),
        (b"x" * 300, "x" * 127),
    ],
)
def test_media_types(value: bytes | None, found: str) -> None:
    assert media_type(((b"X-A", b"b"), (b"content-type", value))) == found


def test_a_trace_without_responses_and_losses_has_the_keys_of_version_2(tmp_path: Path) -> None:
    """Older replays refuse a manifest with keys that they do not know."""
    write_trace(tmp_path / "plain.trace", [Row(0), Row(1)])
    keys = json.loads((tmp_path / "plain.trace" / "manifest.json").read_text())
    assert keys["format_version"] == 2
    assert not {"lost", "responses", "response_bodies", "response_bodies_cut"} & set(keys)
