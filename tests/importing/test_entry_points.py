"""Importers and exporters of installed packages: used by the real command, and refused by name where they cannot be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from replay.trace import Trace
from replay.trace.importing import importers
from tests.support.events import events
from tests.support.example_package import install

LINES = "1700000000250 10.0.0.7 GET /users/7?token=secret\n1700000001500 10.0.0.8 POST /orders\nno request\n"

EXPORTER = """
from replay.trace.exporting.export import Exporter

def write(trace, file, progress):
    file.write(b"%d requests" % trace.rows)

EXPORTER = Exporter("count", "the number of requests", write)
BROKEN = 1 / 0 if __name__ == "broken" else None
"""


def package(folder: Path, name: str, group: str, entry: str, code: str = "") -> None:
    """Install a package of one module."""
    (folder / f"{name}.py").write_text(code)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")


def replay(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "site"), *sys.path])}
    return subprocess.run(
        [sys.executable, "-m", "replay.cli", *words], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.log").write_text(LINES)
    (tmp_path / "site").mkdir()
    return tmp_path


def test_an_installed_importer_is_known_by_the_first_lines_and_by_name(folder: Path) -> None:
    install(folder / "site")
    done = replay(folder, "import", "a.log", "-o", "a.trace", "--no-jitter")
    assert done.returncode == 0, done.stderr
    assert "1 not this format  a.log:3: no request" in done.stdout
    trace = Trace.open(folder / "a.trace")
    assert (trace.manifest.importer, trace.manifest.lines, trace.manifest.clients) == ("stamped", 3, 2)
    assert [(event.at_ns, event.method, event.target) for event in events(trace)] == [
        (1_700_000_000_250_000_000, "GET", events(trace)[0].target),
        (1_700_000_001_500_000_000, "POST", b"/orders"),
    ]
    assert re.fullmatch(rb"/users/7\?token=[a-z]{6}", events(trace)[0].target)
    assert replay(folder, "import", "a.log", "-o", "b.trace", "--format", "stamped").returncode == 0
    refused = replay(folder, "import", "a.log", "-o", "c.trace", "--format", "stamped", "--columns", "at=x")
    assert refused.returncode == 2 and "--columns does not work with --format stamped" in refused.stderr
    refused = replay(folder, "import", "a.log", "-o", "c.trace", "--format", "stampd")
    assert refused.returncode == 2 and "did you mean stamped?" in refused.stderr


def test_an_installed_exporter_writes_its_ending(folder: Path) -> None:
    install(folder / "site")
    package(folder / "site", "counts", "replay.exporters", "count = counts:EXPORTER", EXPORTER)
    assert replay(folder, "import", "a.log", "-o", "a.trace").returncode == 0
    assert replay(folder, "export", "a.trace", "-o", "a.count").returncode == 0
    assert (folder / "a.count").read_text() == "2 requests"
    assert ".count (of a package)" in replay(folder, "export", "a.trace", "-o", "a.x").stderr


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            "stamped = nowhere:IMPORTER",
            "the importer 'stamped' of other cannot be loaded: ModuleNotFoundError",
        ),
        ("stamped = other:IMPORTER", "the importer 'stamped' of other cannot be loaded: AttributeError"),
        (
            "stamped = other:WRONG",
            "the importer 'stamped' of other is not an instance of Importer with that name",
        ),
        ("common = other:WRONG", "replay and other each have an importer 'common'"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(folder: Path, entry: str, says: str) -> None:
    package(folder / "site", "other", "replay.importers", entry, "WRONG = 1")
    refused = replay(folder, "import", "a.log", "-o", "a.trace")
    assert refused.returncode == 2 and says in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert replay(folder, "import", "--help").returncode == 0


def test_the_docs_have_a_row_for_each_importer() -> None:
    text = (Path(__file__).parents[2] / "docs" / "importing.md").read_text()
    table = text[text.index("| `--format` |") : text.index("A format is known by")]
    named = {
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([a-z0-9-]+)`", row.split("|")[1] if row else "")
    }
    assert {name for name in importers() if name != "parquet"} <= named
