"""The example notebook runs in a kernel of its own, shows what it promises, and is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from replay.staging.sink import Sink
from tests.support.places import ROOT
from tests.support.trace_data import Row, write_trace

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code() -> str:
    return "\n".join(cell.source for cell in notebook().cells if cell.cell_type == "code")


def shown(cells: Any) -> str:
    """All that the notebook shows, as HTML where it has that."""
    found = []
    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            found.append(data.get("text/html") or data.get("text/plain") or output.get("text", ""))
    return "\n".join(found)


@pytest.mark.whole
def test_it_runs_from_the_trace_to_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_trace(tmp_path / "a.trace", [Row(n * 5_000_000, target=b"/users/%d" % n) for n in range(200)])
    made = notebook()
    with Sink() as base, Sink() as new:
        monkeypatch.setenv("REPLAY_EXAMPLE_TRACE", str(tmp_path / "a.trace"))
        monkeypatch.setenv("REPLAY_EXAMPLE_BASE", f"http://127.0.0.1:{base.port}")
        monkeypatch.setenv("REPLAY_EXAMPLE_NEW", f"http://127.0.0.1:{new.port}")
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'native'}")
        NotebookClient(made, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
        assert (base.arrivals, new.arrivals) == (200, 200)
    page = shown(made.cells)
    assert "GET /users/{id}" in page and "a.trace" in page
    assert "linear-gradient" in page, "percentiles are drawn as bars"
    # A busy machine may make a run INVALID, and the comparison then reports that.
    assert ("INCONCLUSIVE" in page or "INVALID" in page) and "response_p99_ns" in page
    assert "<script" not in page and "http-equiv" not in page
    assert sorted(path.name for path in next(tmp_path.glob("replay-notebook-*")).iterdir()) == [
        "base-1",
        "new-1",
    ]


def test_it_is_kept_without_outputs() -> None:
    for cell in notebook().cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.whole
def test_it_passes_mypy_in_strict_mode_as_a_script(tmp_path: Path) -> None:
    lines = [line for line in code().splitlines() if line not in ("trace", "base", "found")]
    (tmp_path / "notebook.py").write_text(
        "\n".join([*lines, "reveal_type(base)", "reveal_type(found)"]) + "\n"
    )
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "--cache-dir", "cache", "notebook.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert 'Revealed type is "replay.results.run.Run"' in done.stdout
    assert 'Revealed type is "replay.comparison.verdict.Comparison"' in done.stdout
