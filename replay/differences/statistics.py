"""Finds the fields that differ more between builds than between runs of one build.

Errors are controlled over all fields together, and the run is the unit. For each field t = (mean rate across - mean
rate within base) / (spread within base + 1/pairs). The rates are those of every two runs, the spread is the standard
deviation of the rates within base, and 1/pairs is the rate of one differing response. All labellings with the same
number of "base" runs are tried, or a random LABELLINGS_MAX of them. p is the share of the tried labellings in which
the largest t of all fields is at least the field's own. With 4 runs per side there are 70 labellings, so p can be as
small as 2/70.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from .counting import run_pairs

ALPHA = 0.05
RUNS_MIN = 4
"""Minimum number of runs per side. With fewer, no labelling is rare enough."""

LABELLINGS_MAX = 20_000
_CELLS_MAX = 20_000_000
_SEED = 20_261_130
_RESERVE = 2.0
_EPSILON = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The result for each field, float64[fields].

    `within` and `across` are mean rates within base and across the sides, `t` is the statistic, and `p` its p-value
    over all fields. `smallest` is the smallest rate of a new difference that would have been detected (infinite:
    none). `needed` is the t that a field must exceed.
    """

    within: np.ndarray
    across: np.ndarray
    t: np.ndarray
    p: np.ndarray
    smallest: np.ndarray
    needed: float
    labellings: int
    exact: bool


def labellings(base: int, new: int) -> tuple[np.ndarray, bool]:
    """Return bool[labellings, runs], true for base, and whether these are all labellings.

    The observed labelling is the first one. If there are more than LABELLINGS_MAX, the others are drawn with a fixed
    seed.
    """
    runs = base + new
    if math.comb(runs, base) <= LABELLINGS_MAX:
        chosen = np.array(list(itertools.combinations(range(runs), base)))
        table = np.zeros((len(chosen), runs), bool)
        np.put_along_axis(table, chosen, True, axis=1)
        return table, True
    rng = np.random.default_rng(_SEED)
    table = np.argsort(rng.random((LABELLINGS_MAX, runs)), axis=1) < base
    table[0] = np.arange(runs) < base
    return table, False


def statistic(rates: np.ndarray, compared: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return t, mean within base, mean across, and spread within base, each float64[fields, labellings].

    `rates` is float64[fields, pairs of runs]. The mean within base is NaN if base is a single run, which has no pair.
    """
    one, two = run_pairs(table.shape[1])
    inside = (table[:, one] & table[:, two]).astype(np.float64).T
    between = (table[:, one] != table[:, two]).astype(np.float64).T
    inside_count, between_count = inside[:, 0].sum(), between[:, 0].sum()
    # The first rate is subtracted, so that the spread of a field with the same rate in every pair is exactly 0.
    shift = rates[:, :1]
    moved = rates - shift
    within = moved @ inside / max(inside_count, 1)
    across = moved @ between / max(between_count, 1)
    squares = moved**2 @ inside - inside_count * within**2
    spread = np.sqrt(np.maximum(squares, 0) / max(inside_count - 1, 1))
    t = (across - within) / (spread + 1 / compared[:, None])
    if not inside_count:
        return t, np.full_like(within, np.nan), across + shift, spread
    return t, within + shift, across + shift, spread


def judge(rates: np.ndarray, compared: np.ndarray, base: int, new: int, alpha: float = ALPHA) -> Judged:
    """Judge the fields of `base` runs that come before `new` runs.

    `compared` is the number of pairs of responses of each field.
    """
    table, exact = labellings(base, new)
    count = len(table)
    fields = len(rates)
    if not fields:
        empty = np.zeros(0)
        return Judged(empty, empty, empty, empty, empty, 0.0, count, exact)
    observed, within, across, spread = (part[:, 0] for part in statistic(rates, compared, table[:1]))
    step = max(1, _CELLS_MAX // fields)
    parts = [statistic(rates, compared, table[at : at + step])[0].max(axis=0) for at in range(0, count, step)]
    largest = np.sort(np.concatenate(parts))
    reached = count - np.searchsorted(largest, observed - _EPSILON * np.maximum(1, np.abs(observed)))
    needed = _critical(largest, float(observed.max()), alpha)
    smallest = _smallest(needed, spread, compared, within, new)
    return Judged(within, across, observed, reached / count, smallest, needed, count, exact)


def _critical(largest: np.ndarray, observed: float, alpha: float) -> float:
    """Return the t that a field must exceed, from the sorted maxima of all labellings.

    The observed labelling is one of those that reach the maximum. With equal numbers of runs on both sides, the
    labelling with the sides swapped reaches it, too, if builds do not scatter. Return infinity if so few labellings
    cannot reach `alpha`.
    """
    allowed = math.floor(alpha * len(largest) + 1e-9) - 2
    if allowed < 0:
        return math.inf
    others = largest[: np.searchsorted(largest, observed)]
    others = np.append(others, largest[len(others) + 1 :])
    return float(others[-1 - allowed]) if len(others) > allowed else 0.0


def _smallest(
    needed: float, spread: np.ndarray, compared: np.ndarray, within: np.ndarray, new: int
) -> np.ndarray:
    """Return the smallest rate that is detected almost surely; infinite if there is none.

    The count of differences varies from run to run. Therefore the expected count must exceed the count that t needs
    by two standard deviations over the new runs.
    """
    if math.isinf(needed):
        return np.full(len(spread), np.inf)
    count = np.maximum(needed, 0) * (spread * compared + 1) + 1
    half = _RESERVE / math.sqrt(new) / 2
    root = half + np.sqrt(half**2 + count)
    with np.errstate(divide="ignore"):
        rate = root**2 / compared / np.maximum(1 - within, 0)
    return np.where(rate <= 1, rate, np.inf)


def smallest_of_equal(judged: Judged, new: int, compared: int) -> float:
    """Return the smallest rate that would have been detected in a field that never differs, in `compared` responses."""
    nothing, count = np.zeros(1), np.array([float(max(compared, 1))])
    return float(_smallest(judged.needed, nothing, count, nothing, new)[0])
