"""What a CI system shows of a comparison: a Markdown summary, annotations, and JUnit XML with a case a metric."""

from __future__ import annotations

import math
from xml.etree import ElementTree as Xml

from replay.shown import shown
from replay.units import format_latency, format_share

from .decision import Finding
from .metrics import Metric
from .verdict import Comparison
from .words import change_text

ANNOTATIONS_MAX = 10
"""GitHub shows no more of one step."""

_MARK = {
    "REGRESSION": "❌",
    "INVALID": "❌",
    "IMPROVEMENT": "✅",
    "NO_REGRESSION": "✅",
    "INCONCLUSIVE": "❔",
}
_LEVEL = {"REGRESSION": "error", "INVALID": "error", "INCONCLUSIVE": "warning"}


def figure_text(value: float, metric: Metric) -> str:
    """A side's figure: a latency, or a share."""
    return format_latency(round(value)) if metric.is_latency else format_share(value)


def interval_text(finding: Finding) -> str:
    """`+1.2% to +4.5%`, or what little is known."""
    low, high = (change_text(value, finding.metric) for value in (finding.low, finding.high))
    return "unknown" if math.isinf(finding.low) and math.isinf(finding.high) else f"{low} to {high}"


def caught_text(found: Comparison) -> str:
    """What this comparison would have caught, in a sentence; empty where there is nothing to say of it."""
    if not found.findings:
        return ""
    if math.isinf(found.caught):
        return "This comparison could have caught no slowdown, however large."
    return f"This comparison would have caught +{100 * found.caught:.0f}% on any of its latencies (4 times in 5)."


def runs_text(finding: Finding) -> str:
    """How many runs a side would settle a metric; empty where it is settled."""
    if finding.verdict != "INCONCLUSIVE":
        return ""
    return ">999" if finding.runs_needed is None else str(finding.runs_needed)


def markdown(found: Comparison) -> str:
    """A section for a job summary."""
    lines = [f"### {_MARK[found.verdict]} {found.verdict}: {_escaped(found.sentence)}", ""]
    if found.findings:
        simultaneous = f"{100 * (1 - found.options.alpha):g}% interval"
        interval = "within-run interval" if found.findings[0].within_run else simultaneous
        labels = f"{_escaped(found.base.label)} | {_escaped(found.new.label)}"
        lines.append(f"| route | metric | {labels} | change | {interval} | p | verdict |")
        lines.append("|---|---|--:|--:|--:|---|--:|---|")
        lines += [_markdown_row(finding) for finding in found.findings]
        lines.append("")
    lines += [
        f"- {_escaped(text)}"
        for text in (*found.reasons, *found.notes, *(f"left out: {t}" for t in found.left_out))
    ]
    if caught := caught_text(found):
        lines.append(f"- {caught}")
    runs = f"{len(found.base.runs)} and {len(found.new.runs)} runs"
    lines.append(
        f"- {runs}; tolerance {100 * found.options.tolerance:g}%; {found.design or 'nothing was permuted'}"
    )
    return "\n".join(lines) + "\n\n"


def _markdown_row(finding: Finding) -> str:
    metric = finding.metric
    p = "" if finding.p_adjusted is None else f"{finding.p_adjusted:.3g}"
    cells = [_code(metric.where), _escaped(metric.name)]
    texts = [
        figure_text(finding.base, metric),
        figure_text(finding.new, metric),
        change_text(finding.change, metric),
    ]
    texts += [interval_text(finding), p, f"{_MARK[finding.verdict]} {finding.verdict}"]
    return "| " + " | ".join([*cells, *map(_escaped, texts)]) + " |"


_MARKDOWN = str.maketrans(
    {
        "&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "&#64;", "|": "\\|", "`": "\\`", "*": "\\*", "[": "\\[", "]": "\\]",
        "~": "\\~", "\\": "\\\\",
    }
)  # fmt: skip
"""What would be a tag, a mention, a cell, a link or an emphasis."""


def _escaped(text: str) -> str:
    """A text as Markdown shows it, in one line."""
    return shown(text.replace("\n", " ")).translate(_MARKDOWN)


def _code(text: str) -> str:
    """A text as code, which ends at no backtick of its own."""
    return "`" + shown(text).replace("`", "'").replace("|", "\\|").replace("<", "&lt;") + "`"


