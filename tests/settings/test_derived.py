"""Files that are made from the settings are current, and say what the settings say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest

from replay.cli.scenario_text import scenario_text
from replay.errors import UsageError
from replay.settings.derive import files
from replay.settings.file import load
from replay.settings.scenario import Scenario
from replay.settings.table import keys_of
from tests.support.places import ROOT
from tests.support.trace_data import Row, write_trace

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


SCENARIO_SCHEMA = json.loads(files.SCHEMA.read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft7Validator(SCENARIO_SCHEMA)


def test_the_schema_is_a_json_schema_and_every_object_in_it_is_closed() -> None:
    jsonschema.Draft7Validator.check_schema(SCENARIO_SCHEMA)
    assert SCENARIO_SCHEMA["properties"].keys() == keys_of(Scenario).keys()
    assert SCENARIO_SCHEMA["properties"]["timeout"]["default"] == "30s"


@pytest.mark.parametrize("everything", [False, True])
def test_the_schema_accepts_the_scenarios_that_init_writes(tmp_path: Path, everything: bool) -> None:
    trace = write_trace(tmp_path / "t.trace", [Row(0), Row(5, "POST", b"/v1/users")])
    text = scenario_text(trace, "t.trace", "http://127.0.0.1:1", everything=everything)
    VALIDATOR.validate(tomllib.loads(text))
    lines = [re.sub(r"^# (\w+ = |\[\[)", r"\1", line) for line in text.splitlines()]
    VALIDATOR.validate(tomllib.loads("\n".join(lines)))


@pytest.mark.parametrize(
    "wrong",
    [
        'timeot = "5s"', 'timeout = "5 parsecs"', "timeout = -1", "timeout = true", 'speed = "fast"', "speed = 0",
        'sample = "half"', "sample = 2", 'rate = "many"', "connections = 0", 'order = "clients"', "seed = 1.5", "seed = -1",
        "slo = 'p99<1s'", "[window]\nfrm = '18:00'", "[[body]]\nfile = 'x'", "[retry]\nattempts = 65", "[headers]\nA = 1",
        "[kafka]\nacks = 0", "[limits]\nanswer = '5 parsecs'", "[[check]]\nroute = '*'\nsize = '>>5'",
    ],
)  # fmt: skip
def test_the_schema_refuses_what_the_parser_refuses(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "s.toml").write_text(wrong)
    with pytest.raises(UsageError):
        load(tmp_path / "s.toml", {})
    assert list(VALIDATOR.iter_errors(tomllib.loads(wrong)))
