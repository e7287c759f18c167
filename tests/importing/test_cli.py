"""`replay import` and `replay inspect`, as a user sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from replay.cli import import_, inspect
from replay.cli.import_ import default_output
from replay.errors import InputError, UsageError
from replay.trace import Trace

LINE = '10.0.0.{} - - [05/Jan/2026:18:00:{:02d} +0100] "{} /users/{}?token=x HTTP/1.1" {} 10\n'


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty requests in twenty seconds, a blank line and a line of something else."""
    monkeypatch.chdir(tmp_path)
    lines = [
        LINE.format(i % 7, i // 3, "GET" if i % 10 else "POST", i, 200 if i % 6 else 404) for i in range(60)
    ]
    path = tmp_path / "access.log.1"
    path.write_text("".join(lines) + "\n[red]what[/red]\n")
    return path


def said(*arguments: object, command: object = import_.command) -> str:
    result: Result = CliRunner(env={"COLUMNS": "140"}).invoke(command, [str(each) for each in arguments])  # type: ignore[arg-type]
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_import_says_what_it_did(log: Path) -> None:
    output = said(log.name)
    assert Trace.open("access.trace").rows == 60
    for part in (
        "60 of 62 lines",
        "1 blank",
        "1 not this format  access.log.1:62: [red]what[/red]",
        "2026-01-05 18:00:00 +01:00",
        "GET /users/{id} 90%",
        "60 query values replaced",
        "access.trace",
    ):
        assert part in output


def test_import_takes_its_options(log: Path) -> None:
    said(log, "-o", "b.trace", "--no-jitter", "--keep-secrets")
    assert not Trace.open("b.trace").manifest.jitter.done
    assert Trace.open("b.trace").requests.get(0).target == b"/users/0?token=x"
    said(log, "-o", "b.trace", "--force", "--seed", "5", "--format", "common")
    assert Trace.open("b.trace").manifest.jitter.seed == 5


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("/var/log/access.log", "access.trace"),
        ("access.log.12.gz", "access.trace"),
        ("site-2026.01", "site-2026.01.trace"),
        ("-", "stdin.trace"),
    ],
)
def test_the_output_is_named_after_the_log(given: str, name: str) -> None:
    assert default_output(given) == Path(name)


@pytest.mark.parametrize("imported", [True, False])
def test_inspect_shows_a_trace_or_a_log(log: Path, imported: bool) -> None:
    if imported:
        said(log.name)
    output = said("access.trace" if imported else log.name, command=inspect.command)
    for part in (
        "60 distinct, of 7 clients",
        "6 POST: a replay sends only GET and HEAD",
        "200 83.3%",
        "█",
        "1 blank",
    ):
        assert part in output


def test_inspect_gives_figures_to_scripts(log: Path) -> None:
    figures = json.loads(said(log.name, "--json", command=inspect.command))
    assert (figures["rows"], figures["skipped"]) == (60, {"POST": 6})
    assert figures["routes"] == [
        {"route": "GET /users/{id}", "rows": 54},
        {"route": "POST /users/{id}", "rows": 6},
    ]
    assert 18e9 < figures["span_ns"] < 20e9
    assert figures["rate"] == {
        "mean": pytest.approx(60 / figures["span_ns"] * 1e9),
        "peak_1s": 3.0,
        "peak_10s": 3.0,
        "peak_60s": pytest.approx(60 / figures["span_ns"] * 1e9),
    }
    assert figures["statuses"] == {"200": 50, "404": 10}


def test_inspect_refuses_what_is_not_there(log: Path) -> None:
    with pytest.raises(InputError, match=r"no trace at missing\.trace"):
        said("missing.trace", command=inspect.command)
    with pytest.raises(InputError, match=r"missing\.log: no such file"):
        said("missing.log", command=inspect.command)


def test_inspect_tries_routes_of_the_users_own_on_a_log(log: Path) -> None:
    Path("rules.toml").write_text('routes = ["GET /users/{who}"]\n[actions]\nprofile = ["GET /users/*"]\n')
    figures = json.loads(said(log.name, "--json", "--routes", "rules.toml", command=inspect.command))
    assert figures["routes"][0] == {"route": "GET /users/{who}", "rows": 54, "action": "profile"}
    said(log.name)
    with pytest.raises(UsageError, match=r"routes of access\.trace were fixed"):
        said("access.trace", "--routes", "rules.toml", command=inspect.command)
