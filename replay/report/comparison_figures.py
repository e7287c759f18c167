"""The charts of a comparison: changes and single runs on a ratio axis, and the distributions of both sides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from replay.comparison.decision import Finding
from replay.comparison.sides import Side
from replay.ledger.histogram import Histogram
from replay.units import format_latency, format_number

from .axes import Axis, change_label, count_axis, latency_axis, latency_label, padded
from .charts import BLUE, GREEN, GREY, ORANGE, RED, YELLOW, Chart
from .figures import binned, spectrum

_FINDING_COLOURS = {"REGRESSION": RED, "INCONCLUSIVE": YELLOW}
BINS_PER_DECADE = 20
DOTS_NAMED = 200
"""The most runs whose dots have a label. More labels would make the page too large."""

REACH_MAX = 20.0
"""The largest ratio for which the axis has room, and the reciprocal of the smallest one.

Other ratios are drawn at the edge, because an interval may be unbounded.
"""


def changes(findings: Sequence[Finding], base: Side, new: Side, tolerance: float) -> Chart | None:
    """Draw the change of each latency with its interval on a ratio axis, with a dot for each run that measured it.

    The dot of a run shows its figure relative to the baseline's mean. None without latencies.
    """
    rows = [finding for finding in findings if finding.metric.is_latency]
    if not rows:
        return None
    runs = [[_ratios(side, finding) for side in (base, new)] for finding in rows]
    finite = [
        1 + value for f in rows for value in (f.change, f.low, f.high) if math.isfinite(value) and value > -1
    ]
    finite += [ratio for row in runs for side in row for ratio, _ in side]
    finite += [1 + tolerance, 1 / (1 + tolerance)]
    low, high = max(min(finite), 1 / REACH_MAX), min(max(finite), REACH_MAX)
    low, high = padded(low, high, is_log=True, by=0.06)
    plot = Chart(
        Axis(
            low,
            high,
            f"{new.label} beside {base.label}: slower to the right",
            is_log=True,
            label=change_label,
        ),
        Axis(-len(rows) + 0.4, 0.6, bare=True),
        height=46 * len(rows) + 8,
        rows=[f"{finding.metric.where} {finding.metric.name}" for finding in rows],
    )
    plot.shade(1 / (1 + tolerance), 1 + tolerance, GREY, f"tolerance {100 * tolerance:g}%")
    plot.rule_x(1.0, GREY, dash=None)
    for number, finding in enumerate(rows):
        colour = _FINDING_COLOURS.get(finding.verdict, GREEN)
        ends = [min(max(1 + value, low), high) for value in (finding.low, finding.high)]
        plot.line([(ends[0], -number + 0.24), (ends[1], -number + 0.24)], colour, width=3)
        at = min(max(1 + finding.change, low), high)
        plot.dots([(at, -number + 0.24, finding.metric.name)], colour, size=10)
    plot.key("change with its interval", GREY, "line")
    many = sum(len(side) for row in runs for side in row) > DOTS_NAMED
    for side, colour, at, by_side in ((base, BLUE, -0.08, 0), (new, ORANGE, -0.28, 1)):
        dots = [
            (min(max(ratio, low), high), -number + at, "" if many else hover_text)
            for number, row in enumerate(runs)
            for ratio, hover_text in row[by_side]
        ]
        plot.dots(dots, colour, f"runs of {side.label}", size=7)
    return plot


def _ratios(side: Side, finding: Finding) -> list[tuple[float, str]]:
    """Return the figure of each run that measured it as a ratio to the baseline's mean, and its label."""
    metric = finding.metric
    found = []
    for run in side.runs:
        value = run.quantile(metric.kind, metric.percentile or 50.0, metric.route)
        if value is not None and finding.base > 0:
            hover_text = f"{run.name}: {'≥' if value.at_least else ''}{format_latency(value.ns)}"
            found.append((max(value.ns, 1) / finding.base, hover_text))
    return found


def both_spectra(base: Side, new: Side, kind: str) -> Chart | None:
    """Draw the percentiles of both builds: for each side the geometric mean of its runs, and a band.

    The band is the range of the runs, or the interval of a single run. None without requests.
    """
    lines = []
    for side, colour in ((base, BLUE), (new, ORANGE)):
        found = [run.measured.histogram(kind) for run in side.runs]
        lines.append((side.label, [h for h in found if h is not None], float(side.runs[0].scale), colour))
    return spectrum(lines, title=kind)


