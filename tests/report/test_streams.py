"""Where a command runs that nobody watches: streams that are closed, cannot show our characters, or lost their reader."""

from __future__ import annotations

import codecs
import io
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from replay.cli import streams
from replay.errors import OutputError
from replay.files import write_whole
from replay.results.folder import AppendFile
from replay.staging.sink import Sink

LINE = '192.0.2.{0} - - [05/Jan/2026:18:00:{1:02} +0100] "GET /users/{1} HTTP/1.1" 200 512\n'
FILES_OF_A_RUN = {"latency.hlog", "run.json", "samples.jsonl", "timeline.jsonl", "totals.hlog"}
READER_WENT_AWAY = 141

Start = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run `replay` beside a log, with streams of the test's own."""
    (tmp_path / "access.log").write_text("".join(LINE.format(n % 5, n) for n in range(3)))

    def run(*words: str | bytes, **options: Any) -> subprocess.CompletedProcess[bytes]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = {**os.environ, **options.pop("env", {})}
        return subprocess.run(
            [sys.executable, "-m", "replay.cli", *words],
            timeout=60, check=False, env=environment, **{"cwd": tmp_path, **pipes, **options},
        )  # fmt: skip

    return run


@pytest.mark.parametrize("words", [("inspect", "--stats"), ("import",)])
def test_a_terminal_without_our_characters_is_shown_what_looks_like_them(
    start: Start, words: tuple[str]
) -> None:
    done = start(*words, "access.log", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and b"?" not in done.stdout


def test_what_looks_like_a_character_is_as_wide() -> None:
    codecs.register_error("likeness", streams.likeness)
    assert "Ωx ▁█·\udce9".encode("ascii", "likeness") == b"?x .#-\\xe9"


@pytest.mark.whole
def test_a_run_whose_streams_are_closed_is_whole(start: Start, tmp_path: Path) -> None:
    with Sink(run_s=60) as sink:
        words = ("run", "access.log", "--target", f"http://127.0.0.1:{sink.port}", "-o", "r")
        done = start(*words, stdin=None, stdout=None, stderr=None, preexec_fn=lambda: os.closerange(0, 3))
    assert done.returncode in (0, 4), "a busy machine makes a run of three requests INVALID"
    assert {path.name for path in (tmp_path / "r").iterdir()} == FILES_OF_A_RUN


@pytest.mark.parametrize("words", [("--help",), ("inspect", "access.log")])
def test_a_closed_output_is_no_error(start: Start, words: tuple[str, ...]) -> None:
    done = start(*words, stdout=None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", [("inspect", "access.log"), ("inspect", "access.log", "--json")])
def test_a_reader_that_went_away_ends_a_command_as_the_signal_would(
    start: Start, words: tuple[str, ...]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = start(*words, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (READER_WENT_AWAY, b"")


def test_progress_that_nobody_reads_ends_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stderr = streams._Stderr(io.BufferedWriter(io.FileIO(writing, "w")), line_buffering=True)
    for _ in range(3):
        assert stderr.write("20 s, half of it\n") == 17
    stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
    stderr.close()


@pytest.mark.parametrize("where", ["a full disk", "a reader that went away"])
def test_a_result_that_is_on_disk_counts_though_it_cannot_be_printed(
    where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if where == "a full disk":
        out = Path("/dev/full").open("w")  # noqa: SIM115
    else:
        reading, writing = os.pipe()
        os.close(reading)
        out = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", out)
    with streams.shown_of(Path("runs/monday")):
        print("VALID")
    out.close()
    said = capsys.readouterr().err
    assert ("runs/monday" in said) == (where == "a full disk")


def test_a_log_whose_name_is_not_utf8(start: Start, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.log"
    (tmp_path / "access.log").rename(os.fsdecode(name))
    assert start("import", name, "-o", "t.trace").returncode == 0
    assert b'"caf\\\\xe9.log"' in (tmp_path / "t.trace" / "manifest.json").read_bytes()
    assert start("inspect", name, "--json").returncode == 0


def test_an_output_whose_name_is_not_utf8_is_refused_in_one_line(start: Start, tmp_path: Path) -> None:
    done = start("import", "access.log", "-o", b"caf\xe9.trace")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and rb"caf\xe9.trace" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["access.log"]


def test_a_name_that_is_too_long(start: Start) -> None:
    done = start("inspect", "x" * 300)
    assert done.returncode == 2 and b"file name too long" in done.stderr


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path, link = tmp_path / f"{'n' * 250}.json", tmp_path / "link"
    link.symlink_to(path)
    write_whole(path, b"1")
    write_whole(link, b"2")
    assert path.read_bytes() == b"2" and link.is_symlink()
    (tmp_path / "folder").mkdir()
    for refused in (tmp_path / "folder", tmp_path / "none" / "file"):
        with pytest.raises(OutputError):
            write_whole(refused, b"3")
    assert sorted(tmp_path.iterdir()) == sorted([path, link, tmp_path / "folder"])


def test_a_device_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"<html>")
    assert os.read(reader, 100) == b"<html>" and pipe.is_fifo()
    os.close(reader)


def test_a_scenario_is_written_for_a_name_of_two_lines(start: Start, tmp_path: Path) -> None:
    (tmp_path / "access.log").rename(tmp_path / "two\nlines.log")
    done = start("init", "two\nlines.log", "--target", "http://127.0.0.1:1", "-o", "s.toml")
    assert done.returncode == 0, done.stderr
    assert tomllib.loads((tmp_path / "s.toml").read_text())["trace"] == "two\nlines.log"


def test_a_working_directory_that_was_deleted(start: Start, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    log = str(tmp_path / "access.log")
    done = start("init", log, "--target", "http://127.0.0.1:1", cwd=gone, preexec_fn=gone.rmdir)
    assert done.returncode == 2 and b"working directory no longer exists" in done.stderr


@pytest.mark.parametrize("ignored", [(), (signal.SIGINT,)])
def test_an_interrupt_that_something_swallowed_comes_again(ignored: tuple[signal.Signals, ...]) -> None:
    program = """
import time
import replay.cli
from replay.cli import interrupts
class Destroyed:
    def __del__(self):
        raise KeyboardInterrupt
interrupts.prepare()
Destroyed()
try:
    time.sleep(20)
except KeyboardInterrupt:
    print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False,
        preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in ignored],
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("ended\n", "")


def test_a_page_for_standard_output_by_its_name(tmp_path: Path) -> None:
    program = "from pathlib import Path; from replay.files import write_whole; write_whole(Path('/dev/stdout'), b'[]')"
    words = [sys.executable, "-c", program]
    assert subprocess.run(words, capture_output=True, timeout=30, check=True).stdout == b"[]"
    with (tmp_path / "out.json").open("wb") as out:
        subprocess.run(words, stdout=out, timeout=30, check=True)
    assert (tmp_path / "out.json").read_bytes() == b"[]"
    assert Path("/dev/stdout").is_symlink()


def test_a_disk_that_fills_up_in_mid_run_says_where_what_was_measured_is(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        path = tmp_path / "timeline.jsonl"
        file = AppendFile(path)
        os.dup2(full.fileno(), file._fd)
        path.unlink()
        path.symlink_to("/dev/full")
        with (
            mock.patch("os.ftruncate"),
            pytest.raises(OutputError, match="no space left on device") as caught,
        ):
            file.append(b"{}\n")
    assert "replay report" in caught.value.hint
    os.close(file._fd)
