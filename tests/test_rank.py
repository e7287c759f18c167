"""The permutation kernels against their twin, and what an exact test must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.compare import statistics
from replay_native import jit

from . import naive_rank as naive

jit.warm(["rank"])

DESIGNS = [
    ([6], [1, 0, 0, 1, 0, 1]),
    ([7], [1, 1, 0, 0, 0, 0, 1]),
    ([8], [0, 1, 0, 1, 1, 0, 0, 1]),
    ([4, 4], [0, 1, 1, 0, 1, 0, 0, 1]),
    ([2, 2, 2, 2, 2], [0, 1, 1, 0, 0, 1, 0, 1, 1, 0]),
    ([3, 4], [1, 0, 0, 1, 1, 0, 0]),
]

pytestmark = pytest.mark.boundscheck


def data(runs: int, metrics: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(0, rng.uniform(0.01, 1, metrics), (runs, metrics)) + rng.normal(0, 0.1, (runs, 1))


designs = st.sampled_from(DESIGNS)
seeds = st.integers(0, 2**32)


@pytest.mark.parametrize(
    ("blocks", "labels"), [*DESIGNS, ([16], [0, 1] * 8), ([1, 3], [1, 0, 1, 0]), ([2], [0, 1])]
)
def test_every_labelling_once(blocks, labels):
    observed = np.array(labels, np.uint8)
    table, exact = statistics.labellings(blocks, observed, 20_000)
    assert exact and len(table) == statistics.count_labellings(blocks, observed)
    assert sorted(map(tuple, table.tolist())) == sorted(naive.labellings(blocks, labels))


def test_too_many_labellings_are_sampled_with_the_observed_one():
    observed = np.array([0, 1] * 12, np.uint8)
    table, exact = statistics.labellings([12, 12], observed, 500)
    assert not exact and len(table) == 500 and (table[0] == observed).all()
    assert (table[:, :12].sum(axis=1) == 6).all() and (table[:, 12:].sum(axis=1) == 6).all()
    assert len({tuple(row) for row in table.tolist()}) > 495
    assert table.mean(axis=0) == pytest.approx(0.5, abs=0.15)


@given(designs, st.integers(1, 4), seeds)
@settings(max_examples=60, deadline=None)
def test_effects_and_p_values_are_the_twins(design, metrics, seed):
    blocks, labels = design
    values = data(len(labels), metrics, seed)
    found = statistics.infer(values, labels, blocks)
    columns = values.T.tolist()
    for metric, column in enumerate(columns):
        effect, t = naive.effect_and_t(column, tuple(labels), blocks)
        assert found.effects[metric] == pytest.approx(effect, abs=1e-12)
        assert abs(found.effects[metric]) / found.errors[metric] == pytest.approx(t, rel=1e-9)
    assert found.p_adjusted == pytest.approx(naive.adjusted_p(columns, tuple(labels), blocks))


@given(designs, st.integers(1, 3), seeds, st.sampled_from([0.05, 0.1, 0.3]))
@settings(max_examples=40, deadline=None)
def test_intervals_are_the_effects_that_the_twin_keeps(design, metrics, seed, alpha):
    blocks, labels = design
    values = data(len(labels), metrics, seed)
    found = statistics.infer(values, labels, blocks, alpha)
    columns = values.T.tolist()
    for metric in range(metrics):
        effect, error = found.effects[metric], found.errors[metric]
        for bound, outward in ((found.lower[metric], -1), (found.upper[metric], 1)):
            if math.isinf(bound):
                far = effect + outward * 1e4 * error
                assert naive.kept(columns, metric, far, tuple(labels), blocks) > alpha
            elif bound != 0.0:
                step = 1e-5 * error
                inside, beyond = bound - outward * step, bound + outward * step
                assert naive.kept(columns, metric, inside, tuple(labels), blocks) > alpha
                assert naive.kept(columns, metric, beyond, tuple(labels), blocks) <= alpha


@given(designs, seeds, st.floats(-2, 2))
@settings(max_examples=40, deadline=None)
def test_an_interval_moves_with_the_data_and_leaves_zero_only_with_the_test(design, seed, shift):
    blocks, labels = design
    values = data(len(labels), 2, seed)
    moved = values + shift * np.array(labels)[:, None]
    a, b = (statistics.infer(v, labels, blocks, 0.1) for v in (values, moved))
    assert b.effects == pytest.approx(a.effects + shift)
    for found in (a, b):
        out = (found.lower > 0) | (found.upper < 0)
        assert not (out & (found.p_adjusted > 0.1)).any()
    assert a.critical_t == pytest.approx(b.critical_t, rel=1e-6) or math.isinf(a.critical_t)


@pytest.mark.parametrize(("runs", "smallest"), [(3, 0.1), (4, 2 / 70), (5, 2 / 252), (6, 2 / 924)])
def test_the_smallest_p_value_of_so_many_runs(runs, smallest):
    values = np.arange(2.0 * runs)[:, None] + 100 * (np.arange(2 * runs) >= runs)[:, None]
    found = statistics.infer(values, [0] * runs + [1] * runs)
    assert found.p_adjusted[0] == pytest.approx(smallest)
    assert (found.lower[0] > 0) == (runs >= 4)


def test_sign_flips_are_blocks_of_two():
    values = np.array([[0.0], [1.0]] * 10) + np.linspace(0, 0.1, 20)[:, None]
    found = statistics.infer(values, [0, 1] * 10, [2] * 10)
    assert found.labellings == 2**10 and found.p_adjusted[0] == pytest.approx(2 / 2**10)


def test_a_metric_that_never_differs_says_nothing_and_harms_nobody():
    values = np.column_stack([np.full(10, 7.5), data(10, 1, 3)[:, 0]])
    found = statistics.infer(values, [0, 1] * 5)
    assert (found.effects[0], found.p_adjusted[0], found.lower[0], found.upper[0]) == (0, 1, 0, 0)
    alone = statistics.infer(values[:, 1:], [0, 1] * 5)
    assert (alone.lower[0], alone.p_adjusted[0]) == (found.lower[1], found.p_adjusted[1])


def test_one_run_a_side_excludes_nothing():
    found = statistics.infer(np.array([[1.0], [2.0]]), [0, 1])
    assert (found.lower[0], found.upper[0], found.p_adjusted[0]) == (-math.inf, math.inf, 1.0)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="finite"):
        statistics.infer(np.array([[1.0], [math.nan]]), [0, 1])


@pytest.mark.parametrize(
    ("freedom", "p", "value"), [(6, 0.975, 2.4469), (10, 0.995, 3.1693), (30, 0.9, 1.3104)]
)
def test_quantiles_of_t(freedom, p, value):
    assert statistics.t_quantile(p, freedom) == pytest.approx(value, rel=0.002)


def test_runs_needed_catch_what_they_promise():
    spread, margin = 0.04, math.log(1.1)
    runs = statistics.runs_needed(spread, 3, margin)
    assert runs is not None
    rng = np.random.default_rng(5)
    labels = [0] * runs + [1] * runs
    inside = 0
    for _ in range(200):
        found = statistics.infer(rng.normal(0, spread, (2 * runs, 3)), labels)
        inside += int(found.upper[0] <= margin)
    assert 0.7 <= inside / 200 <= 0.97
    assert statistics.runs_needed(50.0, 3, margin) is None
