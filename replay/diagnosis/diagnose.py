"""Combines the parts of a diagnosis of a run."""

from __future__ import annotations

from replay.results import slo
from replay.results.run import Run

from .course import courses_of, harmed_at
from .document import Diagnosis
from .resources import Given, first_of
from .shared import Shared, shared_cause
from .usage import fixed_limits

CANNOT_TELL = "cannot tell"

GENERATOR_FULL = "the run is INVALID, so the generator itself may have caused the harm"


def diagnose(run: Run) -> Diagnosis:
    """Diagnose the cause of the harm in a run. It never raises for a run that can be read."""
    document, rows = run.document, run.seconds()
    objectives = slo.parse_known(outcome.slo for outcome in document.slo)
    harmed = harmed_at(rows, objectives)
    given = first_of(document.watched, fixed_limits(document), rows, harmed)
    if document.validity.verdict == "INVALID" and given.first is not None:
        given = Given(None, [GENERATOR_FULL, *given.evidence], given.resources)
    shared = shared_cause(run, rows, harmed)
    harmed_s = None if harmed is None else rows[harmed].t_s
    return Diagnosis(
        words=_words(given, shared, harmed_s, is_watched=bool(document.watched)),
        first_resource=given.first,
        evidence=given.evidence,
        shared_cause=shared.routes,
        shared_evidence=shared.evidence,
        harmed_s=harmed_s,
        resources=given.resources,
        course=courses_of(rows, objectives),
        amplification=None if document.retries is None else document.retries.amplification,
    )


def _words(given: Given, shared: Shared, harmed_s: float | None, *, is_watched: bool) -> str:
    """Return the answer in one sentence."""
    if harmed_s is None:
        return "no harm seen: nothing to explain"
    if given.first is not None:
        return f"{given.first} gave way first; users felt it from {harmed_s:.0f} s on"
    more = [f"{given.changed_first} changed first, which is no proof"] if given.changed_first else []
    more += [shared.words] if shared.routes else []
    if more:
        return f"{CANNOT_TELL} what gave way; {'; '.join(more)}"
    if not is_watched:
        return f"{CANNOT_TELL}: no figure of the target was watched ([[watch]]), and {shared.words}"
    return f"{CANNOT_TELL}: the watched figures do not prove a cause, and {shared.words}"
