"""The page of trends: what its charts hold, for runs, searches, and folders that somebody else has written."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from replay.history.database import opened
from replay.run_pages.trend_charts import ROUTES_MAX, RUNS_MAX
from replay.run_pages.trends import Known, trends_page
from tests.history.test_kinds import search
from tests.history.test_runs import copy, fill
from tests.support.compare_data import make_run, rewrite

NASTY = "GET /</script><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("model") / "run", seed=1)


def shown(folder: Path) -> str:
    return trends_page(folder, Known())[0].decode()


def charts_in(page: str) -> list[dict[str, Any]]:
    """What is shown under the pointer, for each chart."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page)]


def values_in(chart: dict[str, Any]) -> dict[str, list[float | None]]:
    return {series["n"]: series["v"] for series in chart["s"]}


def test_charts_hold_the_figures_of_the_runs(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    fill(model, folder, 24, at=14)
    page = shown(folder)
    every, *by_route = [values_in(chart) for chart in charts_in(page)]
    with opened(folder) as history:
        rows = history.rows()
    for name in ("p50", "p99"):
        assert every[name] == pytest.approx([getattr(row.figures[0], f"{name}_ns") for row in rows], rel=1e-3)
    for name, chart in zip(("p50", "p99"), by_route, strict=True):
        routes = {figures.route for row in rows for figures in row.figures if figures.route}
        assert chart.keys() == routes
        for at, row in enumerate(rows):
            for figures in row.figures[1:]:
                assert chart[figures.route][at] == pytest.approx(getattr(figures, f"{name}_ns"), rel=1e-3)
    assert ">b014</text>" in page and ">worse</text>" in page and "slower from here" in page


def test_peaks_over_builds(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    rng = np.random.default_rng(3)
    peaks = [4.0 * (0.8 if n >= 9 else 1.0) * float(np.exp(rng.normal(0, 0.02))) for n in range(16)]
    for number, peak in enumerate(peaks):
        search(model, folder / f"peak-{number:02}", number, peak)
    search(model, folder / "peak-bound", 20, 64.0, verdict="NO_LIMIT")
    page = shown(folder)
    (chart,) = charts_in(page)
    assert values_in(chart)["rate at the peak"] == pytest.approx([100 * peak for peak in peaks], rel=2e-3), (
        "3 digits"
    )
    assert "Peaks of evening" in page and "16 searches of 16 builds" in page and "1 NO_LIMIT" in page
    assert "lower from here" in page


def test_failures_have_a_chart_and_their_absence_none(model: Path, tmp_path: Path) -> None:
    document = json.loads((model / "run.json").read_text())
    routes = document["routes"]
    for number in range(4):
        copy(model, tmp_path / "good" / f"run-{number}", number)
        failing = [routes[0] | {"outcomes": {"2xx": 900, "5xx": 100 * number}}, *routes[1:]]
        copy(model, tmp_path / "bad" / f"run-{number}", number, routes=failing)
    assert "share of failed requests" not in shown(tmp_path / "good")
    failed = values_in(charts_in(shown(tmp_path / "bad"))[1])["failed"]
    assert failed[0] == 0 and failed[3] == pytest.approx(
        300 / sum(route["count"] for route in routes), rel=1e-3
    )


def test_runs_of_others_are_escaped_and_bounded(model: Path, tmp_path: Path) -> None:
    """Script in routes, builds and scenarios, figures that nothing has, names of other bytes, and many routes."""
    folder = tmp_path / "runs"
    document = json.loads((model / "run.json").read_text())
    route = document["routes"][0]
    many = [route | {"route": f"{NASTY} {number}"} for number in range(3 * ROUTES_MAX)]
    for number in range(3):
        copy(model, folder / f"run-{number}", number, name=NASTY, build=NASTY, routes=many)
    copy(
        model,
        folder / os.fsdecode(b"run-\xff"),
        4,
        name=NASTY,
    )
    odd = {"count": 1, "p50_ns": 1, "p99_ns": (1 << 63) - 1}
    huge = [route | {"count": -5, "outcomes": {"2xx": -9, "5xx": 1 << 60}, "response": odd, "service": odd}]
    copy(model, folder / "run-odd", 5, routes=huge, latency={"response": None, "service": odd})
    copy(model, folder / "run-odd-2", 6, routes=huge, latency={"response": None, "service": odd})
    for number in range(2):
        search(model, folder / f"peak-{number}", number, 1e300)
    (folder / "link").symlink_to(model)
    page = shown(folder)
    assert "<script>alert" not in page and "<img" not in page
    assert html.escape(NASTY) in page
    by_route = [chart for chart in charts_in(page) if len(chart["s"]) > 2]
    assert by_route and max(len(chart["s"]) for chart in by_route) == ROUTES_MAX


def test_runs_without_figures_and_single_runs_have_no_chart(model: Path, tmp_path: Path) -> None:
    copy(model, tmp_path / "one" / "run", 0)
    assert charts_in(shown(tmp_path / "one")) == [] and "1 run of 1 build" in shown(tmp_path / "one")
    for number in range(3):
        copy(model, tmp_path / "none" / f"run-{number}", number, routes=[], latency={"response": None})
    assert charts_in(shown(tmp_path / "none")) == []
    (tmp_path / "empty").mkdir()
    assert "No runs." in shown(tmp_path / "empty")


def test_trends_are_found_again_when_a_run_changes(model: Path, tmp_path: Path) -> None:
    folder, known = tmp_path / "runs", Known()
    fill(model, folder, 3)
    before = known.trends(folder)
    assert known.trends(folder) is before
    rewrite(folder / "run-001", build="another")
    os.utime(folder / "run-001" / "run.json", ns=(1, 1))
    assert [row.build for row in known.trends(folder)[0].rows] == ["b000", "another", "b002"]


def test_the_newest_runs_are_drawn(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    for number in range(RUNS_MAX + 5):
        place = folder / f"run-{number:04}"
        place.mkdir(parents=True)
        document = json.loads((model / "run.json").read_text()) | {"name": "evening", "build": f"b{number}"}
        document["start"]["wall_ns"] += number
        (place / "run.json").write_text(json.dumps(document))
    page = shown(folder)
    assert len(values_in(charts_in(page)[0])["p50"]) == RUNS_MAX
    assert f"{RUNS_MAX + 5} runs of {RUNS_MAX + 5} builds" in page
