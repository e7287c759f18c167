"""Student's t distribution: two-sided p-values and critical values, for any number of degrees of freedom above 0.

P(|T| >= t) is the regularised incomplete beta function I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t * t),
computed by its continued fraction (Numerical Recipes, 6.4; Lentz's method).
"""

from __future__ import annotations

import math

from replay_native.ground.jit import kernel

_STEPS_MAX = 300
_TINY = 1e-300


@kernel("float64(float64, float64)")
def two_sided(t, freedom):
    """Return P(|T| >= |t|) for `freedom` degrees of freedom."""
    if math.isinf(t):
        return 0.0
    x, a, b = freedom / (freedom + t * t), freedom / 2.0, 0.5
    if x >= 1.0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1.0) / (a + b + 2.0):
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1.0 - x, b, a) / b


@kernel()
def _fraction(x, a, b):
    """Return the continued fraction of I_x(a, b)."""
    c, d = 1.0, 1.0 / _kept_off_zero(1.0 - (a + b) * x / (a + 1.0))
    total = d
    for m in range(1, _STEPS_MAX):
        step = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _kept_off_zero(1.0 + step * d)
        c = _kept_off_zero(1.0 + step / c)
        total *= d * c
        step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _kept_off_zero(1.0 + step * d)
        c = _kept_off_zero(1.0 + step / c)
        total *= d * c
        if abs(d * c - 1.0) < 1e-15:
            break
    return total


@kernel(inlined=True)
def _kept_off_zero(value):
    return value if abs(value) > _TINY else _TINY


@kernel("float64(float64, float64)")
def critical(p, freedom):
    """Return the t with P(|T| >= t) = p, found by bisection, or about 0 for p = 1."""
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > p and high < 1e300:
        low, high = high, 2.0 * high
    for _ in range(80):
        middle = 0.5 * (low + high)
        if two_sided(middle, freedom) > p:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
