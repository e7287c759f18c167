"""A two-state Markov-modulated Poisson process with the burstiness of a recording, fitted to its IDC.

IDC(t) = 1 + A [1 - (1 - exp(-r t)) / (r t)], A = 2 (l1 - l2)^2 r1 r2 / [r^2 (l1 r2 + l2 r1)], r = r1 + r2
(Heffes and Lucantoni 1986): l1 and l2 are the rates of its states, r1 and r2 the rates of leaving them. IDC
determines A and r. Many processes have the same A and r. We use the one that is in its busy state for half of
the time, or for less if the rate of the quiet state would otherwise be negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from replay import units
from replay.errors import InputError
from replay.trace import Trace
from replay.units import SECOND_NS

from .fidelity import WINDOWS_LEAST, dispersions

FITTED_S = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 60)
"""Widths in seconds of the windows whose IDC is fitted."""

WINDOWS_FITTED_LEAST = 4
_WORST_FIT = 0.5


@dataclass(frozen=True, slots=True)
class Mmpp2:
    """The arrival rates of the process's two states, and the rates of leaving them, per second.

    `error` is the largest relative error of its IDC among the fitted windows.
    """

    mean_per_s: float
    l1: float
    l2: float
    r1: float
    r2: float
    error: float = 0.0

    def idc(self, window_s: float) -> float:
        """Return the index of dispersion for counts in windows of this width."""
        r = self.r1 + self.r2
        a = (
            2
            * (self.l1 - self.l2) ** 2
            * self.r1
            * self.r2
            / (r**2 * (self.l1 * self.r2 + self.l2 * self.r1))
        )
        return 1 + a * _grown(r * window_s)

    def modulation(self) -> npt.NDArray[np.float64]:
        """Return the factors on the mean rate, and the mean dwell times (ns), of both states, for the kernel."""
        return np.array(
            [self.l1 / self.mean_per_s, self.l2 / self.mean_per_s, SECOND_NS / self.r1, SECOND_NS / self.r2]
        )


def _grown(rt: float) -> float:
    """Compute 1 - (1 - exp(-rt)) / rt, without loss of precision for small rt."""
    return rt / 2 - rt * rt / 6 if rt < 1e-4 else 1 + math.expm1(-rt) / rt


def fit_idc(windows_s: list[float], idcs: list[float], mean_per_s: float) -> Mmpp2 | None:
    """Return the process with the smallest maximum relative error of IDC.

    None if an IDC is at most 1, if the last one is less than 2% above the first, or if every process has an error
    above one half.
    """
    if min(idcs) <= 1 or idcs[-1] < 1.02 * idcs[0]:
        return None
    best = (math.inf, 0.0, 0.0)
    for r in np.geomspace(1e-4, 1e2, 1_201).tolist():
        ratios = [(idc - 1) / _grown(r * width) for width, idc in zip(windows_s, idcs, strict=True)]
        for a in np.geomspace(min(ratios), max(ratios), 41).tolist():
            error = max(
                abs(1 + a * _grown(r * width) - idc) / idc for width, idc in zip(windows_s, idcs, strict=True)
            )
            best = min(best, (error, r, a))
    error, r, a = best
    if error > _WORST_FIT:
        return None
    relative_variance = a * r / (2 * mean_per_s)
    busy = min(0.5, 1 / (1 + relative_variance))
    deviation = math.sqrt(relative_variance) * mean_per_s
    l1 = mean_per_s + deviation * math.sqrt((1 - busy) / busy)
    l2 = max(0.0, mean_per_s - deviation * math.sqrt(busy / (1 - busy)))
    return Mmpp2(mean_per_s, l1, l2, r * (1 - busy), r * busy, error)


def fit(trace: Trace) -> Mmpp2:
    """Fit the process to a trace's IDC from 1 s to 60 s.

    InputError if the trace is too short or its timestamps are too coarse, or, with the measured values, if no such
    process has its IDC.
    """
    windows = {f"{width} s": width * SECOND_NS for width in FITTED_S}
    found = dispersions(trace, windows)
    if len(found) < WINDOWS_FITTED_LEAST:
        raise InputError(
            f"{trace.path} is too short to fit bursts to, or its timestamps are too coarse:"
            f" it is {units.format_duration(trace.end_ns - trace.start_ns)} long",
            hint=f"it needs at least {WINDOWS_LEAST * FITTED_S[WINDOWS_FITTED_LEAST - 1]} s, with timestamps to the second",
        )
    mean_per_s = trace.rows * SECOND_NS / max(trace.end_ns - trace.start_ns, 1)
    fitted = fit_idc(
        [each.window_ns / SECOND_NS for each in found.values()],
        [each.idc for each in found.values()],
        mean_per_s,
    )
    if fitted is None:
        measured = ", ".join(f"{each.idc:.3g} at {name}" for name, each in found.items())
        raise InputError(
            f"the bursts of {trace.path} do not fit a two-state process (MMPP2): the trace's index of dispersion (IDC) is"
            f" {measured}",
            hint="for an IDC near 1 use --poisson; for an IDC that falls, which means a periodic rate, use --curve",
        )
    return fitted
