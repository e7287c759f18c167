"""A trace in a program: its length, its rows as an Arrow table and stream, what is in it, and traces made of it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import replay
from replay.errors import InputError, OutputError, UsageError
from replay.trace import RouteRules, Trace, TraceWriter
from replay.trace.arrow import SCHEMA
from tests.support.trace_data import START_NS, Row, write_trace

ROWS = [
    Row(0, "GET", b"/users/17?q=a", 0, 200, 5_000_000, "shop.example"),
    Row(1_000, "POST", b"/cart", 1, 503, -1),
    Row(2_000, "GET", b"/users/18", 0, -1, 7_000_000, "shop.example"),
]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    return write_trace(tmp_path / "monday.trace", ROWS, time_zone="Europe/Berlin")


def test_a_trace_has_the_length_of_its_rows_and_is_true_without_any(trace, tmp_path):
    assert len(trace) == 3
    empty = write_trace(tmp_path / "empty.trace", [])
    assert len(empty) == 0 and bool(empty)
    assert empty.to_arrow().num_rows == 0 and empty.to_arrow().schema == SCHEMA


def test_its_table_has_names_moments_and_nulls_where_the_recording_does_not_say(trace):
    rows = trace.to_arrow().to_pylist()
    assert [row["route"] for row in rows] == ["GET /users/{id}", "POST /cart", "GET /users/{id}"]
    assert [row["path"] for row in rows] == ["/users/17?q=a", "/cart", "/users/18"]
    assert [row["method"] for row in rows] == ["GET", "POST", "GET"]
    assert [row["host"] for row in rows] == ["shop.example", None, "shop.example"]
    assert [row["action"] for row in rows] == [None] * 3
    assert [row["status"] for row in rows] == [200, 503, None]
    assert [row["took_ns"] for row in rows] == [5_000_000, None, 7_000_000]
    assert [row["bytes"] for row in rows] == [None] * 3
    assert [row["client"] for row in rows] == [0, 1, 0]
    at = trace.to_arrow().column("at")
    assert at.cast(pa.int64()).to_pylist() == [START_NS + row.at_ns for row in ROWS]
    assert str(at.type) == "timestamp[ns, tz=UTC]"


def test_actions_and_targets_that_are_no_text_are_in_the_table(tmp_path):
    rules = RouteRules(actions=(("browsing", ("GET /a/*",)),))
    with TraceWriter(tmp_path / "a.trace", rules=rules) as writer:
        ids = [writer.add_request("GET", target) for target in (b"/a/1", b"/\xff\xfe", "/ü".encode())]
        writer.add_events(*_columns(ids))
    assert writer.trace is not None
    table = writer.trace.to_arrow()
    assert table.column("action").to_pylist() == ["browsing", None, None]
    assert table.column("path").to_pylist()[1] == "/%FF%FE"


def _columns(ids: list[int]) -> Any:
    count = len(ids)
    return (
        np.arange(count, dtype=np.int64) + START_NS,
        np.array(ids, np.uint32),
        np.zeros(count, np.uint32),
        np.full(count, 200, np.int16),
        np.full(count, -1, np.int64),
    )


def test_a_window_of_it_is_its_rows_from_one_moment_to_another(trace):
    assert trace.to_arrow(START_NS + 1, START_NS + 2_000).column("path").to_pylist() == ["/cart"]


def test_pandas_takes_it_as_a_stream(trace):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame.from_arrow(trace)
    assert frame["route"].tolist() == ["GET /users/{id}", "POST /cart", "GET /users/{id}"]
    assert frame.groupby("route", observed=True)["took_ns"].count()["GET /users/{id}"] == 2
    assert frame["at"].iloc[0] == pandas.Timestamp(START_NS, unit="ns", tz="UTC")


def test_polars_takes_it_as_a_stream(trace):
    polars = pytest.importorskip("polars")
    assert polars.DataFrame(trace)["path"].to_list() == ["/users/17?q=a", "/cart", "/users/18"]


def test_duckdb_takes_it_as_a_stream(trace):
    duckdb = pytest.importorskip("duckdb")
    assert duckdb.sql("select count(*) from trace where status = 503").fetchall() == [(1,)]


def test_two_streams_of_one_trace_do_not_disturb_each_other(tmp_path):
    rows = [Row(n, target=b"/%d" % n, took_ns=n) for n in range(70_000)]
    trace = write_trace(tmp_path / "a.trace", rows)
    one, two = trace.arrow_batches(), trace.arrow_batches()
    first = one.read_next_batch()
    kept = first.column("took_ns").to_pylist()
    assert two.read_all().num_rows == 70_000
    assert one.read_all().num_rows == 70_000 - len(first)
    assert first.column("took_ns").to_pylist() == kept == list(range(len(first)))
    assert pa.table(trace).num_rows == 70_000


def test_a_stream_needs_the_memory_of_a_batch_not_that_of_the_trace(tmp_path):
    rows = 500_000
    with TraceWriter(tmp_path / "a.trace") as writer:
        request = writer.add_request("GET", b"/users/17")
        for part in range(6):
            stamps = np.arange(part * rows, (part + 1) * rows) + START_NS
            client, status = np.zeros(rows, np.uint32), np.full(rows, 200, np.int16)
            writer.add_events(stamps, np.full(rows, request, np.uint32), client, status, stamps)
    trace = replay.open(tmp_path / "a.trace")
    assert len(trace.manifest.segments) > 2

    def peak(read: Any) -> int:
        gc.collect()
        before = pa.total_allocated_bytes()
        most = 0
        tracemalloc.start()
        for _ in read():
            most = max(most, pa.total_allocated_bytes() - before)
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most + python

    streamed = peak(trace.arrow_batches)
    whole = peak(lambda: [trace.to_arrow()])
    assert streamed < whole / 2


def test_damage_ends_a_stream_with_the_file_s_name(trace):
    events = next(trace.path.glob("*events-*.arrow"))
    data = bytearray(events.read_bytes())
    data[len(data) // 2] ^= 0xFF
    events.write_bytes(data)
    with pytest.raises(InputError, match=r"events-0"):
        trace.to_arrow()


def test_it_shows_itself_in_a_line_and_in_a_notebook_as_text(tmp_path):
    trace = write_trace(tmp_path / "<b>.trace", [Row(0, target=b"/<script>alert(1)</script>")])
    page = trace._repr_html_()
    assert "1 request" in repr(trace) and "\n" not in repr(trace)
    assert "<script" not in page and "&lt;b&gt;" in page and "http" not in page


def test_inspect_has_the_figures_of_the_command(trace):
    found = replay.inspect(trace)
    command = [sys.executable, "-m", "replay.cli", "inspect", str(trace.path), "--json"]
    printed = subprocess.run(command, capture_output=True, check=True, timeout=120).stdout
    assert json.loads(json.dumps(found.document)) == json.loads(printed)
    assert found.summary.rows == 3
    assert "3" in repr(found) and "GET /users/{id}" in found._repr_html_()
    assert replay.inspect(str(trace.path)).document == found.document


def test_transform_makes_what_the_command_makes(trace, tmp_path):
    made = replay.transform(trace, out=tmp_path / "faster.trace", speed=2, only=["GET *"])
    assert len(made) == 2 and made.end_ns - made.start_ns == 1_000
    command = [
        "transform",
        str(trace.path),
        "-o",
        str(tmp_path / "b.trace"),
        "--speed",
        "2",
        "--only",
        "GET *",
    ]
    subprocess.run(
        [sys.executable, "-m", "replay.cli", *command], check=True, capture_output=True, timeout=120
    )
    assert replay.open(tmp_path / "b.trace").digest == made.digest
    with pytest.raises(OutputError):
        replay.transform(trace, out=tmp_path / "faster.trace", speed=2)
    again = replay.transform(trace, out=tmp_path / "faster.trace", scale=3, overwrite=True)
    assert len(again) == 9


def test_a_setting_that_changes_no_trace_is_refused_by_name(trace, tmp_path):
    with pytest.raises(UsageError, match=r"takes no setting 'spead' \(did you mean 'speed'\?\)"):
        replay.transform(trace, out=tmp_path / "b.trace", spead=2)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="takes no setting 'connections'"):
        replay.transform(trace, out=tmp_path / "b.trace", connections=2)  # type: ignore[call-arg]
    assert not (tmp_path / "b.trace").exists()


def test_a_window_is_one_of_the_recording_s_own_clock(trace, tmp_path):
    made = replay.transform(trace, out=tmp_path / "b.trace", window={"from": "+2us"})
    assert len(made) == 1
