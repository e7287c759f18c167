"""Secrets of every kind, in every place of every format: after an import none is in the trace folder or on the screen."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from replay.cli import replay
from replay.trace import Trace
from replay.trace.importing.pseudonyms import Pseudonyms
from replay.trace.importing.secret_names import SECRET_NAMES, SECRET_SUFFIXES
from replay.trace.importing.showing import scrub
from tests.support.there import there

VALUE = "Zq7Xv3Wk9Tp5"
"""What must be nowhere."""

NAMES = [
    *SECRET_SUFFIXES, *SECRET_NAMES, "access_token", "refresh-token", "id_token", "user[password]", "X-Amz-Signature", "Sid",
    "SAMLResponse", "api_key", "JSESSIONID", "PHPSESSID", "authenticity_token", "client_assertion", "token1", "%74oken",
]  # fmt: skip

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ" + VALUE + ".c2lnbmF0dXJl" + VALUE


def url_parameter(name: str) -> str:
    return f"/p?a=1&{name}={VALUE}&b=2"


def first_parameter(name: str) -> str:
    return f"/p?{name}={VALUE}"


def matrix_parameter(name: str) -> str:
    return f"/p;{name}={VALUE}/q?b=2"


def json_pair(name: str) -> str:
    return f'{{"a": 1, "{name}": "{VALUE}", "b": 2}}'


def json_number(name: str) -> str:
    return f'{{"{name}": 90210{VALUE}}}'


def named_pair(name: str) -> str:
    return f'{{"name": "{name}", "value": "{VALUE}"}}'


def pair_named_last(name: str) -> str:
    return f'[{{"value": "{VALUE}", "name": "{name}"}}]'


def header(name: str) -> str:
    return f"X-{name}: {VALUE}"


def cookie(name: str) -> str:
    return f"Cookie: theme=dark; {name}={VALUE}"


def bearer(name: str) -> str:
    return f"Authorization: Bearer {VALUE}"


def user_info(name: str) -> str:
    return f"https://frank:{VALUE}@shop.example/p"


def form(name: str) -> str:
    return f"a=1&{name}={VALUE}&b=2"


def jwt_in_path(name: str) -> str:
    return f"/reset/{JWT}/now"


PRODUCTIONS = [
    url_parameter, first_parameter, matrix_parameter, json_pair, json_number, named_pair, pair_named_last, header, cookie,
    bearer, user_info, form, jwt_in_path,
]  # fmt: skip

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "percent": lambda text: quote(text, safe=""),
    "twice": lambda text: quote(quote(text, safe=""), safe=""),
    "json": lambda text: json.dumps(text)[1:-1],
    "json twice": lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    "log": lambda text: text.replace("\\", "\\x5C").replace('"', "\\x22"),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("production", PRODUCTIONS, ids=lambda made: made.__name__)
def test_no_text_that_is_shown_has_a_secret(production: Callable[[str], str], encoding: str) -> None:
    for name in NAMES:
        text = ENCODINGS[encoding](production(name))
        around = [
            text,
            f'10.0.0.1 - - [bad] "GET {text} HTTP/1.1" 200',
            f'{{"message": "{text}"}}',
            f"x {text} y",
        ]
        for line in around:
            assert VALUE not in scrub(line), line
            assert VALUE not in scrub(line[: line.index(VALUE) + len(VALUE)]), line


QUOTED = {"plain", "percent", "twice"}
STAMP = "29/Nov/2026:16:28:4{} +0000"


def common(targets: list[str]) -> bytes:
    lines = [
        f'10.0.0.1 - - [{STAMP.format(i % 10)}] "GET {t} HTTP/1.1" 200 1 "-" "M"'
        for i, t in enumerate(targets)
    ]
    return "\n".join([*lines, ""]).encode()


def csv_table(targets: list[str]) -> bytes:
    cells = [t.replace('"', '""') for t in targets]
    return "\n".join(
        ["at,method,path", *(f'17000000{i % 90 + 10},GET,"{t}"' for i, t in enumerate(cells)), ""]
    ).encode()


def json_lines(targets: list[str]) -> bytes:
    rows = [{"at": 1700000000 + i, "method": "GET", "path": t, "status": 200} for i, t in enumerate(targets)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def nginx_json(targets: list[str]) -> bytes:
    rows = [
        {
            "time_iso8601": f"2026-11-29T16:28:{i % 60:02d}+00:00", "remote_addr": "10.0.0.1", "body_bytes_sent": "1",
            "request": f"GET {t} HTTP/1.1", "status": "200",
        }
        for i, t in enumerate(targets)
    ]  # fmt: skip
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def caddy(targets: list[str]) -> bytes:
    rows = [
        {
            "level": "info", "ts": 1700000000.5 + i, "logger": "http.log.access", "msg": "handled request",
            "request": {"remote_ip": "10.0.0.1", "method": "GET", "host": "shop.example", "uri": t},
            "duration": 0.01, "size": 10, "status": 200,
        }
        for i, t in enumerate(targets)
    ]  # fmt: skip
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def w3c(targets: list[str]) -> bytes:
    lines = ["#Version: 1.0", "#Fields: date time c-ip cs-method cs-uri-stem cs-uri-query sc-status"]
    for i, target in enumerate(targets):
        stem, _, query = target.partition("?")
        lines.append(f"2026-11-29 16:28:{i % 60:02d} 10.0.0.1 GET {stem} {query or '-'} 200")
    return "\n".join([*lines, ""]).encode()


def alb(targets: list[str]) -> bytes:
    lines = [
        f"http 2026-11-29T16:28:41.000000Z app/lb/1 10.0.0.1:1 10.0.0.2:80 0.0 0.1 0.0 200 200 1 1"
        f' "GET http://h:80{t} HTTP/1.1" "curl" - - arn:x "R" "-" "-" 0 2026-11-29T16:28:40.000000Z "f" "-" "-"'
        for t in targets
    ]
    return "\n".join([*lines, ""]).encode()


def gor(targets: list[str]) -> bytes:
    parts = []
    for i, target in enumerate(targets):
        parts.append(
            f"1 {i:024x} {1_700_000_000_000_000_000 + i} 0\nGET {target} HTTP/1.1\r\nHost: h\r\n\r\n"
        )
        parts.append(
            f"2 {i:024x} {1_700_000_000_000_100_000 + i} 0\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        )
    return "".join(part + "\n🐵🙈🙉\n" for part in parts).encode()


def har(targets: list[str]) -> bytes:
    entries = [
        {
            "startedDateTime": "2026-11-29T16:28:40.000Z", "time": 1,
            "request": {"method": "GET", "url": f"https://u:{VALUE}@shop.example{t}", "headers": []},
            "response": {"status": 200},
        }
        for t in targets
    ]  # fmt: skip
    return json.dumps({"log": {"version": "1.2", "entries": entries}}).encode()


def vegeta(targets: list[str]) -> bytes:
    rows = [{"method": "GET", "url": f"http://u:{VALUE}@h{t}"} for t in targets]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


FORMATS = {
    made.__name__: made
    for made in (common, csv_table, json_lines, nginx_json, caddy, w3c, alb, gor, har, vegeta)
}


def in_targets() -> list[str]:
    """Every production that a target can hold, as it is and inside a harmless parameter or a path."""
    found = []
    for name in NAMES:
        for production in PRODUCTIONS:
            text = production(name)
            if text.startswith("/"):
                found.append(text)
            for encoding in ("percent", "twice"):
                found.append(f"/go?page=2&next={ENCODINGS[encoding](text)}")
            if " " not in text and '"' not in text and text.startswith(("/", "https:")):
                found.append(f"/go?next={text}")
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_no_trace_of_any_format_has_a_secret(name: str, tmp_path: Path) -> None:
    source = tmp_path / "recording"
    source.write_bytes(FORMATS[name](in_targets()))
    result = run("import", str(source), "-o", str(tmp_path / "a.trace"), "--no-jitter")
    trace = nothing_left(tmp_path / "a.trace", result)
    assert trace.rows == len(in_targets()), result.output
    assert trace.manifest.secrets_by_name["token"] > 0
    assert "token" in result.output
    for ending in ("csv", "gor", "json", "log", "parquet"):
        out = tmp_path / f"a.{ending}"
        assert run("export", str(tmp_path / "a.trace"), "-o", str(out)).exit_code == 0
        assert VALUE.encode() not in out.read_bytes()
    assert VALUE not in run("inspect", str(tmp_path / "a.trace"), "--json").output


def test_no_table_in_parquet_has_a_secret(tmp_path: Path) -> None:
    targets = in_targets()
    table = pa.table({"at": [1700000000 + i for i in range(len(targets))], "path": targets})
    pq.write_table(table, tmp_path / "a.parquet")
    result = run("import", str(tmp_path / "a.parquet"), "-o", str(tmp_path / "a.trace"))
    nothing_left(tmp_path / "a.trace", result)


HEADERS = [
    ("Authorization", f"Bearer {VALUE}"), ("Cookie", f"sid={VALUE}"), ("X-Session", VALUE), ("X-Auth", VALUE),
    ("X-User-Jwt", VALUE), ("X-Api-Key", VALUE), ("X-Forwarded-For", "203.0.113.77, 10.0.0.1"),
    ("X-Real-IP", "203.0.113.77"),
    ("Forwarded", "for=203.0.113.77"), ("X-Client", "203.0.113.77"), ("Referer", f"https://u:{VALUE}@h/p?token={VALUE}"),
    ("Referer", f"https://h/p?next={quote(f'/x?token={VALUE}', safe='')}"), ("Origin", f"https://frank:{VALUE}@shop.example"),
    ("X-Data", f'{{"token": "{VALUE}"}}'), ("X-Data", f"Basic {VALUE}"), ("Referer", f"https://h/r/{JWT}"),
    ("Proxy-Authorization", VALUE), ("X-Amz-Security-Token", VALUE), ("X-CSRF-Token", VALUE),
    ("True-Client-IP", "203.0.113.77"),
]  # fmt: skip
BODIES = [
    ("application/x-www-form-urlencoded", f"user=a&password={VALUE}&x=1"),
    ("application/json", f'{{"user": "a", "password": "{VALUE}", "pin": 1, "nested": {{"token": "{VALUE}"}}}}'),
    ("application/json", json.dumps({"inner": json.dumps({"token": VALUE})})),
    ("application/x-www-form-urlencoded", f"next={quote(f'/x?token={VALUE}', safe='')}"),
    ("multipart/form-data; boundary=b", f'--b\r\nContent-Disposition: form-data; name="token"\r\n\r\n{VALUE}\r\n--b--\r\n'),
]  # fmt: skip


def whole_gor() -> bytes:
    parts = []
    for i, (kind, body) in enumerate(BODIES):
        head = "".join(
            f"{name}: {value}\r\n" for name, value in [*HEADERS, ("Content-Type", kind), ("Accept", "*/*")]
        )
        request = f"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{head}\r\n{body}"
        parts.append(f"1 {i:024x} {1_700_000_000_000_000_000 + i} 0\n{request}")
        if i % 2:
            parts.append(
                f"2 {i:024x} {1_700_000_000_000_100_000 + i} 0\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            )
    return "".join(part + "\n🐵🙈🙉\n" for part in parts).encode()


def whole_har() -> bytes:
    entries = [
        {
            "startedDateTime": "2026-11-29T16:28:40.000Z",
            "request": {
                "method": "POST", "url": "https://h/p", "postData": {"mimeType": kind, "text": body},
                "headers": [{"name": n, "value": v} for n, v in [*HEADERS, ("Accept", "*/*")]],
            },
        }
        for kind, body in BODIES
    ]  # fmt: skip
    return json.dumps({"log": {"entries": entries}}).encode()


def whole_vegeta() -> bytes:
    rows = []
    for kind, body in BODIES:
        headers: dict[str, list[str]] = {"Content-Type": [kind], "Accept": ["*/*"]}
        for name, value in HEADERS:
            headers.setdefault(name, []).append(value)
        encoded = base64.b64encode(body.encode()).decode()
        rows.append({"method": "POST", "url": "http://h/p", "header": headers, "body": encoded})
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize("made", [whole_gor, whole_har, whole_vegeta], ids=lambda made: made.__name__)
def test_no_whole_request_keeps_a_secret(made: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "recording").write_bytes(made())
    result = run("import", str(tmp_path / "recording"), "-o", str(tmp_path / "a.trace"))
    trace = nothing_left(tmp_path / "a.trace", result)
    kept = {name.lower() for headers in trace.requests.header_sets() for name, _ in headers}
    assert {b"accept", b"content-type", b"referer", b"origin"} <= kept
    bodies = {trace.requests.body(i) for i in range(len(BODIES))}
    form = next(body for body in bodies if body.startswith(b"user=a&password="))
    secret = form[len(b"user=a&password=") : -len(b"&x=1")].decode()
    assert len(secret) == len(VALUE) and secret != VALUE, form
    data = json.loads(next(body for body in bodies if body.startswith(b'{"user"')))
    assert data == {"user": "a", "password": secret, "pin": data["pin"], "nested": {"token": secret}}
    assert isinstance(data["pin"], int)
    headers = {(name.lower(), value) for headers in trace.requests.header_sets() for name, value in headers}
    assert {(b"authorization", f"Bearer {secret}".encode()), (b"cookie", f"sid={secret}".encode())} <= headers
    assert trace.manifest.secrets_dropped["body_values"] >= 5
    for out in ("a.gor", "a.json"):
        run("export", str(tmp_path / "a.trace"), "-o", str(tmp_path / out))
        assert VALUE.encode() not in (tmp_path / out).read_bytes()


@pytest.mark.parametrize("name", ["common", "json_lines", "gor", "har", "vegeta", "csv_table"])
def test_rejected_lines_show_no_secret(name: str, tmp_path: Path) -> None:
    good = FORMATS[name](["/ok"] * 40)
    bad = [
        text
        for production in PRODUCTIONS
        for text in (production("token"), quote(production("ticket"), safe=""))
    ]
    for number, text in enumerate(bad):
        data = good
        if name == "har":
            entry = {"startedDateTime": "soon", "request": {"method": "GET", "url": text}}
            data = json.dumps({"log": {"entries": [*json.loads(good)["log"]["entries"], entry]}}).encode()
        elif name == "gor":
            data += f"1 zz bad\nGET {text} HTTP/1.1\r\n{text}\r\n\r\n\n🐵🙈🙉\n".encode()
        else:
            data += f'10.0.0.1 - - [bad] "GET {text} HTTP/1.1" 200 "{text}"\n{text}\n'.encode()
        (tmp_path / "recording").write_bytes(data)
        result = run(
            "import",
            str(tmp_path / "recording"),
            "-o",
            str(tmp_path / f"{number}.trace"),
            "--format",
            IMPORTER[name],
        )
        nothing_left(tmp_path / f"{number}.trace", result)


IMPORTER = {
    "common": "common",
    "json_lines": "jsonl",
    "gor": "gor",
    "har": "har",
    "vegeta": "vegeta",
    "csv_table": "csv",
}


def test_an_unknown_file_is_named_by_a_line_without_secrets(tmp_path: Path) -> None:
    for production in PRODUCTIONS:
        (tmp_path / "x").write_text(f"?? {production('token')} ??\n" * 3)
        result = run("import", str(tmp_path / "x"), "-o", str(tmp_path / "x.trace"))
        assert result.exit_code != 0 and VALUE not in result.output + str(result.exception)


def test_harmless_values_stay_and_what_goes_is_counted_by_name(tmp_path: Path) -> None:
    harmless = [
        "/p?sort=asc&page=2&q=a%20b&lang=DE", "/a/b:c/d", "/logo@2x.png", "/react@18.2.0/umd.js", "/v1/keys/key:rotate",
        "/t?at=12:30:00", "/x?monkey=1&keyboard=2&author=3&passage=4&country_codes=5", "/wiki/File:Foo.jpg",
        "/x%20y?a=%C3%A9",
    ]  # fmt: skip
    (tmp_path / "x.log").write_bytes(common([*harmless, "/p?code=DE", "/p?code=AT&pin=1"]))
    result = run("import", str(tmp_path / "x.log"), "-o", str(tmp_path / "x.trace"), "--no-jitter")
    trace = Trace.open(tmp_path / "x.trace")
    kept = [trace.requests.get(i).target.decode() for i in range(trace.manifest.requests)]
    assert kept[:-2] == harmless
    assert all(re.fullmatch(r"/p\?code=[A-Z]{2}(&pin=[2-9])?", target) for target in kept[-2:]), kept[-2:]
    assert "DE" not in kept[-2] and "AT" not in kept[-1]
    assert trace.manifest.secrets_dropped == {"query_values": 3}
    assert trace.manifest.secrets_by_name == {"code": 2, "pin": 1}
    assert "3 query values replaced (code 2, pin 1)" in " ".join(result.output.split())


def test_pseudonyms_are_the_same_for_the_same_and_of_the_same_form(tmp_path: Path) -> None:
    mail = "Ann.Lee2@corp.example.com"
    log = common(
        [
            f"/u/{mail}",
            f"/u/{mail}/orders",
            f"/r/{JWT}",
            "/u/bob@corp.example.com",
            "/v?mail=bob%40corp.example.com",
        ]
    )
    targets = []
    for place in ("a", "b"):
        (tmp_path / f"{place}.log").write_bytes(log)
        run("import", str(tmp_path / f"{place}.log"), "-o", str(tmp_path / f"{place}.trace"), "--no-jitter")
        trace = Trace.open(tmp_path / f"{place}.trace")
        targets.append([trace.requests.get(i).target.decode() for i in range(trace.manifest.requests)])
    assert targets[0] == targets[1]
    ann, orders, token, bob, encoded = targets[0]
    assert (
        ann != f"/u/{mail}" and len(ann) == len(f"/u/{mail}") and ann.endswith(".com") and ann.count("@") == 1
    )
    assert orders == f"{ann}/orders"
    assert (
        token.startswith("/r/eyJ")
        and len(token) == len(f"/r/{JWT}")
        and token.count(".") == 2
        and VALUE not in token
    )
    assert bob != "/u/bob@corp.example.com" and encoded == "/v?mail=" + bob[3:].replace("@", "%40")
    assert trace.manifest.secrets_dropped == {"pseudonyms": 5}
    assert Pseudonyms(b"1").of("ann") != Pseudonyms(b"2").of("ann")


def test_keep_secrets_keeps_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_bytes(common(in_targets()[:50]))
    run("import", str(tmp_path / "x.log"), "-o", str(tmp_path / "x.trace"), "--keep-secrets")
    trace = Trace.open(tmp_path / "x.trace")
    assert all(VALUE.encode() in trace.requests.get(i).target for i in range(trace.manifest.requests))
    assert trace.manifest.secrets_dropped == {}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(replay, list(arguments))


def nothing_left(folder: Path, result: Result) -> Trace:
    """The trace, after every byte of it and of what was printed was looked through."""
    assert result.exit_code == 0, (result.output, result.exception)
    assert VALUE not in result.output and "203.0.113.77" not in result.output
    for file in folder.rglob("*"):
        if file.is_file():
            data = file.read_bytes()
            assert VALUE.encode() not in data and b"203.0.113.77" not in data, file.name
            assert b"frank" not in data, file.name
    trace = Trace.open(folder)
    texts = [trace.requests.get(i).target for i in range(trace.manifest.requests)]
    texts += [
        name + b": " + there(value) for headers in trace.requests.header_sets() for name, value in headers
    ]
    assert not [text for text in texts if VALUE.encode() in text][:3]
    return trace
