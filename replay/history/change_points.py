"""Finds changes of level in a series of runs: a sequential test with a permutation test of the largest t.

After each build, the runs since the last change are tested for one step, over all candidate builds and all series at
once. The known effects of the machine (its control workload, one level per host, and the levels before earlier
changes) are first removed from the series and from the candidate steps. An alarm needs both tests:

1. The largest |t| passes Student's t with Bonferroni's correction, at the lenient level SCREEN, so that the second
test is rarely needed.
2. At most LEVEL of the permutations of the residuals have a |t| as large anywhere (Freedman and Lane 1983; the
maximum over series and candidates is that of Westfall and Young 1993).

So each look raises a false alarm with a probability of at most LEVEL, for any distribution of the noise. There is one
look per build, so that at most one false alarm in 1 / LEVEL builds is expected, even if the looks depend on each
other. After an alarm the series begins again at the step. A change is therefore found once, and later runs do not
move changes that were found.

From the second host on, the first test is at the stricter level SCREEN_HOSTS, because a false alarm would look as if a
host had caused it. The second test cannot be as strict: 999 permutations show no share below 1 in 1,000. A step may then
be found some runs later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEVEL = 1 / 400
SCREEN = 10 * LEVEL
SCREEN_HOSTS = LEVEL / 25
"""The level of the second test, and those of the first test for runs on one host, and on several hosts."""

PERMUTATIONS = 999
WINDOW = 120
"""Maximum number of runs that a look uses, the newest ones."""

BEFORE_MIN, AFTER_MIN = 4, 3
RUNS_MIN = 12
NEAR = 24
"""All candidates among this number of the newest runs are tried, but only every fourth of the older ones.

