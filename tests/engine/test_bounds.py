"""Bounds on what others give us: what is read, inflated or matched ends, and takes no gigabytes."""

from __future__ import annotations

import base64
import json
import os
import shutil
import struct
import time
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
import trio

from replay.cli import invoke
from replay.errors import InputError, UsageError
from replay.names import read_settings
from replay.plan.schedule import make_schedule
from replay.protocols.names import find_name, follow_name
from replay.protocols.registry import parse_target
from replay.report.plan import _places
from replay.results import hlog
from replay.settings.file import load
from replay.settings.patterns import compile_pattern
from replay.staging.sink import Sink
from replay.trace import Trace
from replay.workload.rewrite import read_rewrite
from replay_native.feed.addresses import ADDRESSES_MAX
from tests.oracles.damage_oracle import GOR, one_case
from tests.support.metrics_data import at_s, trial
from tests.support.there import there

LINE = '1.2.3.4 - - [10/Oct/2023:00:00:00 +0000] "GET /a/{} HTTP/1.1" 200 5\n'


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "a.gor").write_text(GOR)
    assert invoke(["import", str(tmp_path / "a.gor"), "-o", str(tmp_path / "a.trace")]) == 0
    return tmp_path / "a.trace"


def text(payload: bytes, highest: int, length: int | None = None) -> str:
    """An HDR histogram of five digits in V2 encoding."""
    length = len(payload) if length is None else length
    inner = struct.pack(">iiiiqqd", 0x1C849313, length, 0, 5, 1, highest, 1.0) + payload
    packed = zlib.compress(inner, 9)
    return base64.b64encode(struct.pack(">ii", 0x1C849314, len(packed)) + packed).decode()


def test_a_histogram_is_inflated_no_further_than_its_range(tmp_path, capsys):
    (tmp_path / "a.hlog").write_text("0.0,1.0,1.0," + text(bytes(1 << 28), 10_000, 100) + "\n")
    shutil.copy(tmp_path / "a.hlog", tmp_path / "b.hlog")
    assert invoke(["compare", str(tmp_path / "a.hlog"), str(tmp_path / "b.hlog"), "--unit", "ns"]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize("tags", [True, False])
def test_many_wide_histograms_in_a_small_log_are_refused(tmp_path, monkeypatch, tags):
    one = text(b"\x02" * 9, 1 << 40)
    rows = [f"Tag=t{n if tags else 0},{n}.0,1.0,1.0,{one}\n" for n in range(50)]
    (tmp_path / "a.hlog").write_text("".join(rows))
    monkeypatch.setattr(hlog, "COUNTERS_READ_MAX", 1 << 27 if not tags else 1 << 33)
    with pytest.raises(InputError, match="need more than 1 GiB" if tags else "unpack to more than"):
        hlog.read_hlog(tmp_path / "a.hlog").by_tag()


def test_a_line_without_an_end_is_refused(tmp_path, capsys):
    with (tmp_path / "a.hlog").open("wb") as file:
        file.truncate(1 << 32)
    assert invoke(["compare", str(tmp_path / "a.hlog"), str(tmp_path / "a.hlog"), "--unit", "ns"]) == 2
    assert "a line longer than 64 MiB" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["/dev/zero", "pipe", "large"])
@pytest.mark.parametrize("what", ["body", "variable", "routes", "curve"])
def test_a_file_that_somebody_names_is_a_regular_one_of_a_size(tmp_path, capsys, trace, what, place):
    file = place if place.startswith("/") else str(tmp_path / place)
    if place == "pipe":
        os.mkfifo(file)
    elif place == "large":
        with Path(file).open("wb") as out:
            out.truncate(1 << 33)
    scenario = tmp_path / "s.toml"
    named = {
        "body": f'[[body]]\nroute = "*"\nfile = "{file}"\n',
        "variable": f'[[variable]]\nname = "v"\nfile = "{file}"\n[[body]]\nroute = "GET *"\ntemplate = "{{v}}"\n',
    }
    scenario.write_text('target = "http://127.0.0.1:9"\n' + named.get(what, ""))
    command = {
        "routes": ["inspect", "--routes", file, str(tmp_path / "a.gor")],
        "curve": ["generate", "--curve", file, "-o", str(tmp_path / "c.trace")],
    }.get(what, ["run", str(trace), str(scenario), "--dry-run"])
    assert invoke(command) == 2
    said = capsys.readouterr().err
    assert ("larger than" if place == "large" else "not a file") in said, said


@pytest.mark.parametrize("rule", ["^/(a|a)*b -> /x", "^/(a+)+$ -> /y", "(.*)*,(.*)*;(.*)*! -> /z"])
def test_a_rewrite_takes_time_linear_in_a_target_that_somebody_chose(rule):
    rewrite = read_rewrite([rule])
    begin = time.process_time()
    assert rewrite(b"/" + b"a" * 5_000 + b"!") == b"/" + b"a" * 5_000 + b"!"
    assert time.process_time() - begin < 20


@pytest.mark.parametrize("pattern", ["(?:a|a)*b", "(?:a+)+b", "(?:x|a|aa)*(b)"])
def test_a_capture_takes_time_linear_in_a_response(pattern):
    begin = time.process_time()
    found = compile_pattern(pattern if "(b)" in pattern else f"(?:{pattern})(c)")
    assert found.group(b"a" * 5_000) is None
    assert time.process_time() - begin < 20


