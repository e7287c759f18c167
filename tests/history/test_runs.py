"""Runs remembered, and the changes among them, by the command `replay runs`."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner, Result

from replay.cli.commands import replay
from replay.history.change_points import Series, _two_sided, find_steps
from replay.history.database import database_of, opened, remember
from replay.results.build_label import build_of
from tests.support.compare_data import make_run

NS_PER_HOUR = 3_600_000_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run folder."""
    return make_run(tmp_path_factory.mktemp("model") / "run", seed=1)


def copy(model: Path, path: Path, number: int, factor: float = 1.0, **more: Any) -> None:
    """A run of the model, `factor` times as slow, `number` hours later."""
    shutil.copytree(model, path)
    document = json.loads((model / "run.json").read_text())
    document["start"]["wall_ns"] += number * NS_PER_HOUR
    for latency in (
        *document["latency"].values(),
        *(r[k] for r in document["routes"] for k in ("response", "service")),
    ):
        for key in ("p50_ns", "p99_ns") if latency else ():
            latency[key] = round(latency[key] * factor)
    document |= {"name": "evening", "build": f"b{number:03}"}
    document["host"] |= {"name": "one"} | more.pop("host", {})
    (path / "run.json").write_text(json.dumps(document | more))


def fill(model: Path, folder: Path, count: int, at: int = 1 << 30, size: float = 0.3, **more: Any) -> None:
    """Runs that scatter by 2%, `size` slower from number `at` on."""
    rng = np.random.default_rng(5)
    for number in range(count):
        factor = float(np.exp(rng.normal(0, 0.02))) * (1 + size * (number >= at))
        copy(model, folder / f"run-{number:03}", number, factor, **more)


def command(*words: str) -> Result:
    return CliRunner().invoke(replay, ["runs", *words])


def test_a_change_is_found_and_reported_once(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 24, at=14)
    first = command(str(folder), "--trend", "--fail-on", "change")
    assert first.exit_code == 99, first.output
    assert "slower from build b014" in first.output and "new" in first.output
    assert command(str(folder), "--fail-on", "slower").exit_code == 99, "the same runs give the same answer"
    (found,) = json.loads(command(str(folder), "evening", "--trend", "--json").stdout)["scenarios"]
    (change,) = found["changes"]
    assert change["build"] == "b014" and change["slower"] and 0.2 < change["moved"][0]["change"] < 0.4
    copy(model, folder / "run-later", 24, 1.3)
    later = command(str(folder), "--trend", "--fail-on", "change")
    assert later.exit_code == 0 and "reported before" in later.output
    assert command(str(folder), "--since", "b010", "--fail-on", "change").exit_code == 99
    assert command(str(folder), "--since", "b020", "--fail-on", "change").exit_code == 0
    assert command(str(folder), "--since", "nothing").exit_code != 0


def test_runs_without_a_change_have_none(model: Path, tmp_path: Path) -> None:
    fill(model, tmp_path / "runs", 30)
    done = command(str(tmp_path / "runs"), "--trend", "--fail-on", "change")
    assert done.exit_code == 0 and "no change" in done.output


def test_a_p99_that_is_not_judged_is_named(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 14)
    document = json.loads(command(str(folder), "--trend", "--json").stdout)["scenarios"][0]
    few = all(run["figures"][0]["requests"] < 1_000 for run in document["runs"])
    assert document["judges_p99"] is not few
    assert ("p99 is not judged" in command(str(folder), "--trend").stdout) is few


def test_other_hosts_are_no_change(model: Path, tmp_path: Path) -> None:
    """Runs moved to a host that is 15% slower: nobody can tell."""
    folder = tmp_path / "runs"
    rng = np.random.default_rng(5)
    for number in range(30):
        factor = float(np.exp(rng.normal(0, 0.01))) * (1.15 if number >= 15 else 1.0)
        copy(
            model,
            folder / f"run-{number:03}",
            number,
            factor,
            host={"name": "two" if number >= 15 else "one"},
        )
    done = command(str(folder), "--trend", "--fail-on", "change")
    assert done.exit_code == 0 and "cannot tell: from build b015" in done.output, done.output


def test_a_host_that_got_slower_is_no_change(model: Path, tmp_path: Path) -> None:
    """The control workload of the same host shows it."""
    folder = tmp_path / "runs"
    rng = np.random.default_rng(6)
    for number in range(30):
        slow = 1.15 if number >= 15 else 1.0
        control = {"control_ns": round(8_000_000 * slow * float(np.exp(rng.normal(0, 0.002))))}
        copy(
            model,
            folder / f"run-{number:03}",
            number,
            float(np.exp(rng.normal(0, 0.01))) * slow,
            host=control,
        )
    done = command(str(folder), "--trend", "--fail-on", "change")
    assert done.exit_code == 0 and "cannot tell" in done.output, done.output


