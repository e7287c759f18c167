"""Damage to any file of a trace is noticed before anything is sent, named with its place, and never ends the process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.errors import InputError
from replay.plan.schedule import make_schedule
from replay.settings.scenario import Scenario
from replay.staging.sink import Sink
from replay.trace import Batch, Trace, TraceWriter, requests, sorting, with_requests
from replay.trace import blobs as blob_reading
from replay.trace.blocks import PagedFile, ReusedBuffers
from replay.trace.routes import assign_routes
from replay.trace.sums import BLOCK_BYTES, sums_of
from tests.support.trace_data import Row, without_checksums, write_trace

FILES = ("events-000000.arrow", "requests.arrow", "headers.arrow", "bodies.arrow", "manifest.json")


def write(path: Path, rows: int = 3_000, *, value: bytes = b"v" * 200) -> Path:
    """A trace with every kind of file; each request has a path, headers and a body of its own."""
    with TraceWriter(path) as writer:
        ids = [
            writer.add_request(
                "GET", b"/%d" % row, headers=((b"X-Row", b"%d" % row + value),), body=b"%d-" % row + value
            )
            for row in range(rows)
        ]
        stamps = 1_700_000_000_000_000_000 + 10_000_000 * np.arange(rows, dtype=np.int64)
        writer.add_events(stamps, np.array(ids, np.uint32), np.zeros(rows, np.uint32))
    return path


def read_whole(path: Path) -> list[tuple[int, bytes, object, bytes]]:
    """All that a trace holds."""
    trace, found = Trace.open(path), list[tuple[int, bytes, object, bytes]]()
    for batch in trace.batches():
        for at_ns, number in zip(batch.at_ns.tolist(), batch.request.tolist(), strict=True):
            asked = trace.requests.get(number)
            found.append(
                (at_ns, asked.target, trace.requests.headers(asked.headers), trace.requests.body(asked.body))
            )
    return found


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("damage") / "t.trace")


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(capacity=20_000) as made:
        yield made


def run(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replay.cli", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def zeroed(data: bytes, at: int) -> bytes:
    """64 bytes of it are zero, and were not all zero before."""
    at = next(place for place in range(at, len(data)) if data[place])
    return data[:at] + bytes(len(data[at : at + 64])) + data[at + 64 :]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8, 0.99])
def test_64_zeroed_bytes_of_any_file_are_noticed(
    trace: Path, tmp_path: Path, name: str, share: float
) -> None:
    copy = copied(trace, tmp_path)
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(zeroed(whole, int(share * len(whole))))
    with pytest.raises(InputError) as refused:
        read_whole(copy)
    assert name in str(refused.value)
    if name != "manifest.json":
        assert re.search(
            r"bytes [\d,]+ to [\d,]+ \(block \d+\) are not those that were written", str(refused.value)
        )
        assert "copy the trace again" in refused.value.hint


@pytest.mark.parametrize("name", FILES[:-1])
@pytest.mark.parametrize("length", [0, 10, 0.5, -64, -1])
def test_a_cut_file_is_noticed_when_the_trace_is_opened(
    trace: Path, tmp_path: Path, name: str, length: float
) -> None:
    copy = copied(trace, tmp_path)
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole[: int(length * len(whole)) if length == 0.5 else int(length)])
    with pytest.raises(
        InputError, match=rf"{name} is damaged: it was cut: it has [\d,]+ bytes, and {len(whole):,} "
    ):
        Trace.open(copy)


@pytest.mark.parametrize("name", FILES[:-1])
def test_an_extended_a_missing_and_a_swapped_file_are_noticed(trace: Path, tmp_path: Path, name: str) -> None:
    copy = copied(trace, tmp_path)
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(whole + b"more")
    with pytest.raises(InputError, match=f"{name} is damaged: it has grown"):
        Trace.open(copy)
    other = write(tmp_path / "other.trace", value=b"w" * 200)
    if (other / name).read_bytes() != whole:
        (copy / name).write_bytes((other / name).read_bytes())
        with pytest.raises(InputError, match=f"{name} is damaged: bytes"):
            read_whole(copy)
    (copy / name).unlink()
    with pytest.raises(InputError, match=f"is damaged: {name} is missing"):
        Trace.open(copy)


def test_swapped_events_files_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "BATCH_ROWS", 500)
    path = write(tmp_path / "t.trace", 1_000)
    first, second = (path / f"events-00000{number}.arrow" for number in (0, 1))
    assert first.stat().st_size == second.stat().st_size
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    with pytest.raises(InputError, match=r"events-000000.arrow is damaged: bytes 0 to"):
        read_whole(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FILES[:-1]), place=st.integers(0, 1 << 30), bit=st.integers(0, 7))
def test_a_single_flipped_bit_is_noticed_wherever_it_is(
    trace: Path, tmp_path_factory: pytest.TempPathFactory, name: str, place: int, bit: int
) -> None:
    copy = copied(trace, tmp_path_factory.mktemp("flipped"))
    data = bytearray((copy / name).read_bytes())
    data[place % len(data)] ^= 1 << bit
    (copy / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name} is damaged: bytes"):
        read_whole(copy)


def test_a_file_that_the_manifest_does_not_list_is_not_read(trace: Path, tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "plain.trace") as writer:
        number = writer.add_request("GET", b"/")
        writer.add_events(np.array([1]), np.array([number], np.uint32), np.zeros(1, np.uint32))
    (tmp_path / "plain.trace" / "headers.arrow").write_bytes((trace / "headers.arrow").read_bytes())
    assert not Trace.open(tmp_path / "plain.trace").requests.has_headers


@pytest.mark.parametrize("name", FILES[:-1])
def test_the_command_refuses_a_damaged_trace_and_sends_nothing(
    trace: Path, tmp_path: Path, sink: Sink, name: str
) -> None:
    copy = copied(trace, tmp_path)
    whole = (copy / name).read_bytes()
    (copy / name).write_bytes(zeroed(whole, 2 * len(whole) // 3))
    done = run(tmp_path, "run", copy, "--target", f"http://127.0.0.1:{sink.port}", "-d", "1s", "-o", "r")
    assert (done.returncode, sink.arrivals) == (2, 0)
    assert f"{name} is damaged: bytes" in done.stderr and "copy the trace again" in done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.whole
@pytest.mark.parametrize("damage", ["cut", "zeroed", "removed"])
def test_a_trace_that_is_damaged_in_mid_run_ends_the_run_and_what_was_measured_is_kept(
    tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(sorting, "BATCH_ROWS", 100)
    path = write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(3_000)]).path
    command = [sys.executable, "-m", "replay.cli", "run", "t.trace", "--plain", "-o", "r"]
    command += ["--target", f"http://127.0.0.1:{sink.port}", "-d", "20s"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while sink.arrivals < 60 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        for file in path.glob("*.arrow"):
            if damage == "cut":
                os.truncate(file, 64)
            elif damage == "removed":
                file.unlink()
            else:
                file.write_bytes(bytes(file.stat().st_size))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "the run failed after" in errors and "events-0000" in errors and "what was measured" in errors
    document = json.loads((tmp_path / "r" / "run.json").read_text())
    assert 0 < document["totals"]["sent"] < 2_000 if "totals" in document else True


def test_a_trace_of_an_older_replay_is_read_and_inspect_alone_says_that_it_has_no_checksums(
    trace: Path, tmp_path: Path
) -> None:
    copy = copied(trace, tmp_path)
    assert "checksums" not in run(tmp_path, "inspect", copy).stdout
    without_checksums(copy)
    assert read_whole(copy) == read_whole(trace)
    assert "damage to it cannot be detected" in " ".join(run(tmp_path, "inspect", copy).stdout.split())
    for words in (
        ("run", copy, "--target", "http://127.0.0.1:9", "--dry-run"),
        ("export", copy, "-o", "x.csv"),
    ):
        done = run(tmp_path, *words)
        assert done.returncode == 0 and "checksum" not in done.stdout + done.stderr
    transformed = run(tmp_path, "transform", copy, "-o", "u.trace", "--sample", "50%")
    assert transformed.returncode == 0, transformed.stderr
    assert Trace.open(tmp_path / "u.trace").has_checksums


def test_a_transform_does_not_copy_damage(trace: Path, tmp_path: Path) -> None:
    for name in FILES[1:-1]:
        copy = copied(trace, tmp_path / name)
        whole = (copy / name).read_bytes()
        (copy / name).write_bytes(zeroed(whole, len(whole) // 2))
        done = run(tmp_path, "transform", copy, "-o", f"{name}.trace", "--sample", "50%")
        assert done.returncode == 2 and f"{name} is damaged: bytes" in done.stderr


@pytest.mark.parametrize("checksums", [True, False])
def test_a_dictionary_larger_than_its_memory_is_read_as_one_that_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checksums: bool
) -> None:
    path = write(tmp_path / "t.trace", 40_000, value=b"v" * 60)
    if not checksums:
        without_checksums(path)
    whole, rows = read_whole(path), rendered(path)
    monkeypatch.setattr(requests, "REQUESTS_BUDGET_BYTES", 3 * BLOCK_BYTES)
    monkeypatch.setattr(blob_reading, "BUDGET_BYTES_MAX", 3 * BLOCK_BYTES)
    trace = Trace.open(path)
    assert not trace.requests._file.whole
    assert read_whole(path) == whole
    assert rendered(path) == rows
    shuffled = np.random.default_rng(7).permutation(40_000)[:300].astype(np.uint32)
    columns: dict[str, Any] = {
        name: np.zeros(300, np.int64) for name in ("at_ns", "client", "status", "took_ns", "bytes")
    }
    seen = list[int]()
    for batch in with_requests([Batch(request=shuffled, **columns)], trace.requests):
        targets = [trace.requests.get(int(number)).target for number in batch.request[:20]]
        assert targets == [b"/%d" % number for number in batch.request[:20]]
        seen += batch.request.tolist()
    assert seen == shuffled.tolist()


def rendered(path: Path) -> list[tuple[int, ...]]:
    """What kernels read of a trace through addresses: routes and methods of the rows that are due."""
    schedule = make_schedule(Trace.open(path), Scenario(target="http://127.0.0.1:9"))
    return [
        row
        for due in schedule.batches()
        for row in zip(due.request.tolist(), due.route.tolist(), due.method.tolist(), strict=True)
    ]


def test_routes_of_a_dictionary_larger_than_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "t.trace", 40_000, value=b"")
    ones = np.ones(40_000, np.int64)
    before = (path / "requests.arrow").read_bytes()
    expected = assign_routes(path / "requests.arrow", ["GET"], ones)
    assert (path / "requests.arrow").read_bytes() == before
    monkeypatch.setattr("replay.trace.routes.REQUESTS_BUDGET_BYTES", 2 * BLOCK_BYTES)
    assert assign_routes(path / "requests.arrow", ["GET"], ones) == expected
    assert (path / "requests.arrow").read_bytes() == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 5 * BLOCK_BYTES), st.integers(1, 2 * BLOCK_BYTES)), max_size=12),
    st.data(),
)
def test_a_paged_file_gives_what_is_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[tuple[int, int]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("paged") / "file"
    content = np.random.default_rng(1).integers(0, 256, 5 * BLOCK_BYTES + 77, np.uint8)
    path.write_bytes(content.tobytes())
    file = PagedFile(path, sums_of(path), data.draw(st.integers(1, 6)) * BLOCK_BYTES)
    for begin, length in wanted:
        file.load(begin, begin + length)
        assert np.array_equal(file.raw[begin : begin + length], content[begin : begin + length])
    file.check_rest()
    file.close()


def test_a_buffer_is_used_again_only_when_nobody_refers_to_it() -> None:
    buffers = ReusedBuffers()
    first = buffers.take(1_000)
    view, place = first[10:20].view(np.uint16), first.ctypes.data
    del first
    assert buffers.take(1_000).ctypes.data != place
    del view
    assert place in {buffers.take(900).ctypes.data, buffers.take(1_000).ctypes.data}


def copied(path: Path, folder: Path) -> Path:
    copy = folder / "copy.trace"
    copy.mkdir(parents=True)
    for file in path.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy
