"""Every export, imported again, is the same trace, as far as its format says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from replay.cli import export as verb
from replay.errors import OutputError, UsageError
from replay.trace import Trace, TraceWriter
from replay.trace.exporting.export import ENDINGS, export
from replay.trace.importing import import_files
from tests.support.events import Event, events

START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Requests with everything that a trace may hold."""
    headers = ((b"Content-Type", b"a/b"), (b"X-Tag", b'\xe4,"x"'))
    with TraceWriter(tmp_path / "a.trace") as writer:
        ids = [
            writer.add_request("GET", b'/a?b="c"&d=%20,e'),
            writer.add_request("POST", b"/b\\c", "Shop.example:8080".lower(), headers, b"\0body\n\xff"),
            writer.add_request("PUT", b"/c", "h.example"),
        ]
        rows = 300
        writer.add_events(
            START_NS + np.arange(rows, dtype=np.int64) * 1_234_567_891,
            np.array(ids, np.uint32)[np.arange(rows) % 3],
            (np.arange(rows) % 7).astype(np.uint32),
            np.where(np.arange(rows) % 5 == 0, -1, 200 + np.arange(rows) % 300),
            np.where(np.arange(rows) % 4 == 0, -1, np.arange(rows) * 1000),
            np.where(np.arange(rows) % 6 == 0, -1, np.arange(rows)),
        )
    assert writer.trace is not None
    return writer.trace


def again(trace: Trace, path: Path) -> Trace:
    export(trace, path)
    return import_files([path], path.with_name(f"{path.name}.trace"), jitter=False)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".tsv", ".gor"])
def test_tables_and_gor_keep_everything_to_the_nanosecond(tmp_path: Path, trace: Trace, ending: str) -> None:
    back = again(trace, tmp_path / f"out{ending}")
    assert events(back) == events(trace)
    routes = [{route.route: route.rows for route in each.manifest.routes} for each in (back, trace)]
    assert routes[0] == routes[1]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".log"])
def test_clients_stay_apart(tmp_path: Path, trace: Trace, ending: str) -> None:
    back = again(trace, tmp_path / f"out{ending}")
    clients = [[batch.client.tolist() for batch in each.batches()] for each in (back, trace)]
    assert clients[0] == clients[1]


@pytest.mark.parametrize("ending", [".gor", ".json"])
def test_headers_and_bodies_stay(tmp_path: Path, trace: Trace, ending: str) -> None:
    back = again(trace, tmp_path / f"out{ending}")
    posts = [r for r in map(back.requests.get, range(back.requests.rows)) if r.body >= 0]
    assert back.requests.body(posts[0].body) == b"\0body\n\xff"
    assert back.requests.headers(posts[0].headers)[0] == (b"Content-Type", b"a/b")


def test_log_lines_keep_the_second(tmp_path: Path, trace: Trace) -> None:
    back = again(trace, tmp_path / "out.log")
    assert events(back) == [
        event._replace(at_ns=event.at_ns // 10**9 * 10**9, took_ns=-1) for event in events(trace)
    ]


def test_vegeta_targets_keep_what_is_asked_in_its_order(tmp_path: Path, trace: Trace) -> None:
    back = again(trace, tmp_path / "out.json")
    assert [(event.method, event.target) for event in events(back)] == [
        (event.method, event.target) for event in events(trace)
    ]
    first = json.loads((tmp_path / "out.json").read_bytes().splitlines()[0])
    assert first == {"method": "GET", "url": 'http://localhost/a?b="c"&d=%20,e'}


def test_parquet_says_its_columns(tmp_path: Path, trace: Trace) -> None:
    table = pq.read_table(export(trace, tmp_path / "out.parquet"))
    assert table["at_ns"][0].as_py() == START_NS
    assert table.column_names == [
        "at_ns", "method", "path", "host", "route", "client", "status", "took_ns", "bytes",
    ]  # fmt: skip


def test_what_cannot_be_written_is_said(tmp_path: Path, trace: Trace) -> None:
    with pytest.raises(UsageError, match="does not end in the name of a format"):
        export(trace, tmp_path / "out.xlsx")
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        export(trace, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "mine"
    with pytest.raises(OutputError, match="cannot write"):
        export(trace, tmp_path / "missing" / "out.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.trace", "out.csv"]


def test_the_command_says_what_it_wrote(tmp_path: Path, trace: Trace) -> None:
    result = CliRunner().invoke(verb.command, [str(trace.path), "-o", str(tmp_path / "x.gor")])
    assert result.exit_code == 0 and "300 requests" in " ".join(result.output.split())
    assert set(ENDINGS) == {".parquet", ".csv", ".tsv", ".gor", ".har", ".json", ".jsonl", ".log"}


def test_an_event_is_what_it_was(trace: Trace) -> None:
    assert events(trace)[1] == Event(
        START_NS + 1_234_567_891, "POST", b"/b\\c", "shop.example:8080", 201, 1000, 1
    )
