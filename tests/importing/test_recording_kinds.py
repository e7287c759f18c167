"""The same facts in other recordings: wrappers, clients, times, values and fragments, by the command that a user types."""

from __future__ import annotations

import io
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from replay.cli import import_, inspect
from replay.errors import InputError, ReplayError
from replay.trace import Manifest
from replay.trace.importing import Options, import_files
from replay.trace.importing.readers.columns import parse_columns
from replay.trace.importing.wrappers import unwrap

from .test_recordings import imported, recorded

S = 1_000_000_000
AT = 1795969720
"""2026-11-29T16:28:40Z"""

LINE = '10.0.0.{0} - - [29/Nov/2026:16:28:4{0} +0000] "GET /a/{0} HTTP/1.1" 200 12 "-" "M"'


class Read(NamedTuple):
    """What came of a recording."""

    rows: list[dict[str, Any]]
    manifest: Manifest
    output: str

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.rows]


def read(folder: Path, data: str | bytes, *options: str, name: str = "a.log") -> Read:
    """A recording by the command; `options` behind it."""
    (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    words = ["replay", "import", name, "-o", "X.trace", "--no-jitter", "--force", *options]
    trace, output = imported(shlex.join(words), folder, folder / "X.trace")
    return Read(recorded(trace), trace.manifest, output)


def lines(form: str = "{line}", line: str = LINE, count: int = 6) -> str:
    return "".join(form.replace("{line}", line.format(i % 3)) + "\n" for i in range(count))


STAMP = "2026-11-29T16:28:40.123456780Z"


@pytest.mark.parametrize(
    ("wrapper", "form"),
    [
        ("", "{line}"),
        ("stamp", f"{STAMP} {{line}}"),
        ("stream", f"{STAMP} ecs/web/abc {{line}}"),
        ("labels", f'{STAMP} {{app="x", pod="y"}} {{line}}'),
        ("compose", "web-1  | {line}"),
        ("compose", "\x1b[36mweb-1  |\x1b[0m {line}"),
        ("compose", "0|app  | {line}"),
        ("compose+stamp", f"web-1  | {STAMP} {{line}}"),
        ("kubectl", "[pod/web-1/nginx] {line}"),
        ("kubectl+stamp", f"[pod/web-1/nginx] {STAMP} {{line}}"),
        ("syslog", "Nov 29 16:28:40 nginx: {line}"),
        ("syslog", "<190>Nov 29 16:28:40 web01 nginx[7]: {line}"),
        ("syslog", f"{STAMP} app[web.1]: {{line}}"),
        ("stern", "web-abc nginx {line}"),
        ("cri", f"{STAMP} stdout F {{line}}"),
    ],
)
def test_the_client_is_what_stands_behind_a_wrapper(tmp_path: Path, wrapper: str, form: str) -> None:
    got = read(tmp_path, lines(form))
    assert (got.manifest.sources[0].wrapper, got.column("client")) == (wrapper, [0, 0, 1, 1, 2, 2])
    assert got.column("target") == ["/a/0", "/a/0", "/a/1", "/a/1", "/a/2", "/a/2"]


def test_a_wrapper_is_no_reason_to_read_another_line_than_the_format_says(tmp_path: Path) -> None:
    line = '{0} 2001:db8::1 "GET /a HTTP/1.1"'
    log_format = '$time_iso8601 $remote_addr "$request"'
    got = read(tmp_path, lines(line=line.replace("{0}", "2026-11-29T16:28:40Z")), "--log-format", log_format)
    assert (got.manifest.sources[0].wrapper, got.column("at_ns")) == ("", [AT * S] * 6)


def test_parts_of_lines_are_joined_stream_by_stream() -> None:
    parts = (
        ("stdout", "P", "GET /"),
        ("stderr", "P", "oo"),
        ("stdout", "F", "a"),
        ("stderr", "F", "ps"),
        ("stdout", "P", "end"),
    )
    data = "".join(f"{STAMP} {stream} {part} {text}\n" for stream, part, text in parts)
    assert unwrap("cri", data.encode()) == b"GET /a\noops\nend\n"
    entries = (
        ("stdout", "GET /"),
        ("stderr", "oo"),
        ("stdout", "a\n"),
        ("stderr", "ps\n"),
        ("stdout", "end"),
    )
    data = "".join(
        json.dumps({"log": text, "stream": stream}, separators=(",", ":")) + "\n" for stream, text in entries
    )
    assert unwrap("docker", data.encode()) == b"GET /a\noops\nend\n"


@pytest.mark.parametrize(
    ("form", "host", "clients"),
    [
        ("www.example.com {line}", "www.example.com", 3),
        ("www.example.com:80 {line}", "www.example.com", 3),
        ("www.example.com:8080 {line}", "www.example.com:8080", 3),
        (f"{STAMP} www.example.com:443 {{line}}", "www.example.com", 3),
        ("203.0.113.7 {line}", "", 1),
        ("203.0.113.7, 10.9.9.9 {line}", "", 1),
        ("- {line}", "", 3),
        ('{line} "203.0.113.7, 10.9.9.9"', "", 1),
        ('{line} "-"', "", 3),
    ],
)
def test_common_logs_with_a_host_or_forwarded_addresses(
    tmp_path: Path, form: str, host: str, clients: int
) -> None:
    got = read(tmp_path, lines(form))
    assert (set(got.column("host")), len(set(got.column("client")))) == ({host}, clients)


def test_forwarded_addresses_are_chosen_line_by_line(tmp_path: Path) -> None:
    behind = ["203.0.113.9, 10.1.1.1", "-", "unknown, 203.0.113.9", "203.0.113.9:4711"]
    line = '10.0.0.1 - - [29/Nov/2026:16:28:40 +0000] "GET /{i} HTTP/1.1" 200 12 "-" "a \\" b" "{xff}"\n'
    got = read(tmp_path, "".join(line.format(i=i, xff=xff) for i, xff in enumerate(behind)))
    assert got.column("client") == [0, 1, 0, 0]


def test_haproxy_captures_forwarded_addresses(tmp_path: Path) -> None:
    line = "10.0.0.1:{} [29/Nov/2026:16:28:40.123] fe~ be/s1 10/0/1/20/31 200 1234 - - ---- 1/1/0/0/0 0/0 "
    line += '{}"GET / HTTP/1.1"\n'
    captured = ["{203.0.113.7, 10.1.1.1|curl} ", "{203.0.113.7} {nginx} ", "{203.0.113.7} ", "{|curl} "]
    got = read(tmp_path, "".join(line.format(5000 + i, text) for i, text in enumerate(captured)))
    assert got.column("client") == [0, 0, 0, 1]
    assert read(tmp_path, line.format(1, "")).manifest.importer == "haproxy"


def test_haproxy_s_client_is_the_first_captured_address_wherever_it_stands(tmp_path: Path) -> None:
    line = "10.0.0.1:{} [29/Nov/2026:16:28:40.123] fe~ be/s1 10/0/1/20/31 200 1234 - - ---- 1/1/0/0/0 0/0 "
    line += '{}"GET / HTTP/1.1"\n'
    captured = [
        "{curl|203.0.113.7} ", "{Mozilla/5.0 (X11, Linux)|203.0.113.7, 10.1.1.1|x} ", "{a||[2001:db8::1]:80} ",
        "{a|203.0.113.7} {nginx|10.9.9.9} ", "{curl|} {nginx|10.9.9.9} ", "{curl|-} ",
    ]  # fmt: skip
    got = read(tmp_path, "".join(line.format(5000 + i, text) for i, text in enumerate(captured)))
    assert got.column("client") == [0, 0, 1, 0, 2, 2]
    assert "the first of them that is an address is taken as the client" in " ".join(got.output.split())


def test_clients_that_are_none_are_reported(tmp_path: Path) -> None:
    one = read(tmp_path, lines(line=LINE.replace(".{0} ", ".7 "), count=30))
    assert "one client has 100% of the requests" in one.output
    assert "one client" not in read(tmp_path, lines(count=30)).output
    assert (
        "most clients are neither addresses"
        in read(tmp_path, lines(line=LINE.replace("10.0.0.{0}", "-"))).output
    )
    bare = "".join(json.dumps({"timestamp": AT + i, "method": "GET", "path": "/"}) + "\n" for i in range(30))
    assert "name no client" in read(tmp_path, bare).output


@pytest.mark.parametrize(
    ("stamp", "at_ns", "notes"),
    [
        ("29/Nov/2026:16:28:40.123 +0000", AT * S + 123_000_000, 0),
        ("29/Nov/2026:17:28:40,5 +0100", AT * S + S // 2, 0),
        ("29/Nov/2026:16:28:40", AT * S, 1),
        ("29/Nov/2026:16:28:40.25", AT * S + S // 4, 1),
    ],
)
def test_fractions_and_missing_zones_in_common_logs(
    tmp_path: Path, stamp: str, at_ns: int, notes: int
) -> None:
    usual = LINE.format(0) + "\n"
    for before in ("", usual, usual * 3):
        got = read(tmp_path, before + usual.replace("29/Nov/2026:16:28:40 +0000", stamp))
        assert sorted(got.column("at_ns"))[-1] == at_ns
        assert got.manifest.rejected == {}
        assert sum("name no zone: taken as UTC" in note for note in got.manifest.assumptions) == notes


def test_the_repeated_hour_of_autumn_is_told_apart_by_order(tmp_path: Path) -> None:
    stamps = ["01:30:00", "02:10:00", "02:50:00", "02:59:59", "02:00:10", "02:59:58", "02:40:00", "03:10:00"]
    table = "time,method,url\n" + "".join(f"2026-10-25 {stamp},GET,/{i}\n" for i, stamp in enumerate(stamps))
    got = read(tmp_path, table, "--tz", "Europe/Berlin")
    begin = 1792884600
    since_s = {int(row["target"][1:]): row["at_ns"] // S - begin for row in got.rows}
    assert [since_s[i] for i in range(8)] == [0, 2400, 4800, 5399, 5410, 5398, 7800, 9600]
    assert "6 requests in the repeated hour" in got.output


def test_the_hour_that_spring_skips_is_reported(tmp_path: Path) -> None:
    table = "time,method,url\n2026-03-08 01:59:00,GET,/\n2026-03-08 02:30:00,GET,/\n"
    assert (
        "1 request in an hour that the clocks of America/New_York skipped"
        in read(tmp_path, table, "--tz", "America/New_York").output
    )


@pytest.mark.parametrize(
    ("header", "row", "at_ns", "took_ns"),
    [
        (
            "timestamp,start_time_ms,end_time",
            "2026-11-29T16:28:41Z,1795969720000,2026-11-29T16:28:41Z",
            AT * S,
            -1,
        ),
        ("timestamp", "20261129162840", AT * S, -1),
        ("timestamp", "20261129T162840.5Z", AT * S + S // 2, -1),
        ("timestamp,took_ms,took_us", "1795969720,12,12345", AT * S, 12_345_000),
        ("timestamp,latency", "1795969720,1m30s", AT * S, 90 * S),
        ("timestamp,latency", "1795969720,12", AT * S, -1),
        ("@timestamp,event.duration", "2026-11-29T16:28:40Z,1500000", AT * S, 1_500_000),
        ("timeStamp,elapsed,label,responseCode", "1795969720000,97,x,200", AT * S, 97_000_000),
    ],
)
def test_moments_and_durations_of_tables(
    tmp_path: Path, header: str, row: str, at_ns: int, took_ns: int
) -> None:
    got = read(tmp_path, f"{header},url\n{row},/a\n")
    assert (got.rows[0]["at_ns"], got.rows[0]["took_ns"]) == (at_ns, took_ns)


def test_numbers_that_can_be_no_moment_are_rejected(tmp_path: Path) -> None:
    table = (
        "timestamp,method,url\n1795969720,GET,/a\n0,GET,/b\n1795969721,GET,/c\n12,GET,/d\n1795969722,GET,/e\n"
    )
    got = read(tmp_path, table)
    assert (got.manifest.rejected["bad time"], got.column("target")) == (2, ["/a", "/c", "/e"])
    assert "taken as seconds since 1970" in got.output
    relative = read(tmp_path, "timestamp,method,url\n0,GET,/a\n1.5,GET,/b\n")
    assert "too small for current dates" in relative.output


def test_words_for_nothing_are_nothing(tmp_path: Path) -> None:
    header = "timestamp,method,path,query,host,client,status,bytes,latency_ms"
    for word in ("NaN", "nan", "null", "NULL", "None", "N/A", "\\N", "-", ""):
        got = read(tmp_path, f"{header}\n1795969720,GET,/a,{word},{word},{word},{word},{word},{word}\n")
        wanted = {"target": "/a", "host": "", "status": -1, "bytes": -1, "took_ns": -1}
        assert {name: got.rows[0][name] for name in wanted} == wanted
        counted = {} if word in ("-", "") else {"status": 1, "bytes": 1, "duration": 1}
        assert got.manifest.unknown_values == counted


@pytest.mark.parametrize(
    ("data", "target"),
    [
        ("timestamp,method,url\n1795969720,GET,/a#x\n", "/a"),
        ("timestamp,method,url,query\n1795969720,GET,/a?x=1#y,x=1\n", "/a?x=1"),
        ("timestamp,method,url,query\n1795969720,GET,/a?,x=1\n", "/a?x=1"),
        ("timestamp,method,path,url\n1795969720,GET,/a,https://h/a?x=1\n", "/a?x=1"),
        ("timestamp,request\n1795969720,GET /a?b#c HTTP/1.1\n", "/a?b"),
        ('{"timestamp":1795969720,"url":"/a\\u0023x"}\n', "/a"),
        (
            "#Fields: date time cs-method cs-uri-stem cs-uri-query\n2026-11-29 16:28:40 GET /a?x=1 x=1\n",
            "/a?x=1",
        ),
    ],
)
def test_a_target_has_one_query_and_no_fragment(tmp_path: Path, data: str, target: str) -> None:
    assert read(tmp_path, data).column("target") == [target]


def test_a_parquet_file_says_the_unit_of_its_durations(tmp_path: Path) -> None:
    table = pa.table(
        {
            "timestamp": pa.array([AT * S], pa.timestamp("ns")),
            "url": ["/a?x=1#y"],
            "query": ["x=1"],
            "latency": pa.array([1500], pa.duration("us")),
            "status": [200.0],
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    row = read(tmp_path, buffer.getvalue(), name="a.parquet").rows[0]
    assert (row["at_ns"], row["target"], row["took_ns"], row["status"]) == (AT * S, "/a?x=1", 1_500_000, 200)


def test_excel_says_the_delimiter_and_commas_are_decimal_points(tmp_path: Path) -> None:
    for data in (
        "sep=;\r\ntime;url;took_ms\r\n2026-11-29 16:00:00;/a;1,5\r\n",
        "time\turl\ttook_ms\n2026-11-29 16:00:00\t/a\t1,5\n",
    ):
        assert read(tmp_path, data, name="a.csv").column("took_ns") == [1_500_000]


def test_quoted_strings_in_w3c_logs_may_have_spaces(tmp_path: Path) -> None:
    fields = "#Fields: date time cs(User-Agent) c-ip cs-method cs-uri time-taken\n"
    row = "2026-11-29 16:28:40 {} 10.0.0.1 GET /a 15\n"
    got = read(tmp_path, fields + row.format('"Mozilla ""5"" (X)"') + row.format('"Moz'))
    assert got.column("target") == ["/a", "/a"]


def test_an_address_in_host_is_no_host(tmp_path: Path) -> None:
    data = "".join(
        json.dumps({"timestamp": AT + i, "method": "GET", "path": "/", "host": host}) + "\n"
        for i, host in enumerate(["10.0.0.1", "10.0.0.2", "h.example"])
    )
    got = read(tmp_path, data)
    assert got.column("host") == ["", "", ""]
    assert "neither kept as the host nor taken for the client" in " ".join(got.output.split())
    mixed = read(tmp_path, data + data.replace("10.0.0.1", "h.example").replace("10.0.0.2", "h.example"))
    assert sorted(mixed.column("host")) == ["", "", *["h.example"] * 4]
    assert mixed.manifest.unknown_values == {"host (an address)": 2}
    assert "10.0.0" not in (tmp_path / "X.trace" / "manifest.json").read_text()


def test_an_escape_that_no_writer_knows_is_rejected(tmp_path: Path) -> None:
    good = '{"timestamp":1795969720,"method":"GET","url":"/a"}\n'
    got = read(tmp_path, good * 2 + good.replace("/a", "/\\qb"))
    assert (got.column("target"), got.manifest.rejected) == (["/a", "/a"], {"unknown escape": 1})


def _entry(**more: Any) -> dict[str, Any]:
    request = {"method": "POST", "url": "https://h.example/x", "headers": [], **more.pop("request", {})}
    entry = {
        "startedDateTime": "2026-11-29T16:28:40Z",
        "time": 5,
        "request": request,
        "response": {"status": 200},
    }
    return {**entry, **more}


def test_bodies_and_entries_of_hars(tmp_path: Path) -> None:
    form = {
        "mimeType": "multipart/form-data; boundary=XX",
        "params": [{"name": "a", "value": "1"}, {"name": "f", "value": "d", "fileName": "x"}],
    }
    entries = [
        _entry(request={"postData": form}),
        _entry(request={"postData": {"mimeType": "x/y", "text": "aGVsbG8=", "encoding": "base64"}}),
        *(
            _entry(request={"postData": {"mimeType": "x/y", "text": text, "encoding": "base64"}})
            for text in ("aGVs!bG8=", "aGVsbG8=é", "a")
        ),
        _entry(startedDateTime=None),
        _entry(_fetchType="Disk Cache"),
        _entry(response={"status": 0}, timings={}),
        _entry(response={"status": 0}, _error="net::ERR_TIMED_OUT"),
        _entry(time=-1, timings={"send": -1, "wait": -1, "receive": 5}),
    ]
    got = read(tmp_path, json.dumps({"log": {"entries": entries}}), name="a.har")
    disposition = "Content-Disposition: form-data; name="
    file_part = f'--XX\r\n{disposition}"f"; filename="x"\r\n\r\nd\r\n--XX--\r\n'
    parts = f'--XX\r\n{disposition}"a"\r\n\r\n1\r\n{file_part}'
    assert got.column("body") == [parts, "hello", "", ""]
    assert got.column("took_ns")[2:] == [-1, -1]
    assert got.manifest.rejected == {
        "bad body": 3, "no start time": 1, "from the browser's cache": 1, "never sent": 1,
    }  # fmt: skip


def test_glued_records_of_gor_are_read_or_counted(tmp_path: Path) -> None:
    separator = "\n🐵🙈🙉\n"
    chunked = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    data = (
        f"1 aa {AT}000000000 0\n{chunked}1 bb {AT}000000001 0\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n{separator}"
        f"1 cc {AT}000000002 0\nGET /c HTTP/1.1\nHost: h\n\nGET /d HTTP/1.1\nHost: h\n\n{separator}"
    )
    got = read(tmp_path, data, name="a.gor")
    assert (got.column("target"), got.column("body")) == (["/a", "/b", "/c"], ["hello", "", ""])
    assert got.manifest.rejected == {"broken record": 1}


def test_apache_durations_and_directives(tmp_path: Path) -> None:
    line = '10.0.0.1 [29/Nov/2026:16:28:40 +0000] "GET /a HTTP/1.1" 200 12 1 1234567\n'
    assert read(tmp_path, line, "--log-format", '%h %t "%r" %>s %b %T %D').column("took_ns") == [
        1_234_567_000
    ]
    for bad, named in (('%h %t "%r" %Q', "'%Q'"), ('%h %t "%r" 5% x', "'% x'")):
        with pytest.raises(ReplayError, match=named):
            read(tmp_path, line, "--log-format", bad)


def test_a_refusal_says_what_is_nearest_and_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"the nearest format is common, which 25% of the first lines match; it begins with: <BADREQ>",
    ):
        read(tmp_path, ("<BADREQ> x\n" * 3 + LINE.format(1) + "\n") * 20)
    unknown = {
        "evt": {"when": "2026-11-29T16:28:40Z"},
        "req": {"u": "/a?token=abc", "verb": "GET"},
        "dur_ms": 5,
        "peer": "1.2.3.4",
    }
    with pytest.raises(InputError) as refused:
        read(tmp_path, json.dumps(unknown) + "\n")
    assert (
        refused.value.hint == "check this guess, and give it to replay import: --columns"
        " at=evt.when,method=req.verb,path=req.u,client=peer,took_ms=dur_ms"
    )
    assert "abc" not in str(refused.value)
    columns = refused.value.hint.rpartition(" ")[2]
    assert read(tmp_path, json.dumps(unknown) + "\n", "--columns", columns, "--keep-secrets").column(
        "took_ns"
    ) == [5_000_000]


def test_a_banner_does_not_hide_a_log(tmp_path: Path) -> None:
    for banner in (60, 3_000):
        got = read(tmp_path, "Starting up\n" * banner + lines(count=4 * banner))
        assert (len(got.rows), got.manifest.rejected) == (4 * banner, {"not this format": banner})


def test_three_requests_show_how_a_recording_was_understood(tmp_path: Path) -> None:
    got = read(tmp_path, lines(line=LINE.replace("/a/{0}", "/a?token=secret"), count=3))
    assert "secret" not in got.output.replace("secrets", "")
    shown = r"2026-11-29 16:28:40.000 UTC  client 0  GET /a\?token=[a-z]{6}  200, duration unknown"
    assert re.search(shown, got.output)
    arguments = [str(tmp_path / "a.log"), "-o", str(tmp_path / "X.trace"), "--force", "--no-jitter", "--json"]
    said = json.loads(CliRunner().invoke(import_.command, arguments).output)
    assert [example["at_ns"] for example in said["examples"]] == [(AT + i) * S for i in range(3)]
    assert (said["format"], said["rows"]) == ("common", 3)
    shown = json.loads(CliRunner().invoke(inspect.command, [str(tmp_path / "X.trace"), "--json"]).output)
    assert shown["examples"] == said["examples"]


def test_queries_that_squid_left_out_are_counted(tmp_path: Path) -> None:
    line = "1700000000.{0:03d}    12 10.0.0.{0} TCP_MISS/200 512 GET http://h/a{1} - HIER_DIRECT/10.1.1.1 text/html\n"
    (tmp_path / "squid.log").write_text("".join(line.format(n, "?" if n % 2 else "") for n in range(9)))
    manifest = import_files([tmp_path / "squid.log"], tmp_path / "a.trace").manifest
    assert (manifest.importer, manifest.rows) == ("squid", 9)
    assert [
        text
        for text in manifest.assumptions
        if "omits the query of 4 requests" in text and "strip_query_terms" in text
    ]


def test_a_log_of_api_gateway_without_paths_is_named(tmp_path: Path) -> None:
    line = '{"requestId":"r","requestTime":"09/Apr/2020:12:35:00 +0000","httpMethod":"GET","resourcePath":"/u/{id}"}\n'
    (tmp_path / "a.log").write_text(line * 3)
    with pytest.raises(InputError, match="API Gateway whose paths are templates") as refused:
        import_files([tmp_path / "a.log"], tmp_path / "a.trace")
    assert "$context.path" in refused.value.hint
    columns = parse_columns("at=requestTime,method=httpMethod,path=resourcePath")
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace", options=Options(columns=columns))
    assert trace.rows == 3
