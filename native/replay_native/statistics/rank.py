"""Exact permutation of run labels: p-values adjusted by max-T, and simultaneous intervals by its inversion.

Runs are grouped in blocks. A labelling marks each run as one of the new or of the old build, and keeps the number
of new runs in each block. One block of all runs is the plain permutation; blocks of two are sign flips. `values`
float64[runs, metrics] and `observed` uint8[runs] are the data. `labels` uint8[labellings, runs] is every labelling,
or a sample that contains the observed one.

The effect of a labelling is that of the regression on it with a level for each block: sum(g * y) / sum(g * g), both
centred by block. The statistic is its |t|, a monotone function of |effect| / (total spread), the same one for every
metric. Westfall and Young, Resampling-Based Multiple Testing (1993); inversion: Lehmann and Romano, Testing
Statistical Hypotheses, section 15.2.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np
from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel


@bundle
class Effects(NamedTuple):
    """The effects of the observed labels."""

    effects: Annotated[Array, "float64[::1]", "per metric: the effect"]
    errors: Annotated[Array, "float64[::1]", "per metric: its standard error"]
    freedom: Annotated[int, "int64", "degrees of freedom"]


@bundle
class Inversion(NamedTuple):
    """Scratch of `intervals`. Its rows have one value per labelling."""

    top: Annotated[
        Array, "float64[:, ::1]", "[3, labellings]: the largest |t|, its metric, the second largest |t|"
    ]
    low: Annotated[Array, "float64[::1]", "the lowest effect that a labelling does not reject"]
    high: Annotated[Array, "float64[::1]", "the highest effect that a labelling does not reject"]


@bundle
class Bounds(NamedTuple):
    """Simultaneous intervals."""

    lower: Annotated[Array, "float64[::1]", "per metric: the lower bound"]
    upper: Annotated[Array, "float64[::1]", "per metric: the upper bound"]


EFFECTS_TYPE, INVERSION_TYPE, BOUNDS_TYPE = numba_type(Effects), numba_type(Inversion), numba_type(Bounds)

TIE = 1e-9
"""Statistics with a smaller relative difference are equal, because rounding depends on the order of a sum's terms."""


@kernel("int64(int64[::1], uint8[::1], uint8[:, ::1])")
def enumerate_labels(ends, observed, out):
    """Write every labelling to `out`, as far as it has rows, and return how many were written.

    `ends[b]` is one past the last run of block b.
    """
    n = observed.size
    for block in range(ends.size):
        start = ends[block - 1] if block else 0
        new = np.int64(0)
        for i in range(start, ends[block]):
            new += observed[i]
        for i in range(start, ends[block]):
            out[0, i] = 1 if i >= ends[block] - new else 0
    for row in range(1, out.shape[0]):
        for i in range(n):
            out[row, i] = out[row - 1, i]
        if not _next(ends, out[row]):
            return np.int64(row)
    return np.int64(out.shape[0])


@kernel()
def _next(ends, labels):
    """Turn a labelling into the next one in place, and return False after the last.

    The last block that has another labelling advances, and the blocks after it start again.
    """
    for back in range(ends.size):
        block = ends.size - 1 - back
        start = ends[block - 1] if block else 0
        if _next_in_block(labels, start, ends[block]):
            return True
    return False


@kernel()
def _next_in_block(labels, start, end):
    """Turn labels[start:end] into its next permutation, in ascending lexicographic order.

    After the last permutation, the result is False, and the first one is there again.
    """
    at, ones = end - 1, np.int64(0)
    while at > start and not (labels[at] == 1 and labels[at - 1] == 0):
        ones += labels[at]
        at -= 1
    ones += labels[at]
    if at == start:
        for i in range(start, end):
            labels[i] = 1 if i >= end - ones else 0
        return False
    labels[at - 1], labels[at] = 1, 0
    ones -= 1
    for i in range(at + 1, end):
        labels[i] = 1 if i >= end - ones else 0
    return True


