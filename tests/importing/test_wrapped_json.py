"""Access lines inside the JSON of collectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from replay.trace.importing import import_files
from tests.support.events import events

LINE = '10.0.0.1 - - [14/Nov/2023:22:13:{:02d} +0000] "GET /{}?a=\\x22b\u00e9 HTTP/1.1" 200 10 "-" "M\\"x"'
LINES = [LINE.format(number, number) for number in range(20)]
TARGETS = [b'/%d?a="b%%C3%%A9' % number for number in range(20)]

COLLECTORS = {
    "filebeat": lambda line: {"@timestamp": "x", "log": {"offset": 0}, "message": line, "host": {"name": "w"}},
    "vector": lambda line: {"file": "/a", "message": line, "source_type": "file", "timestamp": "x"},
    "logstash": lambda line: {"event": {"original": line}, "message": line, "@version": "1"},
    "fluent-bit": lambda line: {"date": 1.1, "stream": "stdout", "log": line + "\n", "kubernetes": {"pod_name": "x"}},
    "fluent-bit of CRI": lambda line: {"log": line, "stream": "stdout", "logtag": "F"},
    "docker": lambda line: {"stream": "stdout", "time": "x", "log": line + "\n"},
    "journald": lambda line: {"PRIORITY": "6", "MESSAGE": line},
    "google cloud": lambda line: {"textPayload": line, "resource": {"type": "k8s_container"}},
}  # fmt: skip


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("collector", COLLECTORS)
def test_the_line_inside_is_read(tmp_path: Path, collector: str, separators: tuple[str, str]) -> None:
    lines = [json.dumps(COLLECTORS[collector](line), separators=separators) for line in LINES]
    (tmp_path / "a.log").write_text("\n".join(lines) + "\n")
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace")
    assert [event.target for event in events(trace)] == TARGETS
    assert (trace.manifest.importer, trace.manifest.sources[0].wrapper) == ("common", "json")
    assert (trace.manifest.lines, trace.manifest.rejected) == (20, {})


def test_logs_in_json_inside_json_are_read(tmp_path: Path) -> None:
    inner = json.dumps({"msec": "1700000001.5", "remote_addr": "10.0.0.1", "request_method": "GET",
                        "request_uri": "/a", "status": "200", "body_bytes_sent": "5", "request_time": "1.000"})  # fmt: skip
    (tmp_path / "a.log").write_text(json.dumps({"date": 1.1, "log": inner + "\n"}) + "\n")
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace")
    assert (trace.manifest.importer, [event.target for event in events(trace)]) == ("nginx-json", [b"/a"])


def test_lines_without_a_request_are_rejected_one_by_one(tmp_path: Path) -> None:
    error = json.dumps({"message": "2023/11/14 22:13:20 [error] 7#7: *1 open() failed"})
    lines = [json.dumps({"message": line}) for line in LINES]
    (tmp_path / "a.log").write_text("\n".join([*lines[:10], error, *lines[10:], "{broken"]) + "\n")
    manifest = import_files([tmp_path / "a.log"], tmp_path / "a.trace").manifest
    assert (manifest.rows, manifest.lines, manifest.rejected) == (
        20,
        22,
        {"bad time": 1, "not this format": 1},
    )
    assert sorted(example.line for example in manifest.rejected_examples) == [11, 22]


def test_an_object_that_names_its_request_itself_is_not_unwrapped(tmp_path: Path) -> None:
    value = {
        "@timestamp": "2023-11-14T22:13:20.123Z", "message": LINES[0], "http": {"request": {"method": "GET"}},
        "url": {"original": "/other"},
    }  # fmt: skip
    (tmp_path / "a.log").write_text(json.dumps(value) + "\n")
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace")
    assert (trace.manifest.importer, events(trace)[0].target) == ("ecs", b"/other")
