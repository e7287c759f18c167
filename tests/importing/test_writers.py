"""What other writers make of a log: wrappers, clients, stamps, versions and columns that the recordings do not have.

Each input is imported by the command that a user would type, and every request is compared.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from replay.cli import import_
from replay.trace import Trace

from .test_recordings import recorded

AT_NS = 1_772_701_200_000_000_000
"""2026-03-05T09:00:00Z, when request 0 came; request i came i seconds later."""

COUNT = 4


def line(number: int, client: str = "203.0.113.{}", zone: str = " +0100") -> str:
    """A combined line of request `number`."""
    shown = client.format(number)
    return (
        f'{shown} - - [05/Mar/2026:10:00:0{number}{zone}] "GET /p{number}?a=1 HTTP/1.1" 200 512 "-" "curl/8"'
    )


def ran(folder: Path, text: str, options: str = "") -> Result:
    """The import of a text."""
    (folder / "a.log").write_bytes(text.encode())
    command = [
        str(folder / "a.log"),
        "-o",
        str(folder / "a.trace"),
        "--no-jitter",
        "--force",
        *shlex.split(options),
    ]
    return CliRunner(env={"COLUMNS": "300"}).invoke(import_.command, command)


def read(folder: Path, text: str, options: str = "") -> list[dict[str, Any]]:
    """The requests that come of a text."""
    result = ran(folder, text, options)
    assert result.exit_code == 0, (result.output, result.exception)
    return recorded(Trace.open(folder / "a.trace"))


def assert_read(folder: Path, text: str, options: str = "", **more: Any) -> None:
    """Every request of a text has the time, target, status and client that were written."""
    wanted = {"method": "GET", "status": 200, **more}
    requests = read(folder, text, options)
    assert len(requests) == COUNT
    for number, request in enumerate(requests):
        assert request["at_ns"] == AT_NS + number * 1_000_000_000
        assert request["target"] == f"/p{number}?a=1"
        assert request["client"] == number
        assert {key: request[key] for key in wanted} == wanted


WRAPPED: dict[str, Callable[[int], str]] = {
    "journalctl -o short-full": lambda i: f"Thu 2026-03-05 10:00:0{i} CET web1 nginx[812]: ",
    "journalctl -o short-unix": lambda i: f"177270120{i}.123456 web1 nginx[812]: ",
    "journalctl -o short-precise": lambda i: f"Mar 05 10:00:0{i}.123456 web1 nginx[812]: ",
    "kail": lambda i: "default/shop-6d4cf56db6-abcde[nginx]: ",
    "busybox syslogd": lambda i: f"Mar  5 10:00:0{i} web1 user.notice nginx[12]: ",
    "syslog with its facility": lambda i: f"Mar  5 10:00:0{i} web1 local7.info nginx: ",
    "grep in rotated files": lambda i: f"/var/log/nginx/access.log.{i}:",
    "grep -n": lambda i: f"{100 + i}:",
    "grep -Hn": lambda i: f"access.log:{100 + i}:",
    "compose and a stamp": lambda i: f"web-1  | 2026-03-05T09:00:0{i}.123456789Z ",
    "kubectl --prefix --timestamps": lambda i: f"[pod/shop-{i}/nginx] 2026-03-05T09:00:0{i}.123456789Z ",
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_a_wrapper_is_no_part_of_the_client(wrapper: str, tmp_path: Path) -> None:
    text = "".join(f"{WRAPPED[wrapper](i)}{line(i)}\n" for i in range(COUNT))
    assert_read(tmp_path, text, bytes=512)


@pytest.mark.parametrize(
    ("client", "behind"),
    [
        ("10.0.0.1", ' "unknown, 203.0.113.{}"'),
        ("10.0.0.1", ' "203.0.113.{}:5123, 10.0.0.9"'),
        ("10.0.0.1", ' "2001:db8::{}"'),
        ("203.0.113.{0}:510{0}", ""),
        ("fe80::{}%eth0", ""),
        ("::ffff:203.0.113.{}", ""),
    ],
)
def test_the_client_is_the_address_of_each_line(client: str, behind: str, tmp_path: Path) -> None:
    assert_read(tmp_path, "".join(f"{line(i, client)}{behind.format(i)}\n" for i in range(COUNT)))


def test_the_port_of_a_client_is_not_another_client(tmp_path: Path) -> None:
    requests = read(
        tmp_path, "".join(line(i).replace(f".{i} ", f".7:510{i} ", 1) + "\n" for i in range(COUNT))
    )
    assert {request["client"] for request in requests} == {0}


def test_nul_bytes_of_a_truncated_log_are_no_part_of_a_client(tmp_path: Path) -> None:
    text = "\0" * 64 + "".join(line(i, "203.0.113.7") + "\n" for i in range(COUNT))
    for variant in (text, text.replace(" +0100", "Z")):
        assert {request["client"] for request in read(tmp_path, variant)} == {0}


@pytest.mark.parametrize("zone", [" +01:00", ".000 +0100"])
def test_zones_of_common_logs(zone: str, tmp_path: Path) -> None:
    assert_read(tmp_path, "".join(line(i, zone=zone) + "\n" for i in range(COUNT)))


@pytest.mark.parametrize("zone", [" UTC", " GMT", "Z", " +0000"])
def test_names_of_utc_in_common_logs(zone: str, tmp_path: Path) -> None:
    lines = [line(i, zone=zone).replace(":10:00", ":09:00") for i in range(COUNT)]
    assert_read(tmp_path, "\n".join(lines) + "\n")


def test_iso_stamps_in_the_brackets_of_a_common_log(tmp_path: Path) -> None:
    lines = [
        line(i, zone="+01:00").replace("05/Mar/2026:10:00", "2026-03-05T10:00") + "\n" for i in range(COUNT)
    ]
    assert_read(tmp_path, "".join(lines))


def test_a_version_without_http_is_no_part_of_the_target(tmp_path: Path) -> None:
    for version in ("1.0", "1.1", "2", "3"):
        assert_read(tmp_path, "".join(line(i).replace("HTTP/1.1", version) + "\n" for i in range(COUNT)))
    kept = read(tmp_path, line(0).replace("/p0?a=1 HTTP/1.1", "/a 4") + "\n" + line(1) + "\n")
    assert kept[0]["target"] == "/a%204"
    table = "time,method,path,status\n" + "2026-03-05T09:00:00Z,GET,/chapter 2,200\n" * 2
    assert read(tmp_path, table)[0]["target"] == "/chapter%202"


def test_lines_that_end_in_a_carriage_return_alone_are_refused(tmp_path: Path) -> None:
    result = ran(tmp_path, "".join(line(i) + "\r" for i in range(COUNT)))
    assert result.exit_code != 0
    assert "carriage return alone" in str(result.exception)


def json_lines(*objects: dict[str, Any]) -> str:
    """One object per line."""
    return "".join(json.dumps(each) + "\n" for each in objects)


def test_methods_in_small_letters_are_sent_in_capitals_and_reported(tmp_path: Path) -> None:
    text = json_lines(
        *(
            {"time": f"2026-03-05T09:00:0{i}Z", "method": "get", "path": f"/p{i}?a=1", "ip": f"203.0.113.{i}",
             "status": 200}
            for i in range(COUNT)
        )
    )  # fmt: skip
    assert_read(tmp_path, text)
    assert "get is taken for GET" in ran(tmp_path, text).output
    request_line = read(tmp_path, "".join(line(i).replace("GET", "get") + "\n" for i in range(COUNT)))
    assert request_line[0]["method"] == "get"


@pytest.mark.parametrize("list_of_one", [False, True])
@pytest.mark.parametrize("maker", ["kong", "pino", "caddy"])
def test_json_of_a_maker_has_the_client_that_its_proxy_passed_on(
    maker: str, list_of_one: bool, tmp_path: Path
) -> None:
    def header(number: int) -> str | list[str]:
        text = f"203.0.113.{number}, 10.0.0.9"
        return [text] if list_of_one else text

    def one(i: int) -> dict[str, Any]:
        at, target = AT_NS // 1_000_000 + 1000 * i, f"/p{i}?a=1"
        if maker == "kong":
            asked = {"method": "GET", "uri": target, "headers": {"x-forwarded-for": header(i)}}
            answer = {"latencies": {"request": 12}, "response": {"status": 200}}
            return {"request": asked, **answer, "client_ip": "10.0.0.1", "started_at": at}
        if maker == "pino":
            asked = {"method": "GET", "url": target, "headers": {"x-forwarded-for": header(i)}}
            asked["remoteAddress"] = "10.0.0.1"
            return {"time": at + 12, "req": asked, "res": {"statusCode": 200}, "responseTime": 12}
        asked = {"remote_ip": "10.0.0.1", "method": "GET", "uri": target, "host": "h"}
        asked["headers"] = {"X-Forwarded-For": header(i)}
        return {"ts": at / 1000 + 0.5, "request": asked, "duration": 0.5, "size": 1, "status": 200}

    took_ns = 500_000_000 if maker == "caddy" else 12_000_000
    assert_read(tmp_path, json_lines(*map(one, range(COUNT))), took_ns=took_ns)


def test_durations_whose_unit_json_escapes(tmp_path: Path) -> None:
    text = json_lines(
        *(
            {"time": "2026-03-05T09:00:00Z", "method": "GET", "path": "/", "latency": f"900{micro}s"}
            for micro in ("\u00b5", "\u03bc", "u")
        )
    )
    assert r"\u00b5" in text
    assert [request["took_ns"] for request in read(tmp_path, text)] == [900_000] * 3
    assert [
        request["took_ns"] for request in read(tmp_path, text.replace("u00b5", "u00B5").replace("bc", "BC"))
    ] == [900_000] * 3


def test_json_of_lograge_has_milliseconds(tmp_path: Path) -> None:
    text = json_lines(
        *(
            {"method": "GET", "path": f"/p{i}", "format": "html", "controller": "X", "action": "y", "status": 200,
             "duration": 500, "@timestamp": f"2026-03-05T09:00:0{i}.500Z"}
            for i in range(COUNT)
        )
    )  # fmt: skip
    found = [(request["at_ns"], request["took_ns"]) for request in read(tmp_path, text)]
    assert found == [(AT_NS + i * 1_000_000_000, 500_000_000) for i in range(COUNT)]


def test_w3c_logs_with_tabs_have_quoted_strings(tmp_path: Path) -> None:
    text = "#Fields: date\ttime\tcs-method\tcs-uri-stem\tcs-uri-query\tcs(User-Agent)\tsc-status\tc-ip\n"
    for i in range(COUNT):
        text += f'2026-03-05\t09:00:0{i}\tGET\t/p{i}\ta=1\t"Mozilla (X; ""q"")"\t200\t203.0.113.{i}\n'
    assert_read(tmp_path, text)


def test_haproxy_marks_what_it_logs_as_soon_as_possible(tmp_path: Path) -> None:
    text = "".join(
        f"203.0.113.{i}:3300{i} [05/Mar/2026:10:00:0{i}.000] fe~ be/s1 0/0/1/20/+31 200 +512 - - ---- 1/1/0/0/0 0/0"
        f' "GET https://shop.example/p{i}?a=1 HTTP/2.0"\n'
        for i in range(COUNT)
    )
    assert_read(tmp_path, text, "--tz Europe/Berlin", host="shop.example", bytes=512, took_ns=31_000_000)
