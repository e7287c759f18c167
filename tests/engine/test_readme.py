"""The library's example in the README is typed, and does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from replay.staging.sink import Sink
from tests.support.places import ROOT
from tests.support.trace_data import Row, write_trace


def example() -> str:
    """The code below the heading."""
    text = (ROOT / "README.md").read_text().partition("## As a library\n")[2]
    lines = []
    for line in text.splitlines():
        if line and not line.startswith("    "):
            break
        lines.append(line[4:])
    return "\n".join(lines)


@pytest.mark.whole
def test_it_passes_mypy_in_strict_mode(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(
        example() + "\nreveal_type(run)\nimport replay.engine\nreveal_type(replay.engine.run)\n"
    )
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini", "--cache-dir", "cache", "example.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert 'Revealed type is "replay.results.run.Run"' in done.stdout
    assert "Coroutine[Any, Any, replay.results.document.RunDocument]" in done.stdout


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_trace(tmp_path / "monday.trace", [Row(n * 10_000_000) for n in range(50)])
    with Sink(capacity=1_000) as sink:
        exec(example().replace("8080", str(sink.port)), {})
    verdict, p99_ns = capsys.readouterr().out.split()
    assert verdict in ("VALID", "SUSPECT", "INVALID") and int(p99_ns) > 0
    assert sink.arrivals == 50
