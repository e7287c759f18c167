"""Every run leaves a row: runs, searches for the peak and their trials, runs of `replay ab`, runs of a program. Trends do
not mix them.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import replay
from replay.cli.commands import replay as cli
from replay.history.database import database_of, opened, remember
from replay.history.finding import kind_of, stamps_in
from replay.history.trends import trends_of
from replay.staging.sink import Sink
from tests.support.compare_data import make_run, rewrite
from tests.support.places import ROOT
from tests.support.trace_data import Row, write_trace

from .test_runs import copy, fill

SERVER = f"{sys.executable} {ROOT / 'tests' / 'support' / 'tiny_server.py'} {{port}}"
LINE = '192.0.2.1 - - [05/Jan/2026:18:00:{0:02} +0100] "GET /users/{1} HTTP/1.1" 200 512\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("model") / "run", seed=1)


def search(model: Path, folder: Path, number: int, peak: float, verdict: str = "FOUND") -> None:
    """The folder of a search: two trials and its answer."""
    folder.mkdir(parents=True)
    trials = []
    for at, load in enumerate((1.0, peak), 1):
        copy(model, folder / f"{at:03}-up-{load:.4g}", number)
        trials.append({"load": load, "rate_per_s": 100 * load})
    found = {"verdict": verdict, "peak": peak, "above": None, "trials": trials}
    (folder / "peak.json").write_text(json.dumps(found))


def command(*words: str) -> Result:
    return CliRunner().invoke(cli, ["runs", *words])


def test_a_peak_that_fell_is_found_at_its_build(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    rng = np.random.default_rng(11)
    for number in range(24):
        level = 4.0 * (0.8 if number >= 14 else 1.0)
        search(model, folder / f"peak-{number:02}", number, level * float(np.exp(rng.normal(0, 0.02))))
    search(model, folder / "peak-bound", 30, 64.0, verdict="NO_LIMIT")
    done = command(str(folder), "--fail-on", "slower")
    assert done.exit_code == 99, done.output
    assert "24 searches of 24 builds" in done.output and "a lower peak from build b014" in done.output
    assert "not compared: 1 NO_LIMIT" in done.output, "64 is a bound, not a peak"
    assert "in no trend: 50 trials of replay peak" in done.output
    (trend,) = json.loads(command(str(folder), "--trend", "--json").stdout)["scenarios"]
    assert trend["kind"] == "peak" and {run["kind"] for run in trend["runs"]} == {"peak"}
    (moved,) = trend["changes"][0]["moved"]
    assert moved["metric"] == "peak" and -0.25 < moved["change"] < -0.15 and trend["changes"][0]["slower"]


def test_a_trend_has_runs_of_one_kind(model: Path, tmp_path: Path) -> None:
    """Trials that took ten times as long, of the same scenario and load, change nothing."""
    folder = tmp_path / "runs"
    fill(model, folder, 14)
    for number in range(14, 20):
        search(model, folder / f"peak-{number}", number, 2.0)
        copy(model, folder / f"ab-{number}" / "01-base", number, 10.0)
        copy(model, folder / f"ab-{number}" / "02-new", number, 10.0)
        copy(model, folder / f"monday-{number}" / "one", number, 10.0)
    done = command(str(folder), "--trend", "--fail-on", "change")
    assert done.exit_code == 0, done.output
    assert "14 runs of 14 builds" in done.output and "6 searches of 6 builds" in done.output
    assert "12 trials of replay peak, 12 runs of replay ab, 6 runs in subfolders" in done.output
    found = json.loads(command(str(folder), "--trend", "--json").stdout)
    assert found["in_no_trend"] == {"trial": 12, "ab": 12, "nested": 6}


def test_objectives_and_another_recording_make_another_trend_of_peaks(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for number in range(4):
        search(model, folder / f"peak-{number}", number, 2.0)
    document = json.loads((model / "run.json").read_text())
    rewrite(folder / "peak-1" / "001-up-1", scenario=document["scenario"] | {"slo": ["p99<1s"]})
    rewrite(folder / "peak-2" / "001-up-1", trace=document["trace"] | {"digest": "another"})
    with opened(folder) as history:
        assert len({row.load for row in history.rows() if row.kind == "peak"}) == 3


def test_a_search_that_cannot_be_read_is_named_and_its_trials_are_kept(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for number, damage in enumerate(("{", '{"verdict": 3}', '{"verdict": "FOUND", "peak": -1}', "[" * 9_999)):
        search(model, folder / f"peak-{number}", number, 2.0)
        (folder / f"peak-{number}" / "peak.json").write_text(damage)
    search(model, folder / "peak-bare", 9, 2.0)
    for trial in (folder / "peak-bare").glob("0*"):
        shutil.rmtree(trial)
    with opened(folder) as history:
        rows = history.rows()
    problems = {row.name: row.problem for row in rows if row.problem}
    assert sorted(problems) == ["peak-0", "peak-1", "peak-2", "peak-3", "peak-bare"]
    assert problems["peak-bare"] == "it has no trial"
    assert sum(row.kind == "trial" for row in rows) == 8


def test_what_is_remembered_is_what_the_folders_hold(model: Path, tmp_path: Path) -> None:
    """Rows that were written one result at a time are those that are read from all folders."""
    folder = tmp_path / "runs"
    fill(model, folder, 2)
    search(model, folder / "peak-1", 3, 2.5)
    copy(model, folder / "ab-1" / "01-new", 4)
    (folder / "link").symlink_to(folder / "peak-1")
    (folder / "peak-1" / "003-up-9").symlink_to(model)
    for path in folder.iterdir():
        assert remember(folder, path.name) == ""
    with sqlite3.connect(database_of(folder)) as connection:
        names = {os.fsdecode(name) for (name,) in connection.execute("SELECT name FROM runs")}
    assert names == {name for name, _ in stamps_in(folder)} and len(names) == 6
    with opened(folder) as history:
        one = history.rows()
    database_of(folder).unlink()
    with opened(folder) as history:
        assert history.rows() == one
    row = next(row for row in one if row.kind == "peak")
    assert (row.peak, row.peak_per_s, row.verdict, row.build) == (2.5, 250.0, "FOUND", "b003")


def test_a_database_of_version_1_is_brought_up_to_date(model: Path, tmp_path: Path) -> None:
    """The changes that were reported stay reported."""
    folder = tmp_path / "runs"
    fill(model, folder, 24, at=14)
    assert command(str(folder), "--fail-on", "change").exit_code == 99
    with sqlite3.connect(database_of(folder)) as connection:
        for column in ("kind", "peak", "peak_per_s"):
            connection.execute(f"ALTER TABLE runs DROP COLUMN {column}")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    copy(model, folder / "run-later", 24, 1.3)
    search(model, folder / "peak-1", 25, 2.0)
    done = command(str(folder), "--trend", "--fail-on", "change")
    assert done.exit_code == 0 and "reported before" in done.output and not done.stderr, done.output
    assert "1 search of 1 build" in done.output


@pytest.mark.whole
def test_runs_and_searches_of_a_program_leave_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    trace = write_trace(tmp_path / "a.trace", [Row(n * 10_000_000) for n in range(100)])
    with Sink() as sink:
        target = f"http://127.0.0.1:{sink.port}"
        replay.run(trace, target=target, out="runs/one", build="b1")
        with replay.prepare(trace, target=target, build="b2") as prepared:
            prepared.run(tmp_path / "runs" / "two")
            prepared.run(tmp_path / "elsewhere")
        for number in range(2):
            replay.peak(
                trace, target=target, out=f"runs/peak-{number}", lowest=1, highest=2, width="50%", trial="500ms",
                hold="500ms", votes=1, slo=["errors<50%"], build="b3",
            )  # fmt: skip
    assert not (tmp_path.parent / f"{tmp_path.name}.sqlite").exists(), "elsewhere is no folder of runs"
    with sqlite3.connect(tmp_path / "runs.sqlite") as connection:
        rows = connection.execute("SELECT name, kind, build, load FROM runs").fetchall()
    kinds = Counter(kind for _, kind, _, _ in rows)
    assert kinds["run"] == 2 and kinds["peak"] == 2 and kinds["trial"] >= 4
    assert {build for _, kind, build, _ in rows if kind == "run"} == {"b1", "b2"}
    assert len({load for _, kind, _, load in rows if kind == "peak"}) == 1, "the same search, the same load"
    (tmp_path / "runs.sqlite").write_bytes(b"no database" * 1_000)
    with Sink() as sink:
        replay.run(trace, target=f"http://127.0.0.1:{sink.port}", out="runs/three")
    assert "saved, but not added to the history" in capfd.readouterr().err


@pytest.mark.whole
def test_runs_of_a_session_leave_rows_by_build(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("".join(LINE.format(n // 80, n % 7) for n in range(400)))
    words = [
        sys.executable,
        "-m",
        "replay.cli",
        "ab",
        "a.log",
        "--base",
        f"{SERVER} 1",
        "--new",
        f"{SERVER} 1",
    ]
    words += ["--speed", "20", "--duration", "200ms", "--cool-down", "0s", "--build", "b7", "-m", "p50"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert "Traceback" not in done.stderr and "not added to the history" not in done.stderr
    with opened(tmp_path / "ab") as history:
        rows = history.rows()
    assert len(rows) >= 12 and {row.kind for row in rows} == {"ab"}
    assert {row.name.rpartition("-")[2]: row.build for row in rows} == {"base": "base", "new": "b7"}
    assert trends_of(rows) == []
    assert (tmp_path / "ab.sqlite").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x/001-up-0.25", "trial"),
        ("x/1000-probe-1", "trial"),
        ("x/surge", "trial"),
        ("x/01-base", "ab"),
        ("x/12-new", "ab"),
        ("x/01-other", "nested"),
        ("x/up", "nested"),
    ],
)
def test_kinds_by_name(tmp_path: Path, name: str, kind: str) -> None:
    assert kind_of(tmp_path, name) == kind
