"""`replay demo` ends well on any machine, and says what to type next. Its run is held by tests/kafka/test_mock.py."""

from __future__ import annotations

import io
import shlex

import pytest

from replay.cli import commands, demo
from replay.errors import Exit
from replay.report.console import Console


@pytest.mark.parametrize("code", [Exit.PASSED, Exit.FAILED, Exit.INVALID])
def test_what_to_type_next_can_be_typed(code, tmp_path):
    written = io.StringIO()
    demo.print_next(tmp_path / "a run", code, Console(file=written, width=200))
    lines = written.getvalue().splitlines()
    assert any("INVALID means here" in line for line in lines) == (code == Exit.INVALID)
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


def test_replay_alone_prints_its_help(capsys):
    assert commands.invoke([]) == 0
    alone = capsys.readouterr()
    assert commands.invoke(["--help"]) == 0
    assert capsys.readouterr().out == alone.out and alone.err == ""
