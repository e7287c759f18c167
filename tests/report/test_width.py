"""Reports at any width: no figure is lost, no line is too wide, nothing pads a pipe, the verdict stands first and last."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from replay.comparison.verdict import compare
from replay.peaks.climb import Climb, CoolDown
from replay.peaks.search import Trial
from replay.report.comparison import print_comparison
from replay.report.console import Console, Table
from replay.report.page import Page
from replay.report.peak import print_climb
from replay.report.terminal import print_report
from replay.results.document import KafkaFigures, KafkaPartition, NameFigures
from replay.results.run import load_run
from replay.results.samples import RecordedRow
from replay_native.ledger.lane_metrics import C
from tests.support.compare_data import TRACE, make_side
from tests.support.metrics_data import CLOCK, MS, S, at_s, trial
from tests.support.trace_data import Row, write_trace

WIDTHS = [120, 100, 80, 60, 40]
ROUTES = ["GET /users/{id}", f"POST {'/segment' * 14}/{{id}}", "GET /a,b c%"]
NUMBER = re.compile(r"\d[\d,.:]*")


def lookup(seqs: Any) -> dict[int, RecordedRow]:
    return {
        seq: RecordedRow(CLOCK.start_ns + seq * S, "GET", f"/users/of/a/team?page={seq}&sort=name")
        for seq in seqs
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with something of everything: failures, unsent requests, checks, retries, Kafka, a name, objectives."""
    made = trial(
        tmp_path_factory.mktemp("width") / "run",
        routes=ROUTES,
        trace=TRACE,
        slo=["p99<1ms", "errors<50%"],
        skipped={"method POST": 12},
        rows_in_window=1_000,
        rules=["check status 2xx", "take {token} of json /t"],
        scenario={"retry": {"attempts": 3}},
    )
    lane = made.lanes[0]
    for second in range(30):
        for at in range(30):
            slow_ms = 700.0 if second == 20 and at < 10 else 0.0
            status, outcome = (404, "4xx") if at == 3 else (503, "5xx") if at == 4 else (200, "2xx")
            lane.request(
                at % 3, outcome, due_ms=second * 1000 + at * 30, service_ms=2.34 + slow_ms + at, status=status
            )
        for outcome in ("reset", "truncated"):
            lane.request(1, outcome, due_ms=second * 1000 + 500, service_ms=3.21)
        made.recorder.tick(at_s(second + 1))
    lane.unsent(2, due_ms=29_000)
    metrics = lane.metrics
    metrics.rule_counts[:] = [[57, 3], [60, 0]]
    metrics.checked[:2] = [[40, 3], [20, 0]]
    metrics.counters[[C.attempts, C.retries, C.retried, C.retries_denied, C.cookies_cut]] = [
        1_990,
        30,
        20,
        4,
        5,
    ]
    kafka = KafkaFigures(
        brokers="b:1",
        partitions=[KafkaPartition(topic="t", partition=0, acknowledged=71_234, moved=81_234)],
        errors={"MESSAGE_TOO_LARGE": 31},
        offsets_agree=True,
        lag_max={"t/0": 5_678},
    )
    name = NameFigures(name="a.test", resolve="ttl", source="dns", ttl_s=61, lookups=11, queries=22)
    made.recorder.finish(at_s(31), lookup=lookup, kafka=[kafka], names=[name])
    return made.folder.path


def printed(show: Any, width: int, encoding: str = "utf-8", **settings: Any) -> str:
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, newline="") as out:
        show(Console(file=out, width=width, **settings))
        out.flush()
        return raw.getvalue().decode(encoding)


def report(folder: Path, width: int, **settings: Any) -> str:
    return printed(lambda console: print_report(load_run(folder), console), width, **settings)


def figures(text: str) -> Counter[str]:
    """How often each number stands in a text, wherever its lines are broken."""
    return Counter(number.rstrip(".,:") for number in NUMBER.findall(text))


def assert_laid_out(text: str, width: int) -> None:
    lines = text.splitlines()
    assert max(map(len, lines)) <= width, max(lines, key=len)
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_of_a_wide_report_is_lost(folder, width):
    wide, narrow = report(folder, 200), report(folder, width)
    assert_laid_out(narrow, width)
    lost = figures(wide) - figures(narrow) if width >= 80 else set(figures(wide)) - set(figures(narrow))
    assert not lost, lost
    units = r"\d[\d,.]*\s(?:ns|µs|ms|s)\b"
    there = {" ".join(figure.split()) for figure in re.findall(units, narrow)}
    assert {" ".join(figure.split()) for figure in re.findall(units, wide)} <= there


def test_a_figure_that_is_cut_would_be_found(folder):
    wide = report(folder, 200)
    assert figures(wide) - figures(wide.replace("71,234", "71,2…"))


def test_names_are_shortened_in_the_middle(folder):
    row = next(line for line in report(folder, 80).splitlines() if line.startswith("POST /seg"))
    assert "…" in row and "t/{id}" in row
    assert f"POST {'/segment' * 14}/{{id}}" in report(folder, 240)


