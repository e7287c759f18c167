"""Permutation of run labels if sides or blocks differ in size: max-T and its inversion with a studentised effect.

`rank` divides an effect by the spread of all runs, which is right if each block has as many new runs as old ones:
then the spread of each side cancels out. Otherwise, a side with few and widely scattered runs would look like a
difference. Here each effect is divided by its own standard error, which lets runs scatter differently (HC2:
MacKinnon and White 1985; with one block it is Welch's; Janssen 1997 on permuting such a statistic).

With g the labels centred by block, w = sum(g * g), z the values centred by block and e = sum(g * z) / w, the
squared error is sum(q * (z - e * g)^2) / w^2, where q = g^2 / (1 - leverage) depends on a run's block and label
only. So the sums over the runs that a labelling marks as new are enough.

A shift u of the effect makes z = residual - u * x, where x is the observed g. The squared effect and the squared
error of a labelling are quadratic in u, so that the range of u that it does not reject (its |t| reaches the
observed one) ends at zeros of a polynomial of degree four. The outermost zero on each side is used. This may make
an interval too wide, but never too narrow.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

from numba import types

from replay_native.ground.bundle import Array, bundle, numba_type
from replay_native.ground.jit import kernel

from .rank import BOUNDS_TYPE, TIE, nth_value

NOTHING = 1e-12
"""A sum of squares below this share of its terms counts as zero, because it is a rounding error."""

_STEPS_MAX = 200

SCRATCH = 13
"""Rows of scratch, each with one value per labelling."""

_SHARED, _SUMS, _LARGEST, _TOP, _LOW, _HIGH = 0, 3, 7, 8, 11, 12


@bundle
class Design(NamedTuple):
    """The labellings, the observed effects, and the residuals of the values.

    The module's docstring defines the letters.
    """

    columns: Annotated[Array, "uint8[:, ::1]", "[runs, labellings]: 1 where a labelling calls a run new"]
    residuals: Annotated[Array, "float64[:, ::1]", "[metrics, runs]: values less the observed effect"]
    runs: Annotated[
        Array,
        "float64[:, ::1]",
        "[4, runs]: x; q if it is called old; how much q grows if new; the same of q * g",
    ]
    weight: Annotated[float, "float64", "w"]
    level: Annotated[float, "float64", "sum(q * g^2)"]
    effects: Annotated[Array, "float64[::1]", "per metric: the observed effect"]
    errors: Annotated[
        Array, "float64[::1]", "per metric: its standard error; 0 where it does not vary within the sides"
    ]


DESIGN_TYPE = numba_type(Design)


@kernel(types.float64(DESIGN_TYPE, types.int64, types.float64[:, ::1], types.float64[::1], BOUNDS_TYPE))
def judge(observed, outside, scratch, p_adjusted, bounds):
    """Write Westfall-Young p-values and simultaneous intervals, and return the critical |t| of the family.

    The intervals are defined as in `rank.intervals`. `scratch` is float64[SCRATCH, labellings].
    """
    columns, residuals, design, weight, level = (
        observed.columns, observed.residuals, observed.runs, observed.weight, observed.level,
    )  # fmt: skip
    effects, errors, lower, upper = observed.effects, observed.errors, bounds.lower, bounds.upper
    metrics, count = effects.size, columns.shape[1]
    _share(columns, design, scratch)
    scratch[_LARGEST : _TOP + 3, :] = 0.0
    scratch[_TOP + 1, :] = -1.0
    for m in range(metrics):
        spread = _sum_up(columns, design, residuals[m], scratch)
        for at in range(count):
            now = _t(scratch, at, weight, level, spread, -effects[m])
            scratch[_LARGEST, at] = max(scratch[_LARGEST, at], now)
            _take(scratch, at, m, _t(scratch, at, weight, level, spread, 0.0))
    for m in range(metrics):
        own = _observed_t(effects[m], errors[m]) * (1.0 - TIE)
        reached = 0
        for at in range(count):
            if scratch[_LARGEST, at] >= own:
                reached += 1
        p_adjusted[m] = reached / count
        _sum_up(columns, design, residuals[m], scratch)
        for at in range(count):
            _keep(scratch, at, m, weight, level, effects[m], errors[m])
        lower[m] = nth_value(scratch[_LOW], outside)
        upper[m] = nth_value(scratch[_HIGH], count - 1 - outside)
    return nth_value(scratch[_TOP], count - 1 - outside)


@kernel(inlined=True)
def _observed_t(effect, error):
    if effect == 0.0:
        return 0.0
    return abs(effect) / error if error > 0.0 else math.inf


@kernel()
def _add(columns, run, value, out):
    """Add a run's value to the sums of the labellings that mark it as new."""
    if value != 0.0:
        column = columns[run]
        for at in range(out.size):
            out[at] += value * column[at]


@kernel()
def _share(columns, design, scratch):
    """Compute the sums that are the same for each metric: of x, of its q * g, and of q * x^2."""
    x, old, more, cross = design[0], design[1], design[2], design[3]
    constant = 0.0
    for run in range(x.size):
        constant += old[run] * x[run] * x[run]
    scratch[_SHARED : _SHARED + 2, :] = 0.0
    scratch[_SHARED + 2, :] = constant
    for run in range(x.size):
        _add(columns, run, x[run], scratch[_SHARED])
        _add(columns, run, cross[run] * x[run], scratch[_SHARED + 1])
        _add(columns, run, more[run] * x[run] * x[run], scratch[_SHARED + 2])