def test_runs_that_measured_nothing_to_compare_are_left_out(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 14)
    document = json.loads((model / "run.json").read_text())
    for number in range(14, 18):
        copy(
            model,
            folder / f"run-{number}",
            number,
            3.0,
            validity=document["validity"] | {"verdict": "INVALID"},
        )
    copy(model, folder / "cut", 20, 3.0, ending={"how": "interrupted", "detail": "", "at_s": 1.0})
    done = command(str(folder), "--fail-on", "change")
    assert done.exit_code == 0 and "not compared: 4 INVALID, 1 INTERRUPTED" in done.output.replace(
        "1 INTERRUPTED, 4 INVALID", "4 INVALID, 1 INTERRUPTED"
    )


def test_a_database_that_cannot_be_used_costs_one_line(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 24, at=14)
    path = database_of(folder)
    assert path == tmp_path / "runs.sqlite"
    for damage in ("garbage", "newer", "other", "link", "folder", "locked"):
        locked = None
        if damage == "garbage":
            path.write_bytes(b"no database" * 1_000)
        elif damage in ("newer", "other", "locked"):
            locked = sqlite3.connect(path, isolation_level=None)
            if damage == "newer":
                locked.execute("PRAGMA user_version = 99")
            locked.execute("CREATE TABLE t (a)")
            if damage == "locked":
                locked.execute("BEGIN EXCLUSIVE")
        elif damage == "link":
            path.symlink_to(tmp_path / "elsewhere")
        else:
            path.mkdir()
        done = command(str(folder), "--trend", "--fail-on", "change")
        assert done.exit_code == 99 and "slower from build b014" in done.output, damage
        assert done.stderr.count("\n") == 1 and "the trends are from the run folders" in done.stderr, damage
        assert remember(folder, "run-000"), "it says why"
        if locked is not None:
            locked.close()
        assert not (tmp_path / "elsewhere").exists()
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
        for journal in tmp_path.glob("runs.sqlite-*"):
            journal.unlink()
    path.write_bytes(b"no database" * 1_000)
    assert command(str(folder), "--rebuild").exit_code == 0
    done = command(str(folder), "--trend")
    assert done.stderr == "" and "slower from build b014" in done.stdout


def test_values_that_no_run_has_are_damage(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 24, at=14)
    for damage in (
        "UPDATE figures SET p50_ns = 'text'",
        "UPDATE figures SET p50_ns = -5",
        "UPDATE runs SET control_ns = 0",
        "UPDATE runs SET started_ns = 'text'",
        "UPDATE runs SET build = x'ff'",
    ):
        assert command(str(folder), "--rebuild").exit_code == 0
        with sqlite3.connect(database_of(folder)) as connection:
            connection.execute(damage)
        connection.close()
        done = command(str(folder), "--trend")
        assert done.exit_code == 0 and "slower from build b014" in done.stdout, damage
        assert "is damaged" in done.stderr and "the trends are from the run folders" in done.stderr, damage


def test_hostile_folders_are_listed_or_named(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 3)
    (folder / "link").symlink_to(model)
    (folder / "damaged\x1b[2J").mkdir()
    (folder / "damaged\x1b[2J" / "run.json").write_text('{"start": {"wall_ns": 99999999999999999999999}}')
    (folder / "run-000").rename(folder / os.fsdecode(b"run-\xff"))
    done = command(str(folder), "--trend", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    names = [run["name"] for run in found["scenarios"][0]["runs"]]
    assert names == ["run-\\xff", "run-001", "run-002"] and len(found["unreadable"]) == 1
    assert "\x1b" not in command(str(folder), "--trend").output


def test_the_list_survives_names_of_other_bytes_and_follows_no_link(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 2)
    (folder / "run-000").rename(folder / os.fsdecode(b"run-\xff"))
    (folder / "linked").symlink_to(model)
    (folder / "nowhere").symlink_to(tmp_path / "none")
    (folder / "borrowed").mkdir()
    (folder / "borrowed" / "run.json").symlink_to(model / "run.json")
    (folder / "more" / "one").mkdir(parents=True)
    (folder / "more" / "one" / "run.json").symlink_to(model / "run.json")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "run.json")
    done = command(str(folder), "--json")
    assert done.exit_code == 0, done.output
    assert sorted(Path(row["path"]).name for row in json.loads(done.stdout)) == ["run-001", "run-\\xff"]
    shown = command(str(folder)).stdout
    assert "2 links not followed: borrowed/run.json, linked" in shown and "more runs" not in shown


