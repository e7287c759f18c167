"""Verdicts by the real command: refusals, objectives without units, lines that could not be read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.staging.sink import Sink

pytestmark = pytest.mark.whole

FOREIGN = "this line is of another program\n"


def command(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "replay.cli", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=150, check=False, cwd=cwd)


def log(
    path: Path, now: int, *, then: int = 200, requests: int = 60, foreign: int = 0, minute: int = 55
) -> Path:
    """An access log whose targets make the sink answer with the status `now`; `then` is the recorded one."""
    lines = []
    for number in range(requests):
        stamp = f"10/Oct/2025:13:{minute}:{number // 30:02d} +0000"
        request = f"GET /sink/status={now}?n={number} HTTP/1.1"
        lines.append(f'10.0.0.{number % 9} - - [{stamp}] "{request}" {then or "-"} 12 "-" "-"\n')
        lines += [FOREIGN] * (number < foreign)
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with Sink() as sink:
        yield f"http://127.0.0.1:{sink.port}"


def run(folder: Path, target: str, *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Run `replay run`; its exit code, run.json, and what it printed."""
    done = command("run", *arguments, "--target", target, "-o", "out", "--plain", "--speed", "4", cwd=folder)
    found = folder / "out" / "run.json"
    return done.returncode, json.loads(found.read_text()) if found.exists() else {}, done.stdout + done.stderr


def allowed(code: int, document: dict[str, Any]) -> set[int]:
    """The exit code; or that of an invalid run, where this machine had no time for it."""
    return {code} if document["validity"]["verdict"] != "INVALID" else {4}


@pytest.mark.timing
@pytest.mark.parametrize("engine", ["native", "portable"])
@pytest.mark.parametrize(("then", "now"), [(200, 401), (304, 404), (200, 302), (0, 403)])
def test_a_target_that_refuses_everything_is_not_green(
    target: str, tmp_path: Path, engine: str, then: int, now: int
) -> None:
    path = log(tmp_path / "a.log", now, then=then)
    code, document, said = run(tmp_path, target, path, "--engine", engine, "--slo", "errors<1%")
    assert code in allowed(99, document), said
    assert document["validity"]["reasons"][0]["code"] == "STATUS_DIFFERS"
    assert document["validity"]["verdict"] != "VALID" and document["slo"][0]["passed"]
    assert document["status_differs"]["share"] == 1.0
    first = said.partition("\n\n")[2].partition("\n\n")[2].splitlines()
    what = "a worse status than recorded" if then else "a 4xx (the recording has no statuses)"
    assert f"FAILED: 100% of the requests got {what}" in first[1]


def test_an_objective_on_statuses_replaces_the_rule(target: str, tmp_path: Path) -> None:
    path = log(tmp_path / "a.log", 404)
    code, document, said = run(tmp_path, target, path, "--slo", "statuses differ<100%")
    assert code in allowed(0, document), said
    assert "STATUS_DIFFERS" not in said and "any share is accepted" in said


