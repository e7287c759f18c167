"""Effects, simultaneous intervals and adjusted p-values of a family of metrics over labelled runs.

Values are on the metric's own scale (log ns for latencies, share for errors); `replay_native.rank` permutes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from replay_native import rank

ALPHA = 0.05
LABELLINGS_MAX = 200_000
"""More labellings than this are sampled."""

CELLS_MAX = 20_000_000
"""Labellings times metrics, at most: what a comparison may take in time."""

SAMPLED_MIN = 20_000
POWER = 0.8
RUNS_NEEDED_MAX = 999
_SEED = 20_240_229


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What the runs say of each metric, float64[metrics] each: effect of the new build, its standard error, bounds of
    its simultaneous interval (infinite where nothing can be excluded), max-T p-value.

    `critical_t` is what |t| must exceed in this family; `exact` says that every labelling was counted.
    """

    effects: np.ndarray
    errors: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    p_adjusted: np.ndarray
    critical_t: float
    freedom: int
    labellings: int
    exact: bool
    alpha: float


def count_labellings(blocks: Sequence[int], labels: np.ndarray) -> int:
    """In how many ways the new runs of each block can be chosen."""
    ways, start = 1, 0
    for size in blocks:
        ways *= math.comb(size, int(labels[start : start + size].sum()))
        start += size
    return ways


def labellings(blocks: Sequence[int], labels: np.ndarray, limit: int) -> tuple[np.ndarray, bool]:
    """uint8[labellings, runs]: all of them, or a seeded sample of `limit` where there are more; and whether all."""
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
    values: np.ndarray, labels: Sequence[int], blocks: Sequence[int] | None = None, alpha: float = ALPHA
) -> Inference:
    """Permute the labels of runs. `values` float64[runs, metrics], finite; `labels` 1 for runs of the new build.

    `blocks` are sizes of consecutive blocks of runs within which labels were randomised; default: one block.
    """
    observed = np.asarray(labels, np.uint8)
    columns = np.ascontiguousarray(values, np.float64)
    sizes = list(blocks) if blocks is not None else [observed.size]
    if not np.isfinite(columns).all() or sum(sizes) != observed.size or columns.shape[0] != observed.size:
        raise ValueError("values must be finite, one row a run, and the blocks must hold all runs")
    limit = min(LABELLINGS_MAX, max(SAMPLED_MIN, CELLS_MAX // max(columns.shape[1], 1)))
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
    """`infer` with the labellings given: they depend on the design alone."""
    # Nothing here depends on a metric's level; without it runs that are all the same differ by 0, not by a rounding.
    columns = columns - columns[:1]
    runs, metrics = columns.shape
    ends = np.cumsum(np.asarray(sizes, np.int64))
    centred, group = np.zeros((metrics, runs)), np.zeros(runs)
    effects, errors, lower, upper, p_adjusted = (np.zeros(metrics) for _ in range(5))
    freedom = int(rank.fit(columns, ends, observed, centred, group, effects, errors))
    sums = np.empty((metrics + 1, len(table)))
    rank.sum_new(np.ascontiguousarray(table.T), centred, group, sums)
    scratch = np.zeros(len(table))
    rank.max_t(centred, sums, effects, scratch, p_adjusted)
    outside = math.floor(alpha * len(table) + 1e-9)
    top, high = np.zeros((3, len(table))), np.zeros(len(table))
    critical = rank.intervals(sums, effects, errors, freedom, outside, top, scratch, high, lower, upper)
    kept = p_adjusted > alpha
    lower[kept] = np.minimum(lower[kept], 0.0)
    upper[kept] = np.maximum(upper[kept], 0.0)
    return Inference(
        effects, errors, lower, upper, p_adjusted, float(critical), freedom, len(table), exact, alpha
    )


def t_quantile(p: float, freedom: float) -> float:
    """Quantile of Student's t by the expansion 26.7.5 of Abramowitz and Stegun; within 1% from 6 degrees on."""
    z = NormalDist().inv_cdf(p)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))


def caught(error: float, critical_t: float, margin: float) -> float:
    """The smallest effect that ends as a regression with probability POWER: it must leave zero outside its interval and be
    estimated above the margin. Infinite where nothing could have been caught.
    """
    reserve = NormalDist().inv_cdf(POWER)
    if not math.isfinite(critical_t) or not math.isfinite(error):
        return math.inf
    return max((critical_t + reserve) * error, margin + reserve * error)


def runs_needed(spread: float, metrics: int, margin: float, alpha: float = ALPHA) -> int | None:
    """Runs a side so that no change at all ends as NO_REGRESSION with probability POWER, by Bonferroni over `metrics`.

    `spread` is the standard deviation from run to run, on the scale of `margin`. None where RUNS_NEEDED_MAX are too few.
    """
    reserve = NormalDist().inv_cdf(POWER)
    for runs in range(4, RUNS_NEEDED_MAX + 1):
        if 2 / math.comb(2 * runs, runs) > alpha:
            continue
        half_width = t_quantile(1 - alpha / (2 * metrics), 2 * runs - 2) * spread * math.sqrt(2 / runs)
        if half_width + reserve * spread * math.sqrt(2 / runs) <= margin:
            return runs
    return None
