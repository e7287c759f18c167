"""The trace on disk: what is written is read back, in time order; what is not whole is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import InputError, OutputError
from replay.trace import (
    RejectedExample,
    Trace,
    TraceWriter,
    sorting,
)
from replay.trace import request_writer as request_writing
from replay.trace.columns import COMPARED_ROWS, empty_events, in_time_order
from replay.trace.dictionary import flatten
from replay_native.ground.jit import warm
from replay_native.trace.dictionary import hash_all
from tests.support.trace_data import without_checksums


def write(path: Path, stamps: list[int], *, overwrite: bool = False) -> Trace:
    """A trace of one GET per stamp; request i is `/i`."""
    with TraceWriter(path, overwrite=overwrite) as writer:
        ids = [writer.add_request("GET", f"/{index}".encode()) for index in range(len(stamps))]
        clients = np.arange(len(stamps), dtype=np.uint32)
        writer.add_events(np.array(stamps, dtype=np.int64), np.array(ids, dtype=np.uint32), clients)
    assert writer.trace is not None
    return writer.trace


def stamps_of(trace: Trace) -> list[int]:
    return [int(stamp) for batch in trace.batches() for stamp in batch.at_ns]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "a.trace") as writer:
        plain = writer.add_request("GET", b"/a?b=1", host="www.example")
        headers = ((b"Accept", b"*/*"), (b"X-A", b"\xff"))
        posted = writer.add_request("POST", b"/users/17", headers=headers, body=b"\x00body")
        assert writer.add_request("GET", b"/a?b=1", host="www.example") == plain
        assert writer.add_request("GET", b"/a?b=1") not in (plain, posted)
        writer.add_events(
            np.array([5, 7], dtype=np.int64),
            np.array([plain, posted], dtype=np.uint32),
            np.array([0, 1], dtype=np.uint32),
            status=np.array([200, -1]),
            took_ns=np.array([1_000, -1]),
            bytes=np.array([2**40, 0]),
        )
        writer.manifest.rejected = {"blank": 2}
        writer.manifest.rejected_examples = [RejectedExample(reason="blank", file="a.log", line=1, text="")]
    trace = Trace.open(tmp_path / "a.trace")
    assert (trace.rows, trace.start_ns, trace.end_ns, trace.manifest.lines) == (2, 5, 7, 4)
    (batch,) = trace.batches()
    assert batch.status.tolist() == [200, -1]
    assert batch.took_ns.tolist() == [1_000, -1]
    assert batch.bytes.tolist() == [2**40, 0]
    assert batch.at_ns.flags.writeable and batch.at_ns.flags.aligned and batch.at_ns.flags.c_contiguous
    requests = trace.requests
    got = requests.get(posted)
    assert (requests.methods[got.method], got.target, got.host) == ("POST", b"/users/17", -1)
    assert requests.routes[got.route] == "POST /users/{id}"
    assert requests.headers(got.headers) == headers
    assert requests.body(got.body) == b"\x00body"
    assert requests.hosts[requests.get(plain).host] == "www.example"
    manifest = json.loads((tmp_path / "a.trace" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["rejected"]) == (2, {"blank": 2})


def test_a_window_of_time_is_read_without_the_rest(tmp_path: Path) -> None:
    trace = write(tmp_path / "a.trace", [10, 20, 20, 30, 40])
    assert [stamp for batch in trace.batches(20, 40) for stamp in batch.at_ns] == [20, 20, 30]
    assert list(trace.batches(41, None)) == []
    assert list(trace.batches(None, 10)) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-50, 50), max_size=120), st.integers(1, 9), st.data())
def test_events_in_any_order_come_out_sorted_and_stable(
    tmp_path_factory: pytest.TempPathFactory, stamps: list[int], window: int, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("sorter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "WINDOW_ROWS", window)
        patch.setattr(sorting, "BATCH_ROWS", data.draw(st.integers(1, 9)))
        patch.setattr(sorting, "MERGE_ROWS", data.draw(st.integers(1, 9)))
        patch.setattr(sorting, "MERGE_ROWS_OF_RUN_MIN", 1)
        sorter = sorting.EventSorter(folder)
        for part in np.array_split(np.arange(len(stamps)), 3):
            columns = empty_events(len(part))
            for column in columns.values():
                column[:] = 0
            columns["at_ns"][:] = np.array(stamps, dtype=np.int64)[part]
            columns["client"][:] = part
            sorter.add(columns)
        segments, _ = sorter.finish()
    read = [row for segment in segments for row in _rows(folder / segment.file)]
    assert [at for at, _ in read] == sorted(stamps)
    assert sorted(client for _, client in read) == list(range(len(stamps)))
    assert {(at, client) for at, client in read} == {(at, index) for index, at in enumerate(stamps)}
    assert sorted(path.name for path in folder.iterdir()) == sorted(segment.file for segment in segments)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 40) | st.integers(0, 2**45), max_size=60))
def test_the_order_of_stamps_is_that_of_a_stable_sort(stamps: list[int]) -> None:
    found = sorting.order_of(np.array(stamps, np.int64))
    expected = sorted(range(len(stamps)), key=stamps.__getitem__)
    assert (list(range(len(stamps))) if found is None else found.tolist()) == expected


def _rows(path: Path) -> list[tuple[int, int]]:
    from replay.trace.columns import read_events

    return [
        (int(at), int(client))
        for columns in read_events(path)
        for at, client in zip(columns["at_ns"], columns["client"], strict=True)
    ]


def test_equal_stamps_keep_their_order(tmp_path: Path) -> None:
    trace = write(tmp_path / "a.trace", [3, 1, 3, 1, 3])
    (batch,) = trace.batches()
    assert batch.client.tolist() == [1, 3, 0, 2, 4]


def test_requests_past_the_table_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_writing, "DEDUPE_ENTRIES_MAX", 2)
    with TraceWriter(tmp_path / "a.trace") as writer:
        ids = [writer.add_request("GET", target) for target in (b"/a", b"/b", b"/c", b"/a", b"/c")]
        clients = np.zeros(5, dtype=np.uint32)
        writer.add_events(np.arange(5, dtype=np.int64), np.array(ids, dtype=np.uint32), clients)
    assert ids == [0, 1, 2, 0, 3]
    assert writer.trace is not None
    assert [writer.trace.requests.get(index).target for index in range(4)] == [b"/a", b"/b", b"/c", b"/c"]
    assert {route.route: route.rows for route in writer.trace.manifest.routes} == {
        "GET /a": 2,
        "GET /b": 1,
        "GET /c": 2,
    }


@pytest.mark.parametrize("rows", [0, 1, 2, COMPARED_ROWS, COMPARED_ROWS + 1, 3 * COMPARED_ROWS + 5])
def test_a_timestamp_out_of_order_is_found_wherever_it_is(rows: int) -> None:
    assert in_time_order(np.zeros(rows, np.int64)) and in_time_order(np.arange(rows))
    for at in {1, 2, rows - 1, COMPARED_ROWS - 1, COMPARED_ROWS, COMPARED_ROWS + 1, 2 * COMPARED_ROWS}:
        if 0 < at < rows:
            stamps = np.arange(rows)
            stamps[at] = stamps[at - 1] - 1
            assert not in_time_order(stamps)


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), TraceWriter(tmp_path / "a.trace"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_leaves_the_trace_that_was_to_be_replaced_and_nothing_else(
    tmp_path: Path,
) -> None:
    """What is still buffered of requests cannot be written when the files are closed."""
    path = tmp_path / "a.trace"
    write(path, [1])
    with (
        Path("/dev/full").open("wb") as full,
        pytest.raises(OutputError, match="no space left"),
        TraceWriter(path, overwrite=True) as writer,
    ):
        put_by = writer._requests._put_by
        for file in (put_by._data, put_by._ends, put_by._words):
            file.write(b"targets")
            os.dup2(full.fileno(), file.fileno())
        raise OutputError("no space left")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.trace"]
    assert Trace.open(path).rows == 1


def test_an_existing_path_is_refused_and_replaced_only_if_it_is_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    write(path, [1])
    with pytest.raises(OutputError, match="exists"):
        write(path, [1, 2])
    assert Trace.open(path).rows == 1
    assert write(path, [1, 2], overwrite=True).rows == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.trace"]
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "one.jpg").touch()
    with pytest.raises(OutputError, match="not a trace"):
        write(precious, [1], overwrite=True)
    assert (precious / "one.jpg").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*nowhere"):
        write(tmp_path / "nowhere" / "a.trace", [1])


def test_a_killed_writer_leaves_no_readable_trace_and_is_swept_up(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    code = """
        import os, signal, sys
        import numpy as np
        from replay.trace import TraceWriter
        with TraceWriter(sys.argv[1]) as writer:
            writer.add_request("GET", b"/")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code), path], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (half,) = tmp_path.iterdir()
    for wrong in (path, half):
        with pytest.raises(InputError, match="is incomplete"):
            Trace.open(wrong)
    write(path, [1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.trace"]


def test_what_is_no_trace_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trace at"):
        Trace.open(tmp_path / "missing")
    with pytest.raises(InputError, match="not a trace"):
        Trace.open(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="not a trace folder"):
        Trace.open(tmp_path / "file")


def _edit(path: Path, **changes: object) -> None:
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, **changes}))


