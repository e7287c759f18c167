"""The page of a run: its verdict, its latencies over time and by rarity, its routes beside the recorded ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replay.ledger.catalog import HISTOGRAMS
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
from replay.units import (
    format_duration,
    format_latency,
    format_rate,
    format_share,
)

from .facts import (
    Fact,
    facts_of,
    ok_words,
    reasons,
    sent_words,
    target_words,
)
from .html import (
    BAD,
    GOOD,
    Figure,
    Section,
    barred,
    cards,
    escape,
    headline,
    html_table,
    toned,
    write_page,
)

ROUTES_SHOWN = 200
RATIO_NOTED = 1.1
"""A service time that is as many times the recorded one is marked, and its mirror."""


def write_run_page(run: Run, path: Path) -> None:
    """Write the page of a run. OutputError where it cannot be."""
    document = run.document
    sections: list[Section] = [_headline(run), _cards(document), _objectives(document), *_figures(run)]
    sections += [
        _latencies(document),
        _routes(document, "Actions", document.actions),
        _routes(document, "Routes", document.routes),
        _checked(document),
        _facts(document),
        _addresses(document),
        _accounts(document),
    ]
    where = f" · {document.trace.path}" if document.trace else ""
    above = f"{run.folder.path}{where} · {document.target} · {document.started_at[:19].replace('T', ' ')} UTC"
    write_page(path, f"replay: {run.folder.path.name}", above, sections)


def _headline(run: Run) -> str:
    document = run.document
    took = format_duration(round(document.duration_s * 1e9))
    sentence = f"{sent_words(document)} in {took}"
    if isinstance(document.latency.response, Latency):
        sentence += f"; 99 of 100 answered within {format_latency(document.latency.response.p99_ns)}"
    ended = document.ending
    more = [f"ended early: {ended.detail or ended.how}"] if ended.how != "whole" else []
    more += [f"{each.code}: {each.message}. {each.advice}" for each in document.validity.reasons]
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
    fine = "" if failures_of(document) or worse else GOOD
    p50, _, p99, p99_9, _ = _figures_of(felt)
    late = _figures_of(latency.lateness)[2]
    name = "response" if felt is latency.response else "service"
    return cards(
        [
            (
                "requests a second",
                format_rate(accounts.sent / max(document.duration_s, 1e-9)).removesuffix("/s"),
                "",
            ),
            (f"{name} p50", p50, ""),
            (f"{name} p99", p99, ""),
            (f"{name} p99.9", p99_9, ""),
            ("failed", format_share(failed / total) if total else "", BAD if failed else fine),
            ("4xx", format_share(refused / total) if refused else "", ""),
            ("worse than recorded", format_share(worse) if worse else "", BAD),
            ("lateness p99", late, ""),
        ]
    )


def _figures(run: Run) -> list[Figure]:
    from . import figures

    rows, measured = run.timeline(), run.measured
    kinds = [("response", figures.ORANGE), ("service", figures.BLUE)]
    spectra = [
        (kind, [histogram], 1.0, colour)
        for kind, colour in kinds
        if (histogram := measured.histogram(kind)) is not None
    ]
    return [
        Figure(
            "How rare, how slow",
            "Each step to the right is ten times as rare. The band is the 95% interval that a single run gives.",
            figures.spectrum(spectra),
        ),
        Figure(
            "Latency over time",
            "Each column is a moment of the run, each cell the requests that ended in it after so long.",
            figures.heat_map(run),
        ),
        Figure(
            "Due, sent, done",
            "Requests a second. Where sent leaves due, they waited; where done leaves sent, the target was behind.",
            figures.rates(rows),
        ),
        Figure("Errors", "Requests a second that a user would have seen fail.", figures.errors(rows, FAILED),
               nothing="No request failed."),
        Figure(
            "The generator's lateness, and waiting for a connection",
            "p99 of each second: lateness is the generator's own, the wait is what a lack of connections made of it.",
            figures.lateness_and_wait(rows),
        ),
    ]  # fmt: skip


def _accounts(document: RunDocument) -> str:
    a = document.accounts
    unsent, errors = reasons(document.accounts_detail.unsent), reasons(document.accounts_detail.error)
    sums = f"planned {a.planned:,} = sent {a.sent:,} + unsent {a.unsent:,}{unsent}; "
    sums += f"sent = {ok_words(document)} + error {a.error:,}{errors} + timeout {a.timeout:,}"
    sums += f" + in flight {a.in_flight:,}" if a.in_flight else ""
    skipped = f"; {a.skipped:,} skipped" if a.skipped else ""
    return f'<h2>Accounts</h2><p class="soft">{sums}{skipped}</p>{_retries(document)}'


def _retries(document: RunDocument) -> str:
    """How much more than its users asked for the target got."""
    retries = document.retries
    if retries is None:
        return ""
    return (
        f'<p class="soft">amplification {retries.amplification:.2f}: {retries.at_target:,} requests at the target for'
        f" {document.accounts.sent:,} of users; {retries.retries:,} retries of {retries.retried:,} requests,"
        f" {retries.denied:,} denied by the budget</p>"
    )


def _missed(rule: RuleFigures) -> str:
    """How often a rule found nothing, and how many links it refused."""
    return f"{rule.missed:,}" + (f" ({rule.refused:,} refused)" if rule.refused else "")


def _checked(document: RunDocument) -> str:
    """What captures found and checks said, rule by rule, and the routes whose answers were checked."""
    sessions = document.sessions
    if sessions is None:
        return ""
    rules = [
        [rule.rule, f"{rule.good:,}", toned(_missed(rule), BAD) if rule.missed else "0"]
        for rule in sessions.rules
    ]
    checked = [route for route in document.routes if route.checked]
    checked.sort(key=lambda route: -route.mismatches)
    routes = [
        [
            route.route,
            f"{route.checked:,}",
            toned(f"{route.mismatches:,}", BAD) if route.mismatches else "0",
            format_share(route.mismatches / route.checked),
        ]
        for route in checked[:ROUTES_SHOWN]
    ]
    lacking = {
        "cookies that found no room (limits.cookies)": sessions.cookies_cut,
        "answers longer than is looked at (limits.answer)": sessions.answers_cut,
    }
    rules += [[name, "", toned(f"{count:,}", BAD)] for name, count in lacking.items() if count]
    return html_table(("", "good", "missed"), rules, "Captures and checks") + html_table(
        ("", "checked", "mismatches", "share"), routes, "Answers checked, by route"
    )


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
    rows = [
        [f"{row.title}: {row.words}", *_figures_of(getattr(latency, row.field))]
        for row in HISTOGRAMS
        if row.title and isinstance(getattr(latency, row.field), Latency)
    ]
    return html_table(("", "p50", "p90", "p99", "p99.9", "max"), rows, title)


def _routes(document: RunDocument, title: str, routes: list[RouteFigures]) -> str:
    """The biggest routes, or the actions; where the recording has durations, beside them."""
    total = sum(route.recorded.count for route in document.routes if route.recorded)
    timed = any(route.recorded and route.recorded.p50_ns is not None for route in routes)
    rows = [_route(route, total, timed) for route in routes[:ROUTES_SHOWN]]
    groups = [("", 1), ("requests", 2 + bool(total)), ("response", 2)]
    head = ["", "", "share", *(["recorded"] if total else []), "p50", "p99"]
    for name in ("service p50", "service p99"):
        groups.append((name, 3 if timed else 1))
        head += ["replayed", "recorded", "by"] if timed else [""]
    more = f" (the {ROUTES_SHOWN} biggest of {len(routes)})" if len(routes) > ROUTES_SHOWN else ""
    reading = "" if timed else "The recording does not say how long its requests took."
    return html_table(
        [*head, *(["replayed", "recorded"] if total else [""])],
        rows,
        f"{title}, replayed and recorded{more}",
        reading=reading,
        groups=[*groups, ("outcomes", 1 + bool(total))],
    )


def _facts(document: RunDocument) -> str:
    """Where it went, and what only some targets have: a bus, a name, TLS."""
    facts = [Fact("", target_words(document)), *facts_of(document)]
    lines = [
        f"{fact.label} {toned(fact.words, BAD) if fact.style else escape(fact.words)}".strip()
        for fact in facts
    ]
    return f'<h2>Target</h2><p class="soft">{"<br>".join(lines)}</p>'


def _addresses(document: RunDocument) -> str:
    """What each address of the target got, where it had several."""
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
        for row in document.addresses
    ]
    return html_table(("", "connects", "failed", "requests", "errors", "drained"), rows, "Addresses")


def _route(route: RouteFigures, total: int, timed: bool) -> list[str]:
    recorded = route.recorded
    cells: list[str] = [route.route, f"{route.count:,}", barred(format_share(route.share), route.share)]
    if total:
        cells.append(format_share(recorded.count / total) if recorded else "")
    p50, _, p99, *_ = _figures_of(route.response)
    cells += [p50, p99]
    for name in ("p50_ns", "p99_ns"):
        replayed = getattr(route.service, name, None)
        cells.append(_ns(replayed))
        if timed:
            then = getattr(recorded, name, None)
            cells += [_ns(then), _ratio(replayed, then)]
    outcomes = ", ".join(f"{name} {count:,}" for name, count in route.outcomes.items() if count)
    failed = route.worse or any(route.outcomes.get(name) for name in FAILED)
    cells.append(toned(outcomes, BAD) if failed else outcomes)
    then = recorded.statuses.items() if recorded else ()
    return [*cells, ", ".join(f"{name} {count:,}" for name, count in then if count)] if total else cells


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
    rows = [
        [outcome.slo, words_of(outcome), toned("met", GOOD) if outcome.passed else toned("failed", BAD)]
        for outcome in document.slo
    ]
    return html_table(("objective", "", ""), rows, "Objectives")
