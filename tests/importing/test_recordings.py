"""Small recordings of many makers, imported by the command that a user would type, against values checked by hand.

Each folder of tests/data/recordings has the input and `expected.json`: the command, the format, and what must come of it.
Keys of a request that are not given are not checked; `client` numbers the clients by first appearance.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from replay.cli import import_
from replay.trace import Trace
from tests.support.places import DATA

CASES = DATA / "recordings"
CASE_NAMES = sorted(folder.name for folder in CASES.iterdir() if folder.is_dir())


def imported(command: str, folder: Path, trace: Path) -> tuple[Trace, str]:
    """The trace that `replay import ...` makes of files in `folder`, and what it prints."""
    verb, *arguments = shlex.split(command)[1:]
    assert verb == "import"
    arguments = [str(folder / word) if (folder / word).is_file() else word for word in arguments]
    arguments = [str(trace) if word == "X.trace" else word for word in arguments]
    result = CliRunner(env={"COLUMNS": "400"}).invoke(import_.command, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return Trace.open(trace), result.output


def recorded(trace: Trace) -> list[dict[str, Any]]:
    """The requests of a trace with everything that a replay and its report take from them."""
    found: list[dict[str, Any]] = []
    clients: dict[int, int] = {}
    requests = trace.requests
    for batch in trace.batches():
        for row in range(len(batch.at_ns)):
            asked = requests.get(int(batch.request[row]))
            headers = requests.headers(asked.headers) if asked.headers >= 0 else ()
            found.append(
                {
                    "at_ns": int(batch.at_ns[row]),
                    "method": requests.methods[asked.method],
                    "target": asked.target.decode(),
                    "host": requests.hosts[asked.host] if asked.host >= 0 else "",
                    "client": clients.setdefault(int(batch.client[row]), len(clients)),
                    "status": int(batch.status[row]),
                    "took_ns": int(batch.took_ns[row]),
                    "bytes": int(batch.bytes[row]),
                    "headers": {name.decode(): (value or b"").decode() for name, value in headers},
                    "body": requests.body(asked.body).decode() if asked.body >= 0 else "",
                }
            )
    return found


@pytest.mark.parametrize("name", CASE_NAMES)
def test_is_read_as_it_was_written(name: str, tmp_path: Path) -> None:
    wanted = json.loads((CASES / name / "expected.json").read_text())
    trace, output = imported(wanted["command"], CASES / name, tmp_path / "X.trace")
    manifest, read = trace.manifest, recorded(trace)
    assert manifest.importer == wanted["format"]
    asked = wanted.get("requests")
    if asked is not None:
        given = [{key: each[key] for key in one} for each, one in zip(read, asked, strict=False)]
        assert given == asked
        assert len(read) == len(asked)
    if "count" in wanted:
        assert trace.rows == wanted["count"]
    if "rejected" in wanted:
        assert manifest.rejected == wanted["rejected"]
    assert (
        trace.rows + sum(manifest.rejected.values()) == manifest.lines == wanted.get("lines", manifest.lines)
    )
    if "wrapper" in wanted:
        assert manifest.sources[0].wrapper == wanted["wrapper"]
    for words in wanted.get("words", ()):
        assert words in output
    for word in wanted.get("absent", ()):
        assert word not in output + (tmp_path / "X.trace" / "manifest.json").read_text() + str(read)
