"""The report says what matters first, in both clocks, on any console; and `replay report` hands the figures
on.
"""

from __future__ import annotations

import dataclasses
import io
import json

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from replay.cli.report import command
from replay.errors import InputError
from replay.ledger.verdicts import Reason, Validity
from replay.report.console import Console
from replay.report.page import WIDTH
from replay.report.run_page import write_run_page
from replay.report.terminal import print_report
from replay.results.document import Ending, RouteStart
from replay.results.run import load_run
from replay.results.samples import RecordedRow
from replay_native.http1 import parser as http1
from replay_native.ledger import record
from replay_native.ledger.lane_metrics import C
from tests.support.metrics_data import (
    CLOCK,
    MS,
    ROUTES,
    S,
    at_s,
    trial,
)


def lookup(seqs):
    return {seq: RecordedRow(CLOCK.start_ns + seq * S, "GET", f"/users/{seq}?page=[2]") for seq in seqs}


@pytest.fixture
def folder(tmp_path):
    """Thirty seconds, a slow one among them, a few failures."""
    made = trial(
        tmp_path / "run", slo=["p99<1ms", "errors<50%"], skipped={"method POST": 12}, rows_in_window=1_000
    )
    lane = made.lanes[0]
    for second in range(30):
        for at in range(30):
            slow_ms = 700.0 if second == 20 and at < 10 else 0.0
            lane.request(at % 3, due_ms=second * 1000 + at * 30, service_ms=2 + slow_ms)
        if second == 20:
            lane.request(1, "reset", due_ms=20_500)
        made.recorder.tick(at_s(second + 1))
    lane.unsent(2, due_ms=29_000)
    made.recorder.finish(at_s(31), lookup=lookup)
    return made.folder.path


def printed(path, width=WIDTH, encoding="utf-8", **console):
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, newline="") as out:
        print_report(load_run(path), Console(file=out, width=width, **console))
        out.flush()
        return raw.getvalue().decode(encoding)


def section(text: str, title: str) -> list[str]:
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(title))
    end = next((at for at in range(start, len(lines)) if not lines[at]), len(lines))
    return lines[start + 1 : end]


def test_the_first_line_says_validity_and_what_share_was_sent(folder):
    first = printed(folder).splitlines()[0]
    assert first.startswith("VALID  90.1% of the recording sent (901 of 1,000)")


def test_actions_stand_before_routes(folder, tmp_path):
    assert "Actions" not in printed(folder)
    made = trial(tmp_path / "named", named=[RouteStart(route, action="shopping") for route in ROUTES])
    made.lanes[0].many(30)
    made.recorder.finish(at_s(2))
    text = printed(made.folder.path)
    assert section(text, "Actions")[1].split()[:2] == ["shopping", "100.0%"]
    assert text.index("Actions") < text.index("Routes")


def test_the_accounts_stand_in_one_sum(folder):
    text = printed(folder)
    assert (
        "planned 902 = sent 901 + unsent 1 (max wait 1); sent = ok 900 + error 1 (reset 1) + timeout 0"
        in text
    )
    assert "skipped 12 (method POST 12)" in text


def test_nothing_is_wider_than_the_console_and_nothing_trails(folder):
    for width in (WIDTH, 80):
        lines = printed(folder, width).splitlines()
        assert max(map(len, lines)) <= width
        assert all(line == line.rstrip() for line in lines)


def test_it_is_plain_where_the_console_is_no_terminal_and_colourful_where_it_is(folder):
    assert "\x1b" not in printed(folder)
    assert "\x1b[1" in printed(folder, force_terminal=True, color_system="standard")


