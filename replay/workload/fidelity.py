"""How closely a trace resembles a recording: burstiness at each time scale, gaps, sessions and mix.

N(w) counts arrivals in windows of w, with mean m. IDC(w) = Var / m is the index of dispersion for counts
(Gusella 1991); beta(w) = (IDC - 1) / m is the relative variance of the bursts. Scaling the intensity of a Cox
process, or thinning it, leaves beta unchanged, and changes IDC to 1 + k (IDC - 1). Confidence intervals are
95%, by resampling 64 equal parts of the span.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from replay.errors import InputError
from replay.trace import Trace
from replay.units import SECOND_NS
from replay_native.ground.jit import warm
from replay_native.trace import dictionary
from replay_native.workload import dispersion

from .sessions import PAUSE_NS

WINDOWS_NS = {
    "0.01s": SECOND_NS // 100,
    "0.1s": SECOND_NS // 10,
    "1s": SECOND_NS,
    "10s": 10 * SECOND_NS,
    "60s": 60 * SECOND_NS,
}
"""Windows of the report by name, in ns."""

WINDOWS_LEAST = 10
"""A span must contain at least this many windows of a width; otherwise the figures of that width are not computed."""

RESAMPLES = 400
_HURST_BINS, _HURST_LEVELS = 4_096, 7
_CURVE_BINS = 60
_SESSION_BINS = 1 << 20
_POPULAR_MAX = 1 << 20
_ZIPF_RANKS, _ZIPF_ROWS_LEAST = 1_000, 5

Floats = npt.NDArray[np.float64]
Int64s = npt.NDArray[np.int64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Dispersion:
    """Counts in windows of one width: the number of windows, their mean, IDC and beta with confidence intervals."""

    window_ns: int
    windows: int
    mean: float
    idc: float
    beta: float
    idc_interval: Interval
    beta_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """The figures of a trace.

    A figure is None if the trace has too little data or too coarse timestamps for it. Those of gaps are also None if
    all gaps are equal. `gap_histogram` counts gaps in units of their mean. `curve` is the share of the requests in each
    sixtieth of the span, and `routes` is the share of each route.
    """

    rows: int
    span_ns: int
    mean_per_s: float
    dispersion: dict[str, Dispersion | None]
    gap_cv: float | None
    gap_lag_1: float | None
    hurst: float | None
    hurst_r2: float | None
    sessions: int
    sessions_at_once: int
    requests_a_session: float
    zipf_exponent: float | None
    top_percent_share: float
    gap_histogram: Int64s
    curve: Floats
    routes: dict[str, float]


class _Windows:
    """Counts in windows of several widths, by part of the span."""

    def __init__(self, trace: Trace, windows_ns: Mapping[str, int]) -> None:
        span_ns = trace.end_ns - trace.start_ns + 1
        least_ns = trace.manifest.resolution_ns
        self.names = [
            name for name, wide_ns in windows_ns.items()
            if span_ns // wide_ns >= WINDOWS_LEAST and wide_ns >= least_ns
        ]  # fmt: skip
        self.widths = np.array([windows_ns[name] for name in self.names], np.int64)
        self.bins = span_ns // np.maximum(self.widths, 1)
        self._words = np.zeros((len(self.names), 2), np.int64)
        self._sums = np.zeros((len(self.names), dispersion.BLOCKS, 2))

    def add(self, at_ns: Int64s, start_ns: int) -> None:
        dispersion.count_windows(at_ns, start_ns, self.widths, self.bins, self._words, self._sums)

    def end(self) -> dict[str, Dispersion]:
        dispersion.end_windows(self.bins, self._words, self._sums)
        return {name: self._dispersion(index) for index, name in enumerate(self.names)}

    def _dispersion(self, index: int) -> Dispersion:
        bins, sums = int(self.bins[index]), self._sums[index]
        edges = -(-np.arange(dispersion.BLOCKS + 1) * bins // dispersion.BLOCKS)
        sizes = np.diff(edges).astype(np.float64)
        drawn = np.random.Generator(np.random.PCG64(index)).integers(
            0, dispersion.BLOCKS, (RESAMPLES, dispersion.BLOCKS)
        )
        mean, idc, beta = _moments(sizes.sum(), *sums.sum(axis=0))
        _, idcs, betas = _moments(sizes[drawn].sum(axis=1), *np.moveaxis(sums[drawn].sum(axis=1), 1, 0))
        low, high = np.nanpercentile([idcs, betas], [2.5, 97.5], axis=1).T.tolist()
        return Dispersion(
            int(self.widths[index]), bins, float(mean), float(idc), float(beta), tuple(low), tuple(high)
        )


def _moments(windows: Any, total: Any, squares: Any) -> tuple[Any, Any, Any]:
    """Return mean, IDC and beta, from the number of counts, their sum and the sum of their squares."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / windows
        variance = squares / windows - mean * mean
        return mean, variance / mean, (variance - mean) / (mean * mean)


