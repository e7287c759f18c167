"""The page of a comparison: the verdict, the metrics with their intervals, the distributions, and every run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from replay.comparison.decision import Finding
from replay.comparison.outputs import caught_text, figure_text, interval_text, runs_text
from replay.comparison.sides import Side, SideRun
from replay.comparison.verdict import Comparison
from replay.comparison.words import change_text
from replay.files import write_whole
from replay.results.measured import FAILED
from replay.units import counted, format_latency, format_share

from . import comparison_figures as figures
from .comparison import WORDS
from .differences_page import headline_of, sections_of
from .html import (
    OPEN,
    TONES,
    Figure,
    Html,
    Section,
    cards,
    folded,
    headline,
    html_table,
    named,
    page_and_policy,
    toned,
)
from .svg import escape
from .watched_sides import watched_sections

DISTRIBUTIONS_SHOWN = 10
"""The most distributions that are drawn, each of one latency of a route or of all requests."""

RUNS_SHOWN, LEFT_OUT_SHOWN = 200, 100


def write_comparison_page(found: Comparison, path: Path) -> None:
    """Write the page of a comparison. Raise OutputError if that fails."""
    page, _ = comparison_page(found)
    write_whole(path, page)


def comparison_page(found: Comparison) -> tuple[bytes, str]:
    """Return the page of a comparison and its Content-Security-Policy."""
    kind = next((f.metric.kind for f in found.findings if f.metric.is_latency), "response")
    sections: list[Section] = [
        headline(found.verdict, found.sentence, [*found.reasons, caught_text(found)]),
        _cards(found),
    ]
    if found.findings:
        sections += [_changes(found), _findings(found), *_distributions(found), _spectra(found, kind)]
    if (order := figures.runs_in_order(found.base, found.new, kind)) is not None:
        reading = "Filled: p50; rings: p99. A drift from run to run would be visible here."
        sections.append(Figure("Every run over time", reading, order))
    sections += watched_sections(found)
    if found.responses is not None:
        sections.append("<h2>Responses</h2>")
        sections += [headline_of(found.responses, level=3), *sections_of(found.responses)]
    sections.append(_runs(found, kind))
    above = f"{found.new.label} against {found.base.label}"
    return page_and_policy(f"replay: {above}", above, sections)


def _changes(found: Comparison) -> Figure:
    interval = (
        "the interval within these single runs"
        if _within_run(found)
        else f"the interval ({100 * (1 - found.options.alpha):g}% simultaneous for all metrics)"
    )
    reading = (
        f"Above: the change with {interval}. Below: every run relative to the mean of {found.base.label}."
    )
    chart = figures.changes(found.findings, found.base, found.new, found.options.tolerance)
    return Figure("Changes", reading, chart, nothing="No latency was compared.")


def _distributions(found: Comparison) -> list[Section]:
    """Return at most DISTRIBUTIONS_SHOWN charts with the distributions of both builds, and how many are left out."""
    judged = dict.fromkeys((f.metric.kind, f.metric.route) for f in found.findings if f.metric.is_latency)
    made: list[Section] = []
    for kind, route in list(judged)[:DISTRIBUTIONS_SHOWN]:
        chart = figures.distributions(found.base, found.new, kind, route)
        made.append(Figure(f"{kind.capitalize()} of {named(route) if route else 'all requests'}", "", chart))
    if more := len(judged) - len(made):
        made.append(
            f'<p class="soft">{counted(more, "more distribution is", "more distributions are")} not drawn.</p>'
        )
    return made


def _spectra(found: Comparison, kind: str) -> Figure:
    return Figure(
        "Latency by percentile",
        f"The {kind} of all requests. A line is the geometric mean of a build's runs, and its band is their "
        f"range (for a single run its 95% interval).",
        figures.both_spectra(found.base, found.new, kind),
    )


def _within_run(found: Comparison) -> bool:
    return bool(found.findings) and found.findings[0].within_run


def _cards(found: Comparison) -> str:
    worst = max((f for f in found.findings if f.metric.is_latency), key=lambda f: f.change, default=None)
    return cards(
        [
            (found.base.label, counted(len(found.base.runs), "run"), ""),
            (found.new.label, counted(len(found.new.runs), "run"), ""),
            ("tolerance", f"{100 * found.options.tolerance:g}%", ""),
            ("largest change", change_text(worst.change, worst.metric) if worst else "",
             TONES.get(worst.verdict, OPEN) if worst else ""),
            ("smallest detectable slowdown", change_text(found.caught, worst.metric) if worst else "", ""),
            ("metrics tested", str(len(found.findings) or ""), ""),
        ]
    )  # fmt: skip


def _findings(found: Comparison) -> str:
    rows = [_finding(finding) for finding in found.findings]
    interval = "interval within single runs" if _within_run(found) else "interval"
    labels = (found.base.label, found.new.label)
    head = ("route", "metric", *labels, "change", interval, "p, adjusted", "runs needed per side", "verdict")
    notes = "".join(f'<p class="soft">{escape(text)}</p>' for text in found.notes)
    listed = found.left_out[:LEFT_OUT_SHOWN]
    more = len(found.left_out) - len(listed)
    left = "".join(f'<p class="soft">{escape(text)}</p>' for text in listed)
    left += f'<p class="soft">and {more:,} more</p>' if more else ""
    count = counted(len(found.left_out), "metric")
    return html_table(head, rows, "Metrics") + notes + folded(f"{count} left out", left)


def _finding(finding: Finding) -> list[str]:
    metric = finding.metric
    return [
        named(metric.route) or "all requests",
        metric.name,
        figure_text(finding.base, metric),
        ("≥" if finding.at_least else "") + figure_text(finding.new, metric),
        change_text(finding.change, metric),
        interval_text(finding),
        "" if finding.p_adjusted is None else f"{finding.p_adjusted:.3g}",
        runs_text(finding),
        toned(WORDS[finding.verdict], TONES.get(finding.verdict, OPEN)),
    ]


def _runs(found: Comparison, kind: str) -> str:
    runs = [(run, side) for side in (found.base, found.new) for run in side.runs]
    rows = [_run(run, side, kind) for run, side in runs[:RUNS_SHOWN]]
    head = (
        "run",
        "side",
        "started (UTC)",
        "requests",
        "p50",
        "p99",
        "failed",
        "generator lag p99",
        "verdict",
    )
    exact = "" if found.exact else " (sampled)"
    design = (
        f"{found.labellings:,} labellings{exact}, {found.design}. "
        if found.labellings
        else f"{found.design or 'no permutation test was made'}. "
    )
    note = f'<p class="soft">{escape(design)}Errors: a tolerance of {100 * found.options.error_tolerance:g} points.</p>'
    more = f" (the first {RUNS_SHOWN} of {len(runs):,})" if len(runs) > RUNS_SHOWN else ""
    return html_table(head, rows, f"Runs{more}") + note


def _run(run: SideRun, side: Side, kind: str) -> list[str]:
    values = [run.quantile(kind, percentile) for percentile in (50.0, 99.0)]
    late = run.measured.percentiles("lateness", (99.0,)) if run.document is not None else None
    failed = run.measured.share_of(FAILED) if run.counts_errors else None
    started = (
        "" if run.started_ns is None else datetime.fromtimestamp(run.started_ns / 1e9, UTC).strftime("%F %T")
    )
    verdict = run.document.validity.verdict if run.document is not None else ""
    word: str | Html = toned(verdict, TONES.get(verdict, OPEN)) if verdict else ""
    requests = sum(run.requests.values())
    return [
        named(run.name),
        side.label,
        started,
        f"{requests:,}" if requests else "",
        *(
            "" if value is None else ("≥" if value.at_least else "") + format_latency(value.ns)
            for value in values
        ),
        "" if failed is None else format_share(failed),
        format_latency(late[0].ns) if late else "",
        word,
    ]
