"""The verdict over all metrics, and one sentence that explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .decision import Finding, Options, VerdictName
from .metrics import Metric
from .sides import Side
from .statistics import RUNS_NEEDED_MAX

NOTHING_SHOWN = "no difference was shown in either direction"
RUNS_MIN = 4
"""Minimum number of runs per side. With fewer, no change can be excluded at an alpha of 0.05."""


def change_text(value: float, metric: Metric) -> str:
    """Return a change as text: `+12.0%`, `2.50x` from +100% on, or for shares `+0.30 pt` (percentage points).

    An infinite change, which is an open bound of an interval, is `any` or `any less`.
    """
    if math.isinf(value):
        return "any" if value > 0 else "any less"
    if not metric.is_latency:
        return f"{100 * value:+.2f} pt"
    return f"{100 * value:+.1f}%" if abs(value) < 1 else f"{1 + value:.2f}x"


def _named(finding: Finding) -> str:
    return f"{finding.metric.name} of {finding.metric.route or 'all requests'}"


def overall(
    findings: Sequence[Finding],
    reasons: Sequence[str],
    doubts: Sequence[str],
    base: Side,
    new: Side,
    options: Options,
) -> tuple[VerdictName, str]:
    """Return the verdict over all metrics, and one sentence that explains it."""
    by_verdict = {
        v: [f for f in findings if f.verdict == v] for v in ("REGRESSION", "IMPROVEMENT", "INCONCLUSIVE")
    }
    if reasons:
        worst = max(findings, key=lambda finding: finding.change / options.margin(finding.metric))
        seen = f"{_named(worst)} {change_text(worst.change, worst.metric)}"
        about = f"the largest observed change is {seen}, which may be due to chance"
        more = _runs_wanted(findings, "comparable ")
        return "INCONCLUSIVE", f"{NOTHING_SHOWN}: nothing can be concluded: {reasons[0]}; {more}; {about}"
    if slower := by_verdict["REGRESSION"]:
        worst = max(slower, key=lambda finding: finding.change / options.margin(finding.metric))
        more = f", and {len(slower) - 1} more of {len(findings)} metrics" if len(slower) > 1 else ""
        least = change_text(worst.low, worst.metric)
        say = f"{new.label} is worse than {base.label}: {_named(worst)} {change_text(worst.change, worst.metric)}"
        return "REGRESSION", f"{say} (at least {least}){more}"
    if by_verdict["INCONCLUSIVE"] or doubts:
        undecided = _undecided(by_verdict["INCONCLUSIVE"], findings, doubts, base, new, options)
        improved = len(by_verdict["IMPROVEMENT"])
        shown = (
            f"{improved} of {len(findings)} metrics improved, but a question is open"
            if improved
            else NOTHING_SHOWN
        )
        return "INCONCLUSIVE", f"{shown}: {undecided}"
    latencies = [f for f in findings if f.metric.is_latency] or list(findings)
    bound = max(latencies, key=lambda finding: finding.high)
    what = "slowdown" if bound.metric.is_latency else "increase"
    fits = f"the largest {what} compatible with these runs is {change_text(bound.high, bound.metric)} ({_named(bound)})"
    if better := by_verdict["IMPROVEMENT"]:
        best = min(better, key=lambda finding: finding.change)
        return (
            "IMPROVEMENT",
            f"{new.label} is better: {_named(best)} {change_text(best.change, best.metric)}; {fits}",
        )
    return (
        "NO_REGRESSION",
        f"{new.label} {_worse('is not', 'does not have', base, bound, options)} or more: {fits}",
    )


def _worse(slower: str, more: str, base: Side, finding: Finding, options: Options) -> str:
    """Return `SLOWER slower than BASE by N%` for a latency, and `MORE more errors than BASE by N points` for errors."""
    if finding.metric.is_latency:
        return f"{slower} slower than {base.label} by {100 * options.tolerance:g}%"
    return f"{more} more errors than {base.label} by {100 * options.error_tolerance:g} points"


def _runs_wanted(findings: Sequence[Finding], kind: str = "") -> str:
    """Return a sentence on how many runs per side decide all these metrics; RUNS_MIN is the minimum."""
    needed = [finding.runs_needed for finding in findings]
    if None in needed:
        return f"even {RUNS_NEEDED_MAX} {kind}runs per side would not decide it: find out why runs differ"
    return (
        f"about {max([RUNS_MIN, *(n for n in needed if n is not None)])} {kind}runs per side would decide it"
    )


def _undecided(
    found: Sequence[Finding],
    findings: Sequence[Finding],
    doubts: Sequence[str],
    base: Side,
    new: Side,
    options: Options,
) -> str:
    if not found:
        more = _runs_wanted(findings, "whole ")
        return f"no slowdown was found, but not everything could be judged: {doubts[0]}; {more}"
    widest = max(found, key=lambda finding: finding.high / options.margin(finding.metric))
    say = f"these runs cannot tell whether {new.label} {_worse('is', 'has', base, widest, options)}"
    if math.isinf(widest.high):
        least = f"; {RUNS_MIN} per side are needed" if min(len(base.runs), len(new.runs)) < RUNS_MIN else ""
        few = f"too few runs ({len(base.runs)} and {len(new.runs)}{least})"
        return f"{say}: {few}; {_runs_wanted(found)}"
    say += f": {_named(widest)} may be {change_text(widest.high, widest.metric)}"
    return f"{say}; {_runs_wanted(found)}"
