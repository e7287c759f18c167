"""Recordings to traces: several files, gzip, jitter, what is refused and how it is said."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import (
    InputError,
    OutputError,
    ReplayError,
    UsageError,
)
from replay.trace import Trace
from replay.trace.importing import (
    Options,
    detect,
    import_files,
    open_trace,
    sources,
)
from replay.trace.importing.readers.jitter import Jitter
from replay.trace.importing.showing import scrub, showable
from replay_native.ground.jit import warm
from replay_native.importing.jitter import BUCKETS_MAX, spread
from tests.support.places import SHARED_TRACES

NASA = SHARED_TRACES / "nasa-http-1995-08-01.log"
START_S = 1_767_636_000


def line(second: int, target: str = "/", *, host: str = "10.0.0.1", status: int = 200) -> str:
    stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(START_S + second))
    return f'{host} - - [{stamp}] "GET {target} HTTP/1.1" {status} 10 "-" "test"\n'


def log(path: Path, seconds: list[int], name: str = "r") -> Path:
    path.write_text("".join(line(second, f"/{name}?n={index}") for index, second in enumerate(seconds)))
    return path


def events(trace: Trace) -> list[tuple[int, bytes]]:
    return [
        (int(at_ns), trace.requests.get(int(request)).target)
        for batch in trace.batches()
        for at_ns, request in zip(batch.at_ns, batch.request, strict=True)
    ]


def test_a_log_becomes_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text(
        line(0, "/users/1") + "\n" + line(1, "/users/2", host="10.0.0.2", status=404) + "nonsense\n"
    )
    trace = import_files([path], tmp_path / "a.trace")
    manifest = json.loads((tmp_path / "a.trace" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["rejected"], manifest["lines"]) == (
        2,
        {"blank": 1, "not this format": 1},
        4,
    )
    assert [example["line"] for example in manifest["rejected_examples"]] == [2, 4]
    assert (manifest["clients"], manifest["time_zone"], manifest["stamp"]) == (2, "+0000", "unknown")
    assert manifest["routes"] == [{"route": "GET /users/{id}", "rows": 2}]
    assert manifest["sources"][0]["bytes"] == path.stat().st_size
    (batch,) = trace.batches()
    assert (batch.status.tolist(), batch.client.tolist(), batch.took_ns.tolist()) == (
        [200, 404],
        [0, 1],
        [-1, -1],
    )


def test_nothing_of_who_asked_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    secret = line(0, "/a?token=s3cr3t", host="203.0.113.77").replace("- -", "- frank")
    path.write_text(secret + line(1) + '203.0.113.77 - frank [bad] "GET /?token=s3cr3t HTTP/1.1" 200 1\n')
    import_files([path], tmp_path / "a.trace")
    for file in (tmp_path / "a.trace").iterdir():
        for word in (b"203.0.113.77", b"frank", b"s3cr3t"):
            assert word not in file.read_bytes()
    kept = import_files([path], tmp_path / "b.trace", options=Options(keep_secrets=True))
    assert kept.requests.get(0).target == b"/a?token=s3cr3t"


def test_rotated_files_and_gzip_come_out_in_time_order(tmp_path: Path) -> None:
    old, new = log(tmp_path / "a.log.1", [0, 1, 2], "old"), log(tmp_path / "a.log", [3, 4, 5], "new")
    packed = tmp_path / "a.log.2.gz"
    members = [line(second, f"/packed?n={second}") for second in (-3, -2, -1)]
    packed.write_bytes(b"".join(gzip.compress(member.encode()) for member in members) + b"\0" * 512)
    got = [
        events(import_files(paths, tmp_path / f"{i}.trace"))
        for i, paths in enumerate(([new, packed, old], [old, new, packed]))
    ]
    assert got[0] == got[1]
    assert [target.partition(b"?")[0] for _, target in got[0]] == [b"/packed"] * 3 + [b"/old"] * 3 + [
        b"/new"
    ] * 3


def test_lines_out_of_order_are_sorted(tmp_path: Path) -> None:
    seconds = random.Random(3).sample(range(500), 500)
    trace = import_files([log(tmp_path / "a.log", seconds)], tmp_path / "a.trace")
    assert [at_ns // 10**9 - START_S for at_ns, _ in events(trace)] == list(range(500))


def test_jitter_keeps_the_second_and_the_order_and_follows_its_seed(tmp_path: Path) -> None:
    path = log(tmp_path / "a.log", [0] * 40 + [1] * 40)
    traces = [import_files([path], tmp_path / f"{i}.trace", seed=seed) for i, seed in enumerate((1, 1, 2))]
    first, again, other = (events(trace) for trace in traces)
    assert first == again != other
    assert [target for _, target in first] == [b"/r?n=%d" % index for index in range(80)]
    assert [at_ns // 10**9 - START_S for at_ns, _ in first] == [0] * 40 + [1] * 40
    assert len({at_ns for at_ns, _ in first}) == 80
    assert (traces[2].manifest.jitter.done, traces[2].manifest.jitter.seed) == (True, 2)
    plain = import_files([path], tmp_path / "plain.trace", jitter=False)
    assert {at_ns % 10**9 for at_ns, _ in events(plain)} == {0}
    assert not plain.manifest.jitter.done


def test_two_servers_files_mix_inside_a_second(tmp_path: Path) -> None:
    paths = [log(tmp_path / f"{name}.log", [0] * 200, name) for name in ("a", "b")]
    order = [target[:2] for _, target in events(import_files(paths, tmp_path / "both.trace"))]
    assert sum(left != right for left, right in pairwise(order)) > 50


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=30), max_size=6), st.integers(1, 20))
def test_jitter_gives_every_row_once_in_order_within_its_stamp(parts: list[list[int]], window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("replay.trace.importing.readers.jitter.WINDOW_ROWS", window)
        jitter = Jitter(0, 0, 1000)
        count, given_out = 0, list[dict[str, np.ndarray]]()
        for part in parts:
            stamps = np.array(part, dtype=np.int64) * 1000
            given_out += list(jitter.add({"at_ns": stamps, "n": np.arange(count, count + len(part))}))
            count += len(part)
        given_out += list(jitter.flush())
    flat = [second for part in parts for second in part]
    rows = [(int(at), int(n)) for part in given_out for at, n in zip(part["at_ns"], part["n"], strict=True)]
    assert sorted(n for _, n in rows) == list(range(count))
    assert all(at // 1000 == flat[n] for at, n in rows)
    for columns in given_out:
        inside = [
            (at // 1000, n) for at, n in zip(columns["at_ns"].tolist(), columns["n"].tolist(), strict=True)
        ]
        assert inside == sorted(inside)
        assert columns["at_ns"].tolist() == sorted(columns["at_ns"].tolist())


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block_bytes", [4096, 70_000])
def test_blocks_may_end_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, packed: bool
) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", block_bytes)
    monkeypatch.setattr("replay.trace.importing.readers.lines.BLOCK_BYTES", block_bytes)
    lines = [line(index // 7, f"/{index}/" + "x" * (index * 37 % 900)) for index in range(400)]
    lines.insert(200, "y" * 300_000 + "\n")
    data = "".join(lines).removesuffix("\n").encode()
    path = tmp_path / "a.log"
    path.write_bytes(gzip.compress(data) if packed else data)
    manifest = import_files([path], tmp_path / "a.trace").manifest
    assert (manifest.rows, manifest.rejected, manifest.lines) == (400, {"too long line": 1}, 401)
    assert manifest.rejected_examples[0].line == 201


def test_a_truncated_gzip_gives_what_was_good(tmp_path: Path) -> None:
    path = tmp_path / "a.log.gz"
    noise = random.Random(1)
    whole = gzip.compress("".join(line(i, f"/{noise.random()}") for i in range(20_000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    manifest = import_files([path], tmp_path / "a.trace").manifest
    assert manifest.rows > 5_000
    assert manifest.rejected["damaged gzip"] == 1
    assert manifest.rows + sum(manifest.rejected.values()) == manifest.lines


def test_standard_input_is_a_log(tmp_path: Path) -> None:
    code = "import sys; from replay.trace.importing import import_files; import_files(['-'], sys.argv[1])"
    text = "".join(line(second) for second in range(3000)).encode()
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.trace"], input=text, check=True, timeout=60)
    trace = Trace.open(tmp_path / "a.trace")
    assert (trace.rows, trace.manifest.sources[0].bytes) == (3000, len(text))


def _csv(path: Path) -> None:
    path.write_text("colour,shape\n1,/a\n")


def _zip(path: Path) -> None:
    path.write_bytes(gzip.compress(b"")[:4])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no such file"),
        (Path.touch, "is empty"),
        (Path.mkdir, "is a folder without files"),
        (_csv, r"begins with: colour,shape"),
        (lambda path: path.write_bytes(bytes(range(256)) * 40), "is a binary file"),
        (lambda path: path.write_bytes(b"\n\n\n"), "nothing but blank lines"),
        (
            lambda path: path.write_bytes(gzip.compress(b"")),
            r"is empty, or damaged at its beginning \(gzip\)",
        ),
        (_zip, "is empty|not a readable gzip"),
        (lambda path: path.write_bytes(b"\x1f\x8bgarbage"), "not a readable gzip"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_words(tmp_path: Path, make, says: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.log"
    make(path)
    with pytest.raises(InputError, match=says) as caught:
        import_files([path], tmp_path / "a.trace")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "a.trace").exists()


def test_a_log_that_turns_into_something_else_is_refused_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(line(second) for second in range(100)) + "what is this\n" * 2000)
    with pytest.raises(InputError, match=r"of 2,100 lines, these were rejected: not this format 2,000"):
        import_files([path], tmp_path / "a.trace")
    assert list(tmp_path.iterdir()) == [path]
    assert import_files([path], tmp_path / "a.trace", format="common").rows == 100
    with pytest.raises(UsageError, match="no format 'comon'"):
        import_files([path], tmp_path / "b.trace", format="comon")


def test_requests_that_were_garbage_to_the_server_say_nothing_against_the_log(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(line(0) + '10.0.0.9 - - [05/Jan/2026:18:00:00 +0000] "\\x16\\x03" 400 157 "-" "-"\n' * 50)
    assert import_files([path], tmp_path / "a.trace").manifest.rejected == {"no method": 50}


def test_an_existing_output_is_not_harmed(tmp_path: Path) -> None:
    path = log(tmp_path / "a.log", [0, 1])
    import_files([path], tmp_path / "a.trace")
    with pytest.raises(OutputError, match="exists"):
        import_files([path], tmp_path / "a.trace")
    path.write_text("garbage\n")
    with pytest.raises(ReplayError):
        import_files([path], tmp_path / "a.trace", overwrite=True)
    assert Trace.open(tmp_path / "a.trace").rows == 2


def test_no_space_left_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
        import resource, signal, sys
        from replay.errors import OutputError
        from replay.trace.importing import import_files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            import_files([sys.argv[1]], sys.argv[2])
        except OutputError as error:
            print(error)
    """
    path = log(tmp_path / "a.log", list(range(3000)))
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(path), str(tmp_path / "a.trace")]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot write" in done.stdout and "a.trace" in done.stdout, done
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_import_leaves_no_readable_trace(tmp_path: Path) -> None:
    code = """
        import os, signal, sys
        from replay.trace.importing import import_files
        import_files([sys.argv[1]], sys.argv[2], progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    """
    path = log(tmp_path / "a.log", list(range(3000)))
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(path), str(tmp_path / "a.trace")]
    assert subprocess.run(arguments, timeout=60, check=False).returncode == -signal.SIGKILL
    with pytest.raises(InputError, match="is incomplete"):
        Trace.open(tmp_path / "a.trace")
    assert import_files([path], tmp_path / "a.trace").rows == 3000


