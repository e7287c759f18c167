"""A diagnosis in reports: one sentence, its evidence, and the course of each objective in one table."""

from __future__ import annotations

from collections.abc import Sequence

from replay.diagnosis.document import Diagnosis, ObjectiveCourse
from replay.units import SECOND_NS, format_duration, format_share

from .html import Html, html_table
from .page import Page
from .svg import escape

EVIDENCE_SHOWN = 6

HEADS = ("objective", "first breach", "missed for", "recovery", "hysteresis", "area above")


def has_news(found: Diagnosis) -> bool:
    """Whether there is something to show: harm, a limit that was near, or an objective that was judged by the second."""
    return found.harmed_s is not None or bool(found.evidence)


def rows_of(course: Sequence[ObjectiveCourse]) -> list[list[str]]:
    """The course of each objective in cells."""
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
    return [f"at {each.breached_s:.0f} s", _seconds(each.bad_s), recovery, lag, _area(each)]


def _seconds(value_s: float) -> str:
    return format_duration(round(value_s * SECOND_NS))


def _area(each: ObjectiveCourse) -> str:
    if each.area_unit == "requests":
        return f"{each.area:,.0f} requests"
    return f"{each.area:.3g} s x s"


def amplification_words(found: Diagnosis) -> str:
    """What retries of the generator added; empty without retries."""
    if found.amplification is None:
        return ""
    return f"amplification by retries: {found.amplification:.2f} requests at the target for each request of a user"


READING = (
    "By the seconds of the run. Recovery: when it was met again until the end. Hysteresis: by how much the load was lower at"
    " the recovery than at the breach. Area: how much lay above the objective, times how long."
)


def diagnosis_section(found: Diagnosis) -> str:
    """The section of a page; empty if there is nothing to show."""
    if not has_news(found):
        return ""
    sentences = [*found.evidence, *found.shared_evidence][:EVIDENCE_SHOWN]
    if found.shared_cause:
        sentences.insert(
            len(found.evidence[:EVIDENCE_SHOWN]), "share a cause: " + ", ".join(found.shared_cause)
        )
    listed = "".join(f"<li>{escape(words)}</li>" for words in sentences)
    made = f"<h2>What gave way</h2><p><b>{escape(found.words)}</b></p>"
    made += f'<ul class="soft">{listed}</ul>' if listed else ""
    made += html_table(HEADS, rows_of(found.course), reading=READING)
    if words := amplification_words(found):
        made += f'<p class="soft">{escape(words)}</p>'
    return Html(made)


def print_diagnosis(page: Page, found: Diagnosis) -> None:
    """The section of the terminal's report; nothing if there is nothing to show."""
    if not has_news(found):
        return
    page.title("What gave way")
    page.say(found.words, "bold")
    for sentence in [*found.evidence, *found.shared_evidence][:EVIDENCE_SHOWN]:
        page.say(sentence, indent=2)
    kinds = ("name", "right", "right", "right", "right", "right")
    page.table(list(zip(HEADS, kinds, strict=True)), rows_of(found.course))
    if words := amplification_words(found):
        page.say(words)
