"""Effects, simultaneous intervals and adjusted p-values of a family of metrics over labelled runs.

Values are on the metric's own scale (log ns for latencies, share for errors). Two tests must agree. One permutes the
labels (`replay_native.rank`, or `unequal` if sides or blocks differ in size); the other is Student's t with each side's
own spread (`linear`). The interval is the wider of the two, the p-value the larger. If a trend is removed, only
Student's t is used.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from replay_native.statistics import rank, student, unequal

from . import linear

ALPHA = 0.05
LABELLINGS_MAX = 200_000
"""Maximum number of labellings that are enumerated. If a design has more, a sample is drawn."""

CELLS_MAX = 20_000_000
"""Limit on labellings times metrics, which bounds the time of a comparison. SAMPLED_MIN labellings are always allowed."""

UNEQUAL_COST = 4
"""The rough factor by which a labelling takes longer if sides or blocks differ in size."""

SAMPLED_MIN = 20_000
POWER = 0.8
RUNS_NEEDED_MAX = 999
_SEED = 20_240_229


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """The inference for each metric, float64[metrics] each.

    The fields are the effect of the new build, its standard error, the bounds of its simultaneous interval (infinite
    if nothing can be excluded), the adjusted p-value, and the value that |t| must exceed. `labellings` is the number
    of labellings that were tried; 0 with a trend, because labels are not permuted then. `exact`: they were not sampled.
    """

    effects: np.ndarray
    errors: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p_adjusted: np.ndarray
    critical: np.ndarray
    labellings: int
    exact: bool
    alpha: float

    @property
    def critical_t(self) -> float:
        """The largest of the values that |t| must exceed; 0 without metrics."""
        return float(self.critical.max(initial=0.0))


def count_labellings(blocks: Sequence[int], labels: np.ndarray) -> int:
    """Return the number of ways to choose the new runs of each block."""
    ways, start = 1, 0
    for size in blocks:
        ways *= math.comb(size, int(labels[start : start + size].sum()))
        start += size
    return ways


def labellings(blocks: Sequence[int], labels: np.ndarray, limit: int) -> tuple[np.ndarray, bool]:
    """Return the labellings as uint8[labellings, runs], and whether they are all.

    If there are more than `limit`, they are a seeded sample of that size.
    """
    ends = np.cumsum(np.asarray(blocks, np.int64))
    ways = count_labellings(blocks, labels)
    out = np.zeros((min(ways, limit), labels.size), np.uint8)
    if ways <= limit:
        if rank.enumerate_labels(ends, labels, out) != ways:
            raise AssertionError("labellings were miscounted")
        return out, True
    rank.sample_labels(ends, labels, np.uint64(_SEED), out)
    return out, False


def infer(
    values: np.ndarray,
    labels: Sequence[int],
    blocks: Sequence[int] | None = None,
    alpha: float = ALPHA,
    *,
    trend: bool = False,
) -> Inference:
    """Estimate and test the effect of the labels.

    `values` is float64[runs, metrics], finite; `labels` is 1 for runs of the new build. `blocks` are the sizes of
    consecutive blocks of runs within which labels were randomised; default: one block. `trend`: the runs are in the
    order of time, and a steady change from run to run is removed. Labels are then not permuted, because the observed
    labelling is tied to time. Raise ValueError if a value is not finite, or if the lengths do not agree.
    """
    observed = np.asarray(labels, np.uint8)
    columns = np.ascontiguousarray(values, np.float64)
    sizes = list(blocks) if blocks is not None else [observed.size]
    if not np.isfinite(columns).all() or sum(sizes) != observed.size or columns.shape[0] != observed.size:
        raise ValueError("values must be finite, with one row per run, and the blocks must contain all runs")
    if trend:
        return _with_trend(columns, observed, sizes, alpha)
    cells = CELLS_MAX // (1 if _is_balanced(sizes, observed) else UNEQUAL_COST)
    limit = min(LABELLINGS_MAX, max(SAMPLED_MIN, cells // max(columns.shape[1], 1)))
    table, exact = labellings(sizes, observed, limit)
    return infer_from(columns, observed, sizes, table, exact, alpha)


def infer_from(
    columns: np.ndarray,
    observed: np.ndarray,
    sizes: Sequence[int],
    table: np.ndarray,
    exact: bool,
    alpha: float,
) -> Inference:
    """Infer as `infer` does, with given labellings.

    The labellings depend only on the design, so that callers compute them once.
    """
    # The first run is subtracted, because the level of a metric does not matter here. Equal runs then differ by exactly
    # 0, and not by a rounding error.
    columns = columns - columns[:1]
    model = linear.model_of(observed.tolist(), sizes)
    found = linear.fit(model, columns)
    t = linear.by_t(model, found, alpha)
    if not model.is_estimable:
        return Inference(
            found.effects, found.errors, t.lower, t.upper, t.p_adjusted, t.critical, len(table), exact, alpha
        )
    permute = _permute_balanced if _is_balanced(sizes, observed) else _permute_unequal
    p_adjusted, lower, upper, critical = permute(columns, observed, sizes, table, model, found, alpha)
    p_adjusted = np.maximum(p_adjusted, t.p_adjusted)
    lower, upper = np.minimum(lower, t.lower), np.maximum(upper, t.upper)
    kept = p_adjusted > alpha
    lower[kept], upper[kept] = np.minimum(lower[kept], 0.0), np.maximum(upper[kept], 0.0)
    critical_t = np.maximum(t.critical, critical)
    return Inference(
        found.effects, found.errors, lower, upper, p_adjusted, critical_t, len(table), exact, alpha
    )


def _with_trend(columns: np.ndarray, observed: np.ndarray, sizes: Sequence[int], alpha: float) -> Inference:
    model = linear.model_of(observed.tolist(), sizes, trend=True)
    found = linear.fit(model, columns - columns[:1])
    t = linear.by_t(model, found, alpha)
    return Inference(found.effects, found.errors, t.lower, t.upper, t.p_adjusted, t.critical, 0, True, alpha)


def _is_balanced(sizes: Sequence[int], observed: np.ndarray) -> bool:
    """Return whether all blocks have the same size and half of each is new.

    The spreads of both sides then have equal weight in every labelling.
    """
    news = [int(part.sum()) for part in np.split(observed, np.cumsum(sizes)[:-1])]
    return len(set(sizes)) == 1 and all(2 * new == size for new, size in zip(news, sizes, strict=True))


_Permuted = tuple[np.ndarray, np.ndarray, np.ndarray, float]
"""Max-T p-values, lower and upper bounds of simultaneous intervals, and the critical |t| of the family."""


def _permute_balanced(
    columns: np.ndarray,
    observed: np.ndarray,
    sizes: Sequence[int],
    table: np.ndarray,
    model: linear.Model,
    found: linear.Fit,
    alpha: float,
) -> _Permuted:
    runs, metrics = columns.shape
    ends = np.cumsum(np.asarray(sizes, np.int64))
    centred, group = np.zeros((metrics, runs)), np.zeros(runs)
    effects, errors, lower, upper, p_adjusted = (np.zeros(metrics) for _ in range(5))
    freedom = int(rank.fit(columns, ends, observed, centred, group, effects, errors))
    sums = np.empty((metrics + 1, len(table)))
    rank.sum_new(np.ascontiguousarray(table.T), centred, group, sums)
    scratch = np.zeros(len(table))
    rank.max_t(centred, sums, effects, scratch, p_adjusted)
    inversion = rank.Inversion(np.zeros((3, len(table))), scratch, np.zeros(len(table)))
    fitted, bounds = rank.Effects(effects, errors, freedom), rank.Bounds(lower, upper)
    critical = rank.intervals(sums, fitted, _outside(table, alpha), inversion, bounds)
    return p_adjusted, lower, upper, float(critical)


def _permute_unequal(
    columns: np.ndarray,
    observed: np.ndarray,
    sizes: Sequence[int],
    table: np.ndarray,
    model: linear.Model,
    found: linear.Fit,
    alpha: float,
) -> _Permuted:
    metrics = columns.shape[1]
    lower, upper, p_adjusted = (np.zeros(metrics) for _ in range(3))
    design = unequal.Design(
        np.ascontiguousarray(table.T), found.residuals, *_design(observed, sizes), found.effects, found.errors
    )
    scratch, bounds = np.zeros((unequal.SCRATCH, len(table))), rank.Bounds(lower, upper)
    critical = unequal.judge(design, _outside(table, alpha), scratch, p_adjusted, bounds)
    return p_adjusted, lower, upper, float(critical)


def _design(observed: np.ndarray, sizes: Sequence[int]) -> tuple[np.ndarray, float, float]:
    """Return the parameters of a design for `unequal.judge`.

    They are the weights of each run, float64[4, runs], the squared length of the centred labels, and sum(q * g^2).
    """
    share = np.concatenate(
        [np.full(len(part), part.mean()) for part in np.split(observed, np.cumsum(sizes)[:-1])]
    )
    size = np.repeat(np.asarray(sizes, np.float64), sizes)
    group = observed - share
    weight = float(group @ group)

    def q(g: np.ndarray) -> np.ndarray:
        """Return g^2 / (1 - leverage); 0 for a block in which all runs have the same label."""
        left = 1 - 1 / size - g**2 / weight
        return np.asarray(np.divide(g**2, left, out=np.zeros_like(g), where=g != 0))

    old, new = q(-share), q(1 - share)
    level = float((share * new * (1 - share) ** 2 + (1 - share) * old * share**2).sum())
    return np.stack([group, old, new - old, new * (1 - share) + old * share]), weight, level


def _outside(table: np.ndarray, alpha: float) -> int:
    """Return how many labellings, at most, may be as extreme as the observed one for an effect to be significant."""
    return math.floor(alpha * len(table) + 1e-9)


def t_quantile(p: float, freedom: float) -> float:
    """Return a quantile of Student's t, for p of at least one half."""
    return float(student.critical(2 * (1 - p), freedom))