def test_a_thousand_folders_and_several_writers(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    for number in range(1_000):
        (folder / f"r{number:04}").mkdir()
        os.link(model / "run.json", folder / f"r{number:04}" / "run.json")
    code = (
        "import sys; from pathlib import Path; from replay.history.database import remember;"
        "print([p for n in range(*map(int, sys.argv[2:])) if (p := remember(Path(sys.argv[1]), f'r{n:04}'))])"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(25 * n), str(25 * n + 25)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(2)
    ]
    assert [writer.communicate(timeout=100)[0] for writer in writers] == ["[]\n"] * 2
    connection = sqlite3.connect(database_of(folder))
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (50,)
    with opened(folder) as history:
        assert len(history.rows()) == 1_000 and not history.problem
    shutil.rmtree(folder / "r0000")
    with opened(folder) as history:
        assert len(history.rows()) == 999


def test_the_list_knows_scenarios_and_builds(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 2)
    shutil.copytree(model, folder / "old")
    rows = json.loads(command(str(folder), "--json").stdout)
    assert {(row["scenario"], row["build"]) for row in rows} == {
        ("evening", "b000"),
        ("evening", "b001"),
        ("t", ""),
    }
    assert len(json.loads(command(str(folder), "evening.toml", "--json").stdout)) == 2
    wrong = command(str(folder), "evning")
    assert wrong.exception is not None and "has no runs of a scenario 'evning'" in str(wrong.exception)


def test_the_build_of_an_environment() -> None:
    assert build_of({}) == ""
    assert build_of({"GITHUB_SHA": "abc", "BUILD_NUMBER": "7"}) == "abc"
    assert build_of({"GIT_COMMIT": "a\nb", "BUILD_NUMBER": "7"}) == "7"


def test_false_alarms_and_steps_of_a_short_simulation() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 0.02, (150, 4))
    none = np.full(150, np.nan)
    builds, hosts = [str(n) for n in range(150)], ["one"] * 150
    assert find_steps(Series(values, builds, hosts, none, np.full(4, 1e-4))) == []
    values[60:, 2] += 0.12
    (step,) = find_steps(Series(values, builds, hosts, none, np.full(4, 1e-4)))
    assert abs(step.at - 60) <= 1 and step.found < 75 and int(np.nanargmax(np.abs(step.t))) == 2


def test_a_step_on_several_hosts_needs_more_proof() -> None:
    """Chance looks like the effect of a host there, so the level is stricter: the same step is found some runs later."""
    rng = np.random.default_rng(3)
    values = rng.normal(0, 0.02, (150, 4))
    values[60:, 2] += 0.045
    slow = rng.random(150) < 0.5
    none, builds = np.full(150, np.nan), [str(n) for n in range(150)]
    (one,) = find_steps(Series(values, builds, ["one"] * 150, none, np.full(4, 1e-4)))
    hosts = ["slow" if each else "fast" for each in slow]
    (two,) = find_steps(Series(values + 0.15 * slow[:, None], builds, hosts, none, np.full(4, 1e-4)))
    assert abs(one.at - 60) <= 1 and abs(two.at - 60) <= 1 and not one.doubt and not two.doubt
    assert one.found < two.found < 80


@pytest.mark.parametrize("freedom", [4, 5, 11, 12, 40])
def test_the_tails_of_students_t(freedom: int) -> None:
    from replay_native.statistics.student import two_sided

    for t in (0.0, 0.5, 2.0, 5.0):
        assert _two_sided(t, freedom) == pytest.approx(two_sided(t, freedom), abs=1e-12)


def test_rows_survive_the_database(model: Path, tmp_path: Path) -> None:
    fill(model, tmp_path / "runs", 1)
    with opened(tmp_path / "runs") as history:
        (row,) = history.rows()
    with opened(tmp_path / "runs") as history:
        assert msgspec.to_builtins(history.rows()[0]) == msgspec.to_builtins(row)
    assert row.figures[0].route == "" and row.figures[0].requests == 1_200


def test_a_database_that_cannot_be_made_anew_costs_the_exit_code(tmp_path, monkeypatch):
    """A disk that is full or read-only answers so; the runs are listed all the same."""
    from replay.cli.commands import invoke
    from replay.history import database

    def full(path: Path) -> None:
        raise database.Unusable(f"{path} cannot be written: no space left on device")

    make_run(tmp_path / "runs" / "one", seed=1)
    assert invoke(["runs", str(tmp_path / "runs"), "--rebuild"]) == 0
    monkeypatch.setattr(database, "_connect", full)
    assert invoke(["runs", str(tmp_path / "runs"), "--rebuild"]) == 1