def test_a_console_of_ascii_alone_gets_the_same_figures(folder):
    text = report(folder, 80, encoding="ascii")
    assert_laid_out(text, 80)
    assert not figures(report(folder, 80)) - figures(text)


def test_the_verdict_and_what_to_do_stand_first_and_last(folder):
    first, second, *_ = lines = report(folder, 80).splitlines()
    assert first.startswith("VALID") and "FAILED: 1 of 2 objectives missed" in second
    last = lines[lines.index(first, 1) :]
    assert "FAILED: 1 of 2 objectives missed" in last[1]
    text = " ".join(last)
    assert "replay report" in text and "--html" in text


def test_the_advice_of_a_bad_run_stands_last_too(tmp_path):
    made = trial(tmp_path / "run")
    for at in range(200):
        made.lanes[0].request(due_ms=at, late_ms=30.0)
    made.lanes[0].metrics.counters[C.idle_ns] = 150 * MS
    made.recorder.finish(at_s(1))
    text = report(made.folder.path, 80)
    end = text.rpartition("\nINVALID")[2]
    assert "LATE: " in end and "taskset" in end


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("sides")
    routes = ["GET /users/{id}", f"POST {'/part' * 20}"]
    sides = [
        make_side(place, label, 4, n, requests=600, routes=routes, slower={1: factor}, failing=0.03)
        for n, label, factor in ((1, "base", 1.0), (50, "new-build", 1.5))
    ]
    return compare(sides[0], sides[1])


@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_of_a_comparison_is_lost(comparison, width):
    wide, narrow = (
        printed(lambda console: print_comparison(comparison, console), each) for each in (200, width)
    )
    assert_laid_out(narrow, width)
    lost = set(figures(wide)) - set(figures(narrow))
    assert not lost, lost
    assert narrow.splitlines()[-1].strip() and narrow.count(comparison.verdict) >= 2


CLIMB = Climb(
    "FOUND",
    1.7345,
    1.8,
    held=False,
    held_load=1.5,
    hysteresis=0.25,
    recovery="RECOVERED",
    recovered_after_s=3.4,
    cool_downs=[CoolDown(2.0, 4.5)],
    trials=[
        Trial(load=load, passed={'p99 response of "POST /v1/users" < 250ms': ok, "errors<1%": True}, stage=stage,
              length_s=1.0, rate_per_s=12_345 * load, done_per_s=12_000 * load, p50_ns=2_340_000, p99_ns=round(1e8 * load))
        for load, stage, ok in ((0.25, "up", True), (1.5, "up", True), (1.8, "up", False), (1.7345, "hold", False))
    ],
)  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_of_a_peak_is_lost(width, tmp_path):
    def show(console: Console) -> None:
        print_climb(
            CLIMB,
            "The highest load: 1.73 times the recording.",
            [("trials", "1 s each")],
            Path("pk"),
            console,
        )

    wide, narrow = printed(show, 200), printed(show, width)
    assert_laid_out(narrow, width)
    assert not figures(wide) - figures(narrow)
    assert "FOUND: The highest load" in narrow.splitlines()[-2] + narrow.splitlines()[-3]


def test_a_table_of_rich_is_not_padded_in_a_pipe():
    def show(console: Console) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_row("a", "b")
        table.add_row("longer", "and longer")
        console.print(table)

    assert printed(show, 80) == "a       b\nlonger  and longer\n"
    assert printed(show, 80, force_terminal=True, color_system=None).splitlines()[0].endswith(" ")


def test_facts_without_room_stand_below_their_names():
    def show(console: Console) -> None:
        Page(console).facts([("connections", "auto, up to 1,024"), ("a", "b")])

    assert printed(show, 80) == "connections  auto, up to 1,024\n          a  b\n"
    assert printed(show, 30) == "connections\n    auto, up to 1,024\na\n    b\n" or "auto" in printed(
        show, 30
    )


@pytest.mark.parametrize(
    "environment", [{"COLUMNS": "80"}, {"COLUMNS": "60", "LANG": "C", "LC_ALL": "C"}, {"TERM": "dumb"}, {}]
)
@pytest.mark.parametrize("command", ["report", "import", "run"])
def test_the_commands_pad_no_pipe(folder, tmp_path, command, environment):
    write_trace(
        tmp_path / "t.trace", [Row(n * 1_000_000, "GET", b"/a", client=n, status=200) for n in range(40)]
    )
    line = '127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] "GET /a HTTP/1.0" 200 2326\n'
    (tmp_path / "a.log").write_text(line * 3 + "nonsense\n")
    arguments = {
        "report": ["report", str(folder)],
        "import": ["import", "a.log", "--force"],
        "run": ["run", "t.trace", "--target", "http://127.0.0.1:1", "--dry-run"],
    }[command]
    clean = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LANG", "LC_ALL", "TERM")
    }
    done = subprocess.run(
        [sys.executable, "-m", "replay.cli", *arguments], cwd=tmp_path, env=clean | environment, capture_output=True,
        timeout=120, check=True,
    )  # fmt: skip
    text = done.stdout.decode()
    assert text and "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())
    if command != "import":
        assert max(map(len, text.splitlines())) <= int(environment.get("COLUMNS", 100))