@kernel("void(int64[::1], uint8[::1], uint64, uint8[:, ::1])")
def sample_labels(ends, observed, seed, out):
    """Write random labellings to `out`, with the observed one first.

    The observed one makes the p-value valid (Phipson and Smyth 2010).
    """
    state = np.uint64(seed)
    for row in range(out.shape[0]):
        for i in range(observed.size):
            out[row, i] = observed[i]
        for block in range(ends.size if row else 0):
            start = ends[block - 1] if block else np.int64(0)
            for i in range(ends[block] - 1, start, -1):
                state += np.uint64(0x9E3779B97F4A7C15)
                word = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                word ^= word >> np.uint64(31)
                other = start + np.int64((word >> np.uint64(11)) % np.uint64(i - start + 1))
                out[row, i], out[row, other] = out[row, other], out[row, i]


@kernel()
def _centre(ends, column):
    """Subtract each block's mean from its runs."""
    for block in range(ends.size):
        start = ends[block - 1] if block else 0
        mean = 0.0
        for i in range(start, ends[block]):
            mean += column[i]
        mean /= ends[block] - start
        for i in range(start, ends[block]):
            column[i] -= mean


@kernel(
    "int64(float64[:, ::1], int64[::1], uint8[::1], float64[:, ::1], float64[::1], float64[::1], float64[::1])"
)
def fit(values, ends, observed, centred, group, effects, errors):
    """Write effects and standard errors of the observed labels, and return the degrees of freedom.

    `effects` and `errors` are float64[metrics]. Fills `centred` float64[metrics, runs] and `group` float64[runs]
    with values and labels centred by block. The standard error is NaN if there are no degrees of freedom. Effects
    and errors are NaN if no block has runs of both builds.
    """
    n, metrics = values.shape
    for i in range(n):
        group[i] = observed[i]
    _centre(ends, group)
    weight = _dot(group, group)
    freedom = n - ends.size - 1
    for m in range(metrics):
        row = centred[m]
        for i in range(n):
            row[i] = values[i, m]
        _centre(ends, row)
        effects[m] = _dot(group, row) / weight if weight > 0 else math.nan
        spread = 0.0
        for i in range(n):
            rest = row[i] - effects[m] * group[i]
            spread += rest * rest
        if spread < TIE * TIE * _dot(row, row):
            spread = 0.0
        errors[m] = math.sqrt(spread / freedom / weight) if freedom > 0 and weight > 0 else math.nan
    return np.int64(freedom)


@kernel(inlined=True)
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@kernel("void(uint8[:, ::1], float64[:, ::1], float64[::1], float64[:, ::1])")
def sum_new(columns, centred, group, sums):
    """Write the sums over the runs that each labelling marks as new: of each row of `centred`, and last of `group`.

    `columns` uint8[runs, labellings] is the transposed table of labellings. `sums` is float64[metrics + 1,
    labellings].
    """
    metrics = centred.shape[0]
    for m in range(metrics + 1):
        out = sums[m]
        for at in range(out.size):
            out[at] = 0.0
        for run in range(columns.shape[0]):
            value, column = group[run] if m == metrics else centred[m, run], columns[run]
            for at in range(out.size):
                out[at] += value * column[at]


@kernel("void(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], float64[::1])")
def max_t(centred, sums, effects, largest, p_adjusted):
    """Write Westfall-Young p-values by single-step max-T to `p_adjusted` float64[metrics].

    `sums` float64[metrics + 1, labellings] are the sums of `centred`'s rows, and last of `group`, over the runs
    that each labelling marks as new. A metric that is the same in all runs of each block has p 1. `largest`
    float64[labellings] is scratch.
    """
    metrics, count = centred.shape[0], sums.shape[1]
    weight = _weight(sums)
    for at in range(count):
        largest[at] = 0.0
    for m in range(metrics):
        spread = _dot(centred[m], centred[m])
        scale = 1.0 / math.sqrt(spread) if spread > 0 else 0.0
        p_adjusted[m] = abs(effects[m]) * weight * scale
        for at in range(count):
            largest[at] = max(largest[at], abs(sums[m, at]) * scale)
    for m in range(metrics):
        bar, reached = p_adjusted[m] * (1.0 - TIE), np.int64(0)
        for at in range(count):
            if largest[at] >= bar:
                reached += 1
        p_adjusted[m] = reached / count


