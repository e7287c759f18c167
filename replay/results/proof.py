"""What a run proves of objectives, for assertions in tests: which of them it does not, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from replay.errors import UsageError
from replay.naming import named_by
from replay.units import counted, duration_text, format_share

from . import slo
from .document import RunDocument, SloOutcome
from .verdicts import NOT_ENDED

if TYPE_CHECKING:
    from .run import Run


def failed_proof(run: Run, objectives: Sequence[str]) -> str:
    """What an assertion says; empty where the run proves every objective. UsageError for a wrong objective."""
    if not objectives:
        raise UsageError("no objective to assert", hint=f"write {slo.FORMS}")
    parsed = [slo.parse(text) for text in objectives]
    missed = [
        (objective, outcome) for objective in parsed if not (outcome := _outcome(run, objective)).passed
    ]
    lines = [line for objective, outcome in missed for line in _missed(run, objective, outcome)]
    if why := _proves_nothing(run.document):
        lines.insert(0, why)
    if not lines:
        return ""
    return "\n".join([*lines, f"  verdict: {run.verdict}", f"  run:     {run.folder.path}"])


def _proves_nothing(document: RunDocument) -> str:
    """Why no figure of a run is evidence; empty where they are."""
    how = document.ending.how
    if how in NOT_ENDED or how == "circuit_breaker":
        detail = f": {document.ending.detail}" if document.ending.detail else ""
        return f"the run did not come to its end ({how}{detail}), so it proves no objective"
    if document.validity.verdict == "INVALID":
        reasons = "; ".join(reason.message for reason in document.validity.reasons)
        return f"the generator was at its limit, so this run proves no objective: {reasons}"
    if document.status_differs is not None and document.status_differs.failed:
        share = format_share(document.status_differs.share)
        return f"{share} of the responses are worse than recorded, so latencies mean little"
    return ""


def _outcome(run: Run, objective: slo.Slo) -> SloOutcome:
    """The outcome of an objective: the run's own where it was a setting of the run, else from the histograms."""
    wanted = slo.canonical(objective)
    for known in run.document.slo:
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
        rows = run.document.routes
        named_by([row.route for row in rows], [row.action for row in rows], objective.route, objective.text)
    return slo.evaluate([objective], run.measured)[0]


def _missed(run: Run, objective: slo.Slo, outcome: SloOutcome) -> list[str]:
    """An objective that is missed: figure and limit, then its route and how many requests it is of."""
    share = objective.unit == "share"
    limit = format_share(objective.limit) if share else duration_text(round(objective.limit))
    operator = "<=" if objective.or_equal else "<"
    figure = slo.figure_name(objective)
    if not share:
        figure += "" if objective.metric != "response" else " response"
    return [
        f"{figure} {slo.words_of(outcome)}; the limit is {operator} {limit}",
        f"  route:   {objective.route or 'all routes'}",
        f"  count:   {counted(_count(run, objective), 'request')}",
    ]


def _count(run: Run, objective: slo.Slo) -> int:
    if objective.percentile is not None:
        histogram = run.measured.histogram(objective.metric, objective.route)
        return histogram.count if histogram is not None else 0
    routes = run.measured.members(objective.route) if objective.route else run.measured.outcomes
    return sum(sum(run.measured.outcomes.get(name, {}).values()) for name in routes)
