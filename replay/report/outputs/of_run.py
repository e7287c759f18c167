"""A run for CI systems: a test case for each objective, and one each for ending, validity and statuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from replay.report.facts import sent_words
from replay.results import slo
from replay.results.document import RouteFigures, RunDocument, SloOutcome
from replay.results.failures import failures_of, statuses_words
from replay.results.measured import FAILED
from replay.results.run import Run
from replay.results.verdicts import verdict_word
from replay.shown import json_shown
from replay.units import SECOND_NS, format_duration, format_latency, format_share

from .markdown import bullets, code, escaped, table
from .result import MARK, Annotation, Case, Level, Suite

ROUTES_SHOWN = 15

_ENDED = {
    "interrupted": "the run was interrupted",
    "killed": "the run was killed",
    "circuit_breaker": "the circuit breaker opened",
    "not_allowed": "the target moved to an address that is not allowed",
    "over_limit": "the followed source exceeded a limit",
    "failed": "the run failed",
}


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outputs of `replay run` and `replay report`."""

    run: Run

    def json(self) -> bytes:
        """Return run.json with the same values, and with characters escaped that a terminal would interpret."""
        return json_shown(self.run.folder.run.read_bytes())

    def page(self, path: Path) -> None:
        """Write the report as a page."""
        from replay.report.run_page import write_run_page

        write_run_page(self.run, path)

    def suite(self) -> Suite:
        """Return the cases of the run. In an INVALID run the objectives are skipped."""
        document = self.run.document
        cases = [_ending(document), _validity(document), *_statuses(document), *_objectives(document)]
        name = f"{self.run.folder.path.name} ({document.target})"
        return Suite("replay run", name, cases, document.duration_s, _headline(document))

    def markdown(self) -> str:
        """Return the verdict, the objectives, the busiest routes, and notes."""
        document = self.run.document
        word = _verdict(document)
        mark = MARK["passed" if word == "VALID" else "skipped" if word == "SUSPECT" else "failure"]
        lines = [f"### {mark} {word}: {escaped(_headline(document))}", ""]
        if document.slo:
            rows = [_objective_row(outcome, document) for outcome in document.slo]
            lines += table(["objective", "result", "verdict"], rows)
        if document.routes:
            lines += table(
                ["route", "requests>", "failed>", "p50>", "p99>", "recorded p99>"],
                [_route_row(route, document) for route in document.routes[:ROUTES_SHOWN]],
            )
            more = len(document.routes) - ROUTES_SHOWN
            lines += [f"- {more} more routes are in run.json"] if more > 0 else []
        summary = [f"{reason.code}: {reason.message}" for reason in document.validity.reasons]
        summary += [f"{note.code}: {note.message}" for note in document.notes]
        return "\n".join(lines + bullets(summary)) + "\n\n"

    def annotations(self) -> list[Annotation]:
        """Return an annotation for the verdict, then one for each case that failed."""
        document = self.run.document
        word, cases = _verdict(document), self.suite().cases
        level: Level = "notice" if word == "VALID" else "warning" if word == "SUSPECT" else "error"
        found = [Annotation(level, word, _headline(document))]
        for case in cases:
            if case.status in ("failure", "error"):
                found.append(Annotation("error", _title(case), case.message))
        return found


def _verdict(document: RunDocument) -> str:
    return verdict_word(document.ending.how, document.validity.verdict, failed=bool(failures_of(document)))


def _headline(document: RunDocument) -> str:
    length = format_duration(round(document.duration_s * SECOND_NS))
    return "; ".join([f"{sent_words(document)} in {length}", *failures_of(document)])


def _ending(document: RunDocument) -> Case:
    how, detail = document.ending.how, document.ending.detail
    if how == "whole":
        return Case("all", "ending")
    words = _ENDED.get(how, how) + (f": {detail}" if detail else "")
    return Case("all", "ending", "failure" if how == "circuit_breaker" else "error", words, how)


def _validity(document: RunDocument) -> Case:
    validity = document.validity
    if validity.verdict != "INVALID":
        return Case("all", "validity")
    reasons = [f"{reason.code}: {reason.message}" for reason in validity.reasons]
    advice = [reason.advice for reason in validity.reasons if reason.advice]
    return Case("all", "validity", "error", "; ".join(reasons), "INVALID", "\n".join(advice))


def _statuses(document: RunDocument) -> list[Case]:
    differs = document.status_differs
    if differs is None:
        return []
    if not differs.failed:
        return [Case("all", "statuses differ")]
    return [Case("all", "statuses differ", "failure", statuses_words(differs), "FAILED")]


def _objectives(document: RunDocument) -> list[Case]:
    return [_objective(outcome, document) for outcome in document.slo]


def _objective(outcome: SloOutcome, document: RunDocument) -> Case:
    where, name, summary = slo.parse(outcome.slo).route or "all", outcome.slo, slo.words_of(outcome)
    if document.validity.verdict == "INVALID":
        return Case(
            where,
            name,
            "skipped",
            f"the run is INVALID, so it shows nothing about the target; the figure {summary}",
        )
    if outcome.passed:
        return Case(where, name)
    return Case(where, name, "failure", f"{outcome.slo} is missed: it {summary}", "FAILED")


def _title(case: Case) -> str:
    """Return `p99 of GET /users/{id}` for an objective, otherwise the case's name."""
    if case.name in ("ending", "validity", "statuses differ"):
        return case.name
    return f"{slo.figure_name(slo.parse(case.name))} of {case.where}"


def _objective_row(outcome: SloOutcome, document: RunDocument) -> list[str]:
    case = _objective(outcome, document)
    word = {"passed": "met", "skipped": "not judged"}.get(case.status, "missed")
    return [code(outcome.slo), escaped(slo.words_of(outcome)), f"{MARK[case.status]} {word}"]


def _route_row(route: RouteFigures, document: RunDocument) -> list[str]:
    latency = route.service if document.closed_loop else route.response
    failed = sum(route.outcomes.get(name, 0) for name in FAILED)
    figures: Sequence[int | None] = (
        *((latency.p50_ns, latency.p99_ns) if latency is not None else (None, None)),
        route.recorded.p99_ns if route.recorded is not None else None,
    )
    share = format_share(failed / route.count) if route.count else ""
    return [
        code(route.route),
        f"{route.count:,}",
        share,
        *("" if ns is None else format_latency(ns) for ns in figures),
    ]
