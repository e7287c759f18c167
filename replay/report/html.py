"""A run, or a comparison, as one self-contained HTML page: it asks nothing of anybody, and reads by light and dark.

Bokeh's script is taken from its package into the page. All text of traces and targets is escaped: it is untrusted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..compare.outputs import caught_text, figure_text, interval_text, runs_text
from ..compare.verdict import Comparison
from ..compare.words import change_text
from ..errors import OutputError
from ..results.document import Latencies, Latency, RouteFigures, RunDocument
from ..results.measured import FAILED
from ..results.run import Run
from ..results.slo import words_of
from ..units import format_count, format_duration, format_latency, format_share

_CSP = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:"
_GOOD, _BAD, _OPEN = "good", "bad", "open"
_TONE = {
    "VALID": _GOOD, "NO_REGRESSION": _GOOD, "IMPROVEMENT": _GOOD, "INVALID": _BAD, "REGRESSION": _BAD,
    "FOUND": _GOOD, "NO_LIMIT": _GOOD, "RECOVERED": _GOOD, "NOT_HARMED": _GOOD, "DID_NOT_RECOVER": _BAD,
}  # fmt: skip
_NOTHING = '<p class="soft">none</p>'
ROUTES_SHOWN = 200

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2128;--soft:#656d76;--paper:#fff;--line:#d7dce1;
--good:#1a7f37;--bad:#c62a2f;--open:#8a6100}
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#98a1ab;--paper:#14171b;--line:#343a41;
--good:#4cc065;--bad:#ff7069;--open:#d9a83a}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:1080px;margin:0 auto;padding:24px 20px 60px}
h1{font-size:23px;line-height:1.3;margin:0 0 6px}h2{font-size:17px;margin:34px 0 6px}
p{margin:4px 0}.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}.open{color:var(--open)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}
th,td{text-align:right;padding:4px 10px;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:500;color:var(--soft)}th:first-child,td:first-child{text-align:left;white-space:normal;overflow-wrap:anywhere}
code{font:13px ui-monospace,monospace}
"""


def write_run_page(run: Run, path: Path) -> None:
    """The page of a run. OutputError where it cannot be written."""
    from . import figures

    document, timeline = run.document, run.timeline()
    kinds = [("response", figures.ORANGE), ("service", figures.BLUE)]
    found = [(kind, run.measured.histogram(kind), colour) for kind, colour in kinds]
    spectra = [(kind, [histogram], 1.0, colour) for kind, histogram, colour in found if histogram is not None]
    made = {
        "Percentile spectrum": figures.spectrum(spectra),
        "Latency over time": figures.heat_map(run),
        "Due, sent, done": figures.rates(timeline),
        "Errors": figures.errors(timeline, FAILED),
        "The generator's lateness, and waiting for a connection": figures.lateness_and_wait(timeline),
    }
    sections: list[str | dict[str, Any]] = [
        _accounts(document),
        _latencies(document),
        made,
        _routes(document, "Actions", document.actions),
        _routes(document, "Routes", document.routes),
        _objectives(document),
    ]
    write_page(path, f"replay: {run.folder.path.name}", _run_headline(run), sections)


def write_comparison_page(found: Comparison, path: Path) -> None:
    """The page of a comparison. OutputError where it cannot be written."""
    from . import figures

    kind = next((f.metric.kind for f in found.findings if f.metric.is_latency), "response")
    made = {
        "Change of each latency": figures.forest(found.findings, found.options.tolerance),
        "Percentile spectrum": figures.both_spectra(found.base, found.new, kind),
    }
    head = toned_headline(found.verdict, found.sentence, [*found.reasons, caught_text(found)])
    title = f"replay: {found.new.label} against {found.base.label}"
    write_page(path, title, head, [made, _findings(found), _runs(found)])


