"""CSV, TSV and JSON Lines with a mapping of columns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from replay.errors import InputError, UsageError
from replay.trace import Manifest
from replay.trace.importing import Options, import_files
from replay.trace.importing.readers.columns import parse_columns
from tests.support.events import Event, events
from tests.support.places import SHARED_TRACES

TRACES = SHARED_TRACES
needs_traces = pytest.mark.skipif(not TRACES.exists(), reason="../shared/traces is not here")

S = 1_000_000_000


def imported(
    path: Path, columns: str = "", format: str | None = None, zone: str = ""
) -> tuple[list[Event], Manifest]:
    options = Options(columns=parse_columns(columns), time_zone=zone)
    trace = import_files([path], path.with_suffix(".trace"), format=format, options=options, jitter=False)
    return events(trace), trace.manifest


def test_a_table_says_by_its_columns_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "when,verb,url,code,ms,from\n"
        '1700000001.5,POST,"/a,b?q=""x""",201,12.5,10.0.0.1\n'
        "1700000000,GET,http://Shop.example/é?token=abc,,,10.0.0.2\n"
    )
    got, manifest = imported(path, "at=when,method=verb,path=url,status=code,took_ms=ms,client=from", "csv")
    assert got == [
        Event(1700000000 * S, "GET", got[0].target, "shop.example"),
        Event(1700000001 * S + S // 2, "POST", b'/a,b?q="x"', "", 201, 12_500_000),
    ]
    assert got[0].target != b"/%C3%A9?token=abc" and re.fullmatch(rb"/%C3%A9\?token=[a-z]{3}", got[0].target)
    assert (manifest.clients, manifest.rejected, manifest.lines) == (2, {"header": 1}, 3)


@pytest.mark.parametrize(
    ("stamp", "at_ns", "resolution_ns"),
    [
        ("1700000000", 1700000000 * S, S),
        ("1700000000.25", 1700000000 * S + S // 4, S // 100),
        ("1700000000123", 1700000000123 * 10**6, 10**6),
        ("1700000000123456", 1700000000123456 * 1000, 1000),
        ("1700000000123456789", 1700000000123456789, 1),
        ("1.7e9", 1700000000 * S, S),
        ("1.70000000025e+09", 1700000000 * S + S // 4, S // 100),
        ("1.700000000123e+12", 1700000000123 * 10**6, 10**6),
        ("1700000000123.5e0", 1700000000123 * 10**6 + 500_000, 100_000),
        ("1.7000000001234568E18", 1700000000123456800, 1),
        ("17000000001234e-1", 1700000000123 * 10**6 + 400_000, 100_000),
        ("2023-11-14 22:13:20", 1700000000 * S, S),
        ("2023-11-14T22:13:20Z", 1700000000 * S, S),
        ("2023-11-14T23:13:20.1234567+01:00", 1700000000123456700, 100),
        ("2023-11-14 22:13:20.123 UTC", 1700000000123000000, 10**6),
        ("2023-11-14 20:13:20.123456-02", 1700000000123456000, 1000),
        ("2023-11-14T22:13:20+00", 1700000000 * S, S),
        ("14/Nov/2023:22:13:20 +0000", 1700000000 * S, S),
    ],
)
def test_stamps_are_told_from_their_values(
    tmp_path: Path, stamp: str, at_ns: int, resolution_ns: int
) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"at,path\n{stamp},/x\n")
    got, manifest = imported(path)
    assert (got[0].at_ns, manifest.resolution_ns, manifest.stamp) == (at_ns, resolution_ns, "start")


@pytest.mark.parametrize(
    "stamp",
    ["", "x", "1969-12-31 23:59:59", "2300-01-01 00:00:00", "2023-02-29 00:00:00",
     "2023-11-14 22:13:20+0", "2023-11-14 22:13:20+010", "2023-11-14 22:13:20+24",
     "-5", "-1e9",
     "1e", "1e+", "e9", "1.7e9x", "1.7.0e9", "1e19", "9.3e18", "1e-19", "1.7e1000", "1234567890123456789e0", "nan"],
)  # fmt: skip
def test_a_bad_stamp_is_counted(tmp_path: Path, stamp: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"at,path\n1700000000,/x\n1700000000,/x\n{stamp},/y\n")
    assert imported(path)[1].rejected == {"header": 1, "bad time": 1}


def test_a_shown_line_ends_before_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"at,path\r\n1700000000,/x\r\nbad,/y\r\n")
    assert [example.text for example in imported(tmp_path / "a.csv")[1].rejected_examples] == [
        "at,path",
        "bad,/y",
    ]


def test_a_stamp_of_the_end_is_taken_back_by_the_duration(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("finished\tmethod\ttook\n1700000010.000\tGET\t2.5\n1700000011.000\tGET\t-7\n")
    got, manifest = imported(path, "end=finished,took_s=took")
    assert got[0].at_ns == 1700000007 * S + S // 2
    assert (manifest.stamp, manifest.duration_subtracted) == ("end", True)
    assert (got[1].at_ns, got[1].took_ns) == (1700000011 * S, -1)
    assert (manifest.rejected, manifest.unknown_values) == ({"header": 1}, {"duration": 1})


@pytest.mark.parametrize(
    ("took", "took_ns"),
    [
        ("1m30s", 90 * S),
        ("1h2m3.5s", 3723 * S + S // 2),
        ("12 ms", 12_000_000),
        ("9.1e-05", 91_000),
        ("2E-3", 2_000_000),
        ("1.5e1", 15 * S),
        ("1e-20", 0),
        ("7e+0", 7 * S),
    ],
)
def test_a_duration_may_have_an_exponent(tmp_path: Path, took: str, took_ns: int) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"at,path,took\n1700000000,/a,{took}\n")
    got, manifest = imported(path, "took_s=took")
    assert (got[0].took_ns, manifest.rejected) == (took_ns, {"header": 1})


@pytest.mark.parametrize("took", ["1e", "1e-", "1e99", "9e18", "1e+x", "e5"])
def test_an_exponent_that_is_none_is_counted(tmp_path: Path, took: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"at,path,took\n1700000000,/a,1\n1700000000,/a,{took}\n")
    got, manifest = imported(path, "took_s=took")
    assert [event.took_ns for event in got] == [S, -1]
    assert (manifest.rejected, manifest.unknown_values) == ({"header": 1}, {"duration": 1})


def test_stamps_without_a_zone_are_of_the_zone_that_the_user_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("at,path\n2024-01-01 12:00:00,/winter\n2024-07-01 12:00:00,/summer\n")
    got, manifest = imported(path, zone="Europe/Berlin")
    assert [event.at_ns // S for event in got] == [1704106800, 1719828000]
    assert manifest.time_zone == "Europe/Berlin"


def test_a_table_without_a_header_has_numbers_for_names(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1700000000,/a\n1700000001,/b\n")
    got, manifest = imported(path, "at=1,path=2", "csv")
    assert ([event.target for event in got], manifest.rejected) == ([b"/a", b"/b"], {})


@pytest.mark.parametrize("role", ["at", "end", "at_s"])
def test_nginx_stamps_the_end_under_keys_of_ones_own_as_well(tmp_path: Path, role: str) -> None:
    path = tmp_path / "a.log"
    path.write_text('{"ts":1700000002.5,"verb":"PUT","u":"/a","rt":"0.5"}\n')
    got, manifest = imported(path, f"{role}=ts,method=verb,path=u,took_s=rt", format="nginx-json")
    assert got == [Event(1700000002 * S, "PUT", b"/a", took_ns=S // 2)]
    assert (manifest.stamp, manifest.duration_subtracted) == ("end", True)


def test_a_column_is_one_thing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("at,request\n1700000000,GET /x\n")
    with pytest.raises(InputError, match="'request' has two roles"):
        imported(tmp_path / "a.csv", "request=request,method=REQUEST")


def test_an_array_of_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(
        '[\n {"at": 1700000000, "path": "/x"},\n {"at": 1700000001, "path": "/y"}\n]\n'
    )
    for columns in ("", "at=at,path=path"):
        with pytest.raises(InputError, match="a JSON array, not JSON Lines") as refused:
            imported(tmp_path / "a.json", columns)
        assert "jq -c '.[]'" in str(refused.value.hint)


@pytest.mark.parametrize("header", ["at;path;method\n", ""])
def test_semicolons_may_part_the_fields(tmp_path: Path, header: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(header + '1700000000;/a,b;GET\n1700000001;"/c;d,e";POST\n')
    columns = "" if header else "at=1,path=2,method=3"
    got, _ = imported(path, columns=columns)
    assert [(event.method, event.target) for event in got] == [("GET", b"/a,b"), ("POST", b"/c;d,e")]


def test_blanks_around_fields_are_no_part_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'at , "path", method\n1700000000, /a , GET\n1700000001 ,"/b " , POST \n 1700000002,/c d,PUT\n'
    )
    got, manifest = imported(path)
    assert [(event.method, event.target) for event in got] == [
        ("GET", b"/a"),
        ("POST", b"/b"),
        ("PUT", b"/c%20d"),
    ]
    assert manifest.rejected == {"header": 1}


def test_json_lines_may_differ_in_their_blanks(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tight = '{"at":1700000000,"x":"y","path":"/a"}'
    path.write_text(
        "\n".join([tight, tight.replace(":", " : "), tight.replace(":", ": "), tight + " ", tight])
    )
    got, manifest = imported(path)
    assert ([event.target for event in got], manifest.rejected) == ([b"/a"] * 5, {})


def test_a_broken_line_of_json_says_nothing_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = '{"t":1700000000,"http":{"u":"/a"},"x":[1]}'
    path.write_text(
        "\n".join([good] * 9 + [good.replace(":{", ':""'), good, good.replace("{", "", 1), good[:-9], good])
    )
    got, manifest = imported(path, "at=t,path=http.u")
    assert ([event.target for event in got], manifest.rejected) == ([b"/a"] * 11, {"not this format": 3})


def test_json_lines_name_keys_inside_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        {"t": 1700000000.5, "http": {"m": "GET", "u": '/é"\\\n&'}, "x": [1, {"y": "}"}], "code": "200"},
        {"x": None, "code": 404, "http": {"u": "/b", "z": {}, "m": "PUT"}, "t": 1700000001},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"t": 1700000002, "http": {"u":\n')
    got, manifest = imported(path, "at=t,method=http.m,path=http.u,status=code")
    assert got == [
        Event(1700000000 * S + S // 2, "GET", b'/%C3%A9"\\%0A&', "", 200),
        Event(1700000001 * S, "PUT", b"/b", "", 404),
    ]
    assert manifest.rejected == {"not this format": 1}


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ("at=wen", r"no column 'wen' \(did you mean when\?\)"),
        ("path=url", "does not say which column is the time of a request"),
    ],
)
def test_an_absent_column_is_said(tmp_path: Path, columns: str, says: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("when,url\n1700000000,/\n")
    with pytest.raises(InputError, match=says):
        imported(path, columns, "csv")
    with pytest.raises(InputError, match=says):
        imported(path, columns)


@pytest.mark.parametrize(
    "text", ["at", "when=x", "at=a,at=b", "=x", "at=a,end=b", "at_ms=a,at=b", "at=a,took_s=b,took_ms=c"]
)
def test_a_mapping_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--columns"):
        parse_columns(text)


@needs_traces
@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("azure-llm-code-2023-11-16.csv", "at=TIMESTAMP", 8_819),
        ("azure-llm-conv-2023-11-16.csv", "at=TIMESTAMP,method=POST,path=/v1/chat", 19_366),
        ("worldcup98-per-minute.csv", "at=period", 125_300),
        ("nasa-http-1995-08-01.log", "", 30_969),
    ],
)
def test_the_recordings_at_hand_have_their_rows(tmp_path: Path, name: str, columns: str, rows: int) -> None:
    options = Options(columns=parse_columns(columns))
    assert import_files([TRACES / name], tmp_path / "a.trace", options=options).rows == rows
