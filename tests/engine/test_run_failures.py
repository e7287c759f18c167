"""A run whose disk, folder or descriptors are taken away in mid-run: exit code 1, never 2, and a way back."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replay.errors import (
    EngineError,
    Exit,
    OutputError,
    Sending,
    UsageError,
    exit_code_now,
)
from replay.staging.sink import Sink
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.whole

Took = Callable[[Path, subprocess.Popen[str]], None]


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink(capacity=20_000) as made:
        yield made


def replayed(folder: Path, sink: Sink, take: Took, *flags: str) -> tuple[int, str, int]:
    """Run a trace of 30 s, and take something away once requests flow: exit code, the last line on stderr, arrivals."""
    write_trace(folder / "t.trace", [Row(n * 10_000_000) for n in range(3_000)])
    words = ["run", "t.trace", "--target", f"http://127.0.0.1:{sink.port}", "-o", "r", "--plain", "-d", "8s"]
    with subprocess.Popen(
        [sys.executable, "-m", "replay.cli", *words, *flags], cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while sink.arrivals < 120 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        take(folder / "r", process)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors and "crashed" not in errors
    return process.returncode, errors.strip().splitlines()[-1], sink.arrivals


def report(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "replay.cli", "report", "r"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def no_larger_files(run: Path, process: subprocess.Popen[str]) -> None:
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (64, 64))


def no_descriptors(run: Path, process: subprocess.Popen[str]) -> None:
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (4, 4))


@pytest.mark.timing
@pytest.mark.parametrize(
    ("take", "cause", "remedy"),
    [
        (no_larger_files, "cannot be written: file too large", "raise the limit on file sizes"),
        (no_descriptors, "cannot be written: too many open files", "raise the limit on open files"),
    ],
)
def test_a_limit_that_is_lowered_in_mid_run(
    take: Took, cause: str, remedy: str, sink: Sink, tmp_path: Path
) -> None:
    code, line, arrivals = replayed(tmp_path, sink, take)
    assert code == 1 and arrivals >= 120
    assert line.startswith("replay: the run failed after ") and cause in line
    assert remedy in line and "then recover what was measured: replay report r" in line
    assert report(tmp_path).returncode in (0, 4, 99)
    document = json.loads((tmp_path / "r" / "run.json").read_text())
    assert document["accounts"]["sent"] >= 120 and document["ending"]["how"] == "killed"


@pytest.mark.timing
def test_a_folder_that_is_removed_in_mid_run(sink: Sink, tmp_path: Path) -> None:
    code, line, _ = replayed(tmp_path, sink, lambda run, _: shutil.rmtree(run))
    assert code == 1 and "was removed or replaced while it was written" in line
    assert "nothing was kept" in line and "free some disk space" not in line


@pytest.mark.timing
@pytest.mark.parametrize("name", ["timeline.jsonl", "latency.hlog"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_that_is_removed_in_mid_run_is_not_a_whole_run(
    name: str, replaced: bool, sink: Sink, tmp_path: Path
) -> None:
    def take(run: Path, _: subprocess.Popen[str]) -> None:
        (run / name).unlink()
        if replaced:
            (run / name).touch()

    code, line, _ = replayed(tmp_path, sink, take)
    assert code == 1 and f"{name} was removed or replaced" in line
    assert "what was measured until then is kept: replay report r" in line
    document = json.loads((tmp_path / "r" / "run.json").read_text())
    assert (
        document["interrupted"]
        and document["ending"]["how"] == "failed"
        and name in document["ending"]["detail"]
    )
    assert document["accounts"]["sent"] >= 120
    shown = report(tmp_path)
    assert shown.returncode == 0 and "failed" in shown.stdout


@pytest.mark.timing
@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_is_filled_in_mid_run(tmp_path: Path) -> None:
    """In a mount namespace of its own, where the run's disk is small."""
    program = """
import subprocess, sys
from pathlib import Path
from replay.staging.sink import Sink
from tests.engine.test_run_failures import replayed, report
folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", folder], check=True)
def fill(run, process):
    with (folder / "fill").open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                pass
with Sink(capacity=20_000) as sink:
    code, line, arrivals = replayed(folder, sink, fill)
(folder / "fill").unlink()
shown = report(folder)
print(code, arrivals, shown.returncode, line)
"""
    words = ["unshare", "-m", sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("no namespaces here")
    code, arrivals, shown, line = done.stdout.strip().split(" ", 3)
    assert code == "1" and int(arrivals) >= 120, done.stdout + done.stderr
    assert (
        "no space left on device" in line
        and "free some disk space, then recover what was measured: replay report r" in line
    )
    assert int(shown) in (0, 4, 99)


def test_an_error_after_something_was_sent_is_never_exit_code_2() -> None:
    try:
        for began in (False, True):
            Sending.began = began
            for error in (UsageError("x"), OutputError("x"), EngineError("x")):
                assert (exit_code_now(error.exit_code) == Exit.USAGE) is (not began and error.exit_code == 2)
            assert [exit_code_now(code) for code in (0, 3, 4, 99, 130)] == [0, 3, 4, 99, 130]
    finally:
        Sending.began = False


@pytest.mark.timing
def test_a_peak_whose_folder_is_taken_away_is_exit_code_1(sink: Sink, tmp_path: Path) -> None:
    """Whether that ends the trial in progress or hinders the next one."""
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(3_000)])
    words = [
        "peak",
        "t.trace",
        "--target",
        f"http://127.0.0.1:{sink.port}",
        "-o",
        "p",
        "--trial",
        "1s",
        "--hold",
        "1s",
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "replay.cli", *words], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        while sink.arrivals < 10 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        shutil.rmtree(tmp_path / "p")
        (tmp_path / "p").touch()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    lines = [line for line in errors.splitlines() if line.startswith("replay: ")]
    assert len(lines) == 1 and "Traceback" not in errors
