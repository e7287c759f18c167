"""Each server's log format against examples checked by hand, and told from all others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from replay.errors import UsageError
from replay.trace import Manifest
from replay.trace.importing import (
    Options,
    detect,
    import_files,
    importers,
)
from replay.trace.importing.formats.apache import layout_of as apache_layout
from replay.trace.importing.formats.nginx import layout_of as nginx_layout
from tests.support import format_examples
from tests.support.events import Event, events
from tests.support.format_examples import (
    AT,
    MS,
    US,
    Example,
    S,
)

EXAMPLES = [
    Example(
        "nginx",
        '1700000003.500 10.0.0.1 "GET /a\\x22b?x=1 HTTP/1.1" 200 512 2.500\n'
        '1700000004.000 10.0.0.1 "POST /b HTTP/2.0" 502 0 -\n'
        '1700000004.000 10.0.0.1 "\\x16\\x03\\x01" 400 157 0.000\n',
        [
            Event(AT * S + S, "GET", b'/a"b?x=1', "", 200, 2500 * MS, 512),
            Event(AT * S + 4 * S, "POST", b"/b", "", 502, -1, 0),
        ],
        "end",
        {"no method": 1},
        "log_format timed '$msec $remote_addr \"$request\" '\n    '$status $body_bytes_sent $request_time';",
    ),
    Example(
        "apache",
        'shop.example:443 10.0.0.1 - frank [14/Nov/2023:23:13:20 +0100] "GET /a\\"b HTTP/1.1" 200 - 1500 "kube-no"\n',
        [Event(AT * S, "GET", b'/a"b', "shop.example", 200, 1500 * US)],
        "start",
        {},
        'LogFormat "%v:%p %h %l %u %t \\"%r\\" %>s %b %D \\"%{User-Agent}i\\"" timed',
    ),
    Example(
        "ingress-nginx",
        '10.1.2.3 - - [14/Nov/2023:22:13:22 +0000] "GET /cart?id=7 HTTP/1.1" 200 612 "-" "curl/8" 420 1.250'
        " [shop-web-80] [] 10.0.0.5:8080, 10.0.0.6:8080 0, 612 0.750, 0.500 502, 200 8f\n"
        '10.1.2.3 - - [14/Nov/2023:22:13:22 +0000] "GET /healthz HTTP/1.1" 200 2 "-" "kube-probe/1.29" 99 0.001'
        " [-] [] - - - - 8e\n",
        [Event(AT * S + 750 * MS, "GET", b"/cart?id=7", "", 200, 1250 * MS, 612)],
        "end",
        {"health check": 1},
    ),
    Example(
        "haproxy",
        "10.0.1.2:33317 [14/Nov/2023:22:13:20.655] http-in~ static/srv1 10/0/30/69/109 200 2750 - - ----"
        ' 1/1/1/1/0 0/0 {1wt.eu} {} "GET /index.html HTTP/1.1"\n'
        "::1:33318 [14/Nov/2023:22:13:21.000] http-in http-in/<NOSRV> -1/-1/-1/-1/+7 400 187 - - PR--"
        ' 1/1/0/0/0 0/0 "<BADREQ>"\n'
        "10.0.1.2:33319 [14/Nov/2023:22:13:22.000] http-in static/srv1 10/0/30/69/+109 200 +2750 - - ----"
        ' 1/1/1/1/0 0/0 "GET /asap/caf#C3#A9?q=#22a#23b#22&#zz#2 HTTP/1.1"\n',
        [
            Event(AT * S + 655 * MS, "GET", b"/index.html", "", 200, 109 * MS, 2750),
            Event((AT + 2) * S, "GET", b'/asap/caf%C3%A9?q="a#b"&#zz#2', "", 200, 109 * MS, 2750),
        ],
        "start",
        {"no method": 1},
    ),
    Example(
        "envoy",
        '[2023-11-14T22:13:20.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28, 10.1.1.1"'
        ' "nsq2http" "cc21d9b0-cf5c-432b" "locations" "tcp://10.0.2.1:80"\n',
        [Event(AT * S + 310 * MS, "POST", b"/api/v1/locations", "locations", 204, 226 * MS, 0)],
        "start",
    ),
    Example(
        "envoy-json",
        '{"start_time":"2023-11-14T22:13:20.310Z","method":"GET","path":"/a?b=c","response_code":200,"duration":17,'
        '"bytes_sent":9,"authority":"Shop.example","user_agent":"x","x_forwarded_for":null}\n',
        [Event(AT * S + 310 * MS, "GET", b"/a?b=c", "shop.example", 200, 17 * MS, 9)],
        "start",
    ),
    Example(
        "alb",
        "https 2023-11-14T22:13:21.000000Z app/lb/50dc 192.168.131.39:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 57"
        ' "GET https://www.example.com:443/a?b=1 HTTP/1.1" "curl/7.46.0" ECDHE TLSv1.2 arn:aws:x "Root=1-58"'
        ' "www.example.com" "arn:aws:acm" 1 2023-11-14T22:13:20.364000Z "authenticate,forward" "-" "-" "x" "y" more\n'
        "h2 2023-11-14T22:13:21.000000Z app/lb/50dc 10.0.0.1:5000 - -1 -1 -1 460 - 0 57"
        ' "GET http://www.example.com:80/ HTTP/1.1" "ELB-HealthChecker/2.0" - - - "-" "-" "-" 0'
        ' 2023-11-14T22:13:20.500000Z "-" "-" "-"\n'
        "h2 2023-11-14T22:13:21.000000Z app/lb/50dc 10.0.0.1:5000 - -1 -1 -1 504 - 0 57"
        ' "GET http://www.example.com:80/slow HTTP/1.1" "-" - - - "-" "-" "-" 0 2023-11-14T22:13:20.500000Z "-" "-" "-"\n',
        [
            Event(AT * S + 364 * MS, "GET", b"/a?b=1", "www.example.com:443", 200, 171 * MS, 57),
            Event(AT * S + 500 * MS, "GET", b"/slow", "www.example.com:80", 504, -1, 57),
        ],
        "start",
        {"health check": 1},
    ),
    Example(
        "cloudfront",
        "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status"
        " cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header"
        " cs-protocol cs-bytes time-taken\n"
        "2023-11-14\t22:13:22\tLAX1\t2390\t192.0.2.100\tGET\td1.cloudfront.net\t/a%20b\t200\t-\tMozilla/5.0%20(x)"
        "\tq=1\t-\tHit\tSOX4=\tcdn.example\thttps\t23\t1.750\n",
        [Event(AT * S + 250 * MS, "GET", b"/a%20b?q=1", "cdn.example", 200, 1750 * MS, 2390)],
        "end",
        {"header": 2},
    ),
    Example(
        "w3c",
        "#Software: Microsoft Internet Information Services 10.0\n#Date: 2023-11-14 22:13:20\n"
        "#Fields: date time cs-method cs-uri-stem cs-uri-query c-ip sc-status sc-bytes time-taken\n"
        "2023-11-14 22:13:22 GET /a.aspx x=1&y=2 10.0.0.1 200 99 500\n"
        "#Fields: date time cs-uri-stem cs-method time-taken\n"
        "2023-11-14 22:13:23 /b POST 0\n",
        [
            Event(AT * S + 1500 * MS, "GET", b"/a.aspx?x=1&y=2", "", 200, 500 * MS, 99),
            Event(AT * S + 3 * S, "POST", b"/b", "", -1, 0),
        ],
        "end",
        {"header": 4},
    ),
    Example(
        "w3c",
        "#Fields: date time time-taken cs-method cs-uri-stem cs-uri-query sc-status\n#Version: 2.0\n#Software: Tomcat\n"
        "2023-11-14 22:13:22 0.500 GET /a - 200\n2023-11-14 22:13:23 2 POST /b x=1 201\n",
        [
            Event(AT * S + S, "POST", b"/b?x=1", "", 201, 2 * S),
            Event(AT * S + 1500 * MS, "GET", b"/a", "", 200, 500 * MS),
        ],
        "end",
        {"header": 3},
    ),
    Example(
        "caddy",
        '{"level":"info","ts":1700000000.75,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":'
        '"127.0.0.1","remote_port":"41342","client_ip":"127.0.0.1","proto":"HTTP/2.0","method":"GET","host":"localhost",'
        '"uri":"/a\\u0026b?c=\\"d","headers":{"User-Agent":["curl/7.82.0"],"Accept":["*/*"]},"tls":{"resumed":false}},'
        '"bytes_read":0,"user_id":"","duration":0.25,"size":10900,"status":200,"resp_headers":{"Server":["Caddy"]}}\n',
        [Event(AT * S + S // 2, "GET", b'/a&b?c="d', "localhost", 200, 250 * MS, 10900)],
        "end",
    ),
    Example(
        "traefik-json",
        '{"ClientAddr":"10.0.0.1:5000","ClientHost":"10.0.0.1","Duration":1500000,"DownstreamContentSize":19,'
        '"DownstreamStatus":404,"RequestHost":"a.example","RequestMethod":"GET","RequestPath":"/x?y=1\\u0026z=2",'
        '"StartUTC":"2023-11-14T22:13:20.123456789Z","level":"info","msg":"","time":"2023-11-14T22:13:20Z"}\n',
        [Event(AT * S + 123456789, "GET", b"/x?y=1&z=2", "a.example", 404, 1500 * US, 19)],
        "start",
    ),
    Example(
        "traefik",
        '10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.1" 200 19 "-" "curl" 7 "web@file"'
        ' "http://10.0.0.9:80" 12ms\n',
        [Event(AT * S, "GET", b"/a", "", 200, 12 * MS, 19)],
        "start",
    ),
    Example(
        "nginx-json",
        '{"time_local":"14/Nov/2023:22:13:21 +0000","msec":"1700000001.500","remote_addr":"10.0.0.1",'
        '"request":"GET /caf\\u00C3\\u00A9?q=\\"x HTTP/1.1","status":"200","body_bytes_sent":"5","request_time":"1.000",'
        '"http_user_agent":"x"}\n',
        [Event(AT * S + S // 2, "GET", b'/caf%C3%83%C2%A9?q="x', "", 200, S, 5)],
        "end",
    ),
    Example(
        "common",
        '10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a HTTP/1.1" 200 19 "-" "Mozilla"\n'
        '10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /healthz HTTP/1.1" 200 19 "-" "GoogleHC/1.0"\n',
        [Event(AT * S, "GET", b"/a", "", 200, -1, 19)],
        "unknown",
        {"health check": 1},
    ),
    *format_examples.EXAMPLES,
]


def imported(
    path: Path, example: Example, format: str | None = None, *, keep: bool = False
) -> tuple[list[Event], Manifest]:
    path.write_text(example.lines)
    options = Options(log_format=example.log_format, keep_health_checks=keep)
    trace = import_files([path], path.with_suffix(".trace"), format=format, jitter=False, options=options)
    return events(trace), trace.manifest


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=[f"{example.format}-{number}" for number, example in enumerate(EXAMPLES)]
)
def test_an_example_is_told_from_all_others_and_read(tmp_path: Path, example: Example) -> None:
    got, manifest = imported(tmp_path / "a.log", example)
    assert manifest.importer == example.format
    assert got == example.events
    assert (manifest.stamp, manifest.rejected) == (example.stamp, example.rejected)
    assert manifest.rows + sum(manifest.rejected.values()) == manifest.lines


def test_no_format_is_without_an_example() -> None:
    elsewhere = {"csv", "tsv", "jsonl", "parquet", "har", "gor", "vegeta", "pcap", "journal"}
    assert {example.format for example in EXAMPLES} == set(importers()) - elsewhere


def test_health_checks_stay_where_they_are_wanted(tmp_path: Path) -> None:
    for example in EXAMPLES:
        if "health check" in example.rejected:
            log = tmp_path / f"{EXAMPLES.index(example)}.log"
            got, _ = imported(log, example, keep=True)
            assert len(got) == len(example.events) + 1


def test_a_detected_format_needs_no_options(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(EXAMPLES[2].lines)
    assert detect(tmp_path / "a.log").name == "ingress-nginx"


@pytest.mark.parametrize(
    ("layout", "text", "says"),
    [
        (nginx_layout, "$remote_addr $request", "has no time"),
        (nginx_layout, "$msec $remote_addr", "does not contain the request"),
        (nginx_layout, "$msec$request", r"nothing between \$msec and \$request"),
        (apache_layout, "%h %r", "has no time"),
        (apache_layout, "%t %h", "does not contain the request"),
        (apache_layout, "%b%h %t %r", "nothing between"),
    ],
)
def test_a_log_format_that_cannot_be_read_is_refused(layout, text: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=says):
        layout(text)


@pytest.mark.parametrize(
    ("name", "log_format", "says"),
    [
        ("nginx", "", "--format nginx needs --log-format"),
        ("apache", "", "--format apache needs --log-format"),
        ("nginx", "%h %t", "--format nginx cannot read --log-format '%h %t'"),
        ("apache", "$msec $request", "--format apache cannot read --log-format '$msec $request'"),
    ],
)
def test_a_server_s_own_format_is_asked_for(tmp_path: Path, name: str, log_format: str, says: str) -> None:
    log = tmp_path / "access.log"
    log.write_text('10.0.0.1 - - [14/Nov/2023:22:13:22 +0000] "GET / HTTP/1.1" 200 1\n')
    with pytest.raises(UsageError, match=re.escape(says)):
        import_files([log], tmp_path / "a.trace", format=name, options=Options(log_format=log_format))


@pytest.mark.parametrize(
    ("log_format", "line", "at_ns", "took_ns", "stamp"),
    [
        (
            "%{%d/%b/%Y:%T}t.%{msec_frac}t %{%z}t %m %U%q %T", "14/Nov/2023:22:13:20.123 +0000 GET /a?b 2",
            AT * S + 123 * MS, 2 * S, "start",
        ),
        ("%{end:usec}t %{ms}T \"%r\" %%", '1700000002000000 500 "GET /a?b HTTP/1.1" %', AT * S + 1500 * MS, 500 * MS, "end"),
        ("[%{%Y-%m-%dT%H:%M:%S%z}t] %m %U%q %{us}T", "[2023-11-14T23:13:20+0100] GET /a?b 7", AT * S, 7 * US, "start"),
    ],
)  # fmt: skip
def test_apache_says_its_times_in_many_ways(
    tmp_path: Path, log_format: str, line: str, at_ns: int, took_ns: int, stamp: str
) -> None:
    example = Example("apache", line + "\n", [], stamp, {}, log_format)
    got, manifest = imported(tmp_path / "a.log", example)
    assert got == [Event(at_ns, "GET", b"/a?b", "", -1, took_ns)]
    assert manifest.stamp == stamp


@pytest.mark.parametrize(
    "log_format",
    [
        r"$remote_addr\t$request\t$status\t$msec",
        r"log_format tabbed '$remote_addr\t$request\t' '$status\t$msec';",
        r'LogFormat "%{X-Forwarded-For}i\t%r\t%>s\t%{msec}t" tabbed',
        "%{X-Forwarded-For}i\t%r\t%>s\t%{msec}t",
    ],
)
def test_a_format_stands_as_its_configuration_has_it(tmp_path: Path, log_format: str) -> None:
    at = "1700000003500" if "%" in log_format else "1700000003.500"
    (tmp_path / "a.log").write_text("".join(f"10.0.0.{n}\tGET /x y HTTP/1.1\t200\t{at}\n" for n in (1, 2, 1)))
    options = Options(log_format=log_format)
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace", options=options, jitter=False)
    assert events(trace) == [Event(AT * S + 3500 * MS, "GET", b"/x%20y", "", 200)] * 3
    assert trace.manifest.clients == 2
