"""What a warm command costs to start: imports and compiled kernels are loaded, and little more."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = 5
LINE = '10.0.0.{n} - - [10/Oct/2025:13:55:{second:02d} +0000] "GET /users/{n} HTTP/1.1" 200 512\n'
FLOOR = ["-c", "import numba, pyarrow, trio"]


def cpu_s(arguments: list[str], folder: Path) -> float:
    """CPU seconds of a Python process, which may keep the byte code of what it imports."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environ, check=True, capture_output=True, timeout=120
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.whole
@pytest.mark.timing
def test_a_warm_command_costs_little_more_than_its_libraries(tmp_path: Path) -> None:
    (tmp_path / "access.log").write_text("".join(LINE.format(n=n % 250, second=n % 60) for n in range(500)))
    replay = ["-m", "replay.cli"]
    commands = {
        "floor": (FLOOR, 1.0),
        "import": ([*replay, "import", "access.log", "-o", "a.trace", "--force"], 1.5),
        "inspect": ([*replay, "inspect", "access.log"], 1.5),
        "dry run": ([*replay, "run", "access.log", "--target", "http://127.0.0.1:9", "--dry-run"], 2.1),
    }
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(ROUNDS):
        for name, (arguments, _limit) in commands.items():
            best[name] = min(best[name], cpu_s(arguments, tmp_path))
    ratios = {name: value / best["floor"] for name, value in best.items()}
    assert [name for name, ratio in ratios.items() if ratio > commands[name][1]] == [], ratios


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "access.log"],
        ["import", "access.log", "-o", "a.trace"],
        ["run", "access.log", "--target", "http://127.0.0.1:9", "--dry-run"],
    ],
)
def test_no_command_imports_what_it_does_not_need(tmp_path: Path, arguments: list[str]) -> None:
    """pandas comes with pyarrow's conversions where it is installed; a dry run needs neither lanes nor a name server."""
    (tmp_path / "access.log").write_text(LINE.format(n=1, second=1))
    code = (
        "import sys; from replay.cli import invoke; code = invoke(sys.argv[1:]); print(*sys.modules, file=sys.stderr);"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    unwanted = {
        "pandas",
        "aiokafka",
        "dns",
        "asyncio",
        "replay_native.lane.loop",
        "replay.engine.nursery",
        "sphinx",
    }
    assert unwanted & set(done.stderr.split()) == set()


def test_the_list_of_runs_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys; from replay.cli import invoke; invoke(['runs']); print([n for n in sys.argv if n in sys.modules])"
    heavy = ["numba", "numpy", "pyarrow", "trio"]
    done = subprocess.run(
        [sys.executable, "-c", code, *heavy],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]"
