"""A log without methods: its requests are taken as GETs, and the import says so, whatever the format."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from .test_writers import ran

NGINX = "1700000000.123 /a 200\n1700000001.123 /b 200\n"
W3C = "#Fields: date time cs-uri-stem sc-status\n2023-11-14 22:13:20 /a 200\n2023-11-14 22:13:21 /b 200\n"
LTSV = "time:14/Nov/2023:22:13:20 +0000\turi:/a\tstatus:200\n"
LTSV_METHOD = "time:14/Nov/2023:22:13:20 +0000\turi:/a\tmethod:PUT\tstatus:200\n"
APACHE = '[14/Nov/2023:22:13:20 +0000] "/a" 200\n'
JTL = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<testResults version="1.2">\n'
    '<httpSample t="1" ts="1700000000100" rc="200" tn="a"><java.net.URL>http://h/a</java.net.URL>{}</httpSample>\n'
    "</testResults>\n"
)


def printed(tmp_path: Path, text: str, log_format: str) -> str:
    result = ran(tmp_path, text, f"--log-format {shlex.quote(log_format)}" if log_format else "")
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("text", "log_format"),
    [
        (NGINX, "$msec $request_uri $status"),
        (APACHE, '%t "%U%q" %>s'),
        (W3C, ""),
        (LTSV, ""),
        (JTL.format(""), ""),
    ],
)
def test_a_recording_without_methods_says_that_get_is_assumed(tmp_path, text, log_format):
    assert "no method: GET" in printed(tmp_path, text, log_format)


def test_a_table_without_paths_says_that_the_root_is_assumed(tmp_path):
    text = "at,method\n2026-11-29T18:00:00Z,GET\n"
    for columns, says in (("at=at,method=method", True), ("at=at,method=method,path=/x", False)):
        result = ran(tmp_path, text, f"--columns {columns}")
        printed = " ".join(result.output.split())
        assert (
            result.exit_code == 0
            and ("names no path: / is taken (--columns path=PATH sets another)" in printed) == says
        )


@pytest.mark.parametrize(
    ("text", "log_format"),
    [
        (NGINX.replace(" /", " PUT /"), "$msec $request_method $request_uri $status"),
        (W3C.replace("time cs", "time cs-method cs").replace(" /", " PUT /"), ""),
        (LTSV_METHOD, ""),
        (JTL.format("<method>PUT</method>"), ""),
    ],
)
def test_a_recording_with_methods_assumes_none(tmp_path, text, log_format):
    assert "no method" not in printed(tmp_path, text, log_format)
