"""How precisely a single run of each side determines its quantiles.

Variation between runs is not included, so the result is an effect size, not a test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from replay.ledger.histogram import Histogram
from replay.ledger.percentiles import rank
from replay.results.measured import FAILED

from .metrics import Metric
from .sides import SideRun

_Z = 1.96


def bounds(base: SideRun, new: SideRun, metric: Metric) -> tuple[float, float]:
    """Return bounds of the effect of new, on the metric's own scale.

    They follow from the order statistics of each run, or from the binomial spread of the shares.
    """
    if metric.percentile is None:
        return _share_bounds(base, new, metric)
    ends = []
    for run in (base, new):
        asked = _around(metric.percentile, run.count(metric.kind, metric.route))
        values = [run.quantile(metric.kind, q, metric.route) for q in asked]
        ends.append([math.log(max(value.ns, 1)) if value else math.nan for value in values])
    return ends[1][0] - ends[0][1], ends[1][1] - ends[0][0]


def quantile_bounds(histogram: Histogram, percentiles: Sequence[float]) -> tuple[list[int], list[int]]:
    """Return lower and upper bounds of each percentile of a run, by its order statistics (pointwise, 95%)."""
    asked = [_around(p, histogram.count) for p in percentiles]
    lower, upper = (histogram.percentiles([pair[at] for pair in asked]) for at in (0, 1))
    return lower, upper


def _around(percentile: float, count: int) -> tuple[float, float]:
    """Return the percentiles whose values are the bounds: the rank plus and minus the binomial spread."""
    half = _Z * math.sqrt(count * percentile * (100 - percentile)) / 100
    middle = rank(percentile, count)
    lower, upper = (100 * min(max(middle + sign * half, 1), count) / count for sign in (-1, 1))
    return lower, upper


def _share_bounds(base: SideRun, new: SideRun, metric: Metric) -> tuple[float, float]:
    shares = [run.measured.share_of(FAILED, metric.route) or 0.0 for run in (base, new)]
    counts = [max(sum(run.requests.values()), 1) for run in (base, new)]
    half = _Z * math.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, counts, strict=True)))
    return shares[1] - shares[0] - half, shares[1] - shares[0] + half
