"""Prints the report of a run in the terminal.

It begins with the validity and what was sent, then shows the results, and ends with the verdict again and the next
steps. The span of the run, its slowest seconds and its samples are given on both clocks, the recorded one and the wall
clock. Output is plain if the console is not a terminal, and ASCII if it cannot show more.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.console import Console

from replay.diagnosis.diagnose import diagnose
from replay.results.document import RunDocument
from replay.results.failures import failed_words, failures_of
from replay.results.run import Run
from replay.results.slo import words_of
from replay.units import SECOND_NS, counted, format_duration, format_share

from .clocks import recorded_span, wall_span
from .diagnosis import print_diagnosis
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
from .page import Page
from .terminal_tables import (
    print_addresses,
    print_business,
    print_latencies,
    print_routes,
    print_samples,
    print_seconds,
    print_spectrum,
    shares_words,
)
from .watched import facts_of_watched

_VERDICT_STYLE = {"VALID": "bold green", "SUSPECT": "bold yellow", "INVALID": "bold red"}
_NOT_GREEN = "bold"
"""The style of a VALID verdict if something failed: the measurement is valid, but the target failed."""

_ENDINGS = {
    "whole": "",
    "killed": "killed, recovered",
    "circuit_breaker": "stopped by the circuit breaker",
    "not_allowed": "stopped: the target moved to an address that is not allowed",
    "over_limit": "stopped: the source exceeded a limit",
}


def print_report(run: Run, console: Console) -> None:
    """Print the report of a run. Sections without content are left out."""
    page, document = Page(console), run.document
    _headline(page, document)
    _accounts(page, document)
    print_addresses(page, document)
    print_latencies(page, document)
    print_business(page, document)
    print_routes(page, "Actions", document.actions, document)
    print_routes(page, "Routes", document.routes, document)
    print_spectrum(page, run)
    print_seconds(page, run)
    print_samples(page, run)
    _objectives(page, document)
    print_diagnosis(page, diagnose(run))
    _files(page, run)
    _closing(page, run)


def _verdict(page: Page, document: RunDocument) -> None:
    """Print the verdict on a line, with the failures below it."""
    verdict = document.validity.verdict
    ended = _ENDINGS.get(document.ending.how, document.ending.how)
    failures = failures_of(document)
    page.parts(
        [
            (verdict, _NOT_GREEN if failures and verdict == "VALID" else _VERDICT_STYLE[verdict]),
            ("  " + sent_words(document), "bold"),
            (f" in {format_duration(round(document.duration_s * SECOND_NS))}", ""),
            (f"  {ended}" if ended else "", "bold yellow"),
        ]
    )
    if failures:
        page.say(failed_words(failures), "bold red", indent=2)


def _headline(page: Page, document: RunDocument) -> None:
    _verdict(page, document)
    for advice, found in by_advice(document.validity.reasons).items():
        for reason in found:
            page.say(f"{reason.code}: {reason.message}", _VERDICT_STYLE[reason.verdict], indent=2)
        page.say(advice, indent=4)
    if document.ending.detail:
        page.say(
            f"ended after {format_duration(round(document.ending.at_s * SECOND_NS))}: {document.ending.detail}",
            indent=2,
        )
    for note in document.notes:
        page.say(f"{note.code}: {note.message}", "cyan", indent=2)


def _accounts(page: Page, document: RunDocument) -> None:
    accounts, detail = document.accounts, document.accounts_detail
    page.say()
    unsent, errors = reasons(detail.unsent), reasons(detail.error)
    sums = (
        f"planned {accounts.planned:,} = sent {accounts.sent:,} + unsent {accounts.unsent:,}{unsent}"
        f"{unknown_words(accounts)}; sent = "
    )
    sums += f"{ok_words(document)} + error {accounts.error:,}{errors} + timeout {accounts.timeout:,}"
    sums += f" + in flight {accounts.in_flight:,}" if accounts.in_flight else ""
    page.say(sums)
    more = [f"skipped {accounts.skipped:,}{reasons(detail.skipped)}"] if accounts.skipped else []
    more += [f"status {shares_words(detail.status_class)}"] if accounts.ok else []
    more += [_differs(document)] if document.status_differs and document.status_differs.share else []
    more += [f"warm-up {detail.warm_up:,} (not in the latencies)"] if detail.warm_up else []
    more += [f"sent twice {detail.resent:,}"] if detail.resent else []
    if more:
        page.say("; ".join(more))
    if words := retries_words(document):
        page.say(words)
    _facts(page, document)


def _differs(document: RunDocument) -> str:
    differs = document.status_differs
    assert differs is not None
    what = "worse than recorded" if differs.compared else "4xx without a recorded status"
    return f"{what} {format_share(differs.share)}"


def _facts(page: Page, document: RunDocument) -> None:
    """Print facts about target and time, and the facts of `facts_of`, of watched figures and of sessions."""
    spans = [("recorded", recorded_span(document)), ("wall", wall_span(document))]
    facts = [Fact(name, words) for name, words in [("target", target_words(document)), *spans] if words]
    facts += [*facts_of(document), *facts_of_watched(document), *_sessions(document)]
    page.facts((fact.label, page.text(fact.words, fact.style)) for fact in facts)


def _sessions(document: RunDocument) -> Iterator[Fact]:
    """Yield the results of captures and checks by rule."""
    sessions = document.sessions
    if sessions is None:
        return
    if sessions.checked:
        share = format_share(sessions.mismatches / sessions.checked)
        words = f"{counted(sessions.checked, 'response')}: {sessions.mismatches:,} mismatches ({share})"
        yield Fact("checked", words, "red" if sessions.mismatches else "")
    for rule in sessions.rules:
        missed = f", missed {rule.missed:,}" if rule.missed else ""
        if rule.refused:
            missed += f" ({rule.refused:,} refused: not a plain path of the target)"
        yield Fact("", f"{rule.rule}: {rule.good:,}{missed}", "yellow" if missed else "")
    if sessions.cookies_cut:
        words = "that did not fit into their client's jar (limits.cookies)"
        yield Fact("", f"{counted(sessions.cookies_cut, 'cookie')} {words}", "yellow")
    if sessions.answers_cut:
        words = "longer than limits.answer, not evaluated"
        yield Fact(
            "", f"{counted(sessions.answers_cut, 'response body', 'response bodies')} {words}", "yellow"
        )


def _objectives(page: Page, document: RunDocument) -> None:
    if not document.slo:
        return
    page.title("Objectives")
    for slo in document.slo:
        mark, style = ("✓ met   ", "green") if slo.passed else ("✗ missed", "bold red")
        page.parts([(mark, style), (f"  {slo.slo}  ", ""), (words_of(slo), "dim")], hang=10)


def _files(page: Page, run: Run) -> None:
    folder = run.folder
    names = (folder.run, folder.totals, folder.latency, folder.timeline, folder.samples)
    page.title("Files")
    files = [path.name for path in names if path.exists()]
    files += ["answers/"] if run.document.answers is not None else []
    page.say(f"{folder.path}/ {' '.join(files)}")


def _closing(page: Page, run: Run) -> None:
    """Print the verdict again and the next steps, because the last lines stay on the screen."""
    page.say()
    _verdict(page, run.document)
    # Several agents may have the same problem, each with its own advice, so only the first advice of a code is shown.
    first = {reason.code: reason for reason in reversed(run.document.validity.reasons)}
    shown = [
        each for each in run.document.validity.reasons if not run.document.agents or first[each.code] is each
    ]
    for advice, found in by_advice(shown).items():
        codes = ", ".join(dict.fromkeys(reason.code for reason in found))
        page.say(f"{codes}: {advice}", _VERDICT_STYLE[found[0].verdict], indent=2)
    path = shlex.quote(str(run.folder.path))
    page.say(
        f"next: replay report {path} --html=report.html writes this report as a page with charts", indent=2
    )
