"""The effect of a build by least squares, with a separate variance for each side.

In the model, a value is the sum of the level of its block, a trend if one is requested, and the effect if the run is
one of the new build. Standard errors are HC2. Degrees of freedom are those of Bell and McCaffrey (2002), with each
side's own spread. With one block and no trend, the test is Welch's, with Satterthwaite's degrees of freedom.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from replay_native.statistics import student

DRAWS = 5_000
"""Number of random families from which the distribution of a family's largest |t| is estimated; see `family_alpha`."""

_SEED = 20_240_301
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A design without values.

    `group` float64[runs] is the part of the labels that neither levels nor trend explain. `rest` float64[runs, runs]
    maps values to their residuals, and `shares` is its diagonal, 1 minus each run's leverage. `terms` float64[runs]
    are the weights of the squared residuals in the squared error. `traces` float64[2] and `products` float64[2, 2],
    for base and new, determine the mean and variance of the squared error.
    """

    labels: np.ndarray
    group: np.ndarray
    weight: float
    rest: np.ndarray
    shares: np.ndarray
    terms: np.ndarray
    traces: np.ndarray
    products: np.ndarray

    @property
    def is_estimable(self) -> bool:
        """Whether the spread of each side can be estimated, so that standard errors exist.

        It cannot, for example, if a side has a single run, or if no block contains runs of both sides.
        """
        return self.weight > _NOTHING and bool((self.shares[abs(self.group) > _NOTHING] > _NOTHING).all())


def model_of(labels: Sequence[int], sizes: Sequence[int], *, trend: bool = False) -> Model:
    """Return the model of runs in consecutive blocks of `sizes`.

    With `trend`, a steady change from run to run is removed.
    """
    return _model(tuple(map(int, labels)), tuple(map(int, sizes)), trend)


@functools.lru_cache(maxsize=64)
def _model(labels: tuple[int, ...], sizes: tuple[int, ...], trend: bool) -> Model:
    new, runs = np.array(labels, np.float64), len(labels)
    nuisance = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    if trend:
        nuisance = np.column_stack([nuisance, np.arange(runs) - (runs - 1) / 2])
    base, _ = np.linalg.qr(nuisance)
    group = new - base @ (base.T @ new)
    group[abs(group) < _NOTHING] = 0.0
    weight = float(group @ group)
    rest = np.eye(runs) - base @ base.T - np.outer(group, group) / max(weight, _NOTHING)
    shares = np.diag(rest).copy()
    terms = group**2 / np.maximum(shares, _NOTHING) / max(weight, _NOTHING) ** 2
    kept = [rest @ np.diag(side) @ rest for side in (1 - new, new)]
    traces = np.array([terms @ np.diag(one) for one in kept])
    pairs = np.outer(terms, terms)
    products = np.array([[(pairs * one * two).sum() for two in kept] for one in kept])
    return Model(new > 0, group, weight, rest, shares, terms, traces, products)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The fit of each metric: effects, their standard errors and degrees of freedom, float64[metrics].

    `residuals` is float64[metrics, runs].
    """

    effects: np.ndarray
    errors: np.ndarray
    freedom: np.ndarray
    residuals: np.ndarray


def fit(model: Model, values: np.ndarray) -> Fit:
    """Fit each column of `values` float64[runs, metrics].

    Errors and degrees of freedom are NaN if the model is not estimable; so are effects if no block contains runs of
    both sides.
    """
    if not model.weight > _NOTHING:
        nothing = np.full(values.shape[1], np.nan)
        return Fit(nothing, nothing, nothing, np.zeros(values.shape[::-1]))
    effects = model.group @ values / model.weight
    residuals = (model.rest @ values).T.copy()
    around = residuals + np.outer(effects, model.group)
    within, total = (residuals**2).sum(axis=1), (around**2).sum(axis=1)
    residuals[within <= _NOTHING**2 * total] = 0.0
    if not model.is_estimable:
        nothing = np.full(len(effects), np.nan)
        return Fit(effects, nothing, nothing, residuals)
    squares = residuals**2
    spreads = squares / model.shares
    sides = np.stack([spreads[:, side].mean(axis=1) for side in (~model.labels, model.labels)])
    sides[:, sides.sum(axis=0) == 0] = 1.0
    own, shared = _freedom(model, sides), _freedom(model, _typical(sides))
    return Fit(effects, np.sqrt(squares @ model.terms), np.minimum(own, shared), residuals)


