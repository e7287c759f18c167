"""The family of metrics that a comparison tests, and their values in every run.

More metrics mean less power for each, so few are the default. Metrics that cannot be measured well are left out and
listed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from replay.errors import UsageError
from replay.ledger.catalog import ALIASES, FAILED
from replay.results.slo import METRICS

from .sides import Side, SideRun

ROUTES_DEFAULT = 5
DEFAULT = ("p50", "p99", "errors")
TAIL_MIN = 10
"""Minimum number of requests of a run beyond a percentile: p99 needs 1,000 requests (docs/statistics.md)."""

BIAS_MAX = 0.1
"""Limit on the bias between sides of different length, relative to the scatter of a percentile within a run."""

SUBSTITUTES = (99.9, 99.5, 99.0, 98.0, 95.0, 90.0, 75.0, 50.0)
"""Percentiles that replace a higher one if one side is too short for it."""

ALL = "all"
_FORM = re.compile(r"(?:(?P<kind>[a-z_]+(?:\.[a-z_]+)?)\.)?p(?P<percentile>\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Metric:
    """A percentile of a latency, or the share of errors (`percentile` is None), for one route or for all ("")."""

    kind: str = "response"
    percentile: float | None = None
    route: str = ""

    @property
    def name(self) -> str:
        """The metric without its route: `p99`, `service.p99` or `errors`."""
        if self.percentile is None:
            return "errors"
        return ("" if self.kind == "response" else f"{self.kind}.") + f"p{self.percentile:g}"

    @property
    def where(self) -> str:
        """The route, or `all`."""
        return self.route or ALL

    @property
    def is_latency(self) -> bool:
        """Whether the metric is a latency, with a relative scale (log ns); otherwise it is a share."""
        return self.percentile is not None

    @property
    def requests_min(self) -> int:
        """The minimum number of requests that each run needs with this latency; 1 for errors."""
        return (
            1
            if self.percentile is None
            else math.ceil(TAIL_MIN / max(1 - self.percentile / 100, 1e-9) - 1e-6)
        )


def parse_metric(text: str) -> Metric:
    """Return the metric over all routes that has this name. Raise UsageError if there is none."""
    if text == "errors":
        return Metric()
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text!r} is not a metric", hint="give p50, p99.9, service.p99 or errors, for example"
        )
    kind, percentile = found["kind"] or "response", float(found["percentile"])
    kind = ALIASES.get(kind, kind)
    if kind not in METRICS:
        raise UsageError(f"{text!r}: there is no latency {kind!r}", hint=f"one of {', '.join(METRICS)}")
    if not 0 < percentile < 100:
        raise UsageError(
            f"{text!r}: a percentile is above 0 and below 100",
            hint="give p99.9, for example; the minimum and the maximum depend on a single request",
        )
    return Metric(kind, percentile)


@dataclass(slots=True, eq=False)
class Family:
    """The metrics that are tested, and their values in every run.

    A column has base's runs first, in log ns or as shares. `base_at_least` and `new_at_least` are true for the
    metrics of which a value of that side is only a lower bound. `left_out` lists what was not tested, with reasons.
    `gaps` lists the reasons that leave a question open.
    """

    metrics: list[Metric] = field(default_factory=list)
    columns: list[list[float]] = field(default_factory=list)
    base_at_least: list[bool] = field(default_factory=list)
    new_at_least: list[bool] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    @property
    def values(self) -> np.ndarray:
        """The values as float64[runs, metrics]."""
        return np.array(self.columns, np.float64).T.copy() if self.columns else np.zeros((0, 0))


def biggest_routes(base: Side, new: Side, count: int) -> list[str]:
    """Return up to `count` routes with the most requests over all runs; routes with equal numbers are sorted by name."""
    totals: dict[str, int] = {}
    for side in (base, new):
        for run in side.runs:
            for route, requests in run.requests.items():
                totals[route] = totals.get(route, 0) + requests
    return sorted(totals, key=lambda route: (-totals[route], route))[:count]


def family(base: Side, new: Side, wanted: Sequence[Metric], routes: Sequence[str]) -> Family:
    """Collect the wanted metrics over all routes, and response and service times also for each of `routes`.

    Metrics that a run cannot provide are left out and listed. If a run has no response time, service is used instead.
    """
    made = Family()
    runs = [*base.runs, *new.runs]
    has_response = all(run.count("response") for run in runs)
    swapped = []
    for metric in wanted:
        if metric.kind == "response" and metric.is_latency and not has_response:
            metric = Metric("service", metric.percentile)
            swapped.append(metric.name)
        by_route = routes if metric.is_latency and metric.kind in ("response", "service") else ()
        for one in (metric, *(Metric(metric.kind, metric.percentile, route) for route in by_route)):
            borne = _borne(made, one, base, new)
            if borne is not None and borne not in made.metrics:
                _add(made, borne, base, new)
    if any(metric.is_latency for metric in wanted) and not any(metric.is_latency for metric in made.metrics):
        why = next((each for each in made.left_out if not each.startswith("errors: ")), made.left_out[0])
        made.gaps.append(f"no latency could be tested: {why}")
    if swapped:
        made.left_out.append(
            "not every run has a response time (closed loops have none): service is used instead"
        )
    order = {route: number for number, route in enumerate(("", *routes))}
    keep = sorted(range(len(made.metrics)), key=lambda at: order[made.metrics[at].route])
    for name in ("metrics", "columns", "base_at_least", "new_at_least"):
        rows = getattr(made, name)
        setattr(made, name, [rows[at] for at in keep])
    return made


def _borne(made: Family, metric: Metric, base: Side, new: Side) -> Metric | None:
    """Return the metric, or the highest of SUBSTITUTES below it that the numbers of requests of both sides allow.

    A percentile is biased if one side has far fewer requests than the other. Return None if no percentile is allowed.
    Unless the metric itself is returned, a note is added to the family. Metrics with too few requests are returned
    unchanged, because `_missing` reports them.
    """
    counts = [[run.count(metric.kind, metric.route) for run in side.runs] for side in (base, new)]
    if metric.percentile is None or min(map(min, counts)) < metric.requests_min:
        return metric
    if shift_of(metric.percentile, counts) <= BIAS_MAX:
        return metric
    lower = [p for p in SUBSTITUTES if p < metric.percentile and shift_of(p, counts) <= BIAS_MAX]
    found = Metric(metric.kind, lower[0], metric.route) if lower else None
    sizes = [
        f"{sum(part) / len(part):,.0f} ({side.label})" for part, side in zip(counts, (base, new), strict=True)
    ]
    text = (
        f"{metric.where} {metric.name}: runs have on average {' and '.join(sizes)} requests with this latency, and with "
        "such different numbers the percentiles are biased"
    )
    made.left_out.append(f"{text}; {found.name} is compared instead" if found else text)
    if found is None:
        made.gaps.append(text)
    return found


def shift_of(percentile: float, counts: Sequence[Sequence[int]]) -> float:
    """Return the bias between the sides' percentiles, divided by the scatter of the percentile within a run.

    The bias follows from the numbers of requests alone. The value of rank k of n is on average at the fraction k / (n
    + 1) of all requests. It falls short of the percentile by a share b = p / (n (1 - p)) of the tail, and the scatter
    of that share is the square root of b.
    """
    odds = percentile / (100 - percentile)
    one, two = (odds * sum(1 / count for count in side) / len(side) for side in counts)
    return abs(one - two) / math.sqrt(max(one, two))


def _add(made: Family, metric: Metric, base: Side, new: Side) -> None:
    problem, gap = _missing(metric, base, new)
    if problem:
        made.left_out.append(problem)
        if gap:
            made.gaps.append(problem)
        return
    column, at_least = [], []
    for side in (base, new):
        flags = []
        for run in side.runs:
            value, flag = _value(run, metric)
            column.append(value)
            flags.append(flag)
        at_least.append(any(flags))
    if not all(map(math.isfinite, column)):
        problem = f"{metric.where} {metric.name}: a run has no finite value"
        made.left_out.append(problem)
        made.gaps.append(problem)
        return
    made.metrics.append(metric)
    made.columns.append(column)
    made.base_at_least.append(at_least[0])
    made.new_at_least.append(at_least[1])


def _missing(metric: Metric, base: Side, new: Side) -> tuple[str, bool]:
    """Return why a metric cannot be tested (empty if it can), and whether that leaves a question open."""
    runs = [*base.runs, *new.runs]
    if not metric.is_latency:
        if not all(run.counts_errors for run in runs):
            return "errors: a log does not record how requests ended", False
        return "", False
    counts = [[run.count(metric.kind, metric.route) for run in side.runs] for side in (base, new)]
    what = f"{metric.where} {metric.name}"
    for mine, theirs, side in zip(counts, counts[::-1], (base, new), strict=True):
        if not any(mine):
            lone = f" (only in {(new if side is base else base).label})" if any(theirs) else ""
            return f"{what}: {side.label} measured nothing{lone}", bool(lone)
    least = min(min(part) for part in counts)
    if least < metric.requests_min:
        return f"{what}: needs {metric.requests_min:,} requests per run, and a run has only {least:,}", False
    return "", False


def _value(run: SideRun, metric: Metric) -> tuple[float, bool]:
    if metric.percentile is None:
        share = run.measured.share_of(FAILED, metric.route)
        return (math.nan if share is None else share), False
    value = run.quantile(metric.kind, metric.percentile, metric.route)
    return (math.nan, False) if value is None else (math.log(max(value.ns, 1)), value.at_least)
