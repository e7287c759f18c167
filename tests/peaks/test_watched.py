"""Watched figures of a search for the peak: by load, over time, and which one changed first."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from replay.peaks.climb import Climb
from replay.peaks.first_change import FirstChange, first_changes, missed_from
from replay.peaks.search import Trial
from replay.peaks.watched import Sampled, sampled_in
from replay.report.console import Console
from replay.report.outputs.of_peak import PeakResult
from replay.report.outputs.result import Case
from replay.report.peak import climb_facts, print_climb
from replay.report.peak_page import write_peak_page
from replay.results import slo
from replay.results.run import Run, load_run
from replay.staging import service
from tests.support import metrics_data
from tests.support.watched_data import GOAL, make_run


def make_trial(run: Run, load: float, *, met: bool, stage: str = "up") -> Trial:
    return Trial(
        load=load, passed={GOAL: met}, stage=stage, rate_per_s=100 * load, length_s=10.0, p50_ns=2_000_000,
        p99_ns=90_000_000, run=run.folder.path.name, watched=sampled_in(run.document),
    )  # fmt: skip


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Trial]]:
    """Two trials: one met its objective; in the other one, at twice the load, the queue grows from the third second on, and
    an objective is missed from the fifth on.
    """
    area = tmp_path_factory.mktemp("search")
    quiet = make_run(area / "a", [(3.0, {"queue": 0.0, "busy": 4.0, "busy.limit": 8.0, "gone": None})] * 10)
    full = make_run(
        area / "b",
        [(3.0 if at < 4 else 80.0, {"queue": 0.0 if at < 2 else 30.0 * at, "busy": 8.0}) for at in range(10)],
    )
    return area, [make_trial(quiet, 1.0, met=True), make_trial(full, 2.0, met=False)]


def test_a_trial_has_the_mean_and_the_highest_sample_of_each_figure(search: tuple[Path, list[Trial]]) -> None:
    quiet, full = search[1]
    assert list(quiet.watched) == ["queue", "busy", "gone"], "limits are no figures of their own"
    assert quiet.watched["busy"] == Sampled(mean=4.0, highest=4.0, limit=8.0, used=0.5, samples=10)
    assert quiet.watched["gone"] == Sampled(mean=None, highest=None)
    assert (full.watched["queue"].mean, full.watched["queue"].highest) == (132.0, 270.0)


def test_the_figure_that_grew_more_than_the_load_is_named(search: tuple[Path, list[Trial]]) -> None:
    area, trials = search
    assert first_changes(trials, 2.0, lambda name: load_run(area / name)) == [
        FirstChange(
            run="b",
            stage="up",
            load=2.0,
            beside=1.0,
            words="queue changed first, 2 s before an objective was missed",
        )
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"passed": {GOAL: True}}, "it missed nothing"),
        ({"generator_limited": "late"}, "it says nothing of the target"),
        ({"stage": "probe"}, "it is no trial of the search"),
        ({"load": 4.0}, "a lower load missed an objective already"),
        ({"watched": {}}, "nothing was watched"),
    ],
)
def test_other_trials_have_no_first_change(
    search: tuple[Path, list[Trial]], change: dict[str, Any], why: str
) -> None:
    area, (quiet, full) = search
    fields = {name: getattr(full, name) for name in Trial.__dataclass_fields__}
    trials = [quiet, Trial(**(fields | change))]
    assert first_changes(trials, 2.0, lambda name: load_run(area / name)) == [], why


def test_without_a_trial_that_met_its_objectives_it_is_not_known(search: tuple[Path, list[Trial]]) -> None:
    area, (_, full) = search
    (found,) = first_changes([full], 2.0, lambda name: load_run(area / name))
    assert (found.words, found.beside) == ("", None)
    facts = climb_facts(Climb("FAILS_AT_LOWEST", 0.0, 2.0, trials=[full], first_changes=[found]))
    assert (
        "watched",
        "at 2 times: no watched figure is known to have changed before an objective was missed",
    ) in facts


@pytest.mark.parametrize(
    ("texts", "row"),
    [
        ([GOAL], 4),
        (["p50<50ms"], None),
        (["p50<1ms"], 0),
        ([GOAL, "p50<1ms"], 0),
        (['p90 of "GET /users/{id}" < 1ms'], None),
        (["errors<1%"], None),
        ([], None),
    ],
)
def test_the_second_from_which_a_trial_misses_an_objective(
    search: tuple[Path, list[Trial]], texts: list[str], row: int | None
) -> None:
    run = load_run(search[0] / "b")
    assert missed_from(run, run.seconds(), [slo.parse(text) for text in texts]) == row


def test_the_percentile_of_the_objective_counts_not_the_nearest_one(tmp_path: Path) -> None:
    """Rows of the timeline have p99, which 5 slow requests of 100 decide. The p90 of the objective does not see them."""
    made = metrics_data.trial(tmp_path / "run", slo=[GOAL])
    for second in range(6):
        for at in range(100):
            slow = at < (20 if second >= 4 else 5)
            made.lanes[0].request(due_ms=1_000.0 * second + at, service_ms=80.0 if slow else 2.0)
        made.recorder.tick(metrics_data.at_s(second + 1))
    made.recorder.finish(metrics_data.at_s(6))
    run = load_run(tmp_path / "run")
    rows = run.seconds()
    assert all((row.response_p99_ns or 0) > 50_000_000 for row in rows[:6])
    assert missed_from(run, rows, [slo.parse(GOAL)]) == 4


def climb_of(area: Path, trials: list[Trial], names: int = 0) -> Climb:
    """A climb over two trials, with `names` figures more."""
    more = {
        f"more{number}<b>": Sampled(mean=float(number), highest=9.0, samples=2) for number in range(names)
    }
    made = [
        Trial(
            **{name: getattr(trial, name) for name in Trial.__dataclass_fields__}
            | {"watched": {**trial.watched, **more}}
        )
        for trial in trials
    ]
    found = Climb("FOUND", 1.0, 2.0, trials=made)
    found.first_changes = first_changes(made, 2.0, lambda name: load_run(area / name))
    return found


def printed(found: Climb, folder: Path, width: int = 100) -> str:
    text = io.StringIO()
    print_climb(found, "The highest load.", [], folder, Console(file=text, width=width))
    return text.getvalue()


def test_the_terminal_lists_them_by_trial(search: tuple[Path, list[Trial]], tmp_path: Path) -> None:
    said = printed(climb_of(*search), tmp_path)
    lines = [line.split() for line in said.partition("Watched figures")[2].splitlines()]
    assert ["queue", "busy", "gone"] in lines
    assert ["up", "1", "0", "(0)", "4", "(4)", "-"] in lines
    assert ["up", "2", "132", "(270)", "8", "(8)", "-"] in lines
    assert "watched  at 2 times: queue changed first, 2 s before an objective was missed" in said
    many = printed(climb_of(*search, names=20), tmp_path, 60)
    assert "15 more figures in peak.json" in many and max(map(len, many.splitlines())) <= 60


def test_samples_that_failed_are_reported() -> None:
    failing = {"queue": Sampled(mean=None, highest=None, failed=3, reason="127.0.0.1 answered 404")}
    trials = [Trial(load=load, passed={GOAL: True}, watched=failing) for load in (1.0, 2.0)]
    assert ("", "queue: 6 samples failed: 127.0.0.1 answered 404") in climb_facts(
        Climb("NO_LIMIT", 2.0, trials=trials)
    )


def test_the_page_draws_them_by_load_and_over_time(search: tuple[Path, list[Trial]], tmp_path: Path) -> None:
    area, _ = search
    found = climb_of(*search, names=30)
    write_peak_page(found, "A sentence.", tmp_path / "page.html", (), lambda name: load_run(area / name))
    page = (tmp_path / "page.html").read_text()
    assert "Watched: queue, by load" in page and "limit of busy" in page and "highest sample" in page
    assert "A trial that missed an objective, at load 2: response" in page
    assert page.index("at load 2: response") < page.index("Watched: queue</h2>"), "below the latency"
    assert "25 more figures in peak.json" in page and "queue changed first, 2 s before" in page
    assert "more0&lt;b&gt;" in page and "more0<b>" not in page


def test_a_hold_is_drawn_over_time(search: tuple[Path, list[Trial]], tmp_path: Path) -> None:
    area, (quiet, full) = search
    held = make_trial(load_run(area / "a"), 1.0, met=True, stage="hold")
    found = climb_of(area, [quiet, full, held])
    write_peak_page(found, "A sentence.", tmp_path / "page.html", (), lambda name: load_run(area / name))
    page = (tmp_path / "page.html").read_text()
    assert "The hold at load 1: response" in page


def test_without_watched_figures_nothing_is_said_of_them(tmp_path: Path) -> None:
    found = Climb(
        "FOUND",
        1.0,
        2.0,
        trials=[Trial(load=1.0, passed={GOAL: True}), Trial(load=2.0, passed={GOAL: False})],
    )
    write_peak_page(found, "A sentence.", tmp_path / "page.html")
    assert "atched" not in (tmp_path / "page.html").read_text().partition("<main>")[2]
    assert "atched" not in printed(found, Path("out"))


def test_a_summary_in_markdown_has_what_changed_first(search: tuple[Path, list[Trial]]) -> None:
    found = climb_of(*search)
    facts = [*climb_facts(found), ("", "a second line")]
    cases = [Case("all", "peak")]
    result = PeakResult(
        "run", "FOUND", "A sentence.", cases, 1.0, facts, b"", lambda path: None, found.trials
    )
    lines = result.markdown().splitlines()
    assert any(line.startswith("- watched: at 2 times: queue changed first") for line in lines)
    assert "  - a second line" in lines


@pytest.mark.whole
@pytest.mark.timing
def test_a_search_records_what_it_watches(tmp_path: Path) -> None:
    """The demo's service: its 24 workers carry some 300 of these orders per second."""
    log = tmp_path / "a.log"
    log.write_text(
        "".join(
            f'10.0.0.{n % 9} - - [10/Oct/2025:13:55:{n // 100:02d} +0000] "POST /v1/payment/orders HTTP/1.1" 201 12\n'
            for n in range(1_200)
        )
    )
    with service.running(1) as port:
        (tmp_path / "s.toml").write_text(
            f'target = "http://127.0.0.1:{port}"\nmethods = "all"\nempty_bodies = true\nslo = ["p90<300ms"]\n'
            f'[[watch]]\nname = "queue"\njson = "http://127.0.0.1:{port}/figures"\npointer = "/queue/length"\n'
            f'[[watch]]\nname = "wrong"\njson = "http://127.0.0.1:{port}/figures"\npointer = "/nothing"\n'
        )
        done = subprocess.run(
            [sys.executable, "-m", "replay.cli", "peak", "s.toml", "a.log", "-o", "out", "--plain", "--trial", "6s",
             "--hold", "6s", "--votes", "1", "--width", "100%", "--lowest", "1", "--highest", "4"],
            capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        )  # fmt: skip
    assert (tmp_path / "out" / "peak.json").exists(), done.stderr
    found = json.loads((tmp_path / "out" / "peak.json").read_text())
    if found["verdict"] != "FOUND":
        pytest.skip(f"this machine is too busy to tell: {found['verdict']}")
    for trial in found["trials"]:
        document = json.loads((tmp_path / "out" / trial["run"] / "run.json").read_text())
        samples = [value for value in document["watched"]["queue"] if value is not None]
        assert trial["watched"]["queue"]["samples"] == len(samples)
        assert trial["watched"]["queue"]["highest"] == max(samples, default=None)
        assert trial["watched"]["wrong"]["mean"] is None and trial["watched"]["wrong"]["failed"] > 0
    up = {trial["load"]: trial["watched"]["queue"] for trial in found["trials"] if trial["stage"] == "up"}
    assert up[max(up)]["highest"] > max(10, 3 * up[1.0]["highest"]), up
    assert [change["run"] for change in found["first_changes"]], (
        "the load that missed an objective was watched"
    )
    words = " ".join(done.stdout.split())
    assert "Watched figures" in words and "samples failed: the document has no /nothing" in words
    page = (tmp_path / "out" / "peak.html").read_text()
    assert "Watched: queue, by load" in page and "Watched: queue</h2>" in page
    assert asdict(Sampled(mean=1.0, highest=1.0)).keys() == found["trials"][0]["watched"]["queue"].keys()
