"""The page of a comparison: the verdict, each metric with its interval, both builds' latencies by rarity, every run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from replay.comparison.decision import Finding
from replay.comparison.outputs import (
    caught_text,
    figure_text,
    interval_text,
    runs_text,
)
from replay.comparison.sides import Side, SideRun
from replay.comparison.verdict import Comparison
from replay.comparison.words import change_text
from replay.results.measured import FAILED
from replay.units import format_latency, format_share

from .comparison import WORDS
from .html import (
    OPEN,
    TONES,
    Figure,
    Html,
    Section,
    cards,
    escape,
    folded,
    headline,
    html_table,
    toned,
    write_page,
)


def write_comparison_page(found: Comparison, path: Path) -> None:
    """Write the page of a comparison. OutputError where it cannot be."""
    from . import figures

    kind = next((f.metric.kind for f in found.findings if f.metric.is_latency), "response")
    tolerance = f"{100 * found.options.tolerance:g}%"
    interval = (
        "within one run alone"
        if _within_run(found)
        else f"and all hold at once, {100 * (1 - found.options.alpha):g} times in 100"
    )
    sections: list[Section] = [
        headline(found.verdict, found.sentence, [*found.reasons, caught_text(found)]),
        _cards(found),
    ]
    if found.findings:
        sections += [
            Figure(
                "How much slower",
                f"Each latency's change with its interval, {interval}; dashed: the tolerance of {tolerance}.",
                figures.forest(found.findings, found.options.tolerance),
            ),
            Figure(
                "How rare, how slow",
                f"The {kind} of all requests. Each step to the right is ten times as rare; a line is the mean of a build's"
                " runs, its band what they span (of a single run, its own 95% interval).",
                figures.both_spectra(found.base, found.new, kind),
            ),
        ]
        if order := figures.runs_in_order(found.base, found.new, kind):
            sections.append(
                Figure(
                    "Every run", "Filled: p50; hollow: p99. A drift over the session would show here.", order
                )
            )
        sections.append(_findings(found))
    sections.append(_runs(found, kind))
    above = f"{found.new.label} against {found.base.label}"
    write_page(path, f"replay: {above}", above, sections)


def _within_run(found: Comparison) -> bool:
    return bool(found.findings) and found.findings[0].within_run


def _cards(found: Comparison) -> str:
    def of(side: Side) -> str:
        return f"{len(side.runs)} run{'s'[: len(side.runs) != 1]}"

    worst = max((f for f in found.findings if f.metric.is_latency), key=lambda f: f.change, default=None)
    return cards(
        [
            (found.base.label, of(found.base), ""),
            (found.new.label, of(found.new), ""),
            ("tolerance", f"{100 * found.options.tolerance:g}%", ""),
            ("the largest change", change_text(worst.change, worst.metric) if worst else "",
             TONES.get(worst.verdict, OPEN) if worst else ""),
            ("would have caught", change_text(found.caught, worst.metric) if worst else "", ""),
            ("metrics tested", str(len(found.findings) or ""), ""),
        ]
    )  # fmt: skip


def _findings(found: Comparison) -> str:
    rows = [_finding(finding) for finding in found.findings]
    interval = "interval within a run" if _within_run(found) else "interval"
    labels = (found.base.label, found.new.label)
    head = ("route", "metric", *labels, "change", interval, "p, adjusted", "runs needed", "")
    notes = "".join(f'<p class="soft">{escape(text)}</p>' for text in found.notes)
    left = "".join(f'<p class="soft">{escape(text)}</p>' for text in found.left_out)
    many = len(found.left_out)
    return (
        html_table(head, rows, "Metrics") + notes + folded(f"{many} metric{'s'[: many != 1]} left out", left)
    )


def _finding(finding: Finding) -> list[str]:
    metric = finding.metric
    return [
        metric.route or "all requests",
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
    rows = [_run(run, side.label, kind) for side in (found.base, found.new) for run in side.runs]
    head = ("run", "side", "started", "requests", "p50", "p99", "failed", "lateness p99", "")
    exact = "" if found.exact else " (sampled)"
    design = (
        f"{found.labellings:,} labellings{exact}, {found.design}. "
        if found.labellings
        else f"{found.design}. "
    )
    said = f'<p class="soft">{escape(design)}Errors: a tolerance of {100 * found.options.error_tolerance:g} points.</p>'
    return folded(f"{len(rows)} runs", html_table(head, rows) + said)


def _run(run: SideRun, label: str, kind: str) -> list[str]:
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
        run.name,
        label,
        started,
        f"{requests:,}" if requests else "",
        *("" if value is None else format_latency(value.ns) for value in values),
        "" if failed is None else format_share(failed),
        format_latency(late[0].ns) if late else "",
        word,
    ]