def dispersions(trace: Trace, windows_ns: Mapping[str, int]) -> dict[str, Dispersion]:
    """Measure IDC and beta in windows of these widths (ns), by name.

    A width is left out if the span is too short or the timestamps are too coarse for it.
    """
    warm(["workload.dispersion"])
    windows = _Windows(trace, windows_ns)
    for batch in trace.batches():
        windows.add(batch.at_ns, trace.start_ns)
    return windows.end()


class _Gaps:
    """Computes the figures of the gaps between arrivals, and their histogram."""

    def __init__(self, trace: Trace) -> None:
        self._start_ns = trace.start_ns
        self._mean_ns = max((trace.end_ns - trace.start_ns) / max(trace.rows - 1, 1), 1.0)
        self._words = np.zeros(dispersion.GAP_WORDS)
        self._words[dispersion.LAST_NS] = -1.0
        self.histogram = np.zeros(dispersion.GAP_BINS, np.int64)

    def add(self, at_ns: Int64s) -> None:
        dispersion.count_gaps(at_ns, self._start_ns, self._mean_ns, self._words, self.histogram)

    def end(self) -> tuple[float | None, float | None]:
        """Return the coefficient of variation, and the autocorrelation at lag 1.

        Both are None if there are fewer than three gaps, or if all gaps are equal.
        """
        count, total, squares, lagged, first, last, _ = self._words.tolist()
        mean = total / max(count, 1.0)
        variance = squares / max(count, 1.0) - mean * mean
        if count < 3 or mean == 0 or variance <= 0:
            return None, None
        pairs = count - 1
        covariance = lagged / pairs - (total - first) / pairs * (total - last) / pairs
        return variance**0.5 / mean, covariance / variance


class _Sessions:
    """Counts sessions, and how many are open at once."""

    def __init__(self, trace: Trace) -> None:
        self._start_ns = trace.start_ns
        self._bin_ns = (trace.end_ns - trace.start_ns) // _SESSION_BINS + 1
        self._last_ns = np.full(max(trace.manifest.clients, 1), -1, np.int64)
        self._opened = np.zeros(_SESSION_BINS + 2, np.int64)
        self._words = np.zeros(1, np.int64)

    def add(self, at_ns: Int64s, client: npt.NDArray[np.uint32]) -> None:
        dispersion.count_sessions(
            at_ns, client, self._start_ns, PAUSE_NS, self._bin_ns, self._last_ns, self._opened, self._words
        )

    def end(self) -> tuple[int, int]:
        """Return the number of sessions, and the maximum number open at once."""
        ends = self._last_ns[self._last_ns >= 0] // self._bin_ns + 1
        np.subtract.at(self._opened, ends, 1)
        return int(self._words[0]), int(np.cumsum(self._opened).max(initial=0))


