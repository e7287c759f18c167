"""The page of a run: its verdict, latencies over time and by percentile, and routes beside their recorded figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replay.diagnosis.diagnose import diagnose
from replay.diagnosis.usage import fixed_limits
from replay.files import write_whole
from replay.results.document import (
    Latencies,
    Latency,
    RouteFigures,
    RuleFigures,
    RunDocument,
)
from replay.results.failures import failed_words, failures_of
from replay.results.measured import FAILED
from replay.results.run import Run
from replay.results.slo import words_of
from replay.units import format_duration, format_latency, format_rate, format_share

from . import figures
from .business import business_words, interval_words, worst_minutes
from .charts import BLUE, ORANGE
from .diagnosis import diagnosis_section
from .facts import (
    Fact,
    by_advice,
    facts_of,
    ok_words,
    reasons,
    retries_words,
    sent_words,
    target_words,
    unknown_words,
)
from .html import (
    BAD,
    GOOD,
    Figure,
    Html,
    Section,
    barred,
    cards,
    headline,
    html_table,
    named,
    page_and_policy,
    toned,
)
from .run_details import machine_section, samples_sections, settings_section
from .svg import escape
from .watched import charts_of, table_of
from .words import FIGURES, LATENCIES

ROUTES_SHOWN, CHECKED_SHOWN = 50, 20
RATIO_NOTED = 1.1
"""The ratio above which a service time is marked as longer or shorter than the recorded one."""


def write_run_page(run: Run, path: Path) -> None:
    """Write the page of a run. Raise OutputError if that fails."""
    page, _ = run_page(run, str(run.folder.path))
    write_whole(path, page)


def run_page(run: Run, name: str) -> tuple[bytes, str]:
    """Return the page of a run and its Content-Security-Policy. `name` is shown above the page."""
    document = run.document
    own = document_sections(document)
    sections: list[Section] = [*own[:ABOVE_CHARTS], diagnosis_section(diagnose(run)), *_figures(run)]
    sections += [*own[ABOVE_CHARTS:ABOVE_SAMPLES], *samples_sections(run), *own[ABOVE_SAMPLES:]]
    where = f" · {document.trace.path}" if document.trace else ""
    above = f"{name}{where} · {document.target} · {document.started_at[:19].replace('T', ' ')} UTC"
    return page_and_policy(f"replay: {run.folder.path.name}", above, sections)


ABOVE_CHARTS, ABOVE_SAMPLES = 3, 7
"""How many sections of a document come before the charts, and how many before the samples."""


def document_sections(document: RunDocument) -> list[str]:
    """Return the sections of a run's page that need only run.json, in order."""
    return [
        _headline(document),
        _cards(document),
        _objectives(document),
        _latencies(document),
        _business(document),
        _routes(document, "Actions", document.actions),
        _routes(document, "Routes", document.routes),
        _checked(document),
        _target(document) + table_of(document),
        _addresses(document),
        _accounts(document),
        machine_section(document),
        settings_section(document),
    ]


def _headline(document: RunDocument) -> str:
    took = format_duration(round(document.duration_s * 1e9))
    sentence = f"{sent_words(document)} in {took}"
    if isinstance(document.latency.response, Latency):
        sentence += f"; p99 of the response {_figures_of(document.latency.response)[2]}"
    ended = document.ending
    more = [f"ended early: {ended.detail or ended.how}"] if ended.how != "whole" else []
    for advice, found in by_advice(document.validity.reasons).items():
        more += [f"{each.code}: {each.message}" for each in found]
        more[-1] += f". {advice}"
    more += [f"{note.code}: {note.message}" for note in document.notes]
    failed = failed_words(failures_of(document))
    return headline(document.validity.verdict, sentence, more, failed=failed)


