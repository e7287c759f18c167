"""A diagnosis of whole run folders, and how reports show it: what must be said, and what must not."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

from replay.diagnosis.diagnose import GENERATOR_FULL, diagnose
from replay.report.console import Console
from replay.report.diagnosis import diagnosis_section, has_news
from replay.report.run_page import write_run_page
from replay.report.terminal import print_report
from replay.results.run import Run, load_run
from tests.support.metrics_data import at_s, trial

SECONDS, RISES = 30, 15
Figures = dict[str, float | None]


def calm(second: int) -> float:
    return 2.0


def queueing(second: int) -> float:
    """From RISES on each second is slower than the one before."""
    return 2.0 if second < RISES else 300.0 + 40 * (second - RISES)


def run_of(
    path: Path,
    service_ms: Callable[[int], float],
    watched: Callable[[int], Figures] = lambda second: {},
    *,
    late_ms: Callable[[int], float] = lambda second: 0.02,
    wait_ms: float = 0.01,
    slo: tuple[str, ...] = ("p99<200ms",),
) -> Run:
    """A run of two routes that are as slow as each other, with watched figures."""
    made = trial(path, slo=list(slo))
    lane, rng = made.lanes[0], np.random.default_rng(1)
    for second in range(SECONDS):
        for at in range(40 if second >= RISES else 20):
            service = service_ms(second) * float(rng.uniform(0.98, 1.02))
            lane.request(
                at % 2,
                due_ms=1e3 * second + 20 * at,
                late_ms=late_ms(second),
                wait_ms=wait_ms,
                service_ms=service,
            )
        made.recorder.tick(at_s(second + 1), last=second == SECONDS - 1, watched=watched(second))
    made.recorder.finish(at_s(SECONDS))
    return load_run(path)


def pool(second: int) -> Figures:
    """A pool that is used in proportion to the load, and workers that wait for it."""
    busy = 7.0 if second < RISES else 10.0
    workers = 4.0 if second < RISES else 20.0
    return {"pool": busy, "pool.limit": 10.0, "workers": workers, "workers.limit": 20.0}


def shown(run: Run, width: int = 80) -> str:
    text = io.StringIO()
    print_report(run, Console(file=text, width=width))
    assert max(map(len, text.getvalue().splitlines())) <= width
    return text.getvalue()


def test_the_pool_that_the_load_needed_in_full_is_named_on_page_and_terminal(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", queueing, pool)
    found = diagnose(run)
    assert (found.first_resource, found.harmed_s) == ("pool", float(RISES))
    assert found.words == f"pool gave way first; users felt it from {RISES} s on"
    assert found.evidence[1] == (
        "the load at that time needed 140% of that limit, extrapolated from the use before"
        " (of any other that gave way: at most 40%)"
    )
    assert [resource.name for resource in found.resources] == ["pool", "workers"]
    assert "What gave way" in shown(run) and found.words in shown(run)
    write_run_page(run, tmp_path / "page.html")
    assert f"<b>{found.words}</b>" in (tmp_path / "page.html").read_text()


def test_without_harm_nothing_is_named_and_the_nearest_limit_is_listed(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", calm, lambda second: {"pool": 7.0, "pool.limit": 10.0})
    found = diagnose(run)
    assert (found.first_resource, found.harmed_s) == (None, None)
    assert found.words == "no harm seen: nothing to explain"
    assert found.evidence == ["pool came nearest to its limit: 70% of it"]


def test_a_calm_run_without_figures_has_no_section(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", calm)
    assert not has_news(diagnose(run)) and diagnosis_section(diagnose(run)) == ""
    assert "What gave way" not in shown(run)


def test_harm_without_watched_figures_cannot_be_told(tmp_path: Path) -> None:
    found = diagnose(run_of(tmp_path / "run", lambda second: calm(second) if second < RISES else 300.0))
    assert found.first_resource is None
    assert found.words.startswith("cannot tell: no figure of the target was watched")


def test_figures_that_stayed_away_from_their_limits_are_not_named(tmp_path: Path) -> None:
    found = diagnose(run_of(tmp_path / "run", queueing, lambda second: {"pool": 7.0, "pool.limit": 10.0}))
    assert found.first_resource is None and "cannot tell" in found.words


def test_a_figure_without_a_limit_that_changed_first_is_no_proof(tmp_path: Path) -> None:
    def depth(second: int) -> Figures:
        return {"depth": 2.0 if second < RISES - 2 else 90.0}

    found = diagnose(run_of(tmp_path / "run", queueing, depth))
    assert found.first_resource is None
    assert "depth changed first, which is no proof" in found.words


def test_a_run_whose_generator_was_at_its_limit_names_nothing(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", queueing, pool, late_ms=lambda second: 0.02 if second < RISES else 900.0)
    assert run.document.validity.verdict == "INVALID"
    found = diagnose(run)
    assert found.first_resource is None and found.evidence[0] == GENERATOR_FULL
    assert found.shared_cause == []


def test_requests_that_waited_for_connections_of_the_generator_share_no_cause(tmp_path: Path) -> None:
    def is_slow(second: int) -> float:
        return 2.0 if second < RISES else 300.0

    run = run_of(tmp_path / "run", is_slow, wait_ms=400.0)
    found, waited = diagnose(run), "requests waited for a connection, and all routes share the connections"
    assert found.shared_cause == []
    assert found.shared_evidence == [waited] and waited in found.words
    assert " ".join(shown(run).split()).count(waited) == 1
    assert diagnosis_section(found).count(waited) == 1


def test_names_of_figures_are_text_on_a_page(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"

    def figures(second: int) -> Figures:
        return {bad: 7.0 if second < RISES else 10.0, f"{bad}.limit": 10.0}

    run = run_of(tmp_path / "run", queueing, figures)
    assert diagnose(run).first_resource == bad
    write_run_page(run, tmp_path / "page.html")
    assert bad not in (tmp_path / "page.html").read_text()