def github_annotations(found: Comparison) -> list[str]:
    """GitHub workflow commands: the verdict, then the metrics that need a look, at most ANNOTATIONS_MAX."""
    lines = [_annotation(_LEVEL.get(found.verdict, "notice"), found.verdict, found.sentence)]
    shown = [f for f in found.findings if f.verdict in ("REGRESSION", "IMPROVEMENT")]
    for finding in shown[: ANNOTATIONS_MAX - 1]:
        level = _LEVEL.get(finding.verdict, "notice")
        said = f"{change_text(finding.change, finding.metric)} ({interval_text(finding)})"
        lines.append(_annotation(level, f"{finding.metric.name} of {finding.metric.where}", said))
    return lines


def _annotation(level: str, title: str, message: str) -> str:
    def escaped(text: str, also: str = "") -> str:
        text = shown(text.replace("\n", " "))
        for char in "%\r\n" + also:
            text = text.replace(char, f"%{ord(char):02X}")
        return text

    return f"::{level} title={escaped('replay: ' + title, ':,')}::{escaped(message)}"


def junit(found: Comparison) -> bytes:
    """JUnit XML: one suite, a case for each metric, those that one side lacks too. A regression is a failure; what could not
    be told is skipped with its reason, or a failure with `--fail-on inconclusive`.

    Where no case says what the verdict says, the verdict itself is a case: the suite is never green where the exit code, or
    the verdict, is not.
    """
    cases = [_case(finding, found) for finding in found.findings]
    cases += [_lacking_case(text, found) for text in found.left_out if text in found.reasons]
    if not cases or not _says_the_verdict(cases, found):
        cases.append(_whole_case(found))
    failures = sum(case.find("failure") is not None for case in cases)
    errors = sum(case.find("error") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": str(errors)}
    root = Xml.Element("testsuites", {"name": "replay compare", **counts})
    suite = Xml.SubElement(
        root,
        "testsuite",
        {
            "name": f"{_clean(found.new.label)} against {_clean(found.base.label)}",
            **counts,
            "skipped": str(skipped),
            "time": "0",
        },
    )
    suite.extend(cases)
    Xml.SubElement(suite, "system-out").text = _clean(f"{found.verdict}: {found.sentence}")
    Xml.indent(root)
    text = Xml.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _case(finding: Finding, found: Comparison) -> Xml.Element:
    name = {"classname": _clean(finding.metric.where), "name": _clean(finding.metric.name), "time": "0"}
    case = Xml.Element("testcase", name)
    said = f"{change_text(finding.change, finding.metric)} ({interval_text(finding)})"
    if finding.verdict == "REGRESSION":
        Xml.SubElement(case, "failure", {"message": said, "type": finding.verdict}).text = _clean(
            found.sentence
        )
    elif finding.verdict == "INCONCLUSIVE":
        runs = runs_text(finding)
        said += f"; {runs} runs a side would show it" if runs else ""
        why = f"{found.reasons[0]}; {said}" if found.reasons else said
        _undecided(case, why, found)
    return case


def _lacking_case(text: str, found: Comparison) -> Xml.Element:
    """A metric that could not be tested, from `GET /a p99: base measured nothing (only in new)`."""
    what, _, why = text.rpartition(": ")
    where, _, metric = what.rpartition(" ")
    case = Xml.Element("testcase", {"classname": _clean(where), "name": _clean(metric), "time": "0"})
    _undecided(case, why, found)
    return case


def _undecided(case: Xml.Element, why: str, found: Comparison) -> None:
    """Mark a case as one of which nothing was shown."""
    if found.options.fail_on == "inconclusive":
        Xml.SubElement(case, "failure", {"message": _clean(why), "type": "INCONCLUSIVE"})
    else:
        Xml.SubElement(case, "skipped", {"message": _clean(f"inconclusive: {why}")})


def _says_the_verdict(cases: list[Xml.Element], found: Comparison) -> bool:
    """Whether the cases alone say that a verdict is not green."""
    failed = any(case.find(kind) is not None for case in cases for kind in ("failure", "error"))
    if found.exit_code:
        return failed
    return found.verdict != "INCONCLUSIVE" or any(case.find("skipped") is not None for case in cases)


def _whole_case(found: Comparison) -> Xml.Element:
    case = Xml.Element("testcase", {"classname": "all", "name": "verdict", "time": "0"})
    if found.verdict == "INCONCLUSIVE":
        _undecided(case, found.sentence, found)
    elif found.exit_code:
        kind = "failure" if found.verdict == "REGRESSION" else "error"
        Xml.SubElement(case, kind, {"message": _clean(found.sentence), "type": found.verdict})
    return case


def _clean(text: str) -> str:
    """With what XML cannot hold, or nobody sees, written out."""
    return shown(text)
