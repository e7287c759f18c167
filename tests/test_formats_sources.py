"""Where recordings come from: compressed, wrapped, in folders and patterns; and what names a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.errors import InputError
from replay.formats import import_files
from replay_native import checksum
from replay_native.jit import warm

from .events import events
from .naive_checksum import xxh64

LINE = '10.0.0.1 - - [14/Nov/2023:22:13:{:02d} +0000] "GET /{}?a=\\"b HTTP/1.1" 200 10 "-" "x"'
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
    monkeypatch.setattr("replay.formats.sources.BLOCK_BYTES", block_bytes)
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
    with pytest.raises(InputError, match="no file is named like this"):
        import_files([f"{logs}/*.gz"], tmp_path / "c.trace")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=6))
def test_the_checksum_is_xxh64_however_it_is_fed(parts: list[bytes]) -> None:
    warm(["checksum"])
    state, tail = np.zeros(checksum.STATE_WORDS, np.uint64), np.zeros(32, np.uint8)
    checksum.begin(state)
    for part in parts:
        checksum.update(state, tail, np.frombuffer(bytearray(part), np.uint8))
    assert int(checksum.digest(state, tail)) == xxh64(b"".join(parts))


def test_the_checksum_is_that_of_its_specification() -> None:
    assert (xxh64(b""), xxh64(b"abc")) == (0xEF46DB3751D8E999, 0x44BC2CF5AD770999)
