"""`replay demo` ends well on any machine, and says what to type next. Its run is held by tests/kafka/test_mock.py."""

from __future__ import annotations

import io
import shlex

import pytest

from replay.cli import commands, demo
from replay.errors import Exit
from replay.ledger.catalog import FAILED
from replay.report.console import Console
from replay.results.run import load_run


@pytest.mark.parametrize("code", [Exit.PASSED, Exit.FAILED, Exit.INVALID])
def test_what_to_type_next_can_be_typed(code, tmp_path):
    written = io.StringIO()
    demo.print_next(tmp_path / "a run", code, Console(file=written, width=200))
    lines = written.getvalue().splitlines()
    assert any("this machine was too busy" in line for line in lines) == (code == Exit.INVALID)
    typed = [shlex.split(line.partition(":")[2]) for line in lines if ": " in line and " replay " in line]
    assert [words[1] for words in typed] == ["run", "report", "report", "rehearse"]
    assert all(words[2] == str(tmp_path / "a run") for words in typed[1:3])
    for _, verb, *words in typed:
        command = commands.replay.get_command(None, verb)  # type: ignore[arg-type]
        assert command is not None
        command.make_context(verb, words)


@pytest.mark.parametrize(
    ("code", "ends"),
    [(0, None), (99, None), (4, None), (130, 130), (1, 1), (2, 2)],
)
def test_only_an_interrupt_or_a_crash_fails_the_demo(monkeypatch, tmp_path, code, ends):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "replay_recordings", lambda *_arguments, **_named: code)
    assert commands.invoke(["demo", "--plain", "-o", str(tmp_path / "run")]) == (ends or 0)


@pytest.mark.parametrize("scenario", [demo.SCENARIO, demo.KAFKA_SCENARIO])
def test_the_demo_has_an_objective_that_is_always_missed(scenario):
    assert '"errors < 1%", "p99 < 250ms", "p50 < 1' in scenario


@pytest.mark.whole
def test_the_service_of_the_demo_is_watched_and_the_figure_that_moved_first_is_named(
    monkeypatch, tmp_path, capfd
):
    monkeypatch.chdir(tmp_path)
    assert commands.invoke(["demo", "--plain", "-o", str(tmp_path / "run")]) == 0
    run = load_run(tmp_path / "run")
    document = run.document
    assert set(document.watched) == {"requests in flight", "queue", "workers busy"}
    assert all(any(value is not None for value in values) for values in document.watched.values())
    said = " ".join(capfd.readouterr().out.split())
    assert "watched queue: 0 at the start" in said and "of 453 registrations failed" in said
    if document.validity.verdict != "INVALID":
        changed = [figure.changed_at_s for figure in document.watches if figure.changed_at_s is not None]
        breaches = [
            row.t_s
            for row in run.seconds()
            if (row.response_p99_ns or 0) > 250_000_000
            or sum(row.outcomes.get(name, 0) for name in FAILED) > 0.01 * sum(row.outcomes.values())
        ]
        named = bool(changed and breaches and min(changed) <= min(breaches))
        assert bool(document.watched_first) == named
        assert document.watched_first in said


def test_replay_alone_prints_its_help(capsys):
    assert commands.invoke([]) == 0
    alone = capsys.readouterr()
    assert commands.invoke(["--help"]) == 0
    assert capsys.readouterr().out == alone.out and alone.err == ""