def _freedom(model: Model, sides: np.ndarray) -> np.ndarray:
    """Return the degrees of freedom if base and new have the variances `sides` float64[2, metrics]."""
    means = model.traces @ sides
    return np.asarray(means**2 / np.einsum("km,kl,lm->m", sides, model.products, sides))


def _typical(sides: np.ndarray) -> np.ndarray:
    """Return variances of base and new whose ratio is the geometric mean of the ratios of all metrics.

    In a large family, the few runs of some metric lie close together by chance. The shared ratio keeps such a metric
    from getting extra degrees of freedom. If no metric varies on both sides, `sides` is returned unchanged.
    """
    both = sides[:, (sides > 0).all(axis=0)]
    if not both.size:
        return sides
    ratio = math.exp(float(np.log(both[1] / both[0]).mean()))
    return np.array([[1.0], [ratio]])


def family_alpha(model: Model, found: Fit, alpha: float) -> float:
    """Return the level at which each metric is tested so that the error rate of the family is `alpha`.

    It lies between alpha / metrics, for independent metrics, and alpha, for metrics that move together.

    The largest |t| of a family is drawn DRAWS times from normal variables that are correlated as the metrics'
    effects are: random signs and sizes on the terms of each standard error. With few degrees of freedom, correlations
    appear by chance. Therefore a part of each variable is drawn independently, and this part is larger if there are
    fewer degrees of freedom.
    """
    parts = found.residuals * (model.group / np.sqrt(np.maximum(model.shares, _NOTHING)))
    lengths = np.sqrt((parts**2).sum(axis=1))
    metrics = int((lengths > 0).sum())
    if metrics < 2:
        return alpha
    parts = parts[lengths > 0] / lengths[lengths > 0, None]
    own = min(_SPURIOUS / float(found.freedom[lengths > 0].mean()), 1.0)
    drawn = math.sqrt(1 - own) * (_normals(parts.shape[1]) @ parts.T) + math.sqrt(own) * _normals(metrics, 1)
    reach = float(np.partition(abs(drawn).max(axis=1), -round(alpha * DRAWS))[-round(alpha * DRAWS)])
    return min(max(2 * NormalDist().cdf(-reach), alpha / metrics), alpha)


_SPURIOUS = 2.0
"""The independently drawn share of each variable is this number divided by the degrees of freedom, at most 1."""


@functools.lru_cache(maxsize=16)
def _normals(columns: int, stream: int = 0) -> np.ndarray:
    return np.random.default_rng(_SEED + stream).standard_normal((DRAWS, columns))


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """For each metric, float64[metrics]: adjusted p-value, simultaneous interval, and the value that |t| must exceed."""

    p_adjusted: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    critical: np.ndarray


def by_t(model: Model, found: Fit, alpha: float) -> Bounds:
    """Return the t tests of a family.

    If the model is not estimable, intervals are infinite and p-values are 1.
    """
    metrics = len(found.effects)
    if not np.isfinite(found.errors).all():
        infinite = np.full(metrics, np.inf)
        return Bounds(np.ones(metrics), -infinite, infinite, infinite)
    level = family_alpha(model, found, alpha)
    with np.errstate(divide="ignore", invalid="ignore"):
        reached = np.where(found.effects == 0, 0.0, abs(found.effects) / found.errors)
    p_values = [student.two_sided(t, df) for t, df in zip(reached, found.freedom, strict=True)]
    critical = np.array([student.critical(level, df) for df in found.freedom])
    half = critical * found.errors
    adjusted = np.minimum(np.array(p_values) * (alpha / level), 1.0)
    return Bounds(adjusted, found.effects - half, found.effects + half, critical)
