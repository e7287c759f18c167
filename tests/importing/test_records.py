"""Recordings of whole requests: HAR, GoReplay, vegeta; and tables in Parquet."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from replay.errors import InputError
from replay.trace import Trace
from replay.trace.importing import Options, import_files
from replay.trace.importing.formats.gor import SEPARATOR
from replay.trace.importing.readers.columns import parse_columns
from replay.trace.importing.readers.gor_messages import dechunked
from tests.support.events import Event, events

AT_NS = 1_700_000_000_123_456_789
MS = 1_000_000


def gor(*records: tuple[str, bytes]) -> bytes:
    return b"".join(head.encode() + b"\n" + raw + SEPARATOR for head, raw in records)


GET = b"GET /a?token=s3 HTTP/1.1\r\nHost: Shop.example\r\nCookie: id=1\r\nAccept: */*\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: shop.example\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello"


def imported(path: Path, data: bytes) -> Trace:
    path.write_bytes(data)
    return import_files([path], path.with_suffix(".trace"))


def test_gor_has_requests_bodies_and_what_their_responses_say(tmp_path: Path) -> None:
    data = gor(
        (f"1 aa01 {AT_NS}", GET),
        (f"1 aa02 {AT_NS + 5}", POST),
        (f"2 aa02 {AT_NS + 4 * MS} 7000000", b"HTTP/1.1 201 Created\r\n\r\nok"),
        (f"2 aa01 {AT_NS + 9 * MS}", b"HTTP/1.1 404 Not Found\r\n\r\n"),
        (f"2 ff01 {AT_NS}", b"HTTP/1.1 200 OK\r\n\r\n"),
        (f"3 aa01 {AT_NS}", b"HTTP/1.1 200 OK\r\n\r\n"),
        (f"1 aa03 {AT_NS + 9} 0", b"\x16\x03\x01 / HTTP/1.1\r\n\r\n"),
    )
    trace = imported(tmp_path / "a.gor", data)
    assert events(trace) == [
        Event(AT_NS, "GET", events(trace)[0].target, "shop.example", 404, 9 * MS, -1),
        Event(AT_NS + 5, "POST", b"/b", "shop.example", 201, 7 * MS, 2),
    ]
    assert trace.manifest.rejected == {"response without request": 1, "replayed response": 1, "no method": 1}
    assert trace.manifest.rows + sum(trace.manifest.rejected.values()) == trace.manifest.lines
    posted = next(r for r in map(trace.requests.get, range(2)) if r.body >= 0)
    assert trace.requests.body(posted.body) == b"hello"
    target = events(trace)[0].target
    assert target != b"/a?token=s3" and re.fullmatch(rb"/a\?token=[a-z][0-9]", target)
    assert trace.manifest.secrets_dropped == {"header_values": 1, "query_values": 1}


def test_gor_with_a_broken_separator_loses_no_more_than_the_record_behind_it(tmp_path: Path) -> None:
    broken = gor((f"1 aa02 {AT_NS}", POST)).replace(SEPARATOR, b"\n??\n")
    data = (
        gor((f"1 aa01 {AT_NS}", GET))
        + broken
        + gor((f"1 aa03 {AT_NS + 1}", GET), (f"1 aa04 {AT_NS + 2}", GET))
    )
    trace = imported(tmp_path / "a.gor", data + b"rubbish" + SEPARATOR + b"1 aa05")
    assert trace.rows == 3 and trace.manifest.rejected == {"broken record": 3}
    assert trace.requests.body(0) == b"hello"


@pytest.mark.parametrize(
    ("began_ns", "latency_ns", "took_ns"),
    [
        (400, 400, 400),
        (300, 450, 450),
        (400, 0, 400),
        (400, 7, 407),
        (400, -1, 400),
        (0, 0, 0),
        (0, -1, -1),
        (-5, 0, -1),
        (-5, 1 << 62, 1 << 62),
    ],
)
def test_a_gor_s_latency_is_of_the_whole_or_of_the_response_alone(
    tmp_path: Path, began_ns: int, latency_ns: int, took_ns: int
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    records = [(f"1 aa {AT_NS}", GET), (f"2 aa {AT_NS + began_ns} {latency_ns}", answer)]
    for number, order in enumerate((records, records[::-1])):
        trace = imported(tmp_path / f"{number}.gor", gor(*order, (f"1 ab {AT_NS + 1}", GET)))
        assert [(e.status, e.took_ns, e.bytes) for e in events(trace)] == [(200, took_ns, 2), (-1, -1, -1)]
        assert trace.manifest.rejected == {}


def test_a_gor_s_number_that_is_too_large_breaks_its_record(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\n"
    good = [(f"1 a{number} {AT_NS}", GET) for number in range(4)]
    trace = imported(
        tmp_path / "a.gor", gor(*good, (f"2 a1 {AT_NS} {'9' * 19}", answer), (f"2 a2 {'9' * 19} 1", answer))
    )
    assert [e.status for e in events(trace)] == [-1] * 4 and trace.manifest.rejected == {"broken record": 2}


def test_a_gor_s_response_may_come_long_before_its_request(tmp_path: Path) -> None:
    answer = b"HTTP/1.1 404 x\r\n\r\n"
    others = [(f"1 b{number:x} {AT_NS + number}", GET) for number in range(40_000)]
    data = gor((f"2 aa {AT_NS + 5} 0", answer), (f"2 ac {AT_NS} 0", answer), *others, (f"1 aa {AT_NS}", GET))
    trace = imported(tmp_path / "a.gor", data)
    assert trace.rows == 40_001 and trace.manifest.rejected == {"response without request": 1}
    assert [(e.status, e.took_ns) for e in events(trace) if e.status >= 0] == [(404, 5)]


def test_gor_may_be_cut_anywhere_into_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay.trace.importing.sources.BLOCK_BYTES", 37)
    data = gor(*((f"1 aa{number:02d} {AT_NS + number}", POST) for number in range(50)))
    assert imported(tmp_path / "a.gor", data).rows == 50


def test_a_chunked_body_is_put_together() -> None:
    assert dechunked(b"4\r\nWiki\r\n6;x=y\r\npedia \r\n0\r\n\r\n") == b"Wikipedia "
    assert dechunked(b"ff\r\nshort") == b"short"
    assert dechunked(b"nonsense\r\n") == b""


def _entry(number: int, **changes: object) -> dict[str, object]:
    return {
        "startedDateTime": f"2023-11-14T22:13:2{number}.123Z",
        "time": 12.5,
        "request": {
            "method": "POST",
            "url": f"https://shop.example/x/{number}?q=é#top",
            "headers": [{"name": "Authorization", "value": "Bearer x"}, {"name": ":path", "value": "/"}],
            "postData": {"mimeType": "application/json", "text": '{"n": 1}'},
        },
        "response": {"status": 201, "content": {"size": 42}},
        "timings": {"blocked": -1, "send": 1, "wait": 2.5, "receive": 1, "ssl": 9},
        **changes,
    }


def test_a_har_s_size_that_cannot_be_is_unknown(tmp_path: Path) -> None:
    entry = _entry(0, response={"status": 200, "content": {"size": 42 * 10**20}})
    trace = imported(tmp_path / "a.har", json.dumps({"log": {"entries": [entry]}}).encode())
    assert [(e.status, e.bytes) for e in events(trace)] == [(200, -1)]


def test_har(tmp_path: Path) -> None:
    entries = [
        _entry(0),
        _entry(1, time=-1),
        _entry(2, time=None, timings=None, response=None),
        _entry(3, startedDateTime="1969-12-31T23:59:59Z"),
        _entry(4, request={"method": "GET", "url": "data:text/plain,x"}),
        {"startedDateTime": 5},
    ]
    trace = imported(tmp_path / "a.har", json.dumps({"log": {"version": "1.2", "entries": entries}}).encode())
    at_ns = 1_700_000_000_123 * MS
    assert [(e.at_ns // MS, e.target, e.status, e.took_ns, e.bytes) for e in events(trace)] == [
        (at_ns // MS, b"/x/0?q=%C3%A9", 201, 12_500_000, 42),
        (at_ns // MS + 1000, b"/x/1?q=%C3%A9", 201, 4_500_000, 42),
        (at_ns // MS + 2000, b"/x/2?q=%C3%A9", -1, -1, -1),
    ]
    assert trace.manifest.rejected == {"bad time": 1, "never sent": 1, "not this format": 1}
    (_, credentials), kind = trace.requests.headers(0)
    assert kind == (b"Content-Type", b"application/json")
    assert credentials != b"Bearer x" and re.fullmatch(rb"Bearer [a-z]", credentials or b"")
    assert trace.requests.body(trace.requests.get(0).body) == b'{"n": 1}'


def test_a_har_s_times_without_a_zone_are_in_that_of_tz(tmp_path: Path) -> None:
    entry = _entry(0, startedDateTime="2023-11-14T23:13:20.123")
    (tmp_path / "a.har").write_text(json.dumps({"log": {"entries": [entry]}}))
    options = Options(time_zone="+01:00")
    trace = import_files([tmp_path / "a.har"], tmp_path / "a.trace", jitter=False, options=options)
    assert [event.at_ns for event in events(trace)] == [1_700_000_000_123 * MS]
    assert any("taken as +01:00" in each for each in trace.manifest.assumptions)


def test_half_a_har_is_refused_in_words(tmp_path: Path) -> None:
    whole = json.dumps({"log": {"entries": [_entry(0)]}}).encode()
    with pytest.raises(InputError, match="not a whole HAR"):
        imported(tmp_path / "a.har", whole[:-20])


def test_vegeta_targets_keep_their_order(tmp_path: Path) -> None:
    body = base64.b64encode(b"\0\1").decode()
    lines = [
        {
            "method": "POST",
            "url": "http://h.example/a",
            "body": body,
            "header": {"Content-Type": ["x/y", "z"]},
        },
        {"method": "GET", "url": "http://h.example/b"},
        {"method": "GET", "url": "http://h.example/c", "body": "not base64"},
    ]
    trace = imported(tmp_path / "a.json", "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert [(event.at_ns, event.target, event.host) for event in events(trace)] == [
        (0, b"/a", "h.example"),
        (MS, b"/b", "h.example"),
    ]
    assert (trace.manifest.importer, trace.manifest.rejected) == ("vegeta", {"bad body": 1})
    assert trace.requests.body(0) == b"\0\1"


@pytest.mark.parametrize("kind", ["ns", "timestamp", "text"])
def test_parquet_is_a_table(tmp_path: Path, kind: str) -> None:
    moments = [dt.datetime(2023, 11, 14, 22, 13, 20 + n, 500, tzinfo=dt.UTC) for n in range(3)]
    at = {
        "ns": pa.array([int(m.timestamp()) * 10**9 + 500_000 for m in moments]),
        "timestamp": pa.array(moments, pa.timestamp("us", "UTC")),
        "text": pa.array([m.isoformat() for m in moments]),
    }[kind]
    table = pa.table(
        {"when": at, "url": [b"/a", b'/b,"c"', b"/d"], "nested": [[1], [2], []], "code": [200, None, 404]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    options = Options(columns=parse_columns("at=when,path=url,status=code"))
    trace = import_files([tmp_path / "a.parquet"], tmp_path / "a.trace", options=options)
    assert events(trace) == [
        Event((1_700_000_000 + n) * 10**9 + 500_000, "GET", target, "", status)
        for n, (target, status) in enumerate([(b"/a", 200), (b'/b,"c"', -1), (b"/d", 404)])
    ]
    source = trace.manifest.sources[0]
    assert (source.compression, source.bytes) == ("parquet", (tmp_path / "a.parquet").stat().st_size)


def test_parquet_has_columns_that_no_table_has(tmp_path: Path) -> None:
    table = pa.table(
        {
            "at": pa.array([1.700000000123e12, None], pa.float64()),
            "url": pa.array([{"path": "/a", "in": {"m": "GET"}}, {"path": "/b", "in": None}]),
            "host": pa.array(["h", "h"], pa.string_view()),
            "raw": pa.array([b"/\xff", b"/c"]),
            "id": pa.array([bytes(16), bytes([255] * 16)], pa.uuid()),
            "fixed": pa.array([bytes([255] * 16)] * 2, pa.binary(16)),
            "tags": pa.array([["a"], []]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    options = Options(columns=parse_columns("at=at,path=url.path,method=url.in.m"))
    trace = import_files([tmp_path / "a.parquet"], tmp_path / "a.trace", options=options, jitter=False)
    assert events(trace) == [Event(1_700_000_000_123_000_000, "GET", b"/a", "h")]
    options = Options(columns=parse_columns("at=at,path=raw"))
    trace = import_files([tmp_path / "a.parquet"], tmp_path / "b.trace", options=options, jitter=False)
    assert events(trace) == [Event(1_700_000_000_123_000_000, "GET", b"/%FF", "h")]
    with pytest.raises(InputError, match="has no column 'tags'") as refused:
        import_files(
            [tmp_path / "a.parquet"],
            tmp_path / "c.trace",
            options=Options(columns=parse_columns("at=at,path=tags")),
        )
    assert "at, url.path, url.in.m, host, raw" in str(refused.value.hint)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable Parquet file"):
        imported(tmp_path / "a.parquet", b"PAR1" + bytes(100))
