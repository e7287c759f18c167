"""Judges a run: its own validity, the recorded statuses, the objectives."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec

from replay.errors import InputError
from replay.ledger.accounts import Accounts, AccountsDetail, sum_counters
from replay.ledger.catalog import HISTOGRAMS, OK
from replay.ledger.statuses import StatusFigures, figures_of, reason_of, with_first_reason
from replay.ledger.validity import Figures, Quantiles, Validity, ValidityLimits, judge, worst_of

from . import slo
from .document import Generator, SloOutcome, Started
from .facts import Facts
from .folder import RunFolder, read_rows
from .lane_figures import lost_share
from .measured import Measured
from .shares import Share
from .timeline import Second
from .windows import Window, windows_of


def validity_of(
    shares: Sequence[Share],
    started: Started,
    facts: Facts,
    accounts: Accounts,
    detail: AccountsDetail,
    generator: Generator,
    imbalance: str,
) -> Validity:
    """Judge each target by its own latencies, and return the worst verdict."""
    judged = []
    for share in shares:
        by_name = sum_counters([metrics.counters for metrics in share.all_metrics])
        figures = Figures(
            planned=by_name["planned"],
            sent=accounts.sent,
            generator_errors=detail.error.get("generator", 0),
            underruns=generator.underruns,
            throttled_share=facts.throttled_share,
            steal_share=facts.steal_share,
            run_delay=facts.run_delay,
            unsent_own=by_name["unsent_own"],
            lost_share=lost_share(share.all_metrics),
            gap_max_ns=by_name["gap_max_ns"],
            busy_share=generator.busy_share,
            lanes_lost=facts.lanes_lost,
            imbalance=imbalance,
            **_latencies(share.measured, started.closed_loop),
        )
        judged.append((share.start.target, judge(figures, _allowing(started.limits, share.start.tick_ns))))
    return worst_of(judged)


def _latencies(measured: Measured, closed_loop: bool) -> dict[str, Quantiles | None]:
    """Return the latencies by which validity is judged. A closed loop has only some of them."""
    return {
        row.field: _quantiles(measured, row.name)
        for row in HISTOGRAMS
        if row.field in Figures.__struct_fields__
        if row.closed_loop or not closed_loop
    }


def _allowing(limits: ValidityLimits, tick_ns: int) -> ValidityLimits:
    """Return the limits with those on lateness increased by `tick_ns`, the lateness that is by design."""
    floors = [
        name for name in limits.__struct_fields__ if name.startswith("lateness_") and name.endswith("_ns")
    ]
    return msgspec.structs.replace(limits, **{name: getattr(limits, name) + tick_ns for name in floors})


def _quantiles(measured: Measured, kind: str) -> Quantiles | None:
    values = measured.percentiles(kind, (50.0, 90.0, 99.0))
    histogram = measured.histogram(kind)
    if values is None or histogram is None:
        return None
    return Quantiles(count=histogram.count, p50_ns=values[0].ns, p90_ns=values[1].ns, p99_ns=values[2].ns)


def status_differs(
    started: Started, measured: Measured, validity: Validity
) -> tuple[StatusFigures | None, Validity]:
    """Compare the statuses of responses with the recording, and return the figures and the updated verdict.

    An objective on the statuses of all requests replaces the default rule; the verdict then stays as it is.
    """
    replaced = any(slo.replaces_status_rule(slo.parse(text)) for text in started.slo)
    figures = figures_of(measured.statuses, replaced=replaced)
    if figures is None or replaced:
        return figures, validity
    recorded: Counter[str] = Counter()
    now: Counter[str] = Counter()
    for route in started.routes:
        recorded.update(route.recorded.statuses if route.recorded else {})
    for outcomes in measured.outcomes.values():
        now.update({name: count for name, count in outcomes.items() if name in OK})
    reason = reason_of(measured.statuses, recorded, now)
    return figures, validity if reason is None else with_first_reason(validity, reason)


def rows_of(folder: RunFolder) -> list[Second]:
    """Return the rows of the timeline; an empty list if the timeline is missing or damaged."""
    with contextlib.suppress(InputError):
        return read_rows(folder.timeline, Second)
    return []


def objectives_of(folder: RunFolder, started: Started, measured: Measured) -> list[SloOutcome]:
    """Evaluate the objectives of a run.

    Objectives by window are computed from the logs of the run folder. Such an objective fails if the logs have no
    window for it, or if a log is damaged.
    """
    objectives = [slo.parse(text) for text in started.slo]
    rows = rows_of(folder) if any(objective.window_ns for objective in objectives) else []
    per_route = "service" if started.closed_loop else "response"

    def windows(objective: slo.Slo) -> Iterator[Window]:
        kind = per_route if objective.percentile is None else objective.metric
        routes = measured.members(objective.route) if objective.route else None
        return windows_of(folder, rows, kind, routes, objective.window_ns or 0, started.max_wait_ns)

    return slo.evaluate(objectives, measured, windows)