def test_rewriting_is_as_it_was():
    for rule, target, made in [
        (r"^/users/(\d+) -> /people/\1", b"/users/55?a", b"/people/55?a"),
        (r"^/(?P<one>\w+)/(\w+) -> /\2/\g<one>", b"/a/b/c", b"/b/a/c"),
        (r"(a)|b -> [\1]", b"/ab", b"/[a][]"),
        (r"\s|x* -> -", b"/y", b"-/-y-"),
        (r"/$ -> /end", b"/a/", b"/a/end"),
        (r"[^/]+$ -> \\", b"/a/b", b"/a/\\"),
    ]:
        if made.startswith(b"/"):
            assert read_rewrite([rule])(target) == made, rule
    for rule, said in [
        (r"(?=a) -> /", "look-around"),
        (r"(a)\1 -> /", "references back"),
        (r"(a) -> /\2", "invalid group reference"),
        (r"a -> /\q", "bad escape"),
    ]:
        with pytest.raises(UsageError, match=said):
            read_rewrite([rule])


@pytest.mark.parametrize("what", ["routes", "hosts", "methods"])
def test_a_manifest_with_more_names_than_a_trace_has_is_refused(trace, capsys, what):
    manifest = json.loads((trace / "manifest.json").read_text())
    names = [f"N{n}" for n in range(300_000)]
    manifest[what] += [{"route": name, "rows": 0} for name in names] if what == "routes" else names
    (trace / "manifest.json").write_text(json.dumps(manifest))
    assert invoke(["run", str(trace), "--target", "http://127.0.0.1:9", "--dry-run"]) == 2
    assert "its manifest lists" in capsys.readouterr().err


def test_addresses_beyond_those_that_lanes_keep_are_counted(trace, tmp_path, monkeypatch):
    hosts = tmp_path / "hosts"
    hosts.write_text("".join(f"127.0.{n // 250}.{n % 250 + 1} many.test\n" for n in range(1_500)))
    monkeypatch.setattr("replay.lane.resolve.read_settings", lambda to: read_settings(to, hosts=hosts))
    with Sink() as sink:
        scenario = load(None, {"target": f"http://many.test:{sink.port}", "allow": ["many.test"]}, {})
        found = trio.run(find_name, parse_target(scenario.target), scenario)
        followed = trio.run(follow_name, make_schedule(Trace.open(trace), scenario), found)
    assert (len(followed.addresses), followed.no_room) == (ADDRESSES_MAX, 1_500 - ADDRESSES_MAX)
    assert there(followed.figures()).no_room == 476
    shown = _places([address.host for address in followed.addresses] + ["::1"] * 476)
    assert "only the first 1,024 of 1,500 are used" in shown and len(shown) < 250


KNOWN = {"run": (2_555,), "killed": (129, 143, 1_238)}
"""Seeds that once led to a traceback."""


@pytest.mark.parametrize("kind", ["trace", "run", "killed"])
def test_damage_ends_every_verb_with_a_sentence(kind):
    for seed in (*range(20), *KNOWN.get(kind, ())):
        assert one_case(seed, kind) == ""


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("file", ["events-000000.arrow", "requests.arrow", "headers.arrow", "bodies.arrow"])
def test_columns_that_another_writer_compressed_are_refused(trace, capsys, file, codec):
    path = trace / file
    manifest = json.loads((trace / "manifest.json").read_text())
    del manifest["files"]  # Older traces have no checksums, which would detect the damage first.
    (trace / "manifest.json").write_text(json.dumps(manifest | {"format_version": 1}))
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    with pa.OSFile(str(path), "wb") as sink:
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.ipc.new_file(sink, table.schema, options=options) as out:
            out.write_table(table)
    command = ["run", str(trace), "--target", "http://127.0.0.1:9", "--dry-run", "--send-headers", "all"]
    assert invoke(command) == 2
    assert "compressed" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["manifest.json", "run.json", "started.json", "timeline.jsonl"])
@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 100_000, b'{"format_version": \xff}', b"\xff\xfe{"]
)
def test_deep_or_foreign_json_is_a_sentence(trace, tmp_path, capsys, file, data):
    (tmp_path / "run").mkdir()
    if file == "manifest.json":
        (trace / file).write_bytes(data)
        commands = [["inspect", str(trace)], ["export", str(trace), "-o", str(tmp_path / "x.csv")]]
    else:
        (tmp_path / "run" / file).write_bytes(data + b"\n")
        if file == "timeline.jsonl":
            (tmp_path / "run" / "run.json").write_bytes(b"{}")
        commands = [["report", str(tmp_path / "run")]]
    for command in commands:
        assert invoke(command) == 2
        assert capsys.readouterr().err.startswith("replay: ")


def test_a_log_of_totals_that_is_cut_in_a_tag_is_named(tmp_path, capsys):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    made.recorder.finish(at_s(1))
    path = tmp_path / "run" / "totals.hlog"
    data = path.read_bytes()
    place = data.index(b"Tag=response.2xx") + 6
    for cut in range(place, place + 30):
        path.write_bytes(data[:cut])
        for more in ([], [f"--html={tmp_path / 'a.html'}"], ["--hgrm", str(tmp_path / "hgrm")]):
            assert invoke(["report", str(tmp_path / "run"), *more]) in (0, 2)
        assert "crashed" not in capsys.readouterr().err