def _cards(document: RunDocument) -> str:
    latency, accounts = document.latency, document.accounts
    felt = latency.response if isinstance(latency.response, Latency) else latency.service
    total = sum(route.count for route in document.routes)
    failed = sum(route.outcomes.get(name, 0) for route in document.routes for name in FAILED)
    refused = sum(route.outcomes.get("4xx", 0) for route in document.routes)
    worse = document.status_differs.share if document.status_differs else 0.0
    has_statuses = document.status_differs is not None and document.status_differs.compared > 0
    fine = "" if failures_of(document) or worse else GOOD
    p50, _, p99, p99_9, _ = _figures_of(felt)
    rate = format_rate(accounts.sent / max(document.duration_s, 1e-9))
    name = "response" if felt is latency.response else "service"
    return cards(
        [
            ("sent", rate, ""),
            (f"{name} p50", p50, ""),
            (f"{name} p99", p99, ""),
            (f"{name} p99.9", p99_9, ""),
            ("failed", format_share(failed / total) if total else "", BAD if failed else fine),
            ("4xx", format_share(refused / total) if refused else "", ""),
            (
                "worse than recorded" if has_statuses else "4xx without a recorded status",
                format_share(worse) if worse else "",
                BAD,
            ),
            ("generator lag p99", _figures_of(latency.lateness)[2], ""),
        ]
    )


def _figures(run: Run) -> list[Section]:
    document, rows, measured = run.document, run.seconds(), run.measured
    clock = document.recorded_clock
    kinds = [("response", ORANGE), ("service", BLUE)]
    spectra = [
        (kind, [histogram], 1.0, colour)
        for kind, colour in kinds
        if (histogram := measured.histogram(kind)) is not None
    ]
    made: list[Section] = [
        Figure(
            "Latency by percentile",
            "The band is the 95% interval within this run. An objective is met if the curve passes below its corner.",
            figures.spectrum(spectra, figures.goals_of(document, kinds_of(document))),
        ),
        Figure(
            "Latency over time",
            "A column is an interval of the run. The colour of a cell shows how many requests ended "
            "in the interval with that latency.",
            figures.heat_map(run, rows),
        ),
        Figure(
            "Due, sent and answered",
            "Sent below due: requests waited, or were never sent. Answered below sent: requests failed or are late.",
            figures.rates(rows, clock),
        ),
        Figure(
            "Failed requests",
            "Requests that failed for users, by outcome.",
            figures.errors(rows, FAILED, clock, figures.goals_of(document, ("errors",))),
            nothing="No request failed.",
        ),
        Figure(
            "Generator lag and waiting for a connection",
            "p99 of each second (long runs: the worst of several). Lag: the generator sent late. "
            "Wait: no connection was free.",
            figures.lag_and_wait(rows, clock),
        ),
    ]
    made += charts_of(rows, clock, list(document.watched), fixed_limits(document))
    beside = figures.recorded_beside(document.routes)
    if beside is not None:
        reading = "The service time of the busiest routes: rings as recorded, dots as replayed."
        made.append(Figure("Recorded and replayed", reading, beside))
    return made


def kinds_of(document: RunDocument) -> tuple[str, ...]:
    """Return the latencies that the chart by percentile shows."""
    return ("service",) if document.closed_loop else ("response", "service")


def _accounts(document: RunDocument) -> str:
    a = document.accounts
    unsent, errors = reasons(document.accounts_detail.unsent), reasons(document.accounts_detail.error)
    sums = f"planned {a.planned:,} = sent {a.sent:,} + unsent {a.unsent:,}{unsent}{unknown_words(a)}; "
    sums += f"sent = {ok_words(document)} + error {a.error:,}{errors} + timeout {a.timeout:,}"
    sums += f" + in flight {a.in_flight:,}" if a.in_flight else ""
    skipped = f"; {a.skipped:,} skipped" if a.skipped else ""
    retried = f'<p class="soft">{escape(words)}</p>' if (words := retries_words(document)) else ""
    return f'<h2>Accounts</h2><p class="soft">{escape(sums + skipped)}</p>{retried}'


