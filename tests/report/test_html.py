"""The HTML pages: self-contained, safe with any name, and drawn by a real browser without an error or a request."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replay.comparison.verdict import compare
from replay.errors import OutputError
from replay.report.comparison_page import write_comparison_page
from replay.report.facts import facts_of
from replay.report.figures import thinned
from replay.report.run_page import write_run_page
from replay.results.document import KafkaFigures, KafkaPartition, NameFigures
from replay.results.run import load_run
from replay.results.timeline import Second
from replay_native.ledger.lane_metrics import C
from tests.support.compare_data import TRACE, make_side
from tests.support.metrics_data import at_s, trial

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_CI = os.environ.get("CI", "").lower() == "true"
BYTES_MAX = 200_000
NASTY = "GET /</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
LOADS = re.compile(r"""<(?:script|img|link|iframe)[^>]*\s(?:src|href)=["'](?!data:)""", re.IGNORECASE)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run with failures and unsent requests, and that of a comparison; both with a nasty route."""
    folder = tmp_path_factory.mktemp("pages")
    made = trial(folder / "run", routes=[NASTY, "POST /v1/users", "GET /c"], trace=TRACE)
    for second in range(12):
        made.lanes[0].many(40, seed=second)
        made.lanes[0].request(1, "reset", service_ms=120)
        made.lanes[0].unsent(2)
        made.recorder.tick(at_s(second + 1))
    made.recorder.finish(at_s(12.5))
    write_run_page(load_run(folder / "run"), folder / "run.html")
    routes = [NASTY, "POST /v1/users"]
    sides = [
        make_side(folder, label, 4, n, requests=300, routes=routes) for n, label in ((1, "base"), (50, "new"))
    ]
    base, new = sides
    write_comparison_page(compare(base, new), folder / "compare.html")
    return {"run": folder / "run.html", "compare": folder / "compare.html"}


def requests_of_the_page(net_log: str) -> list[str]:
    """Addresses beyond files that a page asked for: the browser's own requests are not isolated as a file's."""
    found = re.findall(r'"network_isolation_key":"file://.*?"url":"([^"]*)"', net_log)
    return [url for url in found if not url.startswith(("file:", "data:"))]


PROBE = """
setTimeout(() => {
  const shown = [...document.querySelectorAll('figure svg[role]')].filter((svg) => svg.getBoundingClientRect().width);
  const overlaps = [];
  for (const svg of shown) {
    const texts = [...svg.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
    texts.forEach(([one, a], at) => texts.slice(at + 1).forEach(([two, b]) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const up = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 0.5 && up > 4) overlaps.push(one + ' | ' + two);
    }));
  }
  let tip = '', zoomed = '', back = '';
  const live = document.querySelector('figure.live');
  if (live) {
    const svg = [...live.querySelectorAll('svg[role]')].find((each) => each.getBoundingClientRect().width);
    const box = svg.getBoundingClientRect(), plot = svg.querySelector('.plot');
    const point = (kind, share) => svg.dispatchEvent(new PointerEvent(kind, {
      clientX: box.left + share * box.width, clientY: box.top + box.height / 2, pointerType: 'mouse', bubbles: true }));
    point('pointermove', 0.5);
    tip = live.querySelector('.tip').innerText;
    const whole = plot.getAttribute('viewBox');
    point('pointerdown', 0.4);
    point('pointermove', 0.6);
    point('pointerup', 0.6);
    zoomed = plot.getAttribute('viewBox') === whole ? '' : svg.querySelector('.ticks').textContent;
    svg.dispatchEvent(new MouseEvent('dblclick'));
    back = plot.getAttribute('viewBox') === whole ? svg.querySelector('.ticks').textContent : '';
    point('pointerleave', 0.5);
  }
  document.body.dataset.drawn = JSON.stringify({
    tip, zoomed, back,
    charts: shown.length, live: document.querySelectorAll('figure.live').length, overlaps,
    images: document.images.length, wider: document.documentElement.scrollWidth - innerWidth,
    outside: [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).length,
    paper: +getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0],
  });
}, 800);
"""
"""What a browser has drawn: charts that are seen, texts in them that lie on each other, what stands off-screen."""

Look = Callable[..., "tuple[list[str], list[str], dict[str, Any]]"]


@pytest.fixture(scope="module")
def look(pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Look:
    """Open a page in headless Chromium, so wide, light or dark: its console's lines, the addresses it asked for, and what
    the probe says of it.
    """
    if CHROMIUM is None:
        if IN_CI:
            pytest.fail("Chromium is missing, and CI must have it")
        pytest.skip("Chromium not found: needed to look at the pages")

    def run(name: str, width: int = 1_280, dark: bool = False) -> tuple[list[str], list[str], dict[str, Any]]:
        folder = tmp_path_factory.mktemp("chromium")
        copy = folder / "page.html"
        digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
        page = pages[name].read_text() if name in pages else name
        page = page.replace("script-src ", f"script-src 'sha256-{digest}' ")
        copy.write_text(page.replace("</body></html>", f"<script>{PROBE}</script></body></html>"))
        words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        words += [
            "--disable-component-update",
            "--no-first-run",
            "--enable-logging=stderr",
            f"--user-data-dir={folder / 'user'}",
        ]
        words += [
            f"--log-net-log={folder / 'net.json'}",
            "--virtual-time-budget=3000",
            f"--window-size={width},900",
            f"--blink-settings=preferredColorScheme={int(not dark)}",
            "--dump-dom",
            copy.as_uri(),
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        drawn = re.search(r'data-drawn="([^"]*)"', done.stdout)
        assert drawn, done.stderr[-2_000:]
        asked = requests_of_the_page((folder / "net.json").read_text())
        return console, asked, json.loads(html.unescape(drawn.group(1)))

    return run


@pytest.mark.parametrize(
    ("name", "charts", "width", "dark"),
    [
        ("run", 6, 1_280, False),
        ("run", 6, 390, True),
        ("compare", 6, 1_280, True),
        ("compare", 6, 390, False),
    ],
)
def test_a_browser_draws_it_without_an_error_or_a_request(look, name, charts, width, dark):
    console, asked, drawn = look(name, width, dark)
    assert not console and not asked
    assert drawn["charts"] == charts and drawn["images"] == 0
    assert drawn["live"] >= 1, "the script that its policy allows by its digest has run"
    assert not drawn["overlaps"]
    assert re.match(r"p\d[\d.]*\n.* [\d.]+ (µs|ms)", drawn["tip"]), "values under the pointer"
    assert len(re.findall(r"p\d", drawn["zoomed"])) == 3, "the ends and the middle of what is looked at"
    assert "p90" in drawn["back"]
    assert drawn["wider"] <= 0 and drawn["outside"] == 0
    assert drawn["paper"] < 40 if dark else drawn["paper"] > 215


def test_a_page_that_asks_and_fails_would_be_found(look):
    script = "<script>throw new Error('x')</script>"
    page = f"<html><body>{script}<img src='http://127.0.0.1:9/x'></body></html>"
    console, asked, _ = look(page)
    assert asked == ["http://127.0.0.1:9/x"] and any("Error: x" in line for line in console)


@pytest.mark.parametrize("name", ["run", "compare"])
def test_a_page_holds_all_it_needs_and_no_markup_of_a_name(pages, name):
    text = pages[name].read_text()
    assert len(text) < BYTES_MAX
    assert not LOADS.search(text)
    assert "default-src 'none'" in text and "prefers-color-scheme:dark" in text
    assert "alert(1)</script>" not in text and "<img src=x" not in text
    assert "&lt;/script&gt;" in text


def test_the_verdict_comes_first(pages):
    body = pages["compare"].read_text().partition("</head>\n<body>")[2]
    verdict = r'<header>[^<]*</header><h1><span class="\w+">({})</span> \w'
    assert re.match(verdict.format("[A-Z_]+"), body)
    run = pages["run"].read_text().partition("</head>\n<body>")[2]
    assert re.match(verdict.format("VALID|SUSPECT|INVALID"), run)


def test_checks_and_retries_are_on_the_page(tmp_path):
    made = trial(
        tmp_path / "run", routes=["GET /a<b", "POST /c"], rules=["check status 2xx", "take {token} of json /t"],
        scenario={"retry": {"attempts": 3}},
    )  # fmt: skip
    metrics = made.lanes[0].metrics
    made.lanes[0].many(60)
    metrics.rule_counts[:] = [[57, 3], [60, 0]]
    metrics.checked[:2] = [[40, 3], [20, 0]]
    metrics.counters[[C.attempts, C.retries, C.retried, C.retries_denied, C.cookies_cut]] = [90, 30, 20, 4, 5]
    made.recorder.finish(at_s(1))
    write_run_page(load_run(tmp_path / "run"), tmp_path / "run.html")
    text = re.sub("<[^>]+>", " ", (tmp_path / "run.html").read_text().partition("<footer>")[0])
    text = " ".join(text.split())
    assert (
        "amplification 1.50: 90 requests at the target for 60 sent by users; 30 retries of 20 requests, 4 denied"
        in text
    )
    assert "check status 2xx 57 3 take {token} of json /t 60 0" in text
    assert "Responses checked, by route checked mismatches share GET /a&lt;b 40 3 7.5% POST /c 20 0 0" in text
    assert "cookies that did not fit into a jar (limits.cookies) 5" in text


def test_what_only_some_targets_have_is_on_the_page_as_in_the_terminal(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    document = made.recorder.finish(
        at_s(1),
        kafka=[
            KafkaFigures(
                brokers="b:1",
                partitions=[KafkaPartition(topic="t<", partition=0, acknowledged=7, moved=8)],
                errors={"MESSAGE_TOO_LARGE": 3},
                offsets_agree=True,
                lag_max={"t/0": 5},
            )
        ],
        names=[NameFigures(name="a.test", resolve="ttl", source="dns", ttl_s=1, lookups=1, queries=2)],
    )
    write_run_page(load_run(tmp_path / "run"), tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text().partition("<h2>Target</h2>")[2].partition("<h2>")[0]
    said = [fact.words for fact in facts_of(document)]
    assert said[:3] == [
        "acknowledged 7, ends moved by 8: the offsets agree", "MESSAGE_TOO_LARGE: 3 records",
        "consumer lag: at most 5 records (t/0)",
    ]  # fmt: skip
    assert "a.test · 1 lookup · 2 queries" in said[3]
    assert all(words in page for words in said)


def test_a_percentile_among_requests_that_were_never_sent_is_a_lower_bound_of_its_route_too(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(10)
    for _ in range(90):
        made.lanes[0].unsent()
    made.recorder.finish(at_s(1))
    write_run_page(load_run(tmp_path / "run"), tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    routes = page.partition("<h2>Routes")[2].partition("<h2>")[0]
    assert routes.count("≥10.0 s") == 2
    assert "unsent 90 (max wait 90)" in page


def test_a_long_run_is_thinned_and_keeps_its_sums_and_worst_seconds():
    row: dict[str, Any] = dict.fromkeys(
        ("error", "timeout", "unsent", "in_flight", "waiting", "open", "bytes_sent", "bytes_received"), 0
    )
    rows = [
        Second(
            t_s=float(t), length_s=1.0, wall_ns=0, planned=t, sent=t, ok=t, outcomes={"5xx": t % 2, "2xx": 1},
            lateness_p99_ns=None if t % 3 else t, **row,
        )
        for t in range(5_000)
    ]  # fmt: skip
    thin = thinned(rows)
    assert len(thin) == 200 and thinned(rows[:200]) == rows[:200]
    assert (
        sum(each.planned for each in thin) == sum(range(5_000))
        and sum(each.length_s for each in thin) == 5_000
    )
    assert sum(each.outcomes["5xx"] for each in thin) == 2_500
    assert [each.t_s for each in thin[:3]] == [0.0, 25.0, 50.0]
    assert [each.lateness_p99_ns for each in thin[:3]] == [24, 48, 72]


def test_a_page_that_cannot_be_written_is_one_line(pages, tmp_path):
    run = load_run(pages["run"].parent / "run")
    with pytest.raises(OutputError, match="cannot be written"):
        write_run_page(run, tmp_path / "none" / "x.html")


def test_the_commands_write_them(pages, tmp_path):
    folder = pages["run"].parent
    command = [sys.executable, "-m", "replay.cli"]
    reported = subprocess.run(
        [*command, "report", str(folder / "run"), "--html", "r.html"], cwd=tmp_path, check=False, timeout=60
    )
    sides = [",".join(str(folder / f"{label}-{n}") for n in range(4)) for label in ("base", "new")]
    compared = subprocess.run(
        [*command, "compare", *sides, "--html", "c.html"],
        cwd=tmp_path,
        check=False,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )
    assert (reported.returncode, compared.returncode) == (0, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"r.html", "c.html"}


@pytest.mark.parametrize(("slo", "tone"), [("p99<1s", "good"), ("p99<1ns", "soft")])
def test_a_page_has_no_green_verdict_beside_a_missed_objective(tmp_path, slo, tone):
    made = trial(tmp_path / "run", slo=[slo, "errors<1%"])
    made.lanes[0].many(100)
    made.recorder.finish(at_s(1))
    write_run_page(load_run(tmp_path / "run"), tmp_path / "page.html")
    body = (tmp_path / "page.html").read_text().partition("</head>\n<body>")[2]
    assert f'<h1><span class="{tone}">VALID</span>' in body
    assert ("FAILED: 1 of 2 objectives missed" in body) == (tone == "soft")
    cards = body.partition('<div class="cards">')[2].partition("<h2>")[0]
    assert ('class="good"' in cards) == (tone == "good")


def test_recorded_statuses_stand_beside_the_replayed_ones(tmp_path):
    made = trial(tmp_path / "run")
    made.lanes[0].many(99, status=404, outcome="4xx", recorded=200)
    made.recorder.finish(at_s(1))
    write_run_page(load_run(tmp_path / "run"), tmp_path / "page.html")
    body = (tmp_path / "page.html").read_text().partition("</head>\n<body>")[2]
    assert '<span class="bad">4xx 33</span><td class=long>2xx 99, 5xx 1</tr>' in body
    assert "worse than recorded" in body and "4xx" in body.partition("<h2>")[0]
