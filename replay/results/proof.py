"""Checks whether a run proves objectives, and describes a failure for assertions in tests."""

from __future__ import annotations

from collections.abc import Sequence

from replay.errors import UsageError
from replay.naming import named_by
from replay.units import counted, duration_text, format_share

from . import slo
from .document import RunDocument, SloOutcome
from .failures import statuses_words
from .measured import Measured
from .verdicts import NOT_ENDED


def failed_proof(document: RunDocument, measured: Measured, objectives: Sequence[str]) -> str:
    """Return the message of an assertion; empty if the run proves every objective.

    Raise UsageError for an invalid objective.
    """
    if not objectives:
        raise UsageError("no objective to assert", hint=f"write {slo.FORMS}")
    parsed = [slo.parse(text) for text in objectives]
    outcomes = [(objective, _outcome(document, measured, objective)) for objective in parsed]
    lines = [
        line
        for objective, outcome in outcomes
        if not outcome.passed
        for line in _missed(measured, objective, outcome)
    ]
    if why := _proves_nothing(document):
        lines.insert(0, why)
    return "\n".join(lines)


def _proves_nothing(document: RunDocument) -> str:
    """Return why the figures of a run are no evidence; empty if they are."""
    how = document.ending.how
    if how in NOT_ENDED or how == "circuit_breaker":
        detail = f": {document.ending.detail}" if document.ending.detail else ""
        return f"the run did not end normally ({how}{detail}), so it proves no objective"
    if document.validity.verdict == "INVALID":
        reasons = "; ".join(reason.message for reason in document.validity.reasons)
        return f"the run is INVALID, so it proves no objective: {reasons}"
    if document.status_differs is not None and document.status_differs.failed:
        return f"{statuses_words(document.status_differs)}, so latencies prove little"
    return ""


def _outcome(document: RunDocument, measured: Measured, objective: slo.Slo) -> SloOutcome:
    """Return the outcome of an objective: the run's own, or one that is computed from the histograms.

    The run has an outcome for each objective that was one of its settings. Raise UsageError for another objective by
    window or on statuses, and for a route that the run does not have.
    """
    wanted = slo.canonical(objective)
    for known in document.slo:
        if slo.canonical(slo.parse(known.slo)) == wanted:
            return known
    statuses = objective.outcomes == (slo.STATUSES,)
    if objective.window_ns is not None or statuses:
        what = "worse statuses" if statuses else "windows"
        raise UsageError(
            f"{objective.text!r} was no objective of the run, and {what} are judged only during a run",
            hint=f"give it to the run: slo=[{objective.text!r}]",
        )
    if objective.route:
        rows = document.routes
        named_by([row.route for row in rows], [row.action for row in rows], objective.route, objective.text)
    return slo.evaluate([objective], measured)[0]


def _missed(measured: Measured, objective: slo.Slo, outcome: SloOutcome) -> list[str]:
    """Return the message for a missed objective: figure and limit, then its route and the number of requests."""
    share = objective.unit == "share"
    limit = format_share(objective.limit) if share else duration_text(round(objective.limit))
    operator = "<=" if objective.or_equal else "<"
    figure = slo.figure_name(objective)
    if not share:
        figure += "" if objective.metric != "response" else " response"
    return [
        f"{figure} {slo.words_of(outcome)}; the limit is {operator} {limit}",
        f"  route:   {objective.route or 'all routes'}",
        f"  count:   {counted(_count(measured, objective), 'request')}",
    ]


def _count(measured: Measured, objective: slo.Slo) -> int:
    if objective.percentile is not None:
        histogram = measured.histogram(objective.metric, objective.route)
        return histogram.count if histogram is not None else 0
    routes = measured.members(objective.route) if objective.route else measured.outcomes
    return sum(sum(measured.outcomes.get(name, {}).values()) for name in routes)
