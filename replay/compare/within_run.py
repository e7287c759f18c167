"""How well one run of each side knows its own quantiles. It does not know how much runs differ: an effect size, no test."""

from __future__ import annotations

import math

from ..results.measured import FAILED
from ..results.percentiles import rank
from .metrics import Metric
from .sides import SideRun

_Z = 1.96


def bounds(base: SideRun, new: SideRun, metric: Metric) -> tuple[float, float]:
    """Bounds of new's effect on the metric's own scale, by order statistics of each run, or the shares' binomial spread."""
    if metric.percentile is None:
        return _share_bounds(base, new, metric)
    ends = []
    for run in (base, new):
        count, p = run.count(metric.kind, metric.route), metric.percentile
        half = _Z * math.sqrt(count * p * (100 - p)) / 100
        middle = rank(p, count)
        asked = [100 * min(max(middle + sign * half, 1), count) / count for sign in (-1, 1)]
        values = [run.quantile(metric.kind, q, metric.route) for q in asked]
        ends.append([math.log(max(value.ns, 1)) if value else math.nan for value in values])
    return ends[1][0] - ends[0][1], ends[1][1] - ends[0][0]


def _share_bounds(base: SideRun, new: SideRun, metric: Metric) -> tuple[float, float]:
    shares = [run.measured.share_of(FAILED, metric.route) or 0.0 for run in (base, new)]
    counts = [max(sum(run.requests.values()), 1) for run in (base, new)]
    half = _Z * math.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, counts, strict=True)))
    return shares[1] - shares[0] - half, shares[1] - shares[0] + half