@pytest.mark.parametrize(
    ("slo", "status", "is_green"),
    [
        ("p99<1s", 200, True),
        ("p99<1ms", 200, False),
        ("p99<1s", 404, False),
        ("statuses differ<1%", 404, False),
    ],
)
def test_no_valid_is_green_beside_a_failure(tmp_path, slo, status, is_green):
    made = trial(tmp_path / "run", slo=[slo])
    for at in range(100):
        made.lanes[0].request(0, f"{status // 100}xx", due_ms=float(at), status=status, recorded=200)
    made.recorder.finish(at_s(1))
    text = printed(made.folder.path, force_terminal=True, color_system="standard")
    first = text.splitlines()[0]
    assert ("\x1b[1;32mVALID" in first) == is_green
    assert ("FAILED: " in text) != is_green
    assert load_run(made.folder.path).document.validity.verdict == (
        "SUSPECT" if "<1s" in slo and status == 404 else "VALID"
    )


def test_4xx_stand_apart_from_good_responses(tmp_path):
    made = trial(tmp_path / "run")
    for at in range(100):
        made.lanes[0].request(
            0, "4xx" if at < 30 else "2xx", due_ms=float(at), status=404 if at < 30 else 200
        )
    made.recorder.finish(at_s(1))
    text = printed(made.folder.path)
    assert "sent = ok 100 (of these 4xx 30) + error 0" in text
    assert section(text, "Routes")[2].split()[0] == "recorded" and "2xx 99.0%" in section(text, "Routes")[2]


def test_a_console_that_knows_ascii_alone_gets_ascii(folder):
    text = printed(folder, encoding="ascii")
    assert text.isascii() and ">=10.0 s" in text


def test_the_slowest_second_stands_first_in_both_clocks(folder):
    never_sent, slow = section(printed(folder), "Slowest seconds")[1:3]
    assert "≥10.0 s" in never_sent
    recorded, wall = slow.split()[:2]
    assert recorded == "14:46:40.000"
    assert wall == "14:13:40.123"


def test_a_request_that_was_never_sent_is_felt_as_at_least_that(folder):
    text = printed(folder)
    first = section(text, "Slowest requests")[1]
    assert "≥10.0 s" in first and "unsent" in first and "?page=[2]" in first
    assert "reset" in section(text, "First failed requests")[1]


def test_requests_that_were_sent_again_are_reported(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].request(0)
    made.lanes[0].metrics.counters[C.resent] = 3
    made.recorder.finish(at_s(1))
    assert "resent  3 requests, on a new connection" in printed(made.folder.path)


def test_malformed_answers_are_explained_below_the_first_failed(tmp_path):
    made = trial(tmp_path / "run")
    beginning = np.frombuffer(b"220 mail ESMTP\x1b".ljust(32), np.uint8).copy()
    for _ in range(2):
        record.record_malformed(made.lanes[0].metrics, 0, 0, http1.NOT_HTTP, beginning, 15)
        made.lanes[0].request(0, "malformed")
    made.recorder.finish(at_s(1))
    text = printed(made.folder.path)
    assert (
        '2 malformed responses: it does not begin with an HTTP/1 version; the first line begins "220 mail ESMTP\\x1b"'
        in " ".join(text.split())
    )


def test_routes_stand_above_what_the_recording_says_of_them(folder):
    rows = section(printed(folder), "Routes")
    at = next(at for at, row in enumerate(rows) if row.startswith("POST /v1/users"))
    assert "reset 0.3%" in rows[at]
    rows = rows[at - 1 :]
    assert rows[2].split()[0] == "recorded" and "2xx 99.0%, 5xx 1.0%" in rows[2]


def test_the_spectrum_goes_as_far_as_the_requests_reach(folder):
    rows = section(printed(folder), "Percentile spectrum")
    assert [row.split()[0] for row in rows[1:]] == ["p50", "p75", "p90", "p95", "p99"]
    assert all("●" in row or "○" in row for row in rows[1:])


def test_objectives_say_what_was_measured(folder):
    met, failed = section(printed(folder), "Objectives")[1], section(printed(folder), "Objectives")[0]
    assert met.startswith("✓ met") and failed.startswith("✗ missed")
    assert "p99<1ms" in failed and "ms" in failed.rpartition("is")[2]


