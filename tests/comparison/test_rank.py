"""The permutation kernels against their twin, and what an exact test must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.comparison import linear, statistics
from replay_native.ground import jit
from replay_native.statistics import student
from tests.reference import rank as naive

jit.warm(["statistics.rank", "statistics.student", "statistics.unequal"])

DESIGNS = [
    ([6], [1, 0, 0, 1, 0, 1]),
    ([7], [1, 1, 0, 0, 0, 0, 1]),
    ([8], [0, 1, 0, 1, 1, 0, 0, 1]),
    ([4, 4], [0, 1, 1, 0, 1, 0, 0, 1]),
    ([2, 2, 2, 2, 2], [0, 1, 1, 0, 0, 1, 0, 1, 1, 0]),
    ([3, 4], [1, 0, 0, 1, 1, 0, 0]),
    ([2, 6], [1, 0, 0, 0, 1, 0, 0, 0]),
    ([4, 4], [1, 0, 0, 0, 0, 0, 1, 1]),
    ([8], [1, 1, 0, 0, 0, 0, 0, 0]),
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
    permuted = naive.adjusted_p(columns, tuple(labels), blocks)
    assert found.p_adjusted == pytest.approx(np.maximum(permuted, by_t(values, labels, blocks).p_adjusted))


def by_t(values: np.ndarray, labels: list[int], blocks: list[int], alpha: float = 0.05) -> linear.Bounds:
    model = linear.model_of(labels, blocks)
    return linear.by_t(model, linear.fit(model, values), alpha)


@given(designs, st.integers(1, 3), seeds, st.sampled_from([0.05, 0.1, 0.3]))
@settings(max_examples=40, deadline=None)
def test_intervals_are_the_effects_that_the_twin_keeps(design, metrics, seed, alpha):
    blocks, labels = design
    values = data(len(labels), metrics, seed)
    found = statistics.infer(values, labels, blocks, alpha)
    t = by_t(values, labels, blocks, alpha)
    columns = values.T.tolist()
    for metric in range(metrics):
        effect, error = found.effects[metric], found.errors[metric]
        for bound, outward in ((found.lower[metric], -1), (found.upper[metric], 1)):
            if math.isinf(bound):
                far = effect + outward * 1e4 * error
                assert naive.kept_beyond(columns, metric, far, tuple(labels), blocks) > alpha
            elif bound != 0.0:
                step = 1e-5 * error
                inside, beyond = bound - outward * step, bound + outward * step
                t_bound = (t.lower if outward < 0 else t.upper)[metric]
                kept_by_t = (t_bound - inside) * outward >= 0
                assert kept_by_t or naive.kept_beyond(columns, metric, inside, tuple(labels), blocks) > alpha
                assert (t_bound - beyond) * outward < 0
                assert naive.kept_beyond(columns, metric, beyond, tuple(labels), blocks) <= alpha
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
    ("freedom", "p", "value"),
    [
        (6, 0.975, 2.44691),
        (10, 0.995, 3.16927),
        (30, 0.9, 1.31042),
        (3, 0.975, 3.18245),
        (1, 0.95, 6.31375),
        (2, 0.9995, 31.5991),
    ],
)
def test_quantiles_of_t(freedom, p, value):
    assert statistics.t_quantile(p, freedom) == pytest.approx(value, rel=1e-5)


@given(st.floats(0.6, 200), st.floats(1e-6, 0.99))
@settings(max_examples=200, deadline=None)
def test_critical_values_and_p_values_are_each_others_inverse(freedom, p):
    t = student.critical(p, freedom)
    assert student.two_sided(t, freedom) == pytest.approx(p, rel=1e-9)
    assert student.two_sided(0.0, freedom) == 1.0 and student.two_sided(math.inf, freedom) == 0.0


@given(st.integers(2, 9), st.integers(2, 9), seeds)
@settings(max_examples=60, deadline=None)
def test_with_one_block_it_is_welchs_test(base, new, seed):
    values = data(base + new, 1, seed)
    model = linear.model_of([0] * base + [1] * new, [base + new])
    found = linear.fit(model, values)
    error, freedom = naive.satterthwaite(values[:base, 0].tolist(), values[base:, 0].tolist())
    assert (found.errors[0], found.freedom[0]) == pytest.approx((error, freedom), rel=1e-7)


def test_pairs_are_the_paired_test():
    values = data(20, 1, 5)
    found = linear.fit(linear.model_of([0, 1] * 10, [2] * 10), values)
    differences = values[1::2, 0] - values[::2, 0]
    assert found.effects[0] == pytest.approx(differences.mean())
    assert found.errors[0] == pytest.approx(differences.std(ddof=1) / math.sqrt(10))
    assert found.freedom[0] == pytest.approx(9)


def test_a_steady_trend_is_taken_out_and_nothing_else():
    rng = np.random.default_rng(2)
    values = rng.normal(0, 0.01, (14, 2)) + 0.05 * np.arange(14)[:, None]
    labels = [0] * 7 + [1] * 7
    assert (statistics.infer(values, labels).lower > 0.2).all()
    found = statistics.infer(values, labels, trend=True)
    assert found.labellings == 0 and ((found.lower < 0) & (found.upper > 0)).all()
    slower = statistics.infer(values + 0.18 * np.array(labels)[:, None], labels, trend=True)
    assert slower.effects == pytest.approx(found.effects + 0.18) and (slower.lower > 0.1).all()


@pytest.mark.parametrize("metrics", [2, 5, 11])
def test_a_family_is_tested_between_bonferroni_and_a_single_test(metrics):
    model = linear.model_of([0, 1] * 20, [40])
    rng = np.random.default_rng(metrics)
    apart, alike = rng.normal(size=(40, metrics)), np.repeat(rng.normal(size=(40, 1)), metrics, axis=1)
    levels = [linear.family_alpha(model, linear.fit(model, v), 0.05) for v in (apart, alike)]
    assert 0.05 / metrics <= levels[0] < 0.075 / metrics
    assert 1.4 * levels[0] < levels[1] <= 0.05


@pytest.mark.parametrize(("base", "new"), [(4, 4), (4, 7), (12, 4)])
def test_sides_without_variance(base, new):
    """Values that are the same within each side: known exactly, and still no more than the labels can tell."""
    labels = [0] * base + [1] * new
    values = np.array(labels, float)[:, None] * np.array([0.3, 0.0])
    found = statistics.infer(values, labels)
    assert found.effects == pytest.approx([0.3, 0.0]) and list(found.errors) == [0.0, 0.0]
    ways = math.comb(base + new, new)
    assert found.p_adjusted[0] == pytest.approx((2 if base == new else 1) / ways) and found.p_adjusted[1] == 1
    assert (found.lower[0], found.upper[0]) == pytest.approx((0.3, 0.3))
    assert (found.lower[1], found.upper[1]) == (0.0, 0.0)


def test_one_side_without_variance_is_judged_by_the_other():
    base, new = [0.0] * 12, [0.01, 0.05, 0.02, 0.09]
    found = statistics.infer(np.array(base + new)[:, None], [0] * 12 + [1] * 4)
    error, freedom = naive.satterthwaite(base, new)
    assert freedom == pytest.approx(3)
    half = student.critical(0.05, 3) * error
    rounding = 1e-12
    assert found.lower[0] <= found.effects[0] - half + rounding
    assert found.upper[0] >= found.effects[0] + half - rounding


def test_a_side_of_one_run_excludes_nothing():
    found = statistics.infer(np.arange(21.0)[:, None], [0] * 20 + [1])
    assert (found.lower[0], found.upper[0], found.p_adjusted[0]) == (-math.inf, math.inf, 1.0)


def test_few_widely_scattered_runs_do_not_pass_for_a_difference():
    """12 runs against 4 of three times the spread: the pooled test excluded 0 in 23% of such comparisons."""
    rng = np.random.default_rng(12)
    labels = [0] * 12 + [1] * 4
    observed = np.array(labels, np.uint8)
    table, exact = statistics.labellings([16], observed, 20_000)
    scale = np.where(observed, 3.0, 1.0)[:, None]
    alarms = 0
    for _ in range(400):
        found = statistics.infer_from(rng.normal(size=(16, 1)) * scale, observed, [16], table, exact, 0.05)
        alarms += bool(found.lower[0] > 0 or found.upper[0] < 0)
    assert 5 <= alarms <= 36


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