def test_what_was_recorded_as_bad_is_fine(target: str, tmp_path: Path) -> None:
    code, document, said = run(tmp_path, target, log(tmp_path / "a.log", 404, then=404))
    assert code in allowed(0, document), said
    assert document["status_differs"]["share"] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--slo", "p(95)<500"), ("500 ms or 500 s", "500ms", "500s")),
        (("run", "--slo", "errors<1"), ("1% or 100%",)),
        (("run", "--slo", "p99<1s over 10"), ("10 s or 10 m",)),
        (("run", "s.toml"), ("250 ms or 250 s", "s.toml", "line 2")),
        (("peak", "--slo", "p99<250"), ("250 ms or 250 s",)),
    ],
)
def test_an_objective_without_a_unit_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], says: tuple[str, ...]
) -> None:
    log(tmp_path / "a.log", 200)
    (tmp_path / "s.toml").write_text('target = "http://127.0.0.1:1"\nslo = ["errors<1%", "p99<250"]\n')
    where = () if "s.toml" in arguments else ("--target", "http://127.0.0.1:1")
    done = command(*arguments, "a.log", *where, "-o", "out", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    for words in says:
        assert words in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.timing
def test_the_plan_shows_objectives_and_times_without_a_unit(target: str, tmp_path: Path) -> None:
    log(tmp_path / "a.log", 200)
    asked = ("--slo", "p(99)<0.25s", "--slo", "errors<.1% over 60s", "--timeout", 500, "--max-wait", "120s")
    said = command("run", "a.log", "--target", target, "--dry-run", "--plain", *asked, cwd=tmp_path).stdout
    rows = [" ".join(line.split()) for line in said.splitlines()]
    assert "objectives p99 response < 250ms" in rows and "errors < 0.1% over 1m" in rows
    assert any(row.startswith("statuses differ ≤ 50%") for row in rows)
    assert any(row.startswith("note timeout 500 is read as 500 s (8 min 20 s)") for row in rows)
    assert "max-wait" not in said, "it has a unit"


@pytest.mark.timing
@pytest.mark.parametrize("how", ["log", "trace", "scaled", "window", "files"])
def test_rejected_lines_are_in_the_plan_the_first_line_and_run_json(
    target: str, tmp_path: Path, how: str
) -> None:
    what: list[object] = [log(tmp_path / "a.log", 200, foreign=40)]
    lines, rejected = 100, 40
    if how in ("trace", "scaled"):
        assert command("import", "a.log", "-o", "a.trace", cwd=tmp_path).returncode == 0
        what = ["a.trace"]
    if how == "scaled":
        assert command("transform", "a.trace", "-o", "b.trace", "--scale", "2", cwd=tmp_path).returncode == 0
        what = ["b.trace"]
    if how == "files":
        what.append(log(tmp_path / "b.log", 200, foreign=20, minute=56))
        what += ["--until", "+10s"]
        lines, rejected = 180, 60
    if how == "window":
        what += ["--until", "+1s"]
    code, document, said = run(tmp_path, target, *what)
    assert code in allowed(0, document), said
    assert document["trace"]["lines"] == lines and sum(document["trace"]["rejected"].values()) == rejected
    words = f"{rejected} of {lines} lines of the recording"
    plan = " ".join(said.partition("share ")[0].split())
    assert f"rejected {words} were rejected" in plan
    first = next(line for line in said.splitlines() if line.startswith(document["validity"]["verdict"]))
    if how in ("log", "trace"):
        assert "60% of the recording sent (60 of 100 lines; 40 rejected)" in first
    else:
        assert "about " in first and "100%" not in first
    assert f"LINES_REJECTED: {words} were rejected (not this format {rejected})" in " ".join(said.split())
    page = command("report", "out", "--html", "page.html", cwd=tmp_path)
    assert page.returncode == 0 and str(rejected) in (tmp_path / "page.html").read_text().partition("<h2>")[0]


def test_blank_lines_and_headers_are_no_lines_of_the_recording(target: str, tmp_path: Path) -> None:
    path = log(tmp_path / "a.log", 200)
    path.write_text(path.read_text().replace("\n", "\n\n"))
    _, document, said = run(tmp_path, target, path)
    assert "100% of the recording sent (60 of 60)" in said
    assert document["trace"]["lines"] == 60 and not document["trace"]["rejected"]


@pytest.mark.timing
def test_peak_says_what_it_could_not_read_and_refuses_a_target_that_refuses(
    target: str, tmp_path: Path
) -> None:
    log(tmp_path / "a.log", 401, foreign=40)
    short = (
        "--trial",
        "300ms",
        "--hold",
        "300ms",
        "--votes",
        "1",
        "--lowest",
        "1",
        "--highest",
        "2",
        "--plain",
    )
    done = command("peak", "a.log", "--target", target, "-o", "out", *short, cwd=tmp_path)
    assert done.returncode == 99 and "worse than recorded at the lowest load already" in done.stderr, (
        done.stderr
    )
    done = command(
        "peak", "a.log", "--target", target, "-o", "o2", *short, "--slo", "statuses differ<100%", cwd=tmp_path
    )
    assert "40 of 100 lines of the recording were rejected" in done.stdout, done.stderr
    assert "300 ms each" in done.stdout
    assert json.loads((tmp_path / "o2" / "peak.json").read_text())["recording"]["lines"] == 100


def test_a_surge_onto_a_target_that_refuses_says_so(target: str, tmp_path: Path) -> None:
    log(tmp_path / "a.log", 401, requests=300)
    asked = ("--surge", "2", "--trigger", "1500ms", "--plain", "-o", "out", "--target", target)
    done = command("peak", "a.log", *asked, cwd=tmp_path)
    assert done.returncode == 99 and "were already worse than recorded" in done.stderr, (
        done.stdout + done.stderr
    )