def hurst_exponent(counts: Floats) -> tuple[float | None, float | None]:
    """Return the Hurst parameter H of counts in equal bins, and R^2 of the fit; both None if there is too little data.

    H is estimated from the variance of aggregated counts after removing a cubic trend (Taqqu, Teverovsky,
    Willinger 1995).
    """
    place = np.linspace(-1.0, 1.0, len(counts))
    rest = counts - np.polynomial.Polynomial.fit(place, counts, 3)(place)
    levels, variances = [], []
    for level in range(_HURST_LEVELS):
        size = 1 << level
        means = rest[: len(rest) // size * size].reshape(-1, size).mean(axis=1)
        if means.var() > 0:
            levels.append(np.log(size))
            variances.append(np.log(means.var()))
    if len(levels) < _HURST_LEVELS or counts.mean() < 1:
        return None, None
    slope, base = np.polyfit(levels, variances, 1)
    residual = np.array(variances) - (slope * np.array(levels) + base)
    total = float(np.var(variances))
    r2 = 1.0 - float(np.mean(residual**2)) / total if total > 0 else 1.0
    return float(1.0 + slope / 2.0), r2


def _popularity(weights: Int64s, rows: int) -> tuple[float | None, float]:
    """Return Zipf's exponent of the most popular requests, and the share of all rows that the top 1% of requests has.

    The exponent is None if fewer than ten requests occur at least five times.
    """
    counts = np.sort(weights[weights > 0])[::-1]
    top = counts[: max(1, len(counts) // 100)]
    ranked = counts[:_ZIPF_RANKS]
    ranked = ranked[ranked >= _ZIPF_ROWS_LEAST]
    exponent = None
    if len(ranked) >= 10:
        exponent = -float(np.polyfit(np.log(np.arange(1, len(ranked) + 1)), np.log(ranked), 1)[0])
    return exponent, float(top.sum()) / max(rows, 1)


def measure(trace: Trace, windows_ns: Mapping[str, int] = WINDOWS_NS) -> Fidelity:
    """Read a trace once and compute its figures. InputError if it is empty or damaged."""
    if not trace.rows:
        raise InputError(f"{trace.path} holds no requests: there is nothing to measure")
    warm(["workload.dispersion", "trace.dictionary"])
    windows, gaps, sessions = _Windows(trace, windows_ns), _Gaps(trace), _Sessions(trace)
    span_ns = trace.end_ns - trace.start_ns + 1
    fine, curve = np.zeros(_HURST_BINS, np.int64), np.zeros(_CURVE_BINS, np.int64)
    weights = np.zeros(min(trace.manifest.requests, _POPULAR_MAX), np.int64)
    for batch in trace.batches():
        windows.add(batch.at_ns, trace.start_ns)
        gaps.add(batch.at_ns)
        sessions.add(batch.at_ns, batch.client)
        dictionary.tally(batch.request, weights)
        share = (batch.at_ns - trace.start_ns) / span_ns
        fine += np.bincount((share * _HURST_BINS).astype(np.int64), minlength=_HURST_BINS)
        curve += np.bincount((share * _CURVE_BINS).astype(np.int64), minlength=_CURVE_BINS)
    found = windows.end()
    cv, lag = gaps.end()
    hurst, r2 = hurst_exponent(fine.astype(np.float64))
    count, at_once = sessions.end()
    exponent, top = _popularity(weights, trace.rows)
    return Fidelity(
        rows=trace.rows,
        span_ns=span_ns - 1,
        mean_per_s=trace.rows / max((span_ns - 1) / SECOND_NS, 1e-9),
        dispersion={name: found.get(name) for name in windows_ns},
        gap_cv=cv,
        gap_lag_1=lag,
        hurst=hurst,
        hurst_r2=r2,
        sessions=count,
        sessions_at_once=at_once,
        requests_a_session=trace.rows / max(count, 1),
        zipf_exponent=exponent,
        top_percent_share=top,
        gap_histogram=gaps.histogram,
        curve=curve / trace.rows,
        routes={route.route: route.rows / trace.rows for route in trace.manifest.routes},
    )


@dataclass(frozen=True, slots=True)
class Distance:
    """The distance between two traces.

    It is the Kolmogorov-Smirnov distance for gaps in units of their mean, and the total variation distance for
    the rate over the span and for the mix of routes.
    """

    gaps_ks: float
    curve: float
    routes: float


def distance(one: Fidelity, other: Fidelity) -> Distance:
    """Measure the distances between two traces; each is 0 for equal traces and at most 1."""
    shares = [np.cumsum(each.gap_histogram) / max(each.gap_histogram.sum(), 1) for each in (one, other)]
    names = one.routes.keys() | other.routes.keys()
    return Distance(
        float(np.abs(shares[0] - shares[1]).max()),
        float(np.abs(one.curve - other.curve).sum() / 2),
        sum(abs(one.routes.get(name, 0.0) - other.routes.get(name, 0.0)) for name in names) / 2,
    )


def steps_between(other: Trace, trace: Trace) -> list[dict[str, Any]] | None:
    """Return the steps that derived `trace` from `other`, by their histories; None if it was not derived from it."""
    before, after = other.manifest, trace.manifest
    if (
        before.sources != after.sources
        or before.importer != after.importer
        or after.history[: len(before.history)] != before.history
    ):
        return None
    return after.history[len(before.history) :]


def expected(other: Trace, steps: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Return the IDC and beta expected after these steps, by window; empty if theory gives no answer.

    Windows for which `other` is too short or too coarse are left out.

    Scaling by k, or sampling a share k: IDC becomes 1 + k (IDC - 1), and beta is unchanged. Repeating
    timestamps k times: IDC becomes k IDC. Speed k: a window has the values of a window that was k times as
    wide.
    """
    factors: list[tuple[bool, float]] = []
    speed = 1.0
    for step in steps:
        name, whole = step["transform"], "=" not in step.get("scale", ["="])[0]
        if name == "speed":
            speed *= step["factor"]
        elif name == "sample" and step["by"] == "request":
            factors.append((False, step["share"]))
        elif name == "scale" and whole and step["grow"] in ("requests", "repeat"):
            factors.append((step["grow"] == "repeat", float(step["scale"][0])))
        elif name == "rewrite":
            continue
        else:
            return {}
    windows_ns = {name: round(wide_ns * speed) for name, wide_ns in WINDOWS_NS.items()}
    found = {}
    for name, each in dispersions(other, windows_ns).items():
        idc, mean = each.idc, each.mean
        for repeated, factor in factors:
            idc = factor * idc if repeated else 1.0 + factor * (idc - 1.0)
            mean *= factor
        found[name] = (idc, (idc - 1.0) / mean)
    return found
