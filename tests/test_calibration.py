"""A sample of `make calibrate`: the decision rule's error rates and power on imagined runs, and the published tables."""

from __future__ import annotations

import re

import numpy as np
import pytest

from replay_native import imagine, jit

calibrate = pytest.importorskip("benchmarks.calibrate", reason="benchmarks are in the repository only")

jit.warm(["rank", "imagine"])
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
