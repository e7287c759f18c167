"""Figures of a comparison as text, shared by the terminal, the page and the outputs for CI systems."""

from __future__ import annotations

import math

from replay.units import format_latency, format_share

from .decision import Finding
from .metrics import Metric
from .verdict import Comparison
from .words import change_text


def figure_text(value: float, metric: Metric) -> str:
    """Return the figure of a side as text: a latency, or a share."""
    return format_latency(round(value)) if metric.is_latency else format_share(value)


def interval_text(finding: Finding) -> str:
    """Return an interval such as `+1.2% to +4.5%`, or `unknown` if both bounds are infinite."""
    low, high = (change_text(value, finding.metric) for value in (finding.low, finding.high))
    return "unknown" if math.isinf(finding.low) and math.isinf(finding.high) else f"{low} to {high}"


def caught_text(found: Comparison) -> str:
    """Return a sentence with the smallest slowdown that this comparison can detect; empty if nothing was tested."""
    if not found.findings:
        return ""
    if math.isinf(found.caught):
        return "This comparison can detect no slowdown, however large."
    least = f"+{100 * found.caught:.0f}%"
    return (
        f"The smallest slowdown that this comparison can detect in each of its latencies is "
        f"{least} (with a probability of 80%)."
    )


def runs_text(finding: Finding) -> str:
    """Return how many runs per side would decide a metric (`>999` if 999 would not); empty if it is decided already."""
    if finding.verdict != "INCONCLUSIVE":
        return ""
    return ">999" if finding.runs_needed is None else str(finding.runs_needed)
