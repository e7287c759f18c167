"""Names that are chosen by the clock: each command has one of its own, however many start within one second."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from replay.cli.places import keeping, result_folder
from replay.errors import (
    EngineError,
    OutputError,
    Sending,
    UsageError,
)
from replay.staging.sink import Sink
from tests.support.trace_data import Row, write_trace


def test_each_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20260105-180000")
    with ExitStack() as stack:
        names = [stack.enter_context(result_folder(None, tmp_path, "a.log")).name for _ in range(4)]
    stem = "a-20260105-180000"
    assert names == [stem, f"{stem}.2", f"{stem}.3", f"{stem}.4"]
    assert not list(tmp_path.iterdir()), "what marked them is gone"
    (tmp_path / stem).mkdir()
    (tmp_path / f"{stem}.2").symlink_to("nowhere")
    with result_folder(None, tmp_path, "a.log") as path:
        assert path.name == f"{stem}.3"


def test_many_at_once_never_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "now")

    def take(_: int) -> str:
        with result_folder(None, tmp_path, "a.log") as path:
            path.mkdir()
            return path.name

    with ThreadPoolExecutor(16) as pool:
        names = list(pool.map(take, range(64)))
    assert len(set(names)) == 64 == len(list(tmp_path.iterdir()))


def test_a_name_that_was_given_is_refused_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists already"), result_folder(tmp_path / "there", tmp_path, "x"):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match="cannot be written to"),
        result_folder(None, tmp_path / "file", "x"),
    ):
        pass


def test_an_error_after_some_runs_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Runs of other tests in this process set this variable.
    monkeypatch.setattr(Sending, "began", False)
    with pytest.raises(UsageError), keeping(tmp_path):
        raise UsageError("wrong")
    monkeypatch.setattr(Sending, "began", True)
    with pytest.raises(EngineError, match="wrong") as caught, keeping(tmp_path):
        raise UsageError("wrong", hint="do right")
    assert caught.value.hint == f"do right; the runs so far are in {tmp_path}"


@pytest.mark.whole
def test_runs_that_start_together_without_a_name_are_all_there(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.trace", [Row(n * 10_000_000) for n in range(50)])
    with Sink(capacity=1_000) as sink:
        words = ["run", "t.trace", "--target", f"http://127.0.0.1:{sink.port}", "-q"]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "replay.cli", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
            )
            for _ in range(4)
        ]
        said = [process.communicate(timeout=120)[1] for process in started]
        assert sink.arrivals == 200
    assert all(process.returncode in (0, 4) for process in started), said
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 4
    assert [json.loads((run / "run.json").read_text())["accounts"]["sent"] for run in runs] == [50] * 4
