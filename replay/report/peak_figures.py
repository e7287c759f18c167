"""The charts of a search for the peak: a figure of each trial by its load, on ascending, held and descending load."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from replay.peaks.climb import Climb
from replay.peaks.search import Trial
from replay.results import slo
from replay.units import format_rate

from .axes import Axis, count_axis, latency_axis, padded, plain_label, times_label
from .charts import BLUE, GREEN, GREY, ORANGE, RED, Chart
from .peak_trials import in_order, trial_cells

_STAGES = {"up": (BLUE, "ascending"), "hold": (GREEN, "held"), "down": (ORANGE, "descending")}

Shown = list[tuple[Trial, float]]
"""Trials, each with the value that a chart shows."""


def latency_by_load(found: Climb, percentile: float) -> Chart | None:
    """Draw a percentile of the response, 50 or 99, by load, with the objectives for that percentile.

    None if no trial has a response.
    """
    field, title = f"p{percentile:g}_ns", f"response p{percentile:g}"

    def ns(trial: Trial) -> float | None:
        value = getattr(trial, field)
        return None if value is None else float(max(value, 1))

    shown, goals = _shown(found, ns), _goals(found)
    values = [at for _, at in shown] + [limit for _, limit, _ in goals]
    plot = _by_load(found, shown, latency_axis(min(values), max(values), title)) if shown else None
    for words, limit, of in goals:
        if plot is not None and of == percentile:
            plot.rule_y(limit, RED, f"objective {words}", named_left=True)
    return plot


def failed_by_load(found: Climb) -> Chart | None:
    """Draw the share of failed requests by load; None if none failed."""
    shown = _shown(found, lambda trial: 100 * trial.failed_share)
    highest = max((at for _, at in shown), default=0.0)
    if not highest:
        return None
    return _by_load(found, shown, Axis(0.0, count_axis(highest, "").high, "failed", label=_percent))


def good_by_load(found: Climb) -> Chart | None:
    """Draw the good responses per second by load; None without trials."""
    shown = _shown(found, lambda trial: trial.done_per_s)
    highest = max((at for _, at in shown), default=0.0)
    return _by_load(found, shown, count_axis(highest, "good responses per second")) if shown else None


def watched_by_load(found: Climb, name: str) -> Chart | None:
    """Draw the mean of a watched figure in each trial, the highest sample at each load, and the limit if it is known.

    None if the figure has no sample.
    """

    def of(field: str) -> Shown:
        return _shown(found, lambda trial: getattr(trial.watched.get(name), field, None))

    shown, highest, limits = of("mean"), of("highest"), [limit for _, limit in of("limit")]
    if not shown:
        return None
    values = [at for _, at in [*shown, *highest]] + limits[-1:]
    plot = _by_load(found, shown, count_axis(max(values), "mean in each trial", min(values)))
    tops: dict[float, float] = {}
    for trial, at in highest:
        tops[trial.load] = max(at, tops.get(trial.load, at))
    plot.line(sorted(tops.items()), GREY, "highest sample", dash="2 3")
    plot.dots([(load, at, f"{load:.3g}×: highest {at:g}") for load, at in tops.items()], GREY, size=5)
    if limits:
        plot.line([(plot.x.low, limits[-1]), (plot.x.high, limits[-1])], GREY, f"limit of {name}", dash="6 4")
    return plot


def _shown(found: Climb, value: Callable[[Trial], float | None]) -> Shown:
    return [(trial, at) for trial in in_order(found.trials) if (at := value(trial)) is not None]


def _by_load(found: Climb, shown: Shown, up: Axis) -> Chart:
    """Draw a figure by load: a dot for each trial, and for each stage a line through the medians of its loads."""
    loads = [trial.load for trial, _ in shown]
    low, high = padded(min(loads), max(loads), is_log=True, by=0.04)
    plot = Chart(
        Axis(low, high, "load: times the recorded one, or the scenario's", is_log=True, label=times_label), up
    )
    if found.peak and not math.isinf(found.above):
        plot.shade(min(found.above, high), high, RED, "objectives missed", opacity=0.08)
        plot.rule_x(found.peak, GREEN, "peak")
    for stage, (colour, words) in _STAGES.items():
        chosen = [(trial, at) for trial, at in shown if trial.stage == stage]
        if chosen:
            _stage(plot, chosen, colour, words)
    return plot


def _stage(plot: Chart, chosen: Sequence[tuple[Trial, float]], colour: str, words: str) -> None:
    """Add the trials of one stage (up, hold or down). A dot is filled if the trial met every objective."""
    by_load: dict[float, list[float]] = {}
    for trial, at in chosen:
        by_load.setdefault(trial.load, []).append(at)
    line = sorted((load, median(values)) for load, values in by_load.items())
    if len(line) > 1:
        plot.line(line, colour, width=1.6)
    for is_met in (True, False):
        dots = [
            (trial.load, at, f"{trial.load:.3g}×, {format_rate(trial.rate_per_s)}: {trial_cells(trial)[-1]}")
            for trial, at in chosen
            if trial.ok == is_met
        ]
        plot.dots(dots, colour, words if is_met else "", filled=is_met, size=8)


def _goals(found: Climb) -> list[tuple[str, float, float]]:
    """Return the objectives for percentiles of the response of all requests: text, limit, percentile."""
    texts = list(found.trials[0].passed) if found.trials else []
    return [
        (each.text, each.limit, each.percentile)
        for each in slo.parse_known(texts)
        if each.percentile is not None and not each.route and each.metric == "response"
    ]


def _percent(value: float, step: float) -> tuple[str, ...]:
    return (f"{plain_label(value, step)[0]}%",)
