"""Compares two sides of runs, from the family of metrics to the verdict.

The steps are: the family of metrics, the design, the test, the decision on each metric, and the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from replay.differences.findings import Differences
from replay.errors import Exit, UsageError
from replay.shown import html_table, shown
from replay.units import format_latency, format_share

from . import statistics, within_run
from .comparable import incomparable, invalid, one_run
from .decision import (
    Finding,
    Options,
    VerdictName,
    decide,
)
from .design import Design, design_of
from .metrics import (
    Family,
    Metric,
    biggest_routes,
    family,
    parse_metric,
)
from .order import Order, order_of, pairs_together
from .responses import responses_of
from .sides import Side, SideRun, load_sides
from .statistics import Inference
from .statuses import judge_statuses
from .words import NOTHING_SHOWN, RUNS_MIN, overall

if TYPE_CHECKING:
    import pyarrow as pa

FEW, UNEQUAL = 8, 1.5
"""A side with fewer than FEW runs has too few to show its own spread if the other side has more than UNEQUAL times as
many."""

EXPONENT_MAX = 700.0


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """The complete result of a comparison.

    `reasons` explain why nothing could be concluded; `notes` are remarks. `responses` is the comparison of responses,
    if the runs kept them; the verdict covers only speed and errors.
    """

    verdict: VerdictName
    sentence: str
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]
    base: Side
    new: Side
    options: Options
    design: str = ""
    labellings: int = 0
    exact: bool = True
    critical_t: float = math.inf
    responses: Differences | None = None

    @property
    def exit_code(self) -> Exit:
        """The exit code: for a regression, for unusable runs, or for another result that `fail_on` contains.

        If a build was not restarted (`of_processes`), a regression counts only if `fail_on` contains `effect`.
        """
        is_guarded = "effect" in self.options.fail_on or not self.options.of_processes
        if self.verdict == "REGRESSION" and is_guarded:
            return Exit.FAILED
        if self.verdict == "INVALID":
            return Exit.INVALID
        answers = self.responses.verdict if self.responses and "different" in self.options.fail_on else ""
        if answers == "DIFFERENT":
            return Exit.FAILED
        is_open = "INCONCLUSIVE" in (self.verdict, answers) and "inconclusive" in self.options.fail_on
        return Exit.INCONCLUSIVE if is_open else Exit.PASSED

    @property
    def caught(self) -> float:
        """The smallest slowdown that the comparison could detect in every latency of the family.

        It is infinite if the comparison could detect none.
        """
        return max((f.caught for f in self.findings if f.metric.is_latency), default=math.inf)

    @property
    def runs_needed(self) -> int | None:
        """The number of runs per side that would decide every metric; None if it is too large or nothing was tested."""
        needed = [finding.runs_needed for finding in self.findings]
        return None if None in needed or not needed else max(n for n in needed if n is not None)

    def to_arrow(self) -> pa.Table:
        """Return the metrics as an Arrow table: the figures of both sides, the change, its interval, and the verdict.

        `base` and `new` are in ns or shares (`unit`). Changes are ratios minus 1, or differences of shares; null
        means not known.
        """
        from .tables import findings_table

        return findings_table(self.findings)

    def __repr__(self) -> str:
        return f"<Comparison {self.verdict}: {shown(self.sentence)}>"

    def _repr_html_(self) -> str:
        """Return the view in a notebook: the verdict, the reasons, and each metric."""
        facts = [("verdict", self.verdict), ("", self.sentence)]
        facts += [("reason", reason) for reason in self.reasons] + [("note", note) for note in self.notes]
        heads = ("route", "metric", self.base.label, self.new.label, "change", "verdict")
        rows = [
            (
                finding.metric.where,
                finding.metric.name,
                *(_shown_figure(value, finding.metric) for value in (finding.base, finding.new)),
                f"{100 * finding.change:+.3g}" + ("%" if finding.metric.is_latency else " points"),
                finding.verdict,
            )
            for finding in self.findings
        ]
        return html_table("Comparison", (), facts) + html_table("Metrics", heads, rows)


def _shown_figure(value: float, metric: Metric) -> str:
    return format_latency(value) if metric.is_latency else format_share(value)


def compare(base: str, new: str, options: Options | None = None) -> Comparison:
    """Compare two sides given as `[LABEL=]PATH[,PATH...]`. Raise the errors of `load_sides` and `compare_sides`."""
    options = options or Options()
    return compare_sides(*load_sides(base, new, options.unit), options)


def compare_sides(
    base: Side, new: Side, options: Options, blocks: Sequence[Sequence[SideRun]] | None = None
) -> Comparison:
    """Compare loaded sides. `blocks` are groups of runs within which the labels were randomised.

    Raise UsageError if a metric is unknown, if the runs do not fit the requested design, or if `fail_on` contains
    `different` but the responses cannot be compared.
    """
    found = _compare_speed(base, new, options, blocks)
    if found.verdict == "INVALID":
        return found
    responses, notes = responses_of(base, new, options.fail_on, options.alpha)
    if responses is None and "different" in options.fail_on:
        raise UsageError(
            f"--fail-on different: {notes[0] if notes else 'the runs kept no responses'}",
            hint="compare runs that all kept responses (--keep-answers digest, sample or all), or leave the flag out",
        )
    return replace(found, responses=responses, notes=(*found.notes, *notes))


def _compare_speed(
    base: Side, new: Side, options: Options, blocks: Sequence[Sequence[SideRun]] | None
) -> Comparison:
    refused = invalid(base, new)
    if refused:
        sentence = f"these runs allow no verdict on the builds: {refused[0]}"
        return _nothing("INVALID", sentence, refused, base, new, options)
    if by_status := judge_statuses(base, new):
        return _nothing(*by_status, [], base, new, options)
    routes = options.routes
    chosen = biggest_routes(base, new, routes) if isinstance(routes, int) else list(routes)
    made = family(base, new, [parse_metric(name) for name in options.metrics], chosen)
    reasons = incomparable(base, new)
    if not made.metrics:
        why = made.left_out[0] if made.left_out else "no metric was requested"
        sentence = (
            f"{NOTHING_SHOWN}: no metric can be compared: {why}; at least {RUNS_MIN} runs per side "
            f"with such a metric are needed"
        )
        return _nothing("INCONCLUSIVE", sentence, [*reasons, *made.left_out], base, new, options)
    if lone := one_run(base, new):
        reasons.insert(0, lone)
    is_paired = blocks is not None or pairs_together(base, new) is not None
    order = Order() if options.sequential or is_paired else order_of(base, new)
    design = design_of(base, new, options.design, order, blocks)
    if design.problem:
        reasons.append(design.problem)
    if order.is_sequential and not design.is_sessions:
        reasons.append(order.reason)
    everyone = [*base.runs, *new.runs]
    values, labels = _units(made, design, everyone, len(base.runs))
    inference = statistics.infer(values, labels, design.sizes, options.alpha, trend=design.trend)
    counts = (labels.count(0), labels.count(1))
    findings = tuple(
        _finding(
            made, at, inference, base, new, options, counts, settled=not reasons, runs_min=design.runs_min
        )
        for at in range(len(made.metrics))
    )
    doubts = [*made.gaps, *(doubt for run in everyone for doubt in run.doubts)]
    verdict, sentence = overall(findings, reasons, doubts, base, new, options)
    notes = dict.fromkeys(
        [
            *order.notes,
            *base.set_aside,
            *new.set_aside,
            *_unequal(base, new, counts, design),
            *(note for run in everyone for note in run.notes),
        ]
    )
    return Comparison(
        verdict, sentence, (*reasons, *doubts), tuple(notes), tuple(made.left_out), findings, base, new, options,
        design.words, inference.labellings, inference.exact, inference.critical_t,
    )  # fmt: skip


def _units(
    made: Family, design: Design, everyone: Sequence[SideRun], bases: int
) -> tuple[np.ndarray, list[int]]:
    """Return the values float64[units, metrics], and for each unit 1 if it belongs to the new build, otherwise 0.

    A session's value is the mean over its runs.
    """
    row_of = {id(run): at for at, run in enumerate(everyone)}
    rows = [[row_of[id(run)] for run in unit] for unit in design.units]
    values = made.values
    return np.array([values[at].mean(axis=0) for at in rows]), [int(at[0] >= bases) for at in rows]


def _unequal(base: Side, new: Side, counts: tuple[int, int], design: Design) -> list[str]:
    """Return a warning if a side has too few runs to show its own spread while the other side has many."""
    few, many = min(counts), max(counts)
    if few < 2 or few >= FEW or many <= UNEQUAL * few:
        return []
    small, units = base if counts[0] == few else new, "sessions" if design.is_sessions else "runs"
    return [
        f"{small.label} has {few} {units} and the other side {many}: {few} are too few to estimate how much they vary, and "
        f"if the values of {units} are skewed there may be more false alarms than alpha allows; give both sides equally "
        f"many, or at least {FEW}"
    ]


def _nothing(
    verdict: VerdictName, sentence: str, reasons: Sequence[str], base: Side, new: Side, options: Options
) -> Comparison:
    notes = (*base.set_aside, *new.set_aside)
    return Comparison(verdict, sentence, tuple(reasons), notes, (), (), base, new, options)


def _finding(
    made: Family,
    at: int,
    inference: Inference,
    base: Side,
    new: Side,
    options: Options,
    counts: tuple[int, int],
    *,
    settled: bool,
    runs_min: int,
) -> Finding:
    metric, margin = made.metrics[at], options.margin(made.metrics[at])
    effect, low, high = (float(row[at]) for row in (inference.effects, inference.lower, inference.upper))
    base_at_least, new_at_least = made.base_at_least[at], made.new_at_least[at]
    verdict: VerdictName = "INCONCLUSIVE"
    if settled:
        verdict = decide(effect, low, high, margin, base_at_least=base_at_least, new_at_least=new_at_least)
    single = len(base.runs) == 1 and len(new.runs) == 1
    if single:
        low, high = within_run.bounds(base.runs[0], new.runs[0], metric)
    column, error = made.columns[at], float(inference.errors[at])
    spread = error / math.sqrt(1 / counts[0] + 1 / counts[1])
    needed: int | None = RUNS_MIN
    if math.isfinite(spread):
        needed = statistics.runs_needed(spread, len(made.metrics), margin, options.alpha)
    if needed is not None:
        needed = max(needed, runs_min)
    caught = statistics.caught(error, float(inference.critical[at]), margin) if settled else math.inf
    return Finding(
        metric=metric,
        verdict=verdict,
        base=_figure(column[: len(base.runs)], metric),
        new=_figure(column[len(base.runs) :], metric),
        change=_change(effect, metric),
        low=_change(low, metric),
        high=_change(high, metric),
        within_run=single,
        p_adjusted=None if single else float(inference.p_adjusted[at]),
        runs_needed=needed,
        caught=_change(caught, metric),
        at_least=base_at_least or new_at_least,
    )


def _figure(column: Sequence[float], metric: Metric) -> float:
    mean = sum(column) / len(column)
    return math.exp(mean) if metric.is_latency else mean


def _change(value: float, metric: Metric) -> float:
    """Return a change as it is reported: a ratio minus 1 for latencies, a difference of shares for errors.

    `value` is on the metric's own scale. Infinite bounds remain infinite.
    """
    if not metric.is_latency or math.isinf(value):
        return value
    return math.expm1(min(value, EXPONENT_MAX))
