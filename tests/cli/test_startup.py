"""What a warm command loads to start: what it needs, and little more. `benchmarks/startup.py` measures it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.compare_data import make_run

LINE = '10.0.0.{n} - - [10/Oct/2025:13:55:{second:02d} +0000] "GET /users/{n} HTTP/1.1" 200 512\n'


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


@pytest.mark.parametrize(
    "outputs",
    [(), ("--html=r.html", "--json=r.json", "--junit=r.xml", "--markdown=r.md"), ("--hgrm", "hgrm")],
)
def test_a_report_needs_no_numba(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    code = "import sys; from replay.cli import invoke; c = invoke(sys.argv[1:]); print('numba' in sys.modules); sys.exit(c)"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(make_run(tmp_path / "run", seed=1)), *outputs],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "False"
