"""Flags are derived from the settings, the same for every verb; help is grouped, wide and quick."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from replay import formats
from replay.cli import VERBS, replay
from replay.cli.flags import SettingFlag, flags_of_all
from replay.cli.options import OptionalValue
from replay.settings.table import GROUPS, SETTINGS

COMMAND = [sys.executable, "-m", "replay.cli"]


def verb(name: str) -> click.Command:
    command = replay.get_command(click.Context(replay), name)
    assert command is not None
    return command


def printed(*words: str, **environ: str) -> str:
    done = subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, env=os.environ | environ, timeout=120, check=True
    )
    return done.stdout


def test_run_has_a_flag_for_each_setting_that_has_one_and_no_flag_is_used_twice() -> None:
    command = verb("run")
    assert [p.setting.key for p in command.params if isinstance(p, SettingFlag)] == flags_of_all()
    names = [name for parameter in command.params for name in parameter.opts if name.startswith("-")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", VERBS)
def test_a_flag_with_the_name_of_a_setting_is_that_setting(name: str) -> None:
    """Verbs whose flags mean something else are listed here; all others share the declaration."""
    own = {
        "generate": {"-d", "--duration", "--rate", "--from", "--until", "--seed"},
        "import": {"--tz", "--seed"},
        "record": {"--from", "--until", "--allow", "--cert", "--key"},
        "follow": {"--from", "--tz"},
        "ab": {"--seed"},
        "doctor": {"--resolver"},
        "agent": {"--connect", "--allow", "--ca", "--cert", "--key", "--server-name", "--order"},
        "rehearse": {"--seed"},
    }
    of_settings = {flag: key for key, setting in SETTINGS.items() for flag in setting.row.flags}
    for parameter in verb(name).params:
        for flag in {*parameter.opts} & of_settings.keys() - own.get(name, set()):
            assert isinstance(parameter, SettingFlag) and parameter.setting.key == of_settings[flag], flag


def test_help_is_in_groups_with_defaults_and_as_wide_as_the_terminal() -> None:
    text = printed("run", "--help", COLUMNS="160")
    headings = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert headings == [f"{group[0].upper()}{group[1:]}" for group in GROUPS if group != "sessions"]
    assert "--timeout TIME       Time limit for a complete response [default: 30s]." in text
    assert "How long a request may wait for a connection before it counts as unsent [default: 10s]." in text
    assert 120 < max(map(len, text.splitlines())) <= 160
    assert max(map(len, printed("run", "--help", COLUMNS="90").splitlines())) <= 90


def test_the_help_of_the_command_has_its_verbs_in_groups() -> None:
    text = printed("--help")
    assert re.findall(r"^(\w+):$", text, re.MULTILINE) == [
        "Options",
        "Traffic",
        "Run",
        "Judge",
        "Rehearse",
        "Machines",
    ]
    assert all(f"\n  {name} " in text for name in VERBS)


def test_a_second_target_is_refused_with_a_sentence(tmp_path: Path) -> None:
    words = ["run", "x.log", "--target", "http://127.0.0.1:1", "--target", "http://127.0.0.1:2"]
    done = subprocess.run(
        [*COMMAND, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--target is given 2 times: http://127.0.0.1:1 and http://127.0.0.1:2" in done.stderr
    assert "[[also]]" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--timeout", "5s", "--timeout", "7 parsecs"],
            "note: --timeout is given 2 times; 7 parsecs is used",
        ),
        (["--timeout", "7 parsecs"], "--timeout: '7 parsecs' is not a time"),
        (["--seed", "x"], "--seed: 'x' is not a whole number"),
        (["--seed", "99999999999999999999"], "--seed: expected a whole number of at most"),
        (["--order", "clients"], "--order: 'clients' is unknown (did you mean client?)"),
        (["--topic-map", "a"], "--topic-map: 'a' is not a pair"),
        (["-H", "a"], "the header 'a' has no value"),
        (["--timeot", "5s"], "there is no flag --timeot (did you mean --timeout?)"),
        (["--max-wiat", "5s"], "there is no flag --max-wiat (did you mean --max-wait?)"),
        (["-z"], "there is no flag -z"),
    ],
)
def test_a_wrong_flag_is_named(words: list[str], said: str, tmp_path: Path) -> None:
    for name in ("run", "peak"):
        command = [*COMMAND, name, "x.log", "--target", "http://127.0.0.1:1", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("verb_name", "why", "instead"),
    [
        ("follow", "no schedule can be divided", "replay run --cluster"),
        ("ab", "in turns under the same conditions", "replay compare"),
    ],
)
def test_a_verb_that_runs_on_one_machine_says_why_and_what_to_do_instead(
    verb_name: str, why: str, instead: str, tmp_path: Path
) -> None:
    command = [*COMMAND, verb_name, "x.log", "--cluster", "local:2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and why in done.stderr and instead in done.stderr, done.stderr


@click.command()
@click.argument("paths", nargs=-1)
@click.option("--json", cls=OptionalValue, bare="-", metavar="FILE", help="Write the result as JSON.")
@click.option("-o", "--out")
def sample(paths: tuple[str, ...], json: str | None, out: str | None) -> None:
    click.echo((paths, json, out))


@pytest.mark.parametrize(
    ("words", "read"),
    [
        (["--json", "day.toml"], (("day.toml",), "-", None)),
        (["day.toml", "--json"], (("day.toml",), "-", None)),
        (["--json=r.json", "day.toml"], (("day.toml",), "r.json", None)),
        (["--json=r=1.json"], ((), "r=1.json", None)),
        (["--json", "-o", "x"], ((), "-", "x")),
        (["-o", "--json", "x"], (("x",), None, "--json")),
        (["--", "--json"], (("--json",), None, None)),
        ([], ((), None, None)),
    ],
)
def test_an_optional_value_comes_only_after_an_equals_sign(words: list[str], read: tuple) -> None:
    assert CliRunner().invoke(sample, words).output == f"{read}\n"


def test_an_optional_value_is_shown_in_help_and_may_not_be_empty() -> None:
    assert "--json[=FILE]" in CliRunner().invoke(sample, ["--help"]).output
    assert "--json= has no value" in CliRunner().invoke(sample, ["--json="]).output


@pytest.mark.parametrize(
    "name", ["run", "peak", "ab", "init", "transform", "generate", "record", "demo", "import", "export"]
)
def test_output_is_an_alias_of_out_that_help_does_not_list(name: str) -> None:
    (out,) = [parameter for parameter in verb(name).params if parameter.name == "out"]
    assert {"-o", "--out", "--output"} == {*out.opts}
    assert "--output" not in verb(name).get_help(click.Context(verb(name), info_name=name))


LIGHT = [
    "",
    "run",
    "ab",
    "compare",
    "demo",
    "generate",
    "init",
    "peak",
    "record",
    "report",
    "runs",
    "transform",
]
"""Verbs whose help waits for nothing heavy."""


@pytest.mark.parametrize("name", LIGHT)
def test_help_does_not_import_numba(name: str) -> None:
    code = "import sys; from replay.cli import invoke; invoke(sys.argv[1:]); sys.exit('numba' in sys.modules)"
    words = [sys.executable, "-c", code, *([name] if name else []), "--help"]
    assert subprocess.run(words, stdout=subprocess.DEVNULL, timeout=120, check=False).returncode == 0


def completed(words: str) -> list[str]:
    """What bash would offer for the last word."""
    number = str(len(words.split(" ")) - 1)
    out = printed(COMP_WORDS=words, COMP_CWORD=number, _REPLAY_COMPLETE="bash_complete")
    return [line.partition(",")[2] for line in out.splitlines() if line]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("replay re", ["record", "report", "rehearse"]),
        ("replay run --max-r", ["--max-rate"]),
        ("replay run --grow ", ["requests", "sessions", "repeat"]),
        ("replay run --acks ", ["1", "all"]),
        ("replay peak --order c", ["client"]),
        ("replay run --timeout ", []),
        ("replay import --format ng", ["nginx", "nginx-json", "nginx-proxy-manager"]),
        ("replay ex", ["export"]),
    ],
)
def test_completion_offers_verbs_flags_and_values(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


@pytest.mark.parametrize(
    "words", ["run --gr", "", "inspect --", "import --format ng", "export ", "doctor --"]
)
def test_completion_waits_for_nothing_heavy(words: str) -> None:
    code = (
        "import sys; from replay.cli import invoke; invoke();"
        "print([name for name in ('numba', 'numpy', 'trio', 'pyarrow') if name in sys.modules])"
    )
    environ = os.environ | {
        "COMP_WORDS": f"replay {words}", "COMP_CWORD": str(len(words.split(" "))), "_REPLAY_COMPLETE": "bash_complete",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60, check=True
    )
    assert len(done.stdout.splitlines()) > 1 and done.stdout.splitlines()[-1] == "[]"


def test_the_names_of_formats_are_those_that_can_be_read_and_written() -> None:
    from replay.trace.exporting.export import ENDINGS
    from replay.trace.importing.registry import _importers

    assert set(formats.READ) == set(_importers)
    assert set(formats.WRITTEN) == set(ENDINGS)
