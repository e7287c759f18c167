"""The statistic, held against a plain Python twin; its p-values keep their promise on runs that are alike."""

from __future__ import annotations

import itertools
import math
import statistics as plain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.differences import statistics
from replay.differences.counting import run_pairs


def rates_of(matrix):
    one, two = run_pairs(len(matrix))
    return matrix[one, two]


def naive_t(matrix, base, new, compared):
    within = [matrix[a][b] for a, b in itertools.combinations(base, 2)]
    across = [matrix[a][b] for a in base for b in new]
    return (plain.fmean(across) - plain.fmean(within)) / (plain.stdev(within) + 1 / compared)


def naive_judge(matrices, compared, base, new):
    runs = range(base + new)
    table = []
    for chosen in itertools.combinations(runs, base):
        rest = [run for run in runs if run not in chosen]
        table.append([naive_t(m, chosen, rest, c) for m, c in zip(matrices, compared, strict=True)])
    observed = table[0]
    return observed, [
        sum(max(row) >= t - 1e-9 * max(1, abs(t)) for row in table) / len(table) for t in observed
    ]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    base=st.integers(3, 5),
    new=st.integers(2, 4),
    fields=st.integers(1, 4),
    coarse=st.booleans(),
)
def test_it_is_the_plain_twin(seed, base, new, fields, coarse):
    rng = np.random.default_rng(seed)
    matrices = rng.random((fields, base + new, base + new))
    matrices = np.round(matrices, 1) if coarse else matrices
    matrices = (matrices + matrices.transpose(0, 2, 1)) / 2
    compared = rng.integers(10, 1_000, fields).astype(float)
    found = statistics.judge(np.array([rates_of(m) for m in matrices]), compared, base, new)
    t, p = naive_judge(matrices, compared, base, new)
    assert found.t == pytest.approx(t) and found.p == pytest.approx(p)


def test_a_difference_in_every_run_is_found_with_four_a_side():
    matrix = np.zeros((8, 8))
    matrix[:4, 4:] = matrix[4:, :4] = 0.001
    found = statistics.judge(rates_of(matrix)[None], np.array([20_000.0]), 4, 4)
    assert found.labellings == 70 and found.p[0] == pytest.approx(2 / 70)
    assert found.smallest[0] < 0.001


def test_three_a_side_can_show_nothing():
    matrix = np.zeros((6, 6))
    matrix[:3, 3:] = matrix[3:, :3] = 1.0
    found = statistics.judge(rates_of(matrix)[None], np.array([1_000.0]), 3, 3)
    assert found.p[0] > statistics.ALPHA and math.isinf(found.smallest[0])


def noisy(rng, fields, runs, requests):
    """Rates of fields whose values are noise: some in every request, some in few, some with a level of each run."""
    made = []
    for field in range(fields):
        level = [1.0, 0.5, 0.01, 0.001][field % 4]
        own = rng.random(runs) * (0.3 if field % 3 == 0 else 0.0)
        values = np.where(rng.random((runs, requests)) < level, rng.integers(0, 5, (runs, requests)), 0)
        values = np.where(rng.random((runs, requests)) < own[:, None], 9, values)
        one, two = run_pairs(runs)
        made.append((values[one] != values[two]).mean(axis=1))
    return np.array(made)


def test_runs_that_are_alike_are_told_apart_as_rarely_as_promised():
    rng = np.random.default_rng(5)
    trials, named = 150, 0
    for _ in range(trials):
        found = statistics.judge(noisy(rng, 12, 8, 500), np.full(12, 500.0), 4, 4)
        named += bool((found.p <= statistics.ALPHA).any())
    assert named <= 15  # 5% of 150 tests are 7.5. More than 15 failures happen in one of 200 such samples.


def test_what_lies_above_the_stated_rate_is_found():
    rng = np.random.default_rng(9)
    requests, missed, tried = 2_000, 0, 0
    for _ in range(60):
        rate = 10 ** rng.uniform(-3, -1)
        values = np.zeros((8, requests), np.int64)
        values[4:] = rng.random((4, requests)) < rate
        one, two = run_pairs(8)
        rates = np.vstack([noisy(rng, 8, 8, requests), (values[one] != values[two]).mean(axis=1)])
        found = statistics.judge(rates, np.full(9, float(requests)), 4, 4)
        if rate > found.smallest[-1]:
            tried += 1
            missed += found.p[-1] > statistics.ALPHA
    assert tried > 20 and missed == 0


def test_many_runs_are_sampled_with_a_seed():
    rates = np.random.default_rng(1).random((2, 24 * 23 // 2))
    one, two = (statistics.judge(rates, np.full(2, 100.0), 12, 12) for _ in range(2))
    assert not one.exact and one.labellings == statistics.LABELLINGS_MAX and (one.p == two.p).all()
