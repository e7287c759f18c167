"""Watched figures of two builds: the median over runs, on the page, in the terminal and in JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

from replay.comparison.decision import Options
from replay.comparison.document import to_json
from replay.comparison.over_time import courses_of
from replay.comparison.verdict import Comparison, compare
from replay.comparison.watched import WatchedSides, watched_sides
from replay.report.charts import BLUE, ORANGE
from replay.report.comparison import print_comparison
from replay.report.comparison_page import comparison_page
from replay.report.console import Console
from tests.support.compare_data import TRACE, make_side, rewrite
from tests.support.watched_data import make_run

Watched = dict[str, list[float | None]]


def compared(folder: Path, base: list[Watched], new: list[Watched]) -> Comparison:
    sides = []
    for label, runs in (("base", base), ("new", new)):
        sides.append(make_side(folder, label, len(runs), seed=1 if label == "base" else 50, requests=200))
        for number, watched in enumerate(runs):
            rewrite(folder / f"{label}-{number}", watched=watched)
    return compare(sides[0], sides[1], Options())


def sides_of(found: Comparison) -> list[WatchedSides]:
    return watched_sides(found.base, found.new)


def test_figures_of_both_builds_are_medians_over_their_runs(tmp_path: Path) -> None:
    base: list[Watched] = [{"pool": [level, level + 2, None], "same": [5.0]} for level in (1.0, 3.0, 50.0)]
    new: list[Watched] = [
        {"pool": [level, level], "pool.limit": [20.0], "same": [5.0]} for level in (8.0, 9.0, 10.0)
    ]
    found = sides_of(compared(tmp_path, base, new))
    assert [each.name for each in found] == ["pool", "same"], (
        "what differs most comes first; limits are no rows"
    )
    pool = found[0]
    assert (pool.base_mean, pool.base_highest) == (4.0, 5.0)
    assert (pool.new_mean, pool.new_highest) == (9.0, 9.0)


def test_a_figure_that_one_build_lacks_has_no_value_there(tmp_path: Path) -> None:
    found = sides_of(compared(tmp_path, [{"depth": [None, None]}], [{"depth": [4.0]}]))
    assert (found[0].base_mean, found[0].base_highest, found[0].new_mean) == (None, None, 4.0)


def test_they_are_on_the_page_in_the_terminal_and_in_json(tmp_path: Path) -> None:
    names: Watched = {f"f{number}<b>": [float(number)] for number in range(70)}
    found = compared(tmp_path, [names] * 2, [names] * 2)
    page = comparison_page(found)[0].decode()
    assert (
        "Watched figures" in page
        and "f0&lt;b&gt;" in page
        and "<b>" not in page.partition("Watched figures")[2][:9_000]
    )
    assert "10 more figures, which --json lists" in page
    text = io.StringIO()
    print_comparison(found, Console(file=text, width=80))
    assert "Watched figures" in text.getvalue() and "62 more figures, which --json lists" in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) <= 80
    assert len(json.loads(to_json(found))["watched"]) == 70


def test_without_watched_figures_there_is_no_table(tmp_path: Path) -> None:
    found = compared(tmp_path, [{}] * 2, [{}] * 2)
    assert "Watched figures" not in comparison_page(found)[0].decode()
    assert json.loads(to_json(found))["watched"] == []


def test_both_builds_are_drawn_over_time_below_the_latency(tmp_path: Path) -> None:
    for label, height in (("base", 4.0), ("new", 40.0)):
        for number in range(3):
            watched: Watched = {
                "queue<b>": [height + number] * 4 + [None] * 2 + [height] * 4,
                "gone": [None] * 10,
            }
            seconds = [(3.0, {name: values[at] for name, values in watched.items()}) for at in range(10)]
            make_run(tmp_path / f"{label}-{number}", seconds, trace=TRACE)
    paths = [
        f"{label}=" + ",".join(str(tmp_path / f"{label}-{n}") for n in range(3)) for label in ("base", "new")
    ]
    found = compare(paths[0], paths[1], Options())
    course = courses_of(found.base, {"queue<b>": lambda row: row.watched.get("queue<b>")}, 1.0)["queue<b>"]
    assert [None if spread is None else tuple(spread) for _, spread in course] == (
        [(5.0, 4.0, 6.0)] * 4 + [None] * 2 + [(4.0, 4.0, 4.0)] * 4
    ), "median, lowest and highest over the runs; nothing where nothing was sampled"
    assert [at_s for at_s, _ in course] == [at + 0.5 for at in range(10)]
    page = comparison_page(found)[0].decode()
    latency, queue = page.index("Response over time</h2>"), page.index("Watched: queue&lt;b&gt;</h2>")
    assert page.index("Watched figures</h2>") < latency < queue
    drawn = page[queue:].partition("</figure>")[0]
    assert "base: 3 runs" in drawn and "new: 3 runs" in drawn and BLUE in drawn and ORANGE in drawn
    assert "The figure has no sample" in page[page.index("Watched: gone</h2>") :]
    assert "recorded clock" in page


def test_of_several_seconds_in_one_step_the_farthest_from_0_is_drawn(tmp_path: Path) -> None:
    for label, sign in (("base", 1.0), ("new", -1.0)):
        make_run(tmp_path / label, [(3.0, {"f": sign * at}) for at in range(6)], trace=TRACE)
    found = compare(f"base={tmp_path / 'base'}", f"new={tmp_path / 'new'}", Options())
    for side, sign in ((found.base, 1.0), (found.new, -1.0)):
        course = courses_of(side, {"f": lambda row: row.watched.get("f")}, 3.0)["f"]
        assert [spread and spread.middle for _, spread in course] == [sign * 2.0, sign * 5.0]


def test_figures_beyond_those_drawn_are_counted(tmp_path: Path) -> None:
    for label in ("base", "new"):
        make_run(tmp_path / label, [(3.0, {f"f{n}": float(n) for n in range(30)})] * 3, trace=TRACE)
    found = compare(f"base={tmp_path / 'base'}", f"new={tmp_path / 'new'}", Options())
    page = comparison_page(found)[0].decode()
    assert "6 more figures are not drawn" in page and page.count("<h2>Watched: f") == 24