The control workload before a step is taken from as many runs.
"""

CONTROL_ERRORS, CONTROL_MOVES_MIN = 3.0, 4
"""A change of the control workload makes a step doubtful only if it is larger than this many of its standard errors.
Otherwise a noisy control workload would make every step doubtful. The standard error counts as 0 if it can be estimated
from fewer differences than the second number.
"""

SHARE_MIN = 0.05
"""A candidate step is confounded with hosts and levels if at most this share of it is left when they are removed."""


@dataclass(frozen=True)
class Series:
    """Runs in order, and their values.

    `values` has a column per series (a logarithm, or a share), NaN for runs that measured nothing. `floors` are the
    smallest changes that count, by series. `control` has logarithms, NaN for runs without a control workload.
    """

    values: Floats
    builds: Sequence[str]
    hosts: Sequence[str]
    control: Floats
    floors: Floats


@dataclass(frozen=True)
class Step:
    """A change that begins with the run `at`, and that was found at the look after the run `found`.

    `sizes` and `t` are by series, NaN for series that were not tested. `doubt` is a key of `trends.DOUBTS`: why the
    step may have another cause than the build; empty if nothing suggests one.
    """

    at: int
    found: int
    sizes: Floats
    t: Floats
    doubt: str = ""


def find_steps(series: Series, seed: int = 0) -> list[Step]:
    """Return every change, including doubtful ones, in the order of the runs."""
    steps: list[Step] = []
    doubtful: list[Step] = []
    start, runs = 0, len(series.builds)
    for end in range(1, runs + 1):
        if end < runs and series.builds[end] and series.builds[end] == series.builds[end - 1]:
            continue
        step = _look(series, start, end, [step.at for step in steps], seed)
        if step is not None:
            doubtful += _confounded(series, start, step.at, seed)
            steps.append(step)
            start = step.at
    return sorted([*steps, *doubtful, *_confounded(series, start, runs, seed)], key=lambda step: step.at)


def _look(series: Series, start: int, end: int, known: list[int], seed: int) -> Step | None:
    """Return the step that the runs from `start` to `end` show; None if there is none, or if it began too recently."""
    first = max(end - WINDOW, 0)
    levels = [np.arange(first, end) >= begin for begin in known if begin > first]
    nuisance = np.column_stack([np.ones(end - first), *levels, *_machines(series, slice(first, end))])
    screen = SCREEN_HOSTS if len(set(series.hosts[:end])) > 1 else SCREEN
    candidates = _candidates(series, max(start, first), end)
    step = _step(series, slice(first, end), candidates, nuisance, seed, screen)
    if step is None or end - step.at < AFTER_MIN:
        return None
    return replace(step, doubt=_doubt(series, first, end, step))


def _confounded(series: Series, start: int, end: int, seed: int) -> list[Step]:
    """Return a step from `start` to `end` that only stands out if the known effects of machines are ignored.

    Its cause is therefore uncertain. The list is empty if there is no such step.
    """
    first = max(end - 4 * WINDOW, start)
    if not _machines(series, slice(first, end)):
        return []
    plain = np.ones((end - first, 1))
    step = _step(series, slice(first, end), _candidates(series, first, end), plain, seed)
    if step is None or end - step.at < AFTER_MIN:
        return []
    return [replace(step, doubt="hosts" if len(set(series.hosts[first:end])) > 1 else "control")]


def _step(
    series: Series,
    rows: slice,
    candidates: npt.NDArray[np.int64],
    nuisance: Floats,
    seed: int,
    screen: float = SCREEN,
) -> Step | None:
    """Return the most significant step among the runs `rows`.

    Return None if there are too few runs, candidates or values, or if chance, `nuisance` or a steady drift explains
    the step.
    """
    values = series.values[rows]
    judged = np.isfinite(values).mean(axis=0) >= 0.9
    if len(values) < RUNS_MIN or not len(candidates) or not judged.any():
        return None
    kept, floors, at = values[:, judged], series.floors[judged], candidates - rows.start
    found = _test(kept, floors, at, nuisance, seed + rows.stop, screen)
    if found is None or _is_drift(kept, found, nuisance, floors, at, seed + rows.stop):
        return None
    sizes, t = (np.full(values.shape[1], np.nan) for _ in range(2))
    sizes[judged], t[judged] = found[1:]
    return Step(rows.start + found[0], rows.stop - 1, sizes, t)


def _doubt(series: Series, first: int, end: int, step: Step) -> str:
    """Return why a step cannot be attributed to its build, as a key of `trends.DOUBTS`; empty if it can."""
    control, begin = series.control, step.at
    before, after = control[max(begin - NEAR, first) : begin], control[begin:end]
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if len(before) and len(after):
        moved = float(np.median(after) - np.median(before))
        largest = float(step.sizes[np.nanargmax(np.abs(step.t))])
        is_seen = abs(moved) > CONTROL_ERRORS * _error_of_medians(before, after)
        if is_seen and abs(moved) >= abs(largest) and moved * largest > 0:
            return "control"
    build = series.builds[begin]
    return "build" if build and build in series.builds[first:begin] else ""


def _error_of_medians(before: Floats, after: Floats) -> float:
    """Return the standard error of the difference of two medians of the control workload; 0 if it is not known.

    It is estimated from the differences between successive measurements. A measurement is kept for a day, so equal
    values count once.
    """
    moves = np.concatenate([np.diff(before), np.diff(after)])
    moves = np.abs(moves[moves != 0])
    if len(moves) < CONTROL_MOVES_MIN:
        return 0.0
    sd = float(np.median(moves)) / (0.6745 * math.sqrt(2))
    return 1.25 * sd * math.sqrt(1 / len(np.unique(before)) + 1 / len(np.unique(after)))


def _candidates(series: Series, start: int, end: int) -> npt.NDArray[np.int64]:
    """Return the runs at which a step may begin: the first of each build, and every run without a label."""
    found = [
        at
        for at in range(start + BEFORE_MIN, end)
        if not series.builds[at] or series.builds[at] != series.builds[at - 1]
    ]
    near = [at for at in found if at >= end - NEAR]
    return np.array(sorted({*near, *[at for at in found if at < end - NEAR][::4]}), np.int64)


def _machines(series: Series, rows: slice) -> list[Floats]:
    """Return the known effects of machines, a column each.

    Every host with several runs has a column, except for the first if no host has a single run. The control workload
    is the last column, if it varies.
    """
    hosts = np.array(series.hosts[rows], object)
    names, counts = np.unique(hosts.astype(str), return_counts=True)
    often = [name for name, count in zip(names, counts, strict=True) if count > 1]
    columns = [(hosts == name).astype(float) for name in often]
    if columns and len(often) == len(names):
        columns = columns[1:]
    control = series.control[rows]
    if np.isfinite(control).any():
        filled = np.where(np.isfinite(control), control, np.nanmean(control))
        if np.ptp(filled) > 0:
            columns.append(filled - filled.mean())
    return columns


def _test(
    values: Floats,
    floors: Floats,
    at: npt.NDArray[np.int64],
    nuisance: Floats,
    seed: int,
    screen: float = SCREEN,
) -> tuple[int, Floats, Floats] | None:
    """Return the place of a step, and its sizes and t by series; None if chance or the nuisance explains it.

    `screen` is the level of the first test. The result is also None if there are too few runs for a test.
    """
    runs = len(values)
    basis, triangle = np.linalg.qr(nuisance)
    basis = basis[:, np.abs(np.diag(triangle)) > 1e-9]
    steps = (np.arange(runs)[:, None] >= at[None, :]).astype(float)
    spread = (steps * (1 - steps.mean(axis=0))).sum(axis=0)
    steps -= basis @ (basis.T @ steps)
    lengths = np.einsum("ij,ij->j", steps, steps)
    free = lengths > SHARE_MIN * spread
    freedom = runs - basis.shape[1] - 1
    if not free.any() or freedom < 4:
        return None
    steps, lengths, at = steps[:, free], lengths[free], at[free]
    residuals = _residuals(values, basis)
    t, sizes = _t(steps, lengths, residuals, floors, freedom)
    best = np.unravel_index(np.argmax(np.abs(t)), t.shape)
    largest = float(np.abs(t[best]))
    if _two_sided(largest, freedom) * t.size > screen:
        return None
    if _share_as_large(steps, lengths, residuals, floors, freedom, basis, largest, seed) > LEVEL:
        return None
    return int(at[best[0]]), sizes[best[0]], t[best[0]]


def _residuals(values: Floats, basis: Floats) -> Floats:
    """Return values with the known effects removed; 0 for missing values."""
    missing = ~np.isfinite(values)
    filled = np.where(missing, 0.0, values)
    if missing.any():
        means = filled.sum(axis=0) / np.maximum((~missing).sum(axis=0), 1)
        filled = np.where(missing, means, filled)
    residuals = filled - basis @ (basis.T @ filled)
    return np.where(missing, 0.0, residuals)


def _t(
    steps: Floats, lengths: Floats, residuals: Floats, floors: Floats, freedom: int
) -> tuple[Floats, Floats]:
    """Return t and the size of a step, by candidate and series. For steps below the floor, t is 0."""
    products = steps.T @ residuals
    sizes = products / lengths[:, None]
    left = np.einsum("ij,ij->j", residuals, residuals)[None, :] - products * sizes
    sd = np.sqrt(np.maximum(left, 0.0) / freedom + (floors / 4) ** 2)
    t = np.where(np.abs(sizes) >= floors, sizes * np.sqrt(lengths)[:, None] / sd, 0.0)
    return t, sizes


def _share_as_large(
    steps: Floats, lengths: Floats, residuals: Floats, floors: Floats, freedom: int, basis: Floats,
    largest: float, seed: int,
) -> float:  # fmt: skip
    """Return the share of permutations of the residuals with a |t| of at least `largest`.

    The function stops and returns 1.0 as soon as the share is certain to be above LEVEL.
    """
    rng = np.random.default_rng(seed)
    above, limit = 1, int(LEVEL * (PERMUTATIONS + 1))
    for _ in range(PERMUTATIONS):
        permuted = residuals[rng.permutation(len(residuals))]
        permuted = permuted - basis @ (basis.T @ permuted)
        t, _ = _t(steps, lengths, permuted, floors, freedom)
        above += float(np.abs(t).max()) >= largest * (1 - 1e-12)
        if above > limit:
            return 1.0
    return above / (PERMUTATIONS + 1)


def _is_drift(
    values: Floats, found: tuple[int, Floats, Floats], nuisance: Floats, floors: Floats, at: npt.NDArray[np.int64],
    seed: int,
) -> bool:  # fmt: skip
    """Return whether a steady drift explains the series better than the step.

    The answer is False if a step remains in the series when the drift is removed.
    """
    place, _, t = found
    one = values[:, [int(np.nanargmax(np.abs(t)))]]
    runs = len(values)
    step = (np.arange(runs) >= place).astype(float)
    line = np.linspace(-1.0, 1.0, runs)
    if _left(one, np.column_stack([nuisance, line])) >= _left(one, np.column_stack([nuisance, step])):
        return False
    return _test(values, floors, at, np.column_stack([nuisance, line]), seed) is None


def _left(values: Floats, nuisance: Floats) -> float:
    basis, _ = np.linalg.qr(nuisance)
    residuals = _residuals(values, basis)
    return float((residuals**2).sum())


def _two_sided(t: float, freedom: int) -> float:
    """Return P(|T| >= t) of Student's t, for a whole number of degrees of freedom.

    The formulas are 26.7.3 and 26.7.4 of Abramowitz and Stegun.
    """
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    if freedom % 2:
        term, total = cosine, cosine if freedom > 1 else 0.0
        for k in range(3, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inside = 2 / math.pi * (angle + math.sin(angle) * total)
    else:
        term = total = 1.0
        for k in range(2, freedom - 1, 2):
            term *= cosine * cosine * (k - 1) / k
            total += term
        inside = math.sin(angle) * total
    return max(1.0 - inside, 0.0)
