"""Runs with nothing, too little or too much in them: their pages and reports have figures or say that there are none."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest

from replay.comparison.decision import Options
from replay.comparison.verdict import compare
from replay.peaks.climb import Climb
from replay.peaks.search import Trial as LoadTrial
from replay.report.comparison import print_comparison
from replay.report.comparison_page import write_comparison_page
from replay.report.console import Console
from replay.report.peak import print_climb
from replay.report.peak_page import write_peak_page
from replay.report.run_page import write_run_page
from replay.report.terminal import print_report
from replay.results.document import RecordedClock
from replay.results.run import load_run
from tests.support.compare_data import make_side
from tests.support.metrics_data import CLOCK, at_s, trial

NO_FIGURE = re.compile(r"\b(nan|inf|infinity|none)\b", re.IGNORECASE)
SVG = re.compile(r"<svg xmlns.*?class=.ticks.>.*?</g></svg>", re.DOTALL)


def empty(path: Path) -> None:
    trial(path, recorded_clock=None, routes=[]).recorder.finish(at_s(1))


def nothing_ended(path: Path) -> None:
    made = trial(path)
    for _ in range(30):
        made.lanes[0].unsent()
    made.recorder.tick(at_s(1))
    made.recorder.finish(at_s(2))


def one_request(path: Path) -> None:
    made = trial(path, slo=["p99<1s", "errors<1%", 'p99 of "*" < 1s'])
    made.lanes[0].request(0)
    made.recorder.finish(at_s(1))


def closed_loop(path: Path) -> None:
    made = trial(path, closed_loop=True, slo=["p99 service<1s"])
    made.lanes[0].many(300)
    for second in range(3):
        made.recorder.tick(at_s(second + 1))
    made.recorder.finish(at_s(4))


def took_no_time(path: Path) -> None:
    made = trial(path)
    for second in range(4):
        made.lanes[0].request(0, due_ms=second * 1e3, late_ms=0, wait_ms=0, service_ms=0)
        made.recorder.tick(at_s(second + 1))
    made.recorder.finish(at_s(5))


def took_hours(path: Path) -> None:
    made = trial(path)
    for second in range(4):
        made.lanes[0].request(0, due_ms=second * 1e3, service_ms=3 * 3.6e6)
        made.lanes[0].request(0, "timeout", due_ms=second * 1e3, service_ms=1e-5)
        made.recorder.tick(at_s(1 + 4_000 * second))
    made.recorder.finish(at_s(16_000))


def all_failed(path: Path) -> None:
    made = trial(path, slo=["errors<1%"], recorded_clock=clock_at(1e-3))
    for second in range(4):
        made.lanes[0].many(20, outcome="refused")
        made.recorder.tick(at_s(second + 1))
    made.recorder.finish(at_s(5))


def far_clock(path: Path) -> None:
    made = trial(path, recorded_clock=clock_at(1e6))
    for second in range(4):
        made.lanes[0].many(20)
        made.recorder.tick(at_s(second + 1))
    made.recorder.finish(at_s(5))


def without_logs(path: Path) -> None:
    far_clock(path)
    for name in ("latency.hlog", "timeline.jsonl", "samples.jsonl"):
        (path / name).unlink()


def clock_at(speed: float) -> RecordedClock:
    return RecordedClock(start_ns=CLOCK.start_ns, speed=speed, utc_offset_s=-12_600)


ODD = [
    empty, nothing_ended, one_request, closed_loop, took_no_time, took_hours, all_failed, far_clock, without_logs,
]  # fmt: skip


def assert_has_figures(page: str) -> None:
    body = re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", " ", body)
    assert not NO_FIGURE.search(text), NO_FIGURE.search(text)
    for svg in SVG.findall(page):
        Xml.fromstring(svg)
        assert not re.search(r"\bnan|inf\b", re.sub(r">[^<]*<", "><", svg))
    assert page.rstrip().endswith("</html>")


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_an_odd_run_has_a_page_and_a_report(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "run")
    run = load_run(tmp_path / "run")
    write_run_page(run, tmp_path / "page.html")
    assert_has_figures((tmp_path / "page.html").read_text())
    for width in (40, 80):
        text = io.StringIO()
        print_report(run, Console(file=text, width=width))
        assert not re.search(r"\b(nan|inf)\b", text.getvalue())
        assert max(map(len, text.getvalue().splitlines())) <= width


@pytest.mark.parametrize(
    ("runs", "more", "options"),
    [
        (1, {}, Options()),
        (1, {"requests": 3}, Options()),
        (4, {"requests": 60}, Options(metrics=("errors",))),
        (4, {"requests": 60}, Options(metrics=("p50",), routes=0)),
        (2, {"requests": 60, "failing": 1.0}, Options()),
    ],
)
def test_an_odd_comparison_has_a_page_and_a_report(runs, more, options, tmp_path):
    sides = [make_side(tmp_path, label, runs, seed, **more) for seed, label in ((1, "base"), (50, "new"))]
    found = compare(sides[0], sides[1], options)
    write_comparison_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert_has_figures(page)
    assert "NaN" not in page
    text = io.StringIO()
    print_comparison(found, Console(file=text, width=60))
    assert max(map(len, text.getvalue().splitlines())) <= 60


def load_trial(load: float, **more: object) -> LoadTrial:
    given = {"load": load, "passed": {"p99<1s": True}, "rate_per_s": 10 * load, "done_per_s": 10 * load}
    return LoadTrial(**(given | more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdict", "loads"),
    [
        ("OUT_OF_TRIALS", []),
        ("FAILS_AT_LOWEST", [0.25]),
        ("FOUND", [1.0, 1.000001, 1.0000005]),
        ("FOUND", [1e-6, 1e9]),
        ("NO_LIMIT", [64.0, 64.0]),
    ],
)
def test_a_peak_is_drawn_at_any_range(verdict, loads, tmp_path):
    trials = [
        load_trial(load, p50_ns=None if at else 5, p99_ns=round(1e3 + at * 1e10))
        for at, load in enumerate(loads)
    ]
    found = Climb(verdict, max(loads, default=0.0), math.inf, trials=trials)
    write_peak_page(found, "A sentence.", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert_has_figures(page)
    for svg in SVG.findall(page):
        ticks = [node for node in Xml.fromstring(svg).iter() if node.get("class") == "ticks"]
        labels = [text.text for text in ticks[0] if text.get("class") != "title"]
        assert len(labels) >= 2 and len(set(labels)) == len(labels)
    text = io.StringIO()
    print_climb(found, "A sentence.", [], tmp_path, Console(file=text, width=40))
    assert "A sentence." in text.getvalue()


def test_a_run_that_was_killed_has_a_page(tmp_path):
    made = trial(tmp_path / "run", slo=["p99<1ms"])
    for second in range(3):
        made.lanes[0].many(20)
        made.recorder.tick(at_s(second + 1))
    made.recorder.close()
    write_run_page(load_run(tmp_path / "run"), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert_has_figures(page)
    assert "RECOVERED" in page
