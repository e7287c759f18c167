"""Files that are made from the settings are current, and say what the settings say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from replay.settings.derive import files
from tests.support.places import ROOT

PROGRAM = """
from typing import Unpack
from replay.settings.typed import Settings

def run(trace: str, /, *, target: str, **settings: Unpack[Settings]) -> None: ...

run("day.trace", target="http://127.0.0.1:1", {settings})
"""


@pytest.mark.parametrize("path", files.current(), ids=lambda path: path.name)
def test_a_file_made_from_the_settings_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == files.current()[path], "run python -m replay.settings.derive"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ('timeout="5s", speed=10, methods="all", window={"from": "+1m"}', ""),
        ('timeot="5s"', 'Unexpected keyword argument "timeot" for "run"; did you mean "timeout"?'),
        ("timeout=[5]", 'has incompatible type "list[int]"'),
        ('order="clients"', "has incompatible type \"Literal['clients']\""),
        ('body=[{"file": "x"}]', 'Missing key "route"'),
    ],
)
def test_a_type_checker_knows_the_settings(tmp_path: Path, settings: str, said: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.format(settings=settings))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        str(tmp_path / "program.py"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == (1 if said else 0), done.stdout
    assert said in done.stdout