def toned_headline(verdict: str, sentence: str, more: Sequence[str]) -> str:
    """The head of a page: the verdict in its colour, what it means, and a line of each thing more to know."""
    tone = _TONE.get(verdict, _OPEN)
    lines = "".join(f'<p class="soft">{escape(text)}</p>' for text in more if text and text not in sentence)
    return f'<h1><span class="{tone}">{escape(verdict)}</span>: {escape(sentence)}</h1>{lines}'


def _run_headline(run: Run) -> str:
    document = run.document
    took = format_duration(round(document.duration_s * 1e9))
    sentence = f"{format_count(document.accounts.sent)} requests sent to {document.target} in {took}"
    if isinstance(document.latency.response, Latency):
        sentence += f"; 99 of 100 answered within {format_latency(document.latency.response.p99_ns)}"
    reasons = [f"{reason.code}: {reason.message}. {reason.advice}" for reason in document.validity.reasons]
    notes = [f"{note.code}: {note.message}" for note in document.notes]
    ended = (
        [f"ended early: {document.ending.detail or document.ending.how}"]
        if document.ending.how != "whole"
        else []
    )
    return toned_headline(document.validity.verdict, sentence, [*ended, *reasons, *notes])


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    """A section with a table; cells are text, or HTML where they begin with `<`. Nothing where there are no rows."""
    if not rows:
        return ""

    def line(cells: Sequence[str], tag: str) -> str:
        return (
            "<tr>"
            + "".join(f"<{tag}>{cell if isinstance(cell, _Html) else escape(cell)}</{tag}>" for cell in cells)
            + "</tr>"
        )

    body = "".join(line(row, "td") for row in rows)
    return f'<h2>{escape(title)}</h2><div class="scroll"><table>{line(head, "th")}{body}</table></div>'


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _toned(text: str, tone: str) -> _Html:
    return _Html(f'<span class="{tone}">{escape(text)}</span>')


def _accounts(document: RunDocument) -> str:
    a = document.accounts
    sums = f"planned {a.planned:,} = sent {a.sent:,} + unsent {a.unsent:,}; "
    sums += f"sent = ok {a.ok:,} + error {a.error:,} + timeout {a.timeout:,}"
    sums += f" + in flight {a.in_flight:,}" if a.in_flight else ""
    where = f"{document.trace.path}, " if document.trace else ""
    return f'<p>{escape(sums)}</p><p class="soft">{escape(where + document.started_at)}</p>'


def _figures_of(latency: Any) -> list[str]:
    names = ("p50_ns", "p90_ns", "p99_ns", "p99_9_ns", "max_ns")
    if not isinstance(latency, Latency):
        return [""] * len(names)
    return [
        ("≥" if name in latency.at_least else "") + format_latency(getattr(latency, name)) for name in names
    ]


def _latencies(document: RunDocument) -> str:
    each = [_latency_table(target.latency, f"Target {target.target}") for target in document.targets]
    return _latency_table(document.latency, "Latencies") + "".join(each)


def _latency_table(latency: Latencies, title: str) -> str:
    meaning = {
        "response": "response: what a user would have felt", "lateness": "lateness: the generator's own",
        "wait": "wait: for a connection", "wait_order": "wait.order: for the client's request before it",
        "service": "service: what the target took",
        "end_to_end": "end to end: due to consumed", "answer": "answer: due to a pipeline's answer consumed",
    }  # fmt: skip
    rows = [
        [text, *_figures_of(getattr(latency, name))]
        for name, text in meaning.items()
        if isinstance(getattr(latency, name), Latency)
    ]
    return html_table(("", "p50", "p90", "p99", "p99.9", "max"), rows, title)


def _routes(document: RunDocument, title: str, routes: list[RouteFigures]) -> str:
    """A table of routes, or of actions."""
    total = sum(route.recorded.count for route in document.routes if route.recorded) or 1
    rows = [_route(route, total) for route in routes[:ROUTES_SHOWN]]
    head = (
        "",
        "requests",
        "share",
        "recorded",
        "response p50",
        "p99",
        "service p50",
        "recorded",
        "p99",
        "recorded",
        "outcomes",
    )
    more = f" (the {ROUTES_SHOWN} biggest of {len(routes)})" if len(routes) > ROUTES_SHOWN else ""
    return html_table(head, rows, f"{title}, replayed and recorded{more}") if routes else ""