def test_a_newer_or_damaged_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    write(path, [1])
    manifest = path / "manifest.json"
    whole = manifest.read_text()
    _edit(manifest, format_version=99, something_new=True)
    with pytest.raises(InputError, match="newer replay"):
        Trace.open(path)
    for text in (whole[:40], "[]", whole.replace('"rows"', '"rowz"')):
        manifest.write_text(text)
        with pytest.raises(InputError, match="not a trace's manifest"):
            Trace.open(path)
    manifest.write_text(whole)
    _edit(manifest, segments=[{"file": "../x.arrow", "rows": 1, "start_ns": 1, "end_ns": 1}])
    with pytest.raises(InputError, match="missing"):
        Trace.open(path)


@pytest.mark.parametrize("name", ["events-000000.arrow", "requests.arrow"])
def test_a_damaged_file_is_refused_never_crashed_on(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.trace"
    without_checksums(write(path, list(range(100))).path)
    whole = (path / name).read_bytes()
    rng = np.random.default_rng(5)
    for round_ in range(300):
        damaged = bytearray(whole)
        if round_ % 3 == 0:
            del damaged[int(rng.integers(len(damaged))) :]
        else:
            for at in rng.integers(len(damaged), size=4):
                damaged[at] = int(rng.integers(256))
        (path / name).write_bytes(damaged)
        try:
            trace = Trace.open(path)
            targets = [trace.requests.get(i).target for batch in trace.batches() for i in batch.request]
            assert len(targets) == 100
        except InputError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, " is damaged: requests.arrow is missing"),
        (b"", "/requests.arrow is damaged: it was cut: it has 0 bytes"),
    ],
)
def test_an_absent_or_empty_dictionary_is_one_sentence(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = write(tmp_path / "a.trace", [1, 2]).path / "requests.arrow"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        Trace.open(tmp_path / "a.trace")
    assert str(refused.value).startswith(f"{path.parent}{says}")


def test_an_event_outside_the_dictionary_is_refused(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "a.trace") as writer:
        writer.add_request("GET", b"/")
        one = np.array([1], dtype=np.int64)
        writer.add_events(one, np.array([7], dtype=np.uint32), np.array([0], dtype=np.uint32))
    assert writer.trace is not None
    with pytest.raises(InputError, match="not in the dictionary"):
        list(writer.trace.batches())


def test_an_empty_trace_is_a_trace(tmp_path: Path) -> None:
    trace = write(tmp_path / "a.trace", [])
    assert (trace.rows, stamps_of(trace), trace.requests.rows) == (0, [], 0)
    assert trace.requests.addresses().shape == (0, 4)


def test_addresses_point_at_the_columns(tmp_path: Path) -> None:
    import ctypes

    trace = write(tmp_path / "a.trace", [1, 2, 3])
    ((offsets, data, method, route),) = trace.requests.addresses().tolist()
    starts = (ctypes.c_int64 * 4).from_address(offsets)
    assert ctypes.string_at(data, starts[3]) == b"/0/1/2"
    assert ctypes.string_at(method, 3) == b"\x00\x00\x00"
    routes = trace.requests.routes
    assert {routes[index] for index in (ctypes.c_uint32 * 3).from_address(route)} == {"GET /{id}"}
    assert trace.requests.get(2).target == b"/2"


def test_process_ids_of_others_are_respected(tmp_path: Path) -> None:
    other = tmp_path / f"a.trace.partial-{os.getppid()}"
    other.mkdir()
    write(tmp_path / "a.trace", [1])
    assert other.exists()


@pytest.mark.parametrize("form", ["%x", "10.0.0.%d", "%016d", "/shop/%d/page?n=%d"])
@pytest.mark.parametrize("seed", [0, 1, -1, 0x5851F42D4C957F2D])
def test_strings_that_differ_little_have_hashes_of_their_own(form: str, seed: int) -> None:
    """Of 20,000 none may collide: by chance one does in 90 billion sets of them."""
    warm(["trace.dictionary"])
    names = [(form % ((number,) * form.count("%"))).encode() for number in range(20_000)]
    hashes = np.empty(len(names), dtype=np.int64)
    hash_all(*flatten(names), seed, hashes)
    assert len(np.unique(hashes)) == len(names)


def test_headers_may_be_null_and_traces_from_before_that_are_read(tmp_path):
    with TraceWriter(tmp_path / "t.trace") as writer:
        number = writer.add_request("GET", b"/", headers=((b"a", b"1"), (b"b", None)))
        writer.add_events(np.array([1]), np.array([number], np.uint32), np.zeros(1, np.uint32))
    assert Trace.open(tmp_path / "t.trace").requests.headers(0) == ((b"a", b"1"), (b"b", None))
    without_checksums(tmp_path / "t.trace")
    path = tmp_path / "t.trace" / "headers.arrow"
    pair = pa.struct([pa.field("name", pa.binary(), False), pa.field("value", pa.binary(), False)])
    before = pa.schema([pa.field("headers", pa.list_(pa.field("header", pair, False)), False)])
    rows = [[{"name": b"a", "value": b"1"}, {"name": b"b", "value": b""}]]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, before) as out:
        out.write_batch(pa.record_batch([pa.array(rows, before.field(0).type)], schema=before))
    assert Trace.open(tmp_path / "t.trace").requests.headers(0) == ((b"a", b"1"), (b"b", b""))
