"""Exports of whole messages keep bodies and recorded responses: imported again, the trace is the same."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from replay.trace import RecordedResponse, Trace, TraceWriter, body_digest, media_type
from replay.trace.exporting.export import export
from replay.trace.importing import import_files
from replay.trace.importing.registry import Options
from tests.support.events import events

START_NS = 1_700_000_000_123_456_789
JSON = ((b"Content-Type", b"application/json"), (b"X-Version", b"7"))
HTML = ((b"Content-Type", b"text/html; charset=utf-8"),)
GZIP = (*JSON, (b"Content-Encoding", b"gzip"))


def response(headers: tuple[tuple[bytes, bytes], ...], body: bytes, *, size: int = -1) -> RecordedResponse:
    """One whose body was kept; `size` is that of a body of which this is the beginning."""
    cut = size >= 0
    return RecordedResponse(
        media_type(headers), headers, size if cut else len(body), 0 if cut else body_digest(body), body, cut
    )


SENT = [
    ("GET", b"/a?b=%20", b"", 200, response(JSON, '{"name": "Žluť"}\n'.encode())),
    ("POST", b"/b", b'{"a": [1, 2]}', 201, response(HTML, b"<p>\r\n\r\n</p>")),
    ("POST", b"/binary", b"\0\xff\x1fbytes", 200, response((), b"plain, of no type")),
    ("PUT", b"/long", b"x=1&y=2", 500, response(HTML, b"<h1>", size=99_999)),
    ("GET", b"/gone", b"", 404, RecordedResponse("text/html", HTML, 512)),
    ("HEAD", b"/head", b"", 200, response(HTML, b"")),
    ("GET", b"/none", b"", -1, None),
]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Each kind of request and response 30 times."""
    with TraceWriter(tmp_path / "a.trace") as writer:
        rows = [SENT[number % len(SENT)] for number in range(30 * len(SENT))]
        ids = [
            writer.add_request(method, target, "h.example", HTML if body else None, body or None)
            for method, target, body, *_ in rows
        ]
        answers = [-1 if row[4] is None else writer.add_response(row[4]) for row in rows]
        took_ns = np.array(
            [-1 if row[3] < 0 else 5_000_000 + number * 1_000 for number, row in enumerate(rows)]
        )
        writer.add_events(
            START_NS + np.arange(len(rows), dtype=np.int64) * 1_234_567_891, np.array(ids, np.uint32),
            np.zeros(len(rows), np.uint32), np.array([row[3] for row in rows]), took_ns,
            np.array([-1 if row[4] is None else row[4].size for row in rows]), response=np.array(answers),
            first_byte_ns=np.where(took_ns < 0, -1, 1_000_000 + took_ns // 2 // 1_000 * 1_000),
        )  # fmt: skip
    assert writer.trace is not None
    return writer.trace


def bodies(trace: Trace) -> list[bytes]:
    found = []
    for batch in trace.batches():
        for number in batch.request.tolist():
            request = trace.requests.get(number)
            found.append(trace.requests.body(request.body) if request.body >= 0 else b"")
    return found


def first_bytes(trace: Trace) -> list[int]:
    return [
        int(value)
        for batch in trace.batches()
        if batch.first_byte_ns is not None
        for value in batch.first_byte_ns
    ]


@pytest.mark.parametrize("ending", [".gor", ".har"])
def test_bodies_and_responses_come_back(tmp_path: Path, trace: Trace, ending: str) -> None:
    export(trace, tmp_path / f"out{ending}")
    back = import_files([tmp_path / f"out{ending}"], tmp_path / "back.trace")
    assert events(back) == events(trace)
    assert bodies(back) == bodies(trace)
    assert list(back.recorded_responses()) == list(trace.recorded_responses())
    assert [
        (each.responses, each.response_bodies, each.response_bodies_cut)
        for each in (back.manifest, trace.manifest)
    ] == [(180, 120, 30)] * 2
    if ending == ".har":
        assert first_bytes(back) == first_bytes(trace)


def test_vegeta_keeps_bodies(tmp_path: Path, trace: Trace) -> None:
    export(trace, tmp_path / "out.json")
    back = import_files([tmp_path / "out.json"], tmp_path / "back.trace")
    assert bodies(back) == bodies(trace)


@pytest.mark.parametrize("ending", [".gor", ".har"])
def test_a_compressed_body_stays_what_its_headers_say(tmp_path: Path, ending: str) -> None:
    packed = gzip.compress(b'{"a": 1}')
    with TraceWriter(tmp_path / "a.trace") as writer:
        request = writer.add_request("GET", b"/")
        answer = writer.add_response(response(GZIP, packed))
        one = np.zeros(1, np.int64)
        writer.add_events(
            one + START_NS,
            np.array([request], np.uint32),
            one.astype(np.uint32),
            one + 200,
            response=np.array([answer]),
        )
    assert writer.trace is not None
    export(writer.trace, tmp_path / f"out{ending}")
    back = import_files([tmp_path / f"out{ending}"], tmp_path / "back.trace").response(0)
    assert back is not None
    if ending == ".gor":
        assert back == response(GZIP, packed)
    else:  # A HAR stores the body decoded.
        assert back == RecordedResponse("application/json", JSON, len(packed), 0, b'{"a": 1}')


def test_a_har_is_whole_json_with_what_its_specification_asks_for(tmp_path: Path, trace: Trace) -> None:
    export(trace, tmp_path / "out.har")
    log = json.loads((tmp_path / "out.har").read_text())["log"]
    assert log["version"] == "1.2" and log["creator"]["name"] == "replay"
    for entry in log["entries"]:
        assert {"startedDateTime", "time", "request", "response", "cache", "timings"} <= entry.keys()
        assert {
            "method",
            "url",
            "httpVersion",
            "cookies",
            "headers",
            "queryString",
            "headersSize",
            "bodySize",
        } <= entry["request"].keys()
        assert {
            "status", "statusText", "httpVersion", "cookies", "headers", "content", "redirectURL", "headersSize", "bodySize",
        } <= entry["response"].keys()  # fmt: skip
        assert {"send", "wait", "receive"} <= entry["timings"].keys()
    first = log["entries"][0]
    assert first["request"]["queryString"] == [{"name": "b", "value": " "}]
    assert first["response"]["content"]["text"] == '{"name": "Žluť"}\n'


@pytest.mark.parametrize(
    ("kept", "bodies"), [("none", None), ("digest", False), ("text", True), ("all", True)]
)
def test_what_is_kept_of_responses_can_be_said(
    tmp_path: Path, trace: Trace, kept: str, bodies: bool | None
) -> None:
    export(trace, tmp_path / "out.gor")
    back = import_files([tmp_path / "out.gor"], tmp_path / "b.trace", options=Options(responses=kept))  # type: ignore[arg-type]
    manifest = back.manifest
    assert bool(manifest.responses) == (bodies is not None)
    assert bool(manifest.response_bodies) == bool(bodies)
    if bodies is False:
        answer = back.response(0)
        assert answer is not None and answer.digest == body_digest(SENT[0][4].body or b"")  # type: ignore[union-attr]


@pytest.mark.parametrize("ending", ["gor", "har", "json", "csv"])
def test_what_is_exported_of_a_private_trace_is_private(tmp_path: Path, trace: Trace, ending: str) -> None:
    assert export(trace, tmp_path / f"a.{ending}").stat().st_mode & 0o777 == 0o600
    with TraceWriter(tmp_path / "bare.trace") as writer:
        ids = np.array([writer.add_request("GET", b"/", "h.example")], np.uint32)
        unknown = np.array([-1])
        writer.add_events(np.array([START_NS]), ids, np.zeros(1, np.uint32), unknown, unknown, unknown)
    assert writer.trace is not None
    assert export(writer.trace, tmp_path / f"b.{ending}").stat().st_mode & 0o044
