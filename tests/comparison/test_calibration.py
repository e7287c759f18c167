"""A sample of `make calibrate`: the decision rule's error rates and power on imagined runs, and the published tables."""

from __future__ import annotations

import re

import numpy as np
import pytest

from replay_native.ground import jit
from replay_native.statistics import simulate as imagine

calibrate = pytest.importorskip("benchmarks.calibrate", reason="benchmarks are in the repository only")
shapes = pytest.importorskip("benchmarks.calibrate_shapes")

jit.warm(["statistics.rank", "statistics.student", "statistics.unequal", "statistics.simulate"])
CELL = calibrate.Cell("lognormal", 0.8, 0.02)
TRIALS = 400


@pytest.fixture(scope="module")
def counts():
    return calibrate.measure(CELL, TRIALS, 100)


def test_false_alarms_are_as_rare_as_promised(counts):
    """20 of 400 are expected at most; more than 38 happen once in 10,000 times."""
    for runs, row in counts.items():
        assert row.any_alarm <= 38, runs
        assert row.slower <= 25, runs
        assert row.regression <= row.slower
    assert sum(row.any_alarm for row in counts.values()) > 0


def test_what_is_there_is_found(counts):
    assert counts[5].found[0.20] >= 95
    assert counts[8].regressed[0.20] >= 90
    assert counts[4].found[0.02] < counts[8].found[0.10]


def test_a_slowdown_beyond_the_tolerance_hardly_ever_passes(counts):
    assert all(row.passed[0.15] == 0 and row.passed[0.20] == 0 for row in counts.values())
    assert all(row.passed[0.10] <= 10 for row in counts.values())


def test_all_looks_together_keep_the_promise():
    session = calibrate.measure_looks(CELL, 60)
    assert session.any_alarm <= 0.17 and session.regression <= session.any_alarm
    assert 3 <= session.blocks <= 6


def test_imagined_runs_have_the_quantiles_that_they_should():
    state, scratch = calibrate.fresh(7)
    values = calibrate.imagined(calibrate.Cell("lognormal", 0.0, 0.0), 200, state, scratch)
    spread = np.hypot(0.5, imagine.LEVEL_SD)
    assert values.mean(axis=0) == pytest.approx(spread * np.array([0, 1.2816, 2.3263]), abs=0.03)
    differing = calibrate.imagined(calibrate.Cell("lognormal", 0.0, 0.3), 200, state, scratch)
    assert differing[:, 0].std() == pytest.approx(0.3, abs=0.06)


def test_the_published_table_keeps_the_bound():
    published = (
        calibrate.page.STATISTICS.read_text().partition(calibrate.BEGIN)[2].partition(calibrate.END)[0]
    )
    assert re.search(r"72 cells of 10,000 seeded A/A trials", published)
    alarms = [float(text) for text in re.findall(r"[\d.]+% · ([\d.]+)% · [\d.]+% · \d+%", published)]
    assert len(alarms) == 72 and max(alarms) <= 5.5


@pytest.mark.parametrize(
    ("table", "names", "power"),
    [
        ("numbers", ("normal", 12, 4, 3), 0.1),
        ("numbers", ("ties", 4, 12, 3), 0.4),
        ("times", ("drift", "3 blocks of ABBA"), 0.3),
        ("times", ("days", "5 blocks of 1 new in 3"), 0.3),
        ("nights", (0.02, "3% a night"), 0.8),
    ],
)
def test_other_shapes_keep_the_promise_too(table, names, power):
    """6 of 120 are expected at most; more than 16 happen once in 10,000 times."""
    alarms, found = shapes.measure(shapes.Cell(table, names), 120)
    assert alarms <= 16 / 120 and found >= power


def test_a_percentile_of_few_requests_is_biased_and_its_substitute_is_not():
    assert shapes.substitute_of(1_000, 20_000) == 90 and shapes.substitute_of(1_000, 1_000) == 99
    rng = np.random.default_rng(4)
    few, many = (
        np.mean([shapes._quantiles(rng, "heavy tail", n, (99.0, 90.0)) for _ in range(1_000)], axis=0)
        for n in (1_000, 20_000)
    )
    bias = np.abs(many - few)
    assert bias[0] > 0.015 and bias[1] < 0.012


def test_the_published_other_shapes_say_where_the_promise_ends():
    text = calibrate.page.STATISTICS.read_text().partition(shapes.BEGIN)[2].partition(shapes.END)[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \d+ v \d+, ", line)]
    assert len(rows) == len(shapes.NUMBERS)
    skewed = list(shapes.SHAPES).index("skewed") + 1
    alarms = np.array([[float(cell.partition("%")[0]) for cell in row[1:]] for row in rows])
    assert np.delete(alarms, skewed - 1, axis=1).max() <= 9 and alarms[:, skewed - 1].max() > 9
    nights = re.findall(r"^\| [235]% \| ([\d.]+)% .* \| ([\d.]+)% .* \| ([\d.]+)% ", text, re.MULTILINE)
    assert len(nights) == 3 and max(float(value) for row in nights for value in row) <= 8