def distributions(base: Side, new: Side, kind: str, route: str) -> Chart | None:
    """Draw the latency distributions of both sides. None if neither side has requests.

    A tick's label shows the latency, and its ratio to the first side's median.
    """
    sides = [
        (side.label, colour, *_spread(side, kind, route)) for side, colour in ((base, BLUE), (new, ORANGE))
    ]
    sides = [side for side in sides if side[2].size]
    if not sides:
        return None
    low = min(int(bins[0]) for _, _, bins, _, _ in sides)
    high = max(int(bins[-1]) for _, _, bins, _, _ in sides) + 1
    edges = 10.0 ** (np.arange(low, high + 1) / BINS_PER_DECADE)
    top = max(float(shares.max()) for _, _, _, shares, _ in sides)
    plot = Chart(_ratio_axis(edges, kind, sides[0]), count_axis(100 * top, "% of the requests"), height=170)
    for label, colour, bins, shares, count in sides:
        heights = np.zeros(high - low)
        heights[bins - low] = 100 * shares
        steps = [(float(edges[0]), 0.0)]
        for at, value in enumerate(heights):
            steps += [(float(edges[at]), float(value)), (float(edges[at + 1]), float(value))]
        steps.append((float(edges[-1]), 0.0))
        plot.line(steps, colour, f"{label}: {count:,} requests", width=1.8, fill=True)
    return plot


def _ratio_axis(edges: np.ndarray, kind: str, first: tuple[str, str, np.ndarray, np.ndarray, int]) -> Axis:
    """Return a logarithmic latency axis whose labels have a second line: the ratio to the first side's median."""
    label, _, bins, shares, _ = first
    middle = bins[int(np.searchsorted(np.cumsum(shares), 0.5))]
    median_ns = 10.0 ** ((middle + 0.5) / BINS_PER_DECADE)

    def named(value_ns: float, step_ns: float) -> tuple[str, ...]:
        return (*latency_label(value_ns, step_ns), f"{format_number(value_ns / median_ns, 2)}×")

    axis = latency_axis(edges[0], edges[-1], f"{kind}; below: times the median of {label}")
    return dataclasses.replace(axis, label=named)


def _spread(side: Side, kind: str, route: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the distribution over all runs of a side.

    The result is the bins with requests, the share of the requests in each, and the number of requests.
    """
    total: dict[int, float] = {}
    for run in side.runs:
        histogram: Histogram | None = run.measured.histogram(kind, route)
        if histogram is None or not histogram.count:
            continue
        for place, count in zip(*binned(histogram, run.scale, BINS_PER_DECADE), strict=True):
            total[int(place)] = total.get(int(place), 0.0) + float(count)
    bins = np.array(sorted(total), np.int64)
    counts = np.array([total[int(at)] for at in bins])
    return bins, counts / max(counts.sum(), 1.0), round(counts.sum())


def runs_in_order(base: Side, new: Side, kind: str) -> Chart | None:
    """Draw p50 and p99 of every run in the order of the runs, which shows drift and outliers.

    None with fewer than three runs, if a start time is unknown, or if no run measured the latency.
    """
    runs = [(run.started_ns, side, run) for side in (base, new) for run in side.runs]
    if len(runs) < 3 or any(started is None for started, _, _ in runs):
        return None
    runs.sort(key=lambda each: each[0] or 0)
    found: list[tuple[Side, float, str, list[tuple[float, float, str]]]] = []
    for side, colour in ((base, BLUE), (new, ORANGE)):
        for percentile in (50.0, 99.0):
            dots = [
                (
                    float(number),
                    float(max(value.ns, 1)),
                    f"{run.name}: p{percentile:g} {format_latency(value.ns)}",
                )
                for number, (_, owner, run) in enumerate(runs, 1)
                if owner is side and (value := run.quantile(kind, percentile)) is not None
            ]
            found.append((side, percentile, colour, dots))
    values = [value for *_, dots in found for _, value, _ in dots]
    if not values:
        return None
    across = Axis(0.5, len(runs) + 0.5, "runs in the order they were made", label=_whole)
    plot = Chart(across, latency_axis(min(values), max(values), kind))
    for side, percentile, colour, dots in found:
        if dots:
            plot.dots(dots, colour, f"{side.label} p{percentile:g}", filled=percentile < 90)
    return plot


def _whole(value: float, step: float) -> tuple[str, ...]:
    """Format the number of a run; empty for a tick between two runs."""
    return (f"{value:g}",) if value == int(value) else ("",)
