"""What CI systems read of a run: JSON, JUnit XML, Markdown and annotations, by `report`, `run`, `peak` and `runs`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import msgspec
import pytest
import xmlschema
from click.testing import CliRunner

from replay.cli.commands import replay as cli
from replay.comparison.paths import two_sides
from replay.errors import UsageError
from replay.peaks.climb import Climb
from replay.peaks.recovery import Recovery
from replay.peaks.search import Trial as PeakTrial
from replay.report.outputs.annotations import workflow_commands
from replay.report.outputs.junit import junit
from replay.report.outputs.of_peak import PeakResult, climb_cases, surge_cases
from replay.report.outputs.of_run import RunResult
from replay.results.document import Ending, RunDocument
from replay.results.run import load_run
from replay.staging.sink import Sink as Target
from tests.support.metrics_data import ROUTES, START, S, at_s, trial
from tests.support.places import DATA

JUNIT = xmlschema.XMLSchema(DATA / "junit.xsd")
SLO = ["p99<1h", f'p99 of "{ROUTES[0]}"<1us', "5xx<50%"]


def made(
    path: Path, *, slo: list[str] = SLO, late_s: float = 0.0, ending: Ending | None = None, at: int = 0
) -> Path:
    start = msgspec.structs.replace(START, wall_ns=START.wall_ns + at * S)
    run = trial(path, slo=slo, start=start)
    run.lanes[0].many(200)
    if late_s:
        for number in range(200):
            run.lanes[0].request(due_ms=300.0 + number, late_ms=late_s * 1_000)
    run.recorder.finish(at_s(2), ending=ending)
    return path


def cases(data: bytes) -> dict[tuple[str, str], str]:
    """(class, name) of each case, and what it is besides passed. Held against the schema."""
    text = data.decode()
    JUNIT.validate(text)
    root = Xml.fromstring(text)
    suite = root[0]
    assert float(suite.get("time", "0")) > 0 and all(
        float(c.get("time", "0")) > 0 for c in suite.iter("testcase")
    )
    found = {
        (case.get("classname", ""), case.get("name", "")): next((child.tag for child in case), "passed")
        for case in suite.iter("testcase")
    }
    for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert suite.get(plural) == str(sum(status == kind for status in found.values()))
    return found


def test_each_objective_is_a_case_and_one_that_is_missed_a_failure(tmp_path: Path) -> None:
    result = RunResult(load_run(made(tmp_path / "run")))
    assert cases(junit(result.suite())) == {
        ("all", "ending"): "passed",
        ("all", "validity"): "passed",
        ("all", "statuses differ"): "passed",
        ("all", SLO[0]): "passed",
        (ROUTES[0], SLO[1]): "failure",
        ("all", SLO[2]): "passed",
    }
    first, second = workflow_commands(result.annotations())
    assert first.startswith("::error title=replay%3A FAILED::") and "1 of 3 objectives missed" in first
    assert second.startswith(f"::error title=replay%3A p99 of {ROUTES[0]}::") and " ms" in second
    text = result.markdown()
    assert text.startswith("### ❌ FAILED: ") and f"| `{SLO[0]}` |" in text and f"| `{ROUTES[0]}` |" in text
    assert "✅" not in text.splitlines()[0]
    assert msgspec.json.decode(result.json(), type=RunDocument) == result.run.document


def test_an_invalid_run_is_an_error_and_says_nothing_of_its_objectives(tmp_path: Path) -> None:
    result = RunResult(load_run(made(tmp_path / "run", late_s=2.0)))
    assert result.run.document.validity.verdict == "INVALID"
    found = cases(junit(result.suite()))
    assert found["all", "validity"] == "error"
    assert {found["all", SLO[0]], found[ROUTES[0], SLO[1]]} == {"skipped"}
    assert workflow_commands(result.annotations())[0].startswith("::error title=replay%3A INVALID::")
    assert result.markdown().startswith("### ❌ INVALID: ") and "✅" not in result.markdown()


@pytest.mark.parametrize(
    ("how", "status"), [("interrupted", "error"), ("circuit_breaker", "failure"), ("failed", "error")]
)
def test_a_run_that_did_not_end_is_not_green(tmp_path: Path, how: Any, status: str) -> None:
    folder = made(tmp_path / "run", slo=[], ending=Ending(how=how, detail="words", at_s=1.0))
    result = RunResult(load_run(folder))
    assert cases(junit(result.suite()))["all", "ending"] == status
    assert workflow_commands(result.annotations())[0].startswith("::error ")


def test_a_run_that_passed_is_green(tmp_path: Path) -> None:
    result = RunResult(load_run(made(tmp_path / "run", slo=["p99<1h"])))
    assert set(cases(junit(result.suite())).values()) == {"passed"}
    (only,) = workflow_commands(result.annotations())
    assert only.startswith("::notice title=replay%3A VALID::")
    assert result.markdown().startswith("### ✅ VALID: ")


def climbed(verdict: Any, *, met: bool = True, **more: Any) -> Climb:
    trials = [
        PeakTrial(load=1.0, passed={"p99<1s": True, 'p99 of "GET /a"<1s': met}, length_s=15.0, rate_per_s=9.0)
    ]
    return Climb(verdict, 1.0, 2.0, trials=trials, **more)


@pytest.mark.parametrize(
    ("found", "failed", "statuses"),
    [
        (climbed("FOUND", held=True, held_load=1.0), False, {"passed"}),
        (climbed("FOUND", held=False), True, {"passed", "failure"}),
        (climbed("GENERATOR_LIMITED"), True, {"error", "skipped"}),
        (climbed("OUT_OF_TRIALS"), True, {"failure", "skipped"}),
        (climbed("FAILS_AT_LOWEST", met=False), True, {"failure", "passed"}),
        (climbed("DID_NOT_RECOVER", recovery="DID_NOT_RECOVER"), True, {"failure", "passed"}),
    ],
)
def test_a_peak_is_never_greener_than_its_exit_code(found: Climb, failed: bool, statuses: set[str]) -> None:
    result = PeakResult(
        "peak-1", found.verdict, "words", climb_cases(found, "words", failed=failed), 15.0, [("window", "all")],
        b"{}\n", lambda path: None, found.trials,
    )  # fmt: skip
    listed = cases(junit(result.suite()))
    assert set(listed.values()) == statuses
    assert ("GET /a", 'p99 of "GET /a"<1s') in listed
    level = "error" if failed else "notice"
    assert workflow_commands(result.annotations())[0].startswith(
        f"::{level} title=replay%3A {found.verdict}::"
    )
    assert ("❌" in result.markdown()) is failed


@pytest.mark.parametrize(
    ("verdict", "status"),
    [("RECOVERED", "passed"), ("DID_NOT_RECOVER", "failure"), ("UNKNOWN", "error"), ("UNSTEADY", "skipped")],
)
def test_a_surge_is_one_case(verdict: Any, status: str) -> None:
    recovery = Recovery(verdict, None, 1, 0.0, 0)
    result = PeakResult(
        "p", verdict, "words", surge_cases(recovery, "words"), 3.0, [], b"{}", lambda path: None
    )
    assert set(cases(junit(result.suite())).values()) == {status}


def command(*words: object) -> Any:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exception is None or isinstance(done.exception, SystemExit | UsageError), done.output
    return done


def test_report_writes_the_outputs_in_place_of_the_report(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    done = command(
        "report", run, f"--json={tmp_path}/a.json", f"--junit={tmp_path}/j.xml", "--markdown", "--html"
    )
    assert done.exit_code == 0
    assert done.stdout.startswith("### ❌ FAILED") and "report.html written" in done.stderr
    assert json.loads((tmp_path / "a.json").read_text())["accounts"]["ok"] == 200
    assert cases((tmp_path / "j.xml").read_bytes())[ROUTES[0], SLO[1]] == "failure"
    assert "</html>" in (run / "report.html").read_text()
    assert (
        command("report", "--html", tmp_path / "b.html", run).exit_code == 0
        and (tmp_path / "b.html").exists()
    )


def test_report_without_a_path_shows_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    none = command("report")
    assert none.exception is not None and "there is no run in runs/ that can be read" in str(none.exception)
    made(Path("runs/z-old"), at=0)
    made(Path("runs/a-new"), at=100)
    (tmp_path / "runs" / "zz-broken").mkdir()
    (tmp_path / "runs" / "zz-broken" / "run.json").write_text("{}")
    done = command("report", "--json")
    assert "runs/a-new, the newest run of runs/" in done.stderr
    assert json.loads(done.stdout)["started_at"] == load_run("runs/a-new").document.started_at


def test_runs_lists_runs_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("runs").stdout == "no runs in runs\n"
    made(Path("runs/old"), at=0, slo=["p99<1h"])
    made(Path("runs/missed"), at=100)
    made(Path("runs/late"), at=200, late_s=2.0)
    made(Path("runs/cut"), at=300, slo=[], ending=Ending(how="interrupted", at_s=1.0))
    going = trial(Path("runs/going"), start=msgspec.structs.replace(START, wall_ns=START.wall_ns + 400 * S))
    made(Path("runs/peak-1/trial-1"))
    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text('{"start": 7}')
    lines = command("runs").stdout.splitlines()
    assert [line.rstrip() for line in lines] == lines
    heads = lines[0].split("  ")[0], *lines[0].split()[1:]
    assert heads == ("when", "run", "target", "verdict", "p99", "objectives")
    table = {words[2]: words[4] for line in lines[1:6] if len(words := line.split()) > 4}
    assert table == {
        "going": "RUNNING",
        "cut": "INTERRUPTED",
        "late": "INVALID",
        "missed": "FAILED",
        "old": "VALID",
    }
    assert list(table) == ["going", "cut", "late", "missed", "old"], "newest first"
    assert "2 of 3 met" in lines[4] and " ms " in lines[5] and "1 of 1 met" in lines[5]
    assert (
        "broken" in lines[6] and "UNREADABLE" in lines[6] and lines[7] == "more runs: replay runs runs/peak-1"
    )
    rows = json.loads(command("runs", "--json", "-n", "3").stdout)
    assert [Path(row["path"]).name for row in rows] == ["going", "cut", "late"]
    assert rows[2]["verdict"] == "INVALID" and rows[2]["objectives"] == 3 and rows[2]["p99_ns"] > 0
    going.recorder.close()
    assert "KILLED" in command("runs").stdout


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_the_list_of_runs_fits_a_terminal(columns: int) -> None:
    from replay.cli.runs import _lines

    rows = [("when", "run", "target", "verdict", "p99", "objectives")]
    rows += [
        ("2026-01-01 10:00", "a" * 60, "https://" + "b" * 80, "INTERRUPTED", "≥12.34 ms", "12 of 15 met")
    ]
    assert all(len(line) <= columns for line in _lines(rows, columns))
    assert "INTERRUPTED" in _lines(rows, 80)[1] and "12 of 15 met" in _lines(rows, 80)[1]
    assert _lines(rows, None)[1].count("a") == 60, "a pipe gets all of it"


@pytest.mark.parametrize(
    ("paths", "sides"),
    [
        (["a", "b"], ("a", "b")),
        (["v1/1", "v1/2", "v2/1"], ("v1=v1/1,v1/2", "v2=v2/1")),
        (["new/1", "base/1", "new/2"], ("new=new/1,new/2", "base=base/1")),
        (["x/r/1", "x/r/2", "y/r/1", "y/r/2"], ("base=x/r/1,x/r/2", "new=y/r/1,y/r/2")),
    ],
)
def test_more_than_two_paths_are_grouped_by_their_folders(paths: list[str], sides: tuple[str, str]) -> None:
    assert two_sides(paths) == sides


@pytest.mark.parametrize(
    ("paths", "hint"),
    [
        (["A", "B", "C", "D"], "replay compare base=A,B new=C,D"),
        (["a/1", "b/1", "c/1"], "replay compare base=a/1,b/1 new=c/1"),
        (["base=a/1", "a/2", "new=b/1"], "replay compare base=a/1,a/2 new=b/1"),
        (["a b/1", "a b/2", "a b/3"], "replay compare 'base=a b/1,a b/2' 'new=a b/3'"),
        (["A"], "replay compare base=PATH[,PATH...] new=PATH[,PATH...]"),
        ([], "replay compare base=PATH[,PATH...] new=PATH[,PATH...]"),
    ],
)
def test_paths_that_do_not_say_their_build_are_refused_with_the_line_to_type(
    paths: list[str], hint: str
) -> None:
    with pytest.raises(UsageError) as refused:
        two_sides(paths)
    assert refused.value.hint == hint


@pytest.mark.whole
def test_run_writes_json_to_stdout_and_reads_the_scenario_that_follows(tmp_path: Path) -> None:
    lines = [
        f'10.0.0.{n % 9} - - [10/Oct/2025:13:55:{n // 40:02d} +0000] "GET /a?n={n} HTTP/1.1" 200 12 "-" "-"\n'
        for n in range(60)
    ]
    (tmp_path / "day.log").write_text("".join(lines))
    with Target() as target:
        words = f'target = "http://127.0.0.1:{target.port}"\ntrace = "day.log"\nslo = ["p99 < 1us"]\n'
        (tmp_path / "day.toml").write_text(words)
        for more in (
            ["--json", "day.toml"],
            ["--junit", "day.toml", "--json=a.json", "--markdown=m.md", "-q"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "replay.cli", "run", *more, "--annotations"],
                capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path,
            )  # fmt: skip
            assert done.returncode in (99, 4), done.stderr
            assert "::error title=replay%3A " in done.stderr
            if more[0] == "--json":
                document = msgspec.json.decode(done.stdout.encode(), type=RunDocument)
                assert document.accounts.ok == 60 and "planned 60" in done.stderr
            else:
                cases(done.stdout.encode())
                assert json.loads((tmp_path / "a.json").read_text())["accounts"]["ok"] == 60
                assert (tmp_path / "m.md").read_text().startswith(
                    "### ❌ "
                ) and "planned 60" not in done.stderr
        for more, said in (
            (["--json", "--junit"], "only one of --json and --junit can go to stdout"),
            (["--json=no/x.json"], "no/x.json cannot be written"),
            (["--junit=."], ". is a folder"),
            (["--json=x", "--junit=x"], "both write to x"),
            (["--html=-"], "a page cannot go to stdout"),
            (["--json="], "--json= has no value"),
        ):
            done = subprocess.run(
                [sys.executable, "-m", "replay.cli", "run", "day.toml", *more, "-o", "never"],
                capture_output=True, text=True, timeout=200, check=False, cwd=tmp_path,
            )  # fmt: skip
            assert done.returncode == 2 and said in done.stderr, done.stderr
            assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("verb", "words", "found"),
    [
        ("run", ["--json", "day.toml"], {"json": "-", "paths": ("day.toml",)}),
        ("peak", ["--junit", "day.toml"], {"junit": "-", "paths": ("day.toml",)}),
        (
            "run",
            ["day.toml", "--html", "--json=a.json"],
            {"json": "a.json", "html": "\0", "paths": ("day.toml",)},
        ),
        ("ab", ["--json", "day.toml", "--base=a", "--new=b"], {"json": "-", "scenario": "day.toml"}),
        ("ab", ["day.toml", "--json", "x", "--base=a", "--new=b"], {"json": "x", "scenario": "day.toml"}),
        ("compare", ["--json", "base=a", "new=b"], {"json": "-", "sides": ("base=a", "new=b")}),
        ("compare", ["--json", "-", "a.hlog", "b.hlog"], {"json": "-", "sides": ("a.hlog", "b.hlog")}),
        ("compare", ["--json", "a.hlog", "b.hlog"], {"json": "-", "sides": ("a.hlog", "b.hlog")}),
        (
            "compare",
            ["a.hlog", "b.hlog", "--junit", "j.xml"],
            {"junit": "j.xml", "sides": ("a.hlog", "b.hlog")},
        ),
        ("report", ["--json", "runs"], {"json": "-", "run": Path("runs")}),
        ("report", ["runs", "--html", "a.html"], {"html": "a.html", "run": Path("runs")}),
        ("report", ["--html", ".", "--markdown"], {"html": "\0", "markdown": "-", "run": Path()}),
    ],
)
def test_a_file_comes_after_an_equals_sign_and_where_it_came_after_a_space_before_still_there(
    verb: str, words: list[str], found: dict[str, Any]
) -> None:
    command = cli.get_command(None, verb)  # type: ignore[arg-type]
    assert command is not None
    given = command.make_context(verb, list(words)).params
    assert {key: given[f"{key}_file" if f"{key}_file" in given else key] for key in found} == found
    for name in ("json", "junit", "markdown", "html"):
        assert name in found or given[f"{name}_file"] is None