def _missed(rule: RuleFigures) -> str:
    """Return how often a rule missed, and how many of these times it refused a link."""
    return f"{rule.missed:,}" + (f" ({rule.refused:,} refused)" if rule.refused else "")


def _checked(document: RunDocument) -> str:
    """Return the results of captures and checks by rule, and the checked routes with the most mismatches.

    The text is empty if the run has neither captures, checks nor cookies.
    """
    sessions = document.sessions
    if sessions is None:
        return ""
    rules = [
        [named(rule.rule), f"{rule.good:,}", toned(_missed(rule), BAD) if rule.missed else "0"]
        for rule in sessions.rules
    ]
    checked = [route for route in document.routes if route.checked]
    checked.sort(key=lambda route: -route.mismatches)
    routes = [
        [
            named(route.route),
            f"{route.checked:,}",
            toned(f"{route.mismatches:,}", BAD) if route.mismatches else "0",
            format_share(route.mismatches / route.checked),
        ]
        for route in checked[:CHECKED_SHOWN]
    ]
    more = f" (the {CHECKED_SHOWN} with the most mismatches)" if len(checked) > CHECKED_SHOWN else ""
    lacking = {
        "cookies that did not fit into a jar (limits.cookies)": sessions.cookies_cut,
        "responses longer than limits.answer, not evaluated": sessions.answers_cut,
    }
    rules += [[name, "", toned(f"{count:,}", BAD)] for name, count in lacking.items() if count]
    return html_table(("", "good", "missed"), rules, "Captures and checks") + html_table(
        ("", "checked", "mismatches", "share"), routes, f"Responses checked, by route{more}"
    )


def _figures_of(latency: Any) -> list[str]:
    if not isinstance(latency, Latency):
        return [""] * len(FIGURES)
    return [
        ("≥" if name in latency.at_least else "") + format_latency(getattr(latency, name)) for name in FIGURES
    ]


def _latencies(document: RunDocument) -> str:
    each = [_latency_table(target.latency, f"Target {target.target}") for target in document.targets]
    return _latency_table(document.latency, "Latencies") + "".join(each)


def _latency_table(latency: Latencies, title: str) -> str:
    rows = [
        [f"{name}: {meaning}", *_figures_of(figures)]
        for field, name, meaning in LATENCIES
        if isinstance(figures := getattr(latency, field), Latency)
    ]
    return html_table(("", *FIGURES.values()), rows, title)


def _business(document: RunDocument) -> str:
    """Return the section about business actions: failures, costs and the worst intervals; empty if there are none."""
    business, words = document.business, business_words(document)
    if business is None or not words:
        return ""
    lines = "<br>".join(escape(text) for text in words)
    section = f'<h2>Business actions</h2><p>{lines}</p><p class="soft">{escape(business.counted)}</p>'
    head = ("moment", "action", "failed", "lost")
    return section + html_table(head, worst_minutes(document), f"Worst by {interval_words(business)}")


def _routes(document: RunDocument, title: str, routes: list[RouteFigures]) -> str:
    """Return a table of the busiest routes, or of the actions, with their recorded figures.

    If the recording has durations, a second table compares them.
    """
    total = sum(route.recorded.count for route in document.routes if route.recorded)
    timed = any(route.recorded and route.recorded.p50_ns is not None for route in routes)
    shown = routes[:ROUTES_SHOWN]
    more = f" (the {ROUTES_SHOWN} busiest of {len(routes)})" if len(routes) > ROUTES_SHOWN else ""
    recorded = ["recorded"] if total else []
    groups = [
        ("", 1),
        ("requests", 2 + len(recorded)),
        ("response", 2),
        ("service", 2),
        ("outcomes", 1 + len(recorded)),
    ]
    head = ["route", "count", "share", *recorded, "p50", "p99", "p50", "p99", "replayed", *recorded]
    long = (len(head) - 1, len(head) - 2) if total else (len(head) - 1,)
    has_durations = any(each.recorded and each.recorded.p50_ns is not None for each in document.routes)
    reading = "" if has_durations or not total else "The recording has no durations to compare with."
    beside = ", replayed and recorded" if total else ""
    made = html_table(
        head,
        [_route(route, total) for route in shown],
        f"{title}{beside}{more}",
        reading=reading,
        groups=groups,
        long=long,
    )
    return made + (_times(title, shown) if timed else "")


