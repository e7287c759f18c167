"""A diagnosis in reports: one sentence, its evidence, and a table of when each objective was missed and met again."""

from __future__ import annotations

from collections.abc import Sequence

from replay.diagnosis.document import Diagnosis, ObjectiveCourse
from replay.units import SECOND_NS, counted, format_duration, format_latency, format_share

from .html import Html, html_table
from .page import Page
from .svg import escape

EVIDENCE_SHOWN = 6

HEADS = ("objective", "first breach", "missed for", "recovery", "hysteresis", "exceeded by")


def has_news(found: Diagnosis) -> bool:
    """Return whether there is something to show.

    That is a missed objective, or evidence such as a limit that was nearly reached.
    """
    return found.harmed_s is not None or bool(found.evidence)


def rows_of(course: Sequence[ObjectiveCourse]) -> list[list[str]]:
    """Return the course of each objective as the cells of a table row."""
    return [[each.objective, *_cells(each)] for each in course]


def _cells(each: ObjectiveCourse) -> list[str]:
    if each.note:
        return [each.note, "", "", "", ""]
    if each.breached_s is None:
        return ["never", "-", "-", "-", "-"]
    recovery = "not recovered" if each.recovered_s is None else f"at {each.recovered_s:.0f} s"
    lag = "-"
    if each.hysteresis is not None:
        lag = f"{format_share(each.hysteresis)} below" if each.hysteresis else "none"
    return [f"at {each.breached_s:.0f} s", _seconds(each.bad_s), recovery, lag, _exceeded(each)]


def _seconds(value_s: float) -> str:
    return format_duration(round(value_s * SECOND_NS))


def _exceeded(each: ObjectiveCourse) -> str:
    """Return how far the objective was exceeded, in words.

    For a share of requests it is the number of requests above it, for a latency the mean excess while it was
    missed.
    """
    if each.area_unit == "requests":
        return counted(round(each.area), "request")
    return f"{format_latency(each.area / each.bad_s * SECOND_NS)} on average" if each.bad_s else "-"


def _evidence(found: Diagnosis) -> list[str]:
    """Return at most EVIDENCE_SHOWN sentences of evidence, without those that the diagnosis already contains."""
    shown_evidence = [
        words for words in (*found.evidence, *found.shared_evidence) if words not in found.words
    ]
    return shown_evidence[:EVIDENCE_SHOWN]


def amplification_words(found: Diagnosis) -> str:
    """Return how much load the generator's retries added, in words; empty without retries."""
    if found.amplification is None:
        return ""
    return f"amplification by retries: {found.amplification:.2f} requests at the target per request of a user"


READING = (
    "Judged per second of the run. Recovery: the time from which the objective was met until the end. Hysteresis: how"
    " much lower the load was at the recovery than at the breach. Exceeded by: for a latency, the mean excess over the"
    " objective while it was missed; for a share of requests, the number of requests above it."
)


def diagnosis_section(found: Diagnosis) -> str:
    """Return the section of a page; empty if there is nothing to show."""
    if not has_news(found):
        return ""
    sentences = _evidence(found)
    if found.shared_cause and (routes := ", ".join(found.shared_cause)) not in found.words:
        own = sum(words in found.evidence for words in sentences)
        sentences.insert(own, f"share a cause: {routes}")
    listed = "".join(f"<li>{escape(words)}</li>" for words in sentences)
    made = f"<h2>What gave way</h2><p><b>{escape(found.words)}</b></p>"
    made += f'<ul class="soft">{listed}</ul>' if listed else ""
    made += html_table(HEADS, rows_of(found.course), reading=READING)
    if words := amplification_words(found):
        made += f'<p class="soft">{escape(words)}</p>'
    return Html(made)


def print_diagnosis(page: Page, found: Diagnosis) -> None:
    """Print the section of the terminal's report, unless there is nothing to show."""
    if not has_news(found):
        return
    page.title("What gave way")
    page.say(found.words, "bold")
    for sentence in _evidence(found):
        page.say(sentence, indent=2)
    kinds = ("name", "right", "right", "right", "right", "right")
    page.table(list(zip(HEADS, kinds, strict=True)), rows_of(found.course))
    if words := amplification_words(found):
        page.say(words)
