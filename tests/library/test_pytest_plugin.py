"""The pytest plug-in, loaded by a pytest of its own: a test passes or fails by what a replay felt like."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from replay.ledger.limits import ValidityLimits
from replay.staging.sink import Sink
from tests.support.places import ROOT
from tests.support.trace_data import Row, write_trace

ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
NAME, MODULE = next(iter(ENTRY_POINTS.items()))

# No run is INVALID here, however busy the machine is: these tests are about the text.
NEVER_INVALID = {
    name: 10**15 if name.endswith("_ns") else 1e9
    for name in ValidityLimits.__struct_fields__
    if "invalid" in name
}

TESTS = f"""
import os

TARGET = os.environ["TARGET"]
ANY = {NEVER_INVALID}
"""
TESTS += """

def test_fast(replay_run):
    first = replay_run("a.trace", target=TARGET, validity=ANY)
    second = replay_run("a.trace", target=TARGET, connections=2, validity=ANY)
    assert first.folder.path != second.folder.path
    assert first.folder.path.parent == second.folder.path.parent
    first.assert_slo("p99<1h", "errors<100%")

def test_slow(replay_run, tmp_path):
    run = replay_run("a.trace", target=TARGET, out=tmp_path / "mine", validity=ANY)
    assert (tmp_path / "mine" / "run.json").exists()
    run.assert_slo('p99 of "GET *" < 1ns', "p50<1h")

def test_wrong(replay_run):
    replay_run("a.trace", target=TARGET, spead=3)
"""


def pytest_of_its_own(folder: Path, *arguments: str, **environment: str) -> str:
    """The output of a pytest with the plug-in, whether it is installed or not."""
    command = [sys.executable, "-m", "pytest", "-p", f"no:{NAME}", "-p", MODULE, "-p", "no:cacheprovider"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.whole
def test_a_failure_says_figure_limit_count_route_and_where_the_run_is(tmp_path):
    write_trace(tmp_path / "a.trace", [Row(n * 1_000_000) for n in range(20)])
    (tmp_path / "test_it.py").write_text(TESTS)
    with Sink() as sink:
        out = pytest_of_its_own(
            tmp_path, "-q", f"--basetemp={tmp_path / 'base'}", TARGET=f"http://127.0.0.1:{sink.port}"
        )
    assert "2 failed, 1 passed" in out, out
    assert re.search(r"E +AssertionError: p99 response is .*; the limit is < 1ns", out), out
    assert re.search(r"E +route: +GET \*", out) and re.search(r"E +count: +20 requests", out)
    assert re.search(rf"E +run: +{tmp_path}/base/test_slow0/mine", out)
    assert "<Run " in out, "the report of a failed test names its runs"
    assert "did you mean speed?" in out
    assert "proof.py" not in out and "def assert_slo" not in out, "no lines of ours in the traceback"


def test_it_is_declared_and_imports_nothing_heavy(tmp_path):
    importlib.import_module(MODULE)
    code = f"import sys, {MODULE}; print(*sorted({{'numba', 'pyarrow', 'trio', 'numpy', 'msgspec'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_its_fixture_is_listed(tmp_path):
    out = pytest_of_its_own(tmp_path, "--fixtures", "-q")
    assert re.search(
        r"^replay_run .*\n +Return a function that replays a trace, as `replay.run` does", out, re.MULTILINE
    ), out