def _route(route: RouteFigures, total: int) -> list[str]:
    recorded = route.recorded
    cells: list[str] = [
        named(route.route),
        f"{route.count:,}",
        barred(format_share(route.share), route.share),
    ]
    if total:
        cells.append(format_share(recorded.count / total) if recorded else "")
    for latency in (route.response, route.service):
        p50, _, p99, *_ = _figures_of(latency)
        cells += [p50, p99]
    outcomes = ", ".join(f"{name} {count:,}" for name, count in route.outcomes.items() if count)
    failed = route.worse or any(route.outcomes.get(name) for name in FAILED)
    cells.append(toned(outcomes, BAD) if failed else outcomes)
    then = recorded.statuses.items() if recorded else ()
    return [*cells, ", ".join(f"{name} {count:,}" for name, count in then if count)] if total else cells


def _times(title: str, routes: list[RouteFigures]) -> str:
    """Return a table of the service times of routes, as recorded and as replayed."""
    rows = []
    for route in routes:
        cells: list[str] = [named(route.route)]
        for name in ("p50_ns", "p99_ns"):
            then, now = getattr(route.recorded, name, None), getattr(route.service, name, None)
            cells += [_ns(then), _ns(now), _ratio(now, then)]
        rows.append(cells)
    head = ("route", *("recorded", "replayed", "ratio") * 2)
    groups = [("", 1), ("service p50", 3), ("service p99", 3)]
    return html_table(head, rows, f"{title}: service time, recorded and replayed", groups=groups)


def _target(document: RunDocument) -> str:
    """Return the target, with the facts of `facts_of`."""
    facts = [Fact("", target_words(document)), *facts_of(document)]
    lines = [
        f"{fact.label} {toned(fact.words, BAD) if fact.style else escape(fact.words)}".strip()
        for fact in facts
    ]
    return f'<h2>Target</h2><p class="soft">{"<br>".join(lines)}</p>'


def _addresses(document: RunDocument) -> str:
    """Return a table of the requests to at most ROUTES_SHOWN addresses of the target; empty if it has only one."""
    if len(document.addresses) < 2:
        return ""
    rows = [
        [
            f"{row.address} port {row.port}" + (" (removed)" if row.removed else ""),
            *(
                f"{count:,}"
                for count in (row.connects, row.connects_failed, row.requests, row.errors, row.drained)
            ),
        ]
        for row in document.addresses[:ROUTES_SHOWN]
    ]
    more = len(document.addresses) - len(rows)
    left = f'<p class="soft">{more:,} more addresses are in run.json.</p>' if more else ""
    heads = ("", "connects", "failed", "requests", "errors", "drained")
    return html_table(heads, rows, "Addresses") + left


def _ns(value: int | None) -> str:
    return "" if value is None else format_latency(value)


def _ratio(now: int | None, then: int | None) -> str:
    if not now or not then:
        return ""
    text = f"{now / then:.2f}×"
    if now > RATIO_NOTED * then:
        return toned(text, BAD)
    return toned(text, GOOD) if then > RATIO_NOTED * now else text


def _objectives(document: RunDocument) -> str:
    rows: list[list[str | Html]] = [
        [outcome.slo, toned("met", GOOD) if outcome.passed else toned("missed", BAD), words_of(outcome)]
        for outcome in document.slo
    ]
    return html_table(("objective", "", ""), rows, "Objectives", left=True)