def caught(error: float, critical_t: float, margin: float) -> float:
    """Return the smallest effect that is judged a regression with probability POWER.

    For that, 0 must lie outside the interval of the effect, and the estimate above the margin. The value is infinite
    if no effect could have been detected.
    """
    reserve = NormalDist().inv_cdf(POWER)
    if not math.isfinite(critical_t) or not math.isfinite(error):
        return math.inf
    return max((critical_t + reserve) * error, margin + reserve * error)


def runs_needed(spread: float, metrics: int, margin: float, alpha: float = ALPHA) -> int | None:
    """Return the runs per side, at least 4, with which two equal builds are judged NO_REGRESSION with probability POWER.

    The estimate uses Bonferroni over `metrics`. `spread` is the standard deviation from run to run, on the scale of
    `margin`. Return None if RUNS_NEEDED_MAX runs are too few.
    """
    reserve = NormalDist().inv_cdf(POWER)

    def is_enough(runs: int) -> bool:
        if 2 / math.comb(2 * runs, runs) > alpha:
            return False
        half_width = t_quantile(1 - alpha / (2 * metrics), 2 * runs - 2) * spread * math.sqrt(2 / runs)
        return half_width + reserve * spread * math.sqrt(2 / runs) <= margin

    found = bisect.bisect_left(range(RUNS_NEEDED_MAX + 1), True, lo=4, key=is_enough)
    return found if found <= RUNS_NEEDED_MAX else None