def test_an_invalid_run_says_why_and_what_to_do(tmp_path):
    made = trial(tmp_path / "run")
    for at in range(200):
        made.lanes[0].request(due_ms=at, late_ms=30.0)
    made.lanes[0].metrics.counters[C.idle_ns] = 150 * MS
    made.recorder.finish(at_s(1), ending=Ending(how="interrupted", detail="SIGINT", at_s=0.5))
    lines = printed(tmp_path / "run").splitlines()
    assert lines[0].startswith("INVALID") and lines[0].endswith("interrupted")
    assert lines[1].strip().startswith("LATE: ") and "taskset" in lines[2]


def test_findings_with_the_same_advice_show_it_once_in_each_place(folder, tmp_path):
    run = load_run(folder)
    found = [
        Reason(code=code, verdict="INVALID", message=f"message of {code}", advice=advice)
        for code, advice in (
            ("STARVED", "add a core"),
            ("NOT_SENT", "lower the rate"),
            ("READ_LATE", "add a core"),
        )
    ]
    document = msgspec.structs.replace(run.document, validity=Validity(verdict="INVALID", reasons=found))
    run = dataclasses.replace(run, document=document)
    text = io.StringIO()
    print_report(run, Console(file=text, width=WIDTH))
    lines = [line.strip() for line in text.getvalue().splitlines()]
    first, last = lines.index("STARVED: message of STARVED"), lines.index("STARVED, READ_LATE: add a core")
    assert lines[first : first + 5] == [
        "STARVED: message of STARVED",
        "READ_LATE: message of READ_LATE",
        "add a core",
        "NOT_SENT: message of NOT_SENT",
        "lower the rate",
    ]
    assert lines[last + 1] == "NOT_SENT: lower the rate"
    assert text.getvalue().count("add a core") == 2
    write_run_page(run, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().count("add a core") == 1


def test_a_closed_loop_is_reported_without_response(tmp_path):
    made = trial(tmp_path / "run", closed_loop=True)
    made.lanes[0].many(300)
    made.recorder.tick(at_s(1))
    made.recorder.finish(at_s(2))
    text = printed(tmp_path / "run")
    assert text.splitlines()[0].startswith("VALID  300 requests sent")
    assert "CLOSED_LOOP" in text and "lateness  " not in text
    assert not [line for line in text.splitlines() if line.startswith("response")]


def test_an_empty_run_is_reported_as_well(tmp_path):
    made = trial(tmp_path / "run", recorded_clock=None, routes=[])
    made.recorder.finish(at_s(1))
    assert printed(tmp_path / "run").startswith("INVALID  0 requests sent")


def test_the_command_prints_the_report_the_document_or_distributions(folder, tmp_path):
    runner = CliRunner()
    assert runner.invoke(command, [str(folder)]).output.startswith("VALID")
    assert json.loads(runner.invoke(command, [str(folder), "--json"]).output)["accounts"]["planned"] == 902
    result = runner.invoke(command, [str(folder), "--hgrm", str(tmp_path / "out")])
    assert result.exit_code == 0 and "distributions written" in result.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"response.all.hgrm", "response.2xx.GET_%2Fusers%2F{id}.hgrm"} <= names
    assert "#[Mean" in (tmp_path / "out" / "response.all.hgrm").read_text()


def test_the_command_makes_a_killed_run_whole_and_says_so(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(20)
    made.recorder.close()
    result = CliRunner().invoke(command, [str(tmp_path / "run")])
    assert "was killed; its results were rebuilt" in result.stderr
    assert "RECOVERED" in result.stdout and "killed, recovered" in result.stdout.splitlines()[0]


def test_the_command_names_what_is_no_run(tmp_path):
    result = CliRunner().invoke(command, [str(tmp_path / "missing")])
    assert isinstance(result.exception, InputError)