def test_open_trace_takes_a_trace_or_a_log(tmp_path: Path) -> None:
    path = log(tmp_path / "a.log", [0, 1])
    assert open_trace([path], tmp_path / "cache.trace").rows == 2
    assert open_trace([tmp_path / "cache.trace"], tmp_path / "unused").rows == 2
    with pytest.raises(InputError, match="a trace already"):
        import_files([tmp_path / "cache.trace"], tmp_path / "b.trace")


def test_detection_names_the_format(tmp_path: Path) -> None:
    assert detect(log(tmp_path / "a.log", [0])).name == "common"


def test_shown_lines_cannot_steer_a_terminal() -> None:
    assert showable(b"a\x1b[2Jb\xff\xc3\xa9", 99) == "a\\x1b[2Jb\\xffé"
    assert showable(b"x" * 300, 10) == "x" * 9 + "…"


def test_shown_lines_are_scrubbed() -> None:
    assert scrub('1.2.3.4 - frank [x] "GET http://u:p@h/?a=1&api_key=k" 200') == (
        '- - - [x] "GET http://h/?a=1&api_key=REDACTED" 200'
    )
    assert scrub('{"password": "p", "x": 2001:db8::7:8}') == '{"password": "REDACTED", "x": (address)}'
    assert (
        scrub('10.0.0.1:33 [14/Nov/2023:22:13:20.6] s "GET /" 5')
        == '- - - [14/Nov/2023:22:13:20.6] s "GET /" 5'
    )
    assert scrub('{"at": "x 12:30:40:50", "h": []}') == '{"at": "x 12:30:40:50", "h": []}'
    assert scrub("- ::1 fe80::1 2001:db8:: 1:2:3:4:5:6:7:8 a::b") == "-" + " (address)" * 5
    assert scrub("std::vector 22:13:20 1:2:3:4:5:6:7") == "std::vector 22:13:20 1:2:3:4:5:6:7"
    assert scrub("Authorization: Bearer abc") == "Authorization: Bearer REDACTED"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_crash_an_import(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, packed: bool
) -> None:
    folder = tmp_path_factory.mktemp("noise")
    data = line(0).encode() * 3 + noise + b"\n" + line(1).encode()
    (folder / "a.log").write_bytes(gzip.compress(data)[: 40 + len(noise)] if packed else data)
    try:
        manifest = import_files([folder / "a.log"], folder / "a.trace").manifest
    except ReplayError:
        return
    assert manifest.rows + sum(manifest.rejected.values()) == manifest.lines


