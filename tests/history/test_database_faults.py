"""A database that cannot be written, on a real full disk and a real read-only one, or that another process holds: the run
goes on, its result is saved, and one line says what is wrong.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from replay.errors import Exit
from replay.history.database import VERSION, database_of
from replay.staging.sink import Sink
from tests.support.compare_data import make_run
from tests.support.places import ROOT
from tests.support.trace_data import Row, write_trace

from .test_runs import copy, fill

ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
from tests.history.test_database_faults import Disk
disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk], check=True)
getattr(Disk(disk, Path(sys.argv[2])), sys.argv[3])()
"""


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replay.cli", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=200, check=False)


class Disk:
    """A small file system of its own, with 14 runs in it whose level changes at the ninth."""

    def __init__(self, disk: Path, model: Path) -> None:
        self.disk, self.model, self.folder = disk, model, disk / "runs"
        fill(model, self.folder, 18, at=9)

    def fill_up(self) -> None:
        with (self.disk / "fill").open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 9, 1):
                try:
                    while file.write(bytes(size)):
                        pass
                except OSError:
                    pass

    def check(self, said: str) -> None:
        """The trend is right, and one line says why nothing is remembered."""
        done = run("runs", "--trend", "--fail-on", "change", cwd=self.disk)
        assert done.returncode == 99 and "slower from build b009" in done.stdout, (done.stdout, done.stderr)
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr

    def full(self) -> None:
        self.fill_up()
        self.check("the trends are from the run folders")
        assert run("runs", "--rebuild", cwd=self.disk).returncode == 1
        (self.disk / "fill").unlink()
        for path in self.disk.glob("runs.sqlite*"):
            path.unlink()
        assert run("runs", "--trend", cwd=self.disk).stderr == ""
        copy(self.model, self.folder / "later", 40)
        self.fill_up()
        code = "from pathlib import Path; from replay.history.remembering import remember_result;"
        words = [sys.executable, "-c", f"{code} print(remember_result(Path('runs/later')))"]
        told = subprocess.run(words, cwd=self.disk, capture_output=True, text=True, check=True).stdout
        assert told.startswith("the results are saved, but not added to the history of runs: "), told
        assert "full" in told or "I/O" in told, told
        (self.disk / "fill").unlink()
        with sqlite3.connect(self.disk / "runs.sqlite") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert run("runs", "--trend", cwd=self.disk).stderr == ""

    def read_only(self) -> None:
        assert run("runs", "--trend", cwd=self.disk).stderr == ""
        copy(self.model, self.folder / "later", 40)
        subprocess.run(["mount", "-o", "remount,ro", self.disk], check=True)
        self.check("the trends are from the run folders")
        assert run("runs", cwd=self.disk).returncode == 0
        assert run("runs", "--rebuild", cwd=self.disk).returncode == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small file system")
@pytest.mark.parametrize("how", ["full", "read_only"])
def test_a_disk_that_is_full_or_read_only(how: str, tmp_path: Path) -> None:
    model, disk = make_run(tmp_path / "model", seed=1), tmp_path / "disk"
    disk.mkdir()
    words = ["unshare", "-m", sys.executable, "-c", ON_A_SMALL_DISK, str(disk), str(model), how]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip("no namespaces here")
    assert done.returncode == 0, done.stderr


@pytest.mark.whole
@pytest.mark.parametrize("damage", ["corrupt", "newer", "locked"])
def test_a_run_beside_a_database_that_it_cannot_use(damage: str, tmp_path: Path) -> None:
    """The real command: its exit code is that of the run, and one line says that it is not remembered."""
    write_trace(tmp_path / "a.trace", [Row(n * 10_000_000) for n in range(30)])
    path = database_of(tmp_path / "runs")
    holder = sqlite3.connect(path, isolation_level=None)
    if damage == "corrupt":
        holder.close()
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8_192)
    elif damage == "newer":
        holder.execute(f"PRAGMA user_version = {VERSION + 1}")
        holder.execute("CREATE TABLE t (a)")
    else:
        holder.execute("CREATE TABLE t (a)")
        holder.execute("BEGIN EXCLUSIVE")
    with Sink() as sink:
        target = f"http://127.0.0.1:{sink.port}"
        done = run("run", "a.trace", "--target", target, "--plain", cwd=tmp_path)
    holder.close()
    lines = [line for line in done.stderr.splitlines() if "not added to the history" in line]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    words = {"corrupt": "damaged", "newer": "newer replay", "locked": "locked"}
    assert words[damage] in lines[0]
    (result,) = (tmp_path / "runs").iterdir()
    document = json.loads((result / "run.json").read_text())
    assert document["accounts"]["sent"] == 30
    is_invalid = document["validity"]["verdict"] == "INVALID"
    assert done.returncode == (Exit.INVALID if is_invalid else Exit.PASSED), done.stderr
