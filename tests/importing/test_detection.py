"""Which format a file is taken for: each example against every detector, and files that are known and not read."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from replay.cli import import_
from replay.errors import InputError
from replay.trace.importing import Options, import_files, importers
from replay.trace.importing.detection import LIKELY, tell_format
from replay.trace.importing.sources import SourceFile
from replay.trace.journal import JournalWriter, Notes
from tests.oracles.format_oracle import SEEDS
from tests.support.events import Event, events

from .test_recordings import CASES
from .test_servers import EXAMPLES

AT = 1_700_000_000
S, MS = 1_000_000_000, 1_000_000

ALL = [
    *((example.format, example.lines.encode(), example.log_format) for example in EXAMPLES),
    *((name, data, log_format) for name, (data, log_format) in SEEDS.items()),
]

RECORDED = sorted(folder for folder in CASES.iterdir() if folder.is_dir())

WIDER = {
    ("ingress-nginx", "common"), ("traefik", "common"), ("cloudfront", "w3c"), ("jmeter", "csv"), ("k6-csv", "csv"),
}  # fmt: skip
"""Formats that are also of a wider one, which gives way; JSON of a known maker may also be any JSON Lines."""


def wins_alone(name: str, head: bytes, log_format: str) -> None:
    """Fail unless this format alone claims the head of a file, before wider ones."""
    options = Options(log_format=log_format)
    known = {
        each: candidate
        for each, candidate in importers().items()
        if not log_format or each in ("nginx", "apache")
    }
    scores = {each: (candidate.sniff(head, options), candidate.rank) for each, candidate in known.items()}
    claims = {each: score for each, score in scores.items() if score[0] >= LIKELY}
    wider = {
        other for other in claims if (name, other) in WIDER or (other == "jsonl" != name and head[:1] == b"{")
    }
    assert claims.keys() - wider == {name}
    assert all(claims[name] > score for other, score in claims.items() if other != name)


@pytest.mark.parametrize("case", ALL, ids=[f"{case[0]}-{number}" for number, case in enumerate(ALL)])
def test_each_example_has_one_winner(case: tuple[str, bytes, str]) -> None:
    wins_alone(*case)


@pytest.mark.parametrize("folder", RECORDED, ids=lambda folder: folder.name)
def test_each_recording_has_one_winner_behind_its_wrapper(folder: Path) -> None:
    wanted = json.loads((folder / "expected.json").read_text())
    words = shlex.split(wanted["command"])
    log_format = words[words.index("--log-format") + 1] if "--log-format" in words else ""
    inputs = [folder / word for word in words if (folder / word).is_file()]
    assert inputs
    for path in inputs:
        file = SourceFile(str(path))
        assert tell_format(file, Options(log_format=log_format)).name == wanted["format"]
        wins_alone(wanted["format"], file.head, log_format)


def test_a_journal_has_one_winner(tmp_path: Path) -> None:
    JournalWriter(tmp_path / "a.journal", Notes(started_ns=AT * S)).close()
    wins_alone("journal", SourceFile(str(tmp_path / "a.journal")).head, "")


def test_a_parquet_file_is_told_as_the_table_that_it_holds(tmp_path: Path) -> None:
    pq.write_table(pa.table({"at": [AT], "path": ["/a"]}), tmp_path / "a.parquet")
    file = SourceFile(str(tmp_path / "a.parquet"))
    assert (file.compression, tell_format(file).name) == ("parquet", "csv")
    wins_alone("csv", file.head, "")


def test_every_format_that_help_lists_is_in_the_matrix() -> None:
    shown = CliRunner().invoke(import_.command, ["--help"]).output
    listed = re.search(r"--format NAME\s+Read the recording in this format:\s+([a-z0-9,\s-]+)\.", shown)
    assert listed is not None
    names = re.sub(r"(?<=-)\s+", "", listed[1]).split(",")
    tried = {name for name, _, _ in ALL} | {"journal", "parquet"}
    assert {name.strip() for name in names} == tried == set(importers())


POSTMAN = json.dumps(
    {
        "info": {
            "name": "x",
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "item": [{"name": "a", "request": {"method": "GET", "url": {"raw": "https://h/a"}}}],
    },
    indent=2,
)
UNREAD = {
    "Postman": (POSTMAN, [Event(0, "GET", b"/a", "h")]),
    "over several lines": (
        '{\n  "at": 1700000000,\n  "path": "/a"\n}\n{\n  "at": 1700000001,\n  "path": "/b"\n}\n',
        [Event(AT * S, "GET", b"/a"), Event((AT + 1) * S, "GET", b"/b")],
    ),
    "a JSON array": ('[\n{"at": 1700000000, "path": "/a"}]\n', [Event(AT * S, "GET", b"/a")]),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_what_jq_makes_a_recording_of_is_named_with_the_command(tmp_path: Path, kind: str) -> None:
    text, wanted = UNREAD[kind]
    path = tmp_path / "a b.json"
    path.write_text(text)
    with pytest.raises(InputError, match=kind) as refused:
        import_files([path], tmp_path / "a.trace")
    way = refused.value.hint or ""
    assert way.startswith("jq -c ") and way.endswith(" | replay import -")
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    made = subprocess.run(
        way.removesuffix(" | replay import -"), shell=True, capture_output=True, check=True, timeout=60
    )
    (tmp_path / "a.jsonl").write_bytes(made.stdout)
    got = events(import_files([tmp_path / "a.jsonl"], tmp_path / "a.trace", jitter=False))
    assert [event._replace(took_ns=-1) for event in got] == [event._replace(took_ns=-1) for event in wanted]
    assert [event.took_ns for event in got] == [event.took_ns for event in wanted]


@pytest.mark.parametrize(
    ("data", "kind", "way"),
    [
        (
            b'INFO:     Started server process [1]\nINFO:     127.0.0.1:54321 - "GET /a HTTP/1.1" 200 OK\n',
            "uvicorn, which has no times",
            "asctime",
        ),
    ],
)
def test_what_cannot_be_read_is_named_with_a_way(tmp_path: Path, data: bytes, kind: str, way: str) -> None:
    (tmp_path / "a.log").write_bytes(data)
    with pytest.raises(InputError, match=kind) as refused:
        import_files([tmp_path / "a.log"], tmp_path / "a.trace")
    assert way in (refused.value.hint or "")


def test_the_command_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(POSTMAN)
    words = ["-c", "from replay.cli import main; main()", "import", str(tmp_path / "a.json")]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0 and "Postman" in done.stderr and "jq -c" in done.stderr
    assert "Traceback" not in done.stderr