def _route(route: RouteFigures, total: int) -> list[str]:
    recorded = route.recorded

    def ns(value: int | None) -> str:
        return "" if value is None else format_latency(value)

    outcomes = ", ".join(f"{name} {count:,}" for name, count in route.outcomes.items() if count)
    failed = any(route.outcomes.get(name) for name in FAILED)
    return [
        route.route,
        f"{route.count:,}",
        format_share(route.share),
        format_share(recorded.count / total) if recorded else "",
        ns(route.response.p50_ns if route.response else None),
        ns(route.response.p99_ns if route.response else None),
        ns(route.service.p50_ns if route.service else None),
        ns(recorded.p50_ns if recorded else None),
        ns(route.service.p99_ns if route.service else None),
        ns(recorded.p99_ns if recorded else None),
        _toned(outcomes, _BAD) if failed else outcomes,
    ]


def _objectives(document: RunDocument) -> str:
    rows = [
        [slo.slo, words_of(slo), _toned("met", _GOOD) if slo.passed else _toned("failed", _BAD)]
        for slo in document.slo
    ]
    return html_table(("objective", "", ""), rows, "Objectives")


def _findings(found: Comparison) -> str:
    rows = [
        [
            finding.metric.route or "all requests",
            finding.metric.name,
            figure_text(finding.base, finding.metric),
            ("≥" if finding.at_least else "") + figure_text(finding.new, finding.metric),
            change_text(finding.change, finding.metric),
            interval_text(finding),
            "" if finding.p_adjusted is None else f"{finding.p_adjusted:.3g}",
            runs_text(finding),
            _toned(finding.verdict, _TONE.get(finding.verdict, _OPEN)),
        ]
        for finding in found.findings
    ]
    interval = (
        "within-run interval" if found.findings and found.findings[0].within_run else "simultaneous interval"
    )
    head = (
        "route",
        "metric",
        found.base.label,
        found.new.label,
        "change",
        interval,
        "p, adjusted",
        "runs needed",
        "verdict",
    )
    notes = "".join(
        f'<p class="soft">{escape(text)}</p>'
        for text in (*found.notes, *(f"left out: {t}" for t in found.left_out))
    )
    return html_table(head, rows, "Metrics") + notes


def _runs(found: Comparison) -> str:
    rows = [
        [f"{run.name}", side.label, f"{sum(run.requests.values()):,}" if run.requests else ""]
        for side in (found.base, found.new)
        for run in side.runs
    ]
    design = f"Tolerance {100 * found.options.tolerance:g}%; {found.labellings:,} labellings, {found.design or 'none'}."
    return html_table(("run", "side", "requests"), rows, "Runs") + f'<p class="soft">{escape(design)}</p>'


def write_page(path: Path, title: str, head: str, sections: Sequence[str | dict[str, Any]]) -> None:
    """Put the page together, and write it whole or not at all."""
    from bokeh.embed import components

    plots = {
        name: plot
        for section in sections
        if isinstance(section, dict)
        for name, plot in section.items()
        if plot
    }
    script, divs = components(plots) if plots else ("", {})
    body = [head]
    for section in sections:
        if isinstance(section, str):
            body.append(section)
        else:
            body += [f"<h2>{escape(name)}</h2>{divs.get(name, _NOTHING)}" for name in section]
    page = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_CSP}">\n'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><style>{_STYLE}</style>\n'
        f"{_library() if plots else ''}</head>\n<body>{''.join(body)}\n{script}</body></html>\n"
    )
    try:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from None


def _library() -> str:
    """Bokeh's script, from its package."""
    from bokeh.resources import Resources

    return str(Resources(mode="inline", components=["bokeh"], minified=True).render_js())