@kernel()
def _sum_up(columns, design, residual, scratch):
    """Compute the sums of one metric's residuals r: of r, of their q * g, of q * r^2 and of q * r * x.

    The result is the sum of r^2.
    """
    x, old, more, cross = design[0], design[1], design[2], design[3]
    own, mixed, spread = 0.0, 0.0, 0.0
    for run in range(x.size):
        spread += residual[run] * residual[run]
        own += old[run] * residual[run] * residual[run]
        mixed += old[run] * residual[run] * x[run]
    scratch[_SUMS : _SUMS + 2, :] = 0.0
    scratch[_SUMS + 2, :] = own
    scratch[_SUMS + 3, :] = mixed
    for run in range(x.size):
        value = residual[run]
        _add(columns, run, value, scratch[_SUMS])
        _add(columns, run, cross[run] * value, scratch[_SUMS + 1])
        _add(columns, run, more[run] * value * value, scratch[_SUMS + 2])
        _add(columns, run, more[run] * value * x[run], scratch[_SUMS + 3])
    return spread


@kernel(inlined=True)
def _squares(scratch, at, weight, level):
    """Return a, b, v0, v1 and v2 of a labelling.

    sum(g * z) = a - b * u, and w^2 times the squared error = v0 + v1 * u + v2 * u^2.
    """
    a, b = scratch[_SUMS, at], scratch[_SHARED, at]
    alpha, beta = a / weight, b / weight
    own, shared = scratch[_SUMS + 1, at], scratch[_SHARED + 1, at]
    v0 = scratch[_SUMS + 2, at] - 2.0 * alpha * own + alpha * alpha * level
    v1 = 2.0 * (alpha * shared + beta * own - scratch[_SUMS + 3, at] - alpha * beta * level)
    v2 = scratch[_SHARED + 2, at] - 2.0 * beta * shared + beta * beta * level
    return a, b, v0, v1, v2


@kernel(inlined=True)
def _t(scratch, at, weight, level, spread, u):
    """Return |t| of a labelling if the effect is shifted by u from its estimate.

    `spread` is the sum of squared residuals.
    """
    a, b, v0, v1, v2 = _squares(scratch, at, weight, level)
    effect, square = a - b * u, v0 + (v1 + v2 * u) * u
    scale = spread + u * u * weight
    if effect * effect <= NOTHING * NOTHING * scale * weight:
        return 0.0
    return abs(effect) / math.sqrt(square) if square > NOTHING * scale else math.inf


@kernel(inlined=True)
def _take(scratch, at, m, t):
    """Update the largest |t| of a labelling, its metric, and the second largest with the |t| of metric m."""
    if t > scratch[_TOP, at]:
        scratch[_TOP + 2, at] = scratch[_TOP, at]
        scratch[_TOP, at], scratch[_TOP + 1, at] = t, m
    elif t > scratch[_TOP + 2, at]:
        scratch[_TOP + 2, at] = t


@kernel(inlined=True)
def _keep(scratch, at, m, weight, level, effect, error):
    """Write the outermost effects of metric m that a labelling does not reject.

    The labelling may keep an effect because of metric m itself, or because of the largest |t| of the other metrics.
    """
    a, b, v0, v1, v2 = _squares(scratch, at, weight, level)
    if v2 <= NOTHING * weight:
        scratch[_LOW, at], scratch[_HIGH, at] = -math.inf, math.inf
        return
    below, above = 0.0, 0.0
    if error > 0.0:
        reach = scratch[_TOP + 2, at] if scratch[_TOP + 1, at] == m else scratch[_TOP, at]
        scaled = v2 * error * error
        a3, a2 = v1 * error / scaled, (v0 - b * b * error * error) / scaled
        a1, a0 = 2.0 * a * b * error / scaled, -a * a / scaled
        above = error * _largest_zero(a3, a2, a1, a0, reach)
        below = error * _largest_zero(-a3, a2, -a1, a0, reach)
    scratch[_LOW, at], scratch[_HIGH, at] = effect - below, effect + above


@kernel()
def _largest_zero(a3, a2, a1, a0, least):
    """Return the largest zero of s^4 + a3 s^3 + a2 s^2 + a1 s + a0, or `least` if that is larger.

    a0 <= 0 <= least. No zero is above `least` if no coefficient of the polynomial in s - `least` is negative.
    Otherwise, Newton's method starts at Fujiwara's bound, which is to the right of every zero of the polynomial and
    its derivatives, so that the steps approach the largest zero from above and never pass it.
    """
    s = least
    value = (((s + a3) * s + a2) * s + a1) * s + a0
    slope = ((4.0 * s + 3.0 * a3) * s + 2.0 * a2) * s + a1
    if value >= 0.0 and slope >= 0.0 and (6.0 * s + 3.0 * a3) * s + a2 >= 0.0 and 4.0 * s + a3 >= 0.0:
        return least
    s = 2.0 * max(abs(a3), math.sqrt(abs(a2)), abs(a1) ** (1.0 / 3.0), math.sqrt(math.sqrt(abs(a0) * 0.5)))
    for _ in range(_STEPS_MAX):
        value = (((s + a3) * s + a2) * s + a1) * s + a0
        slope = ((4.0 * s + 3.0 * a3) * s + 2.0 * a2) * s + a1
        if not (value > 0.0 and slope > 0.0):
            break
        step = value / slope
        s -= step
        if step <= 1e-13 * s:
            break
    return max(s, least)
