"""Where recordings come from: compressed, wrapped, in folders and patterns; and what names a file."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import InputError, UsageError
from replay.trace.importing import Options, import_files
from replay.trace.importing.sources import BLOCK_BYTES
from replay_native.ground import xxh64 as checksum
from replay_native.ground.jit import warm
from tests.reference.checksum import xxh64
from tests.support.events import events

LINE = '10.0.0.1 - - [14/Nov/2023:22:13:{:02d} +0000] "GET /{}?a=\\"b HTTP/1.1" 200 10 "-" "x"'
AT = 1_700_000_000
LINES = [LINE.format(number, number) for number in range(20)]
TARGETS = [b'/%d?a="b' % number for number in range(20)]


def _cri(line: str) -> str:
    head, tail = line[:40], line[40:]
    return f"2023-11-14T22:13:20.1Z stdout P {head}\n2023-11-14T22:13:20.1+01:00 stdout F {tail}\n"


def _docker(line: str) -> str:
    entry = {"log": line + "\n", "stream": "stdout", "time": "2023-11-14T22:13:20.1Z"}
    parts = [{**entry, "log": line[:30]}, {**entry, "log": line[30:] + "\n"}]
    return "".join(json.dumps(part, separators=(",", ":")) + "\n" for part in parts)


WRAPPED = {
    "cri": _cri,
    "docker": _docker,
    "kubectl": lambda line: f"[pod/web-5d/nginx] {line}\n",
    "syslog": lambda line: f"<190>Nov 14 22:13:20 web-1 nginx: {line}\n",
}
SYSLOGS = [
    "Nov  4 22:13:20 web-1 nginx[123]: ",
    "2023-11-14T22:13:20.123456+00:00 web-1 nginx: ",
    '<165>1 2023-11-14T22:13:20.003Z web-1 nginx 8710 - [x@1 a="b"] ',
    "<165>1 2023-11-14T22:13:20.003Z web-1 nginx - - - ",
]


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("block_bytes", [1000, 1 << 20])
def test_what_wraps_a_line_is_taken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, block_bytes: int
) -> None:
    monkeypatch.setattr("replay.trace.importing.sources.BLOCK_BYTES", block_bytes)
    (tmp_path / "a.log").write_text("".join(WRAPPED[name](line) for line in LINES))
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace")
    assert [event.target for event in events(trace)] == TARGETS
    assert (trace.manifest.sources[0].wrapper, trace.manifest.rejected) == (name, {})


@pytest.mark.parametrize("prefix", SYSLOGS)
def test_syslog_has_many_heads(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "a.log").write_text("".join(prefix + line + "\n" for line in LINES))
    trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace")
    assert (trace.rows, trace.manifest.sources[0].wrapper) == (20, "syslog")


def test_zstd_is_read_and_what_is_cut_off_is_counted(tmp_path: Path) -> None:
    text = "".join(
        LINE.format(number % 60, hash((number, 1)) % 10**9) + "\n" for number in range(20_000)
    ).encode()
    packed = b"".join(bytes(pa.Codec("zstd").compress(part)) for part in (text[:700_001], text[700_001:]))
    (tmp_path / "a.zst").write_bytes(packed)
    whole = import_files([tmp_path / "a.zst"], tmp_path / "a.trace")
    assert (whole.rows, whole.manifest.rejected) == (20_000, {})
    assert (whole.manifest.sources[0].compression, whole.manifest.sources[0].bytes) == ("zstd", len(packed))
    (tmp_path / "b.zst").write_bytes(packed[: len(packed) * 2 // 3])
    cut = import_files([tmp_path / "b.zst"], tmp_path / "b.trace").manifest
    assert 5_000 < cut.rows < 20_000 and cut.rejected["damaged zstd"] == 1
    assert cut.rows + sum(cut.rejected.values()) == cut.lines


def test_folders_and_patterns_stand_for_files(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "deeper").mkdir(parents=True)
    for number, name in enumerate(["a.log.1", "a.log", "deeper/b.log", ".hidden"]):
        (logs / name).write_text(LINES[number] + "\n")
    assert import_files([logs], tmp_path / "a.trace").rows == 3
    assert import_files([f"{logs}/a.log*"], tmp_path / "b.trace").rows == 2
    shutil.copytree(tmp_path / "a.trace", logs / "a.trace")
    shutil.copytree(tmp_path / "a.trace", logs / "b.trace.partial-1")
    (logs / "b.trace.partial-1" / "manifest.json").unlink()
    (logs / "current.log").symlink_to("a.log")
    (logs / "loop").symlink_to(logs)
    (logs / "nowhere").symlink_to("none")
    os.mkfifo(logs / "pipe")
    assert import_files([logs, logs / "a.log", f"{logs}/deeper/../a.log"], tmp_path / "d.trace").rows == 3
    with pytest.raises(InputError, match="no file matches this pattern"):
        import_files([f"{logs}/*.gz"], tmp_path / "c.trace")


def test_what_is_no_recording_is_left_out_of_a_folder_and_named(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "error.log").write_text("2026/01/01 10:00:00 [error] 7#7: *1 open() failed\n")
    (logs / "empty.log").touch()
    with pytest.raises(InputError, match=r"empty\.log is empty"):
        import_files([logs], tmp_path / "none.trace")
    (logs / "access.log").write_text("\n".join(LINES))
    for paths in ([logs], [f"{logs}/*.log"]):
        trace = import_files(paths, tmp_path / "a.trace", overwrite=True)
        assert trace.rows == len(TARGETS)
        empty, error = trace.manifest.left_out
        assert empty.name == f"{logs}/empty.log" and empty.why.endswith("empty.log is empty")
        assert "error.log is not a log of a known format" in error.why
    with pytest.raises(InputError, match=r"error\.log is not a log"):
        import_files([logs / "access.log", logs / "error.log"], tmp_path / "b.trace")


def test_a_pipe_is_read_once_and_as_its_bytes_come(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            for part in (LINES[0][:9], LINES[0][9:] + "\n", "\n".join(LINES[1:])):
                pipe.write(part.encode())
                time.sleep(0.05)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    trace = import_files([tmp_path / "pipe"], tmp_path / "a.trace")
    assert [event.target for event in events(trace)] == TARGETS
    writer.join(5)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "text",
    ["\n".join(LINES), f"at,path\n{AT},/x\n", f'{{"at":{AT},"path":"/x"}}\n', f"{AT},/x\n"],
    ids=["log", "csv", "jsonl", "csv-without-header"],
)
def test_a_mark_before_the_text_is_no_part_of_it(tmp_path: Path, text: str, packed: bool) -> None:
    options = (
        Options() if text[0] in "1a{" and text[1] in '0t"' else Options(columns=(("at", "1"), ("path", "2")))
    )
    found = []
    for mark in (b"", b"\xef\xbb\xbf"):
        data = mark + text.encode()
        (tmp_path / "a.log").write_bytes(gzip.compress(data) if packed else data)
        trace = import_files([tmp_path / "a.log"], tmp_path / "a.trace", options=options, overwrite=True)
        found.append((events(trace), trace.manifest.clients, trace.manifest.rejected))
    assert found[0] == found[1]


@pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_named(tmp_path: Path, code: str) -> None:
    (tmp_path / "a b.log").write_bytes(("\ufeff" + "\n".join(LINES)).encode(code))
    with pytest.raises(InputError, match="is UTF-16") as refused:
        import_files([tmp_path / "a b.log"], tmp_path / "a.trace", format="common")
    assert f"iconv -f UTF-16 -t UTF-8 '{tmp_path}/a b.log'" in str(refused.value.hint)


def test_a_mapping_is_refused_where_it_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\n".join(LINES))
    with pytest.raises(UsageError, match="--columns does not work with --format common"):
        import_files(
            [tmp_path / "a.log"],
            tmp_path / "a.trace",
            format="common",
            options=Options(columns=(("at", "1"),)),
        )
    with pytest.raises(UsageError, match="--log-format does not work with --format common"):
        import_files(
            [tmp_path / "a.log"], tmp_path / "a.trace", format="common", options=Options(log_format="$msec")
        )


def test_a_recording_without_requests_is_said_to_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.har").write_text('{"log": {"entries": []}}')
    with pytest.raises(InputError, match=r"no request in .*a\.har$"):
        import_files([tmp_path / "a.har"], tmp_path / "a.trace")


@pytest.mark.parametrize("kind", ["bzcat", "xzcat", "unzip -p", "tar -xOf", "tar -xOf gzipped"])
def test_what_others_unpack_is_named_with_the_command(tmp_path: Path, kind: str) -> None:
    data, out = "\n".join(LINES).encode(), io.BytesIO()
    if kind.startswith("tar"):
        with tarfile.open(fileobj=out, mode="w:gz" if "gzipped" in kind else "w") as tar:
            member = tarfile.TarInfo("a.log")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    elif kind == "unzip -p":
        with zipfile.ZipFile(out, "w") as packed:
            packed.writestr("a.log", data)
    else:
        out.write({"bzcat": bz2, "xzcat": lzma}[kind].compress(data))
    (tmp_path / "a.log").write_bytes(out.getvalue())
    with pytest.raises(InputError) as refused:
        import_files([tmp_path / "a.log"], tmp_path / "a.trace", format="common")
    assert refused.value.hint == f"{kind.removesuffix(' gzipped')} {tmp_path}/a.log | replay import -"


def test_a_log_format_that_does_not_fit_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("\n".join(LINES))
    for own in ("$msec $request", "%D %t %r", "nonsense"):
        with pytest.raises(
            InputError, match=r"does not match this --log-format; it begins with: \(address\) - - "
        ):
            import_files([tmp_path / "a.log"], tmp_path / "a.trace", options=Options(log_format=own))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=6))
def test_the_checksum_is_xxh64_however_it_is_fed(parts: list[bytes]) -> None:
    warm(["ground.xxh64"])
    state, tail = np.zeros(checksum.STATE_WORDS, np.uint64), np.zeros(32, np.uint8)
    checksum.begin(state)
    for part in parts:
        checksum.update(state, tail, np.frombuffer(bytearray(part), np.uint8))
    assert int(checksum.digest(state, tail)) == xxh64(b"".join(parts))


def test_the_checksum_is_that_of_its_specification() -> None:
    assert (xxh64(b""), xxh64(b"abc")) == (0xEF46DB3751D8E999, 0x44BC2CF5AD770999)


@pytest.mark.parametrize("kind", ["rails", "fastify", "vegeta", "vegeta-text", "common"])
def test_a_line_that_is_too_long_is_one_reject_and_no_request(kind: str, tmp_path: Path) -> None:
    """Its last part looks like a line of the format."""
    lines = LOGS[kind]
    found = {}
    for name, text in {
        "plain": lines,
        "long": [*lines, "x" * (3 * BLOCK_BYTES + 5) + lines[0], *lines],
    }.items():
        path = tmp_path / f"{name}.log"
        path.write_text("".join(f"{line}\n" for line in text))
        found[name] = import_files([path], tmp_path / name, format=kind)
    assert found["long"].rows == 2 * found["plain"].rows > 0
    rejected = found["long"].manifest.rejected
    assert rejected.pop("too long line") == 1
    assert rejected == {why: 2 * count for why, count in found["plain"].manifest.rejected.items()}
    assert found["long"].manifest.lines == 2 * found["plain"].manifest.lines + 1


LOGS = {
    "rails": [
        '[0a1b] Started GET "/a" for 10.0.0.1 at 2025-10-10 13:55:00 +0000',
        "[0a1b] Completed 200 OK in 5ms",
    ],
    "fastify": [
        '{"level":30,"time":1700000000000,"pid":1,"reqId":"a","req":{"method":"GET","url":"/a","host":"h","remoteAddress":"1.1.1.1"}}',
        '{"level":30,"time":1700000000005,"pid":1,"reqId":"a","res":{"statusCode":200},"responseTime":5}',
    ],
    "vegeta": ['{"method":"GET","url":"http://h.example/a"}'],
    "vegeta-text": ["GET http://h.example/a", ""],
    "common": ['10.0.0.1 - - [10/Oct/2025:13:55:00 +0000] "GET /a HTTP/1.1" 200 5 "-" "-"'],
}