@kernel(inlined=True)
def _weight(sums):
    """Return sum(g * g). It is the largest sum, that of the observed labelling, which overlaps most with itself."""
    weight = 0.0
    for at in range(sums.shape[1]):
        weight = max(weight, sums[sums.shape[0] - 1, at])
    return weight


@kernel(types.float64(types.float64[:, ::1], EFFECTS_TYPE, types.int64, INVERSION_TYPE, BOUNDS_TYPE))
def intervals(sums, fitted, outside, scratch, bounds):
    """Write the simultaneous intervals to `bounds`, and return the critical |t| of the family.

    `sums` is the same as for `max_t`. An effect d of metric m is rejected if at most `outside` labellings have a
    statistic as extreme as the observed one, with m shifted back by d and the others by their estimates. The values
    of d that one labelling does not reject are an interval around the estimate, in closed form, so that the bound
    is an order statistic of the ends. It is infinite if no d can be rejected.
    """
    effects, errors, lower, upper = fitted.effects, fitted.errors, bounds.lower, bounds.upper
    top, low, high = scratch.top, scratch.low, scratch.high
    _family(sums, effects, errors, fitted.freedom, top)
    weight, metrics, count = _weight(sums), effects.size, sums.shape[1]
    for m in range(metrics):
        for at in range(count):
            effect, overlap = sums[m, at] / weight, sums[metrics, at] / weight
            reach = (top[2, at] if top[1, at] == m else top[0, at]) * errors[m]
            if 1.0 - abs(overlap) < TIE:
                low[at], high[at] = -math.inf, math.inf
            else:
                one = (effects[m] - effect) / (1.0 - overlap)
                two = (effects[m] + effect) / (1.0 + overlap)
                low[at] = min(effects[m] - reach, one, two)
                high[at] = max(effects[m] + reach, one, two)
        lower[m] = nth_value(low, outside)
        upper[m] = nth_value(high, count - 1 - outside)
    for at in range(count):
        low[at] = top[0, at]
    return nth_value(low, count - 1 - outside)


@kernel()
def _family(sums, effects, errors, freedom, top):
    """Write, for each labelling, the largest |t| over all metrics, which metric has it, and the second largest.

    Metrics are shifted back by their estimates.
    """
    weight, metrics = _weight(sums), effects.size
    for at in range(sums.shape[1]):
        top[0, at], top[1, at], top[2, at] = 0.0, -1.0, 0.0
    for m in range(metrics):
        spread = errors[m] * errors[m] * freedom * weight
        if not spread > 0:
            continue
        for at in range(sums.shape[1]):
            rest = (sums[m, at] - effects[m] * sums[metrics, at]) / weight
            explained = rest * rest * weight
            left = spread - explained
            t = math.sqrt(explained * freedom / left) if left > TIE * spread else math.inf
            if t > top[0, at]:
                top[2, at] = top[0, at]
                top[0, at], top[1, at] = t, m
            elif t > top[2, at]:
                top[2, at] = t


@kernel()
def nth_value(values, nth):
    """Return the value of 0-based rank `nth`, by Hoare's selection, which reorders `values`."""
    left, right = 0, values.size - 1
    while left < right:
        pivot = values[(left + right) >> 1]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if nth <= j:
            right = j
        elif nth >= i:
            left = i
        else:
            break
    return values[nth]