@pytest.mark.skipif(not NASA.exists(), reason="../shared/traces is not here")
def test_a_day_of_the_nasa_web_server(tmp_path: Path) -> None:
    trace = import_files([NASA], tmp_path / "nasa.trace")
    assert (trace.rows, trace.manifest.rejected, trace.manifest.time_zone) == (30_969, {}, "-0400")
    assert trace.manifest.methods == ["GET", "HEAD", "POST"]
    zone_s = 4 * 3600
    first, last = trace.start_ns // 10**9 - zone_s, trace.end_ns // 10**9 - zone_s
    assert time.strftime("%d %H:%M", time.gmtime(first)) == "01 02:00"
    assert time.strftime("%d %H:%M", time.gmtime(last)) == "01 14:52"


def test_reading_what_may_not_be_read(tmp_path: Path) -> None:
    path = log(tmp_path / "a.log", [0])
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(InputError, match="permission denied"):
        import_files([path], tmp_path / "a.trace")


def test_gzip_reader_drains_what_the_decompressor_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BLOCK_BYTES", 1000)
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(line(0).encode() * 50_000)
    (tmp_path / "a.log.gz").write_bytes(packed.getvalue())
    assert import_files([tmp_path / "a.log.gz"], tmp_path / "a.trace").rows == 50_000


@given(
    stamps=st.lists(st.integers(0, 30), max_size=200).map(sorted),
    resolution_ns=st.sampled_from([1, 2, 7, 1_000, 1_000_000_000]),
    seed=st.integers(0, 1 << 32),
    buckets=st.sampled_from([1, 3, BUCKETS_MAX]),
)
def test_draws_are_spread_as_sorting_them_would(
    stamps: list[int], resolution_ns: int, seed: int, buckets: int
) -> None:
    warm(["importing.jitter"])
    grouped = np.array(stamps, dtype=np.int64) * resolution_ns
    draws = np.random.default_rng(seed).integers(0, resolution_ns, len(stamps))
    found = np.empty_like(grouped)
    spread(grouped, draws, resolution_ns, found, np.empty(buckets, dtype=np.int64))
    assert found.tolist() == np.sort(grouped + draws).tolist()
