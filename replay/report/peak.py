"""A climb, or a surge, as one HTML page: load against latency and failures, up and down; what came before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    FixedTicker,
    HoverTool,
    NumeralTickFormatter,
    Span,
)

from replay.ledger.statuses import STATUS_DIFFERS, SUSPECT_SHARE
from replay.peaks.climb import Climb
from replay.peaks.recovery import WATCH_TIMES, Recovery
from replay.peaks.search import Trial
from replay.results.measured import FAILED
from replay.results.run import Run
from replay.settings.bare_times import bare_time_notes
from replay.settings.scenario import Scenario
from replay.trace import Manifest
from replay.units import (
    format_duration,
    format_latency,
    format_rate,
    format_share,
)

from .facts import reasons, rejected_words
from .figures import (
    BLUE,
    GREEN,
    GREY,
    MS,
    ORANGE,
    RED,
    errors,
    in_ms,
    latency_axis,
    new_figure,
    over_time,
    rates,
    with_legend,
)
from .html import (
    Figure,
    Section,
    headline,
    html_table,
    write_page,
)

_STAGES = {"up": BLUE, "hold": GREEN, "down": ORANGE}
_WORDS = {"up": "the way up", "hold": "held", "down": "the way down"}
_LEAST_MS = 1e-3


def trial_cells(trial: Trial) -> list[str]:
    """A trial in words: stage, load, rate, p50, p99, failed, objectives."""
    said = "generator limited" if trial.generator_limited else "met" if trial.ok else "missed"
    if not trial.ok and not trial.generator_limited:
        missed = ", ".join(goal for goal, passed in trial.passed.items() if not passed)
        said += f": {trial.status_failure}" if trial.status_failure else f" {missed}"
    return [
        trial.stage,
        f"{trial.load:.3g}",
        format_rate(trial.rate_per_s),
        *("-" if value is None else format_latency(value) for value in (trial.p50_ns, trial.p99_ns)),
        format_share(trial.failed_share),
        said,
    ]


def trial_line(trial: Trial) -> str:
    """A trial as it is told when it has ended."""
    stage, load, rate, p50, p99, failed, said = trial_cells(trial)
    return f"{stage} {load} times, {rate}: p50 {p50}, p99 {p99}, {failed} failed: {said}"


def rate_at(found: Climb, load: float) -> str:
    """The rate at a load that was tried."""
    rates = [trial.rate_per_s for trial in found.trials if trial.load == load]
    return format_rate(median(rates)) if rates else "-"


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """The way up by load, then what came after it as it came; no probes."""
    up = sorted((trial for trial in trials if trial.stage == "up"), key=lambda trial: trial.load)
    return [*up, *(trial for trial in trials if trial.stage in ("hold", "down"))]


def climb_facts(found: Climb) -> list[tuple[str, str]]:
    """What a climb has found, but for its first sentence."""
    facts = [] if found.window is None else [("window", found.window.words)]
    if not math.isinf(found.above):
        facts.append(("missed at", f"{found.above:.3g} times, {rate_at(found, found.above)}"))
    if found.held is not None:
        facts.append(("held", _held(found)))
    if found.hysteresis is not None:
        lower = format_share(found.hysteresis)
        facts.append(
            ("hysteresis", f"{lower} below the peak on the way down" if found.hysteresis else "none")
        )
    if found.recovery != "UNKNOWN":
        after_s = found.recovered_after_s
        after = "" if after_s is None else f" after {after_s:.1f} s" if after_s else " at once"
        facts.append(("overload", found.recovery + after))
    slow = [cool_down for cool_down in found.cool_downs if cool_down.took_s]
    if slow:
        slowest = max(slow, key=lambda cool_down: cool_down.took_s or 0.0)
        facts.append(("cool-down", f"up to {slowest.took_s:.1f} s, after {slowest.load:.3g} times"))
    baseline = next((trial for trial in found.trials if trial.differs_share > SUSPECT_SHARE), None)
    if baseline is not None and baseline is found.trials[0]:
        share = format_share(baseline.differs_share)
        facts.append(
            (STATUS_DIFFERS, f"{share} of the responses are worse than recorded at the lowest load already")
        )
    if found.contradictions:
        loads = ", ".join(f"{load:.3g}" for load in found.contradictions)
        facts.append(("contradictions", f"met again at {loads}, above a load that missed them"))
    return facts


def _held(found: Climb) -> str:
    if found.held:
        return "yes"
    only = "no: it met them only for the length of a trial"
    tried = [trial.load for trial in found.trials if trial.stage == "hold"]
    if found.held_load is not None:
        return f"{only}; {found.held_load:.3g} times, {rate_at(found, found.held_load)}, was held"
    return only if len(tried) == 1 else f"{only}, and {tried[-1]:.3g} times was not held either"


def surge_facts(found: Recovery, times: float, trigger_ns: int) -> list[tuple[str, str]]:
    """What a surge was, and what it did."""
    facts = [
        ("surge", f"{times:g} times the baseline for {format_duration(trigger_ns)}"),
        ("baseline", f"p50 {format_latency(found.baseline_p50_ns)}"),
    ]
    if found.window:
        facts.append(("window", found.window))
    if found.verdict == "UNSTEADY":
        slower = "before the surge already it got slower all the time (replay peak finds what it carries)"
        return [*facts, ("verdict", f"UNSTEADY: {slower}")]
    harm = f"{found.bad_s:.0f} s unlike the baseline"
    if found.suffered:
        harm += f", {found.suffered:,} requests in them"
    recovered = found.after_s is not None and found.verdict != "NOT_HARMED"
    after = f" {found.after_s:.0f} s after its end" if recovered else ""
    return [
        *facts,
        ("harm", harm),
        ("failed", f"{found.failed:,} requests since it began"),
        ("verdict", found.verdict + after),
    ]


def _load_plot(found: Climb, label: str, value: Callable[[Trial], float | None], **more: Any) -> Any:
    """Load against a figure: each trial a dot, a line through the median of each load, a line a way."""
    plot = new_figure("times the recording", label, x_axis_type="log", **more)
    shown = in_order(found.trials)
    loads = sorted({trial.load for trial in shown})
    if found.peak and not math.isinf(found.above):
        plot.add_layout(BoxAnnotation(left=found.above, fill_color=RED, fill_alpha=0.07, line_color=None))
        plot.add_layout(
            Span(
                location=found.peak, dimension="height", line_color=GREEN, line_dash="dashed", line_width=1.5
            )
        )
    for stage, colour in _STAGES.items():
        chosen = [(trial, at) for trial in shown if trial.stage == stage and (at := value(trial)) is not None]
        if not chosen:
            continue
        by_load: dict[float, list[float]] = {}
        for trial, at in chosen:
            by_load.setdefault(trial.load, []).append(at)
        line = sorted((load, median(values)) for load, values in by_load.items())
        if len(line) > 1:
            plot.line(*zip(*line, strict=True), color=colour, legend_label=_WORDS[stage], line_width=2)
        source = ColumnDataSource(
            {
                "load": [trial.load for trial, _ in chosen], "value": [at for _, at in chosen],
                "rate": [format_rate(trial.rate_per_s) for trial, _ in chosen],
                "said": [trial_cells(trial)[-1] for trial, _ in chosen],
                "fill": [colour if trial.ok else None for trial, _ in chosen],
            }
        )  # fmt: skip
        dots = plot.scatter(
            "load", "value", source=source, line_color=colour, fill_color="fill", legend_label=_WORDS[stage], size=8,
            line_width=1.5,
        )  # fmt: skip
        tips = [(_WORDS[stage], "@load{0.[00]} times, @rate"), (label, "@value{0,0.[00]}"), ("", "@said")]
        plot.add_tools(HoverTool(renderers=[dots], tooltips=tips))
    _name_loads(plot, loads)
    values = [at for trial in shown if (at := value(trial)) is not None and at > 0]
    if more.get("y_axis_type") == "log" and values:
        latency_axis(plot, min(values), max(values))
        plot.yaxis.axis_label = label.partition(",")[0]
    return with_legend(plot)


def _name_loads(plot: Any, loads: Sequence[float]) -> None:
    """Ticks at powers of two, where a climb goes."""
    if loads:
        low, high = math.floor(math.log2(loads[0])), math.ceil(math.log2(loads[-1]))
        plot.xaxis.ticker = FixedTicker(ticks=[2.0**power for power in range(low, high + 1)])
        plot.xaxis.formatter = NumeralTickFormatter(format="0.[000]")


def _latency(percentile: str) -> Callable[[Trial], float | None]:
    def ms(trial: Trial) -> float | None:
        value = getattr(trial, percentile)
        return None if value is None else max(value / MS, _LEAST_MS)

    return ms


def _failed(found: Climb) -> str:
    """Why a peak that was found is no good news; empty where it is."""
    if found.recovery == "DID_NOT_RECOVER":
        return "FAILED: the target did not come back from the overload"
    return "The peak could not be held" if found.held is False and found.held_load is None else ""


def recording_facts(manifest: Manifest, scenario: Scenario) -> list[tuple[str, str]]:
    """What to know of the recording and of the settings before the figures: rejected lines, times without a unit."""
    lines, rejected = manifest.unread()
    unread = rejected_words(sum(rejected.values()), lines)
    return [
        *([("recording", unread + reasons(rejected))] if unread else []),
        *(("note", note) for note in bare_time_notes(scenario)),
    ]


def write_peak_page(found: Climb, sentence: str, path: Path, before: Sequence[tuple[str, str]] = ()) -> None:
    """Write the page to `path`; the facts `before` stand above what was found. OutputError where it cannot be."""
    trials = in_order(found.trials)
    notes = [f"{name}: {words}" for name, words in [*before, *climb_facts(found)]]
    names = ("", "times", "rate", "p50", "p99", "failed", "objectives")
    legend = "A filled dot met every objective, an empty one missed some. Dashed: the peak; shaded: missed."
    failed = (
        _load_plot(found, "failed, %", lambda trial: 100 * trial.failed_share)
        if any(trial.failed_share for trial in trials)
        else None
    )
    sections: list[Section] = [
        headline(found.verdict, sentence, notes, failed=_failed(found)),
        Figure(
            "99 of 100 answered within, by load", legend,
            _load_plot(found, "p99, ms", _latency("p99_ns"), y_axis_type="log"),
        ),
        Figure(
            "Half answered within, by load", "",
            _load_plot(found, "p50, ms", _latency("p50_ns"), y_axis_type="log"),
        ),
        Figure("Failed, by load", "", failed, nothing="No request failed."),
        Figure("Answered well, by load", "", _load_plot(found, "a second", lambda trial: trial.done_per_s)),
        html_table(names, [trial_cells(trial) for trial in trials], "Trials"),
    ]  # fmt: skip
    write_page(path, "replay: peak", "The highest load that is survived", sections)


def write_surge_page(
    found: Recovery,
    run: Run,
    times: float,
    trigger_ns: int,
    path: Path,
    before: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page of a surge to `path`, the facts `before` above. OutputError where it cannot be."""
    facts = surge_facts(found, times, trigger_ns)
    rows = run.timeline()
    series = [("p99", in_ms("response_p99_ns"), ORANGE), ("p50", in_ms("response_p50_ns"), BLUE)]
    in_flight = over_time(rows, [("in flight", lambda row: row.in_flight, BLUE)], "requests")
    made = {
        "Due, sent, done": rates(rows),
        "Response over time": over_time(rows, series, "ms"),
        "In flight": in_flight,
        "Failed": errors(rows, FAILED),
    }
    from_s = trigger_ns / 1e9
    for plot in made.values():
        if plot is not None:
            _mark_surge(plot, from_s, 2 * from_s, found.after_s)
    sentence = facts[0][1]
    notes = [f"{name}: {words}" for name, words in [*before, *facts[1:-1]]]
    legend = "Shaded: the surge."
    if found.verdict == "RECOVERED":
        sentence += f"; all was as before {found.after_s:.0f} s after its end"
        legend += " Dashed: from here on all was as before."
    elif found.verdict == "DID_NOT_RECOVER":
        sentence += f"; {WATCH_TIMES * from_s:.0f} s after its end it was not as before"
    elif found.verdict == "UNSTEADY":
        sentence += ", which it did not carry before either"
    figures = [Figure(name, legend, plot, nothing="None.") for name, plot in made.items()]
    write_page(
        path, "replay: surge", "Recovery from a surge", [headline(found.verdict, sentence, notes), *figures]
    )


def _mark_surge(plot: Any, from_s: float, until_s: float, after_s: float | None) -> None:
    plot.add_layout(
        BoxAnnotation(left=from_s, right=until_s, fill_color=GREY, fill_alpha=0.14, line_color=None)
    )
    if after_s is not None:
        plot.add_layout(
            Span(location=until_s + after_s, dimension="height", line_color=GREEN, line_dash="dashed")
        )
