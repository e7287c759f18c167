"""The decision rule for one metric; docs/statistics.md has its error rates.

REGRESSION: the simultaneous interval of the slowdown is above 0, and its estimate is above the tolerance.
IMPROVEMENT: the same for a speed-up. NO_REGRESSION: the interval's upper bound is below the tolerance. INCONCLUSIVE:
all other cases. Only the user sets the tolerance: noise widens intervals, never the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .design import Asked
from .metrics import DEFAULT, ROUTES_DEFAULT, Metric
from .statistics import ALPHA

VerdictName = Literal["REGRESSION", "IMPROVEMENT", "NO_REGRESSION", "INCONCLUSIVE", "INVALID"]
FailOn = Sequence[str]
"""Choices from FAIL_ON: the results that change the exit code."""

FAIL_ON = ("regression", "effect", "different", "inconclusive")

TOLERANCE = 0.10
ERROR_TOLERANCE = 0.001


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare.

    `tolerance` is a ratio (0.1: 10% slower), `error_tolerance` a difference of shares. `sequential`: judge sides that
    ran one after the other as if they had taken turns. `of_processes`: a build was not restarted, so an effect may come
    from the two processes and not from the builds; such an effect fails only if `fail_on` contains `effect`.
    """

    tolerance: float = TOLERANCE
    error_tolerance: float = ERROR_TOLERANCE
    alpha: float = ALPHA
    metrics: tuple[str, ...] = DEFAULT
    routes: int | tuple[str, ...] = ROUTES_DEFAULT
    design: Asked = "auto"
    unit: str = ""
    fail_on: FailOn = ("regression",)
    sequential: bool = False
    of_processes: bool = False

    def margin(self, metric: Metric) -> float:
        """Return the tolerance on the metric's scale."""
        return math.log1p(self.tolerance) if metric.is_latency else self.error_tolerance


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one metric.

    `change`, `low`, `high` and `caught` are ratios minus 1 for latencies, and differences of shares for errors;
    bounds and `caught` are infinite if nothing can be excluded or detected. With one run per side, `low` and `high` are
    within-run bounds, and `p_adjusted` is None. `base` and `new` are the figures of the sides (geometric mean in ns, or
    mean share).
    `runs_needed` is the number of runs per side that would decide the metric; None if RUNS_NEEDED_MAX are too few.
    `at_least`: the figure of a side is only a lower bound.
    """

    metric: Metric
    verdict: VerdictName
    base: float
    new: float
    change: float
    low: float
    high: float
    within_run: bool
    p_adjusted: float | None
    runs_needed: int | None
    caught: float
    at_least: bool = False


def decide(
    effect: float, low: float, high: float, margin: float, *, base_at_least: bool, new_at_least: bool
) -> VerdictName:
    """Decide one metric, with all values on the metric's own scale.

    If the figure of a side is only a lower bound, a decision that the true value could reverse is not made.
    """
    if low > 0 and effect > margin and not base_at_least:
        return "REGRESSION"
    if high < 0 and effect < -margin and not new_at_least:
        return "IMPROVEMENT"
    return "NO_REGRESSION" if high < margin and not new_at_least else "INCONCLUSIVE"
