"""JUnit XML in the form that Jenkins and GitLab read."""

from __future__ import annotations

from xml.etree import ElementTree as Xml

from replay.shown import shown

from .result import Case, Suite


def junit(suite: Suite) -> bytes:
    """Return the XML of one suite."""
    counts = {"tests": str(len(suite.cases))}
    for plural, status in (("failures", "failure"), ("errors", "error")):
        counts[plural] = str(sum(case.status == status for case in suite.cases))
    skipped = str(sum(case.status == "skipped" for case in suite.cases))
    time_s = _seconds(suite.time_s)
    root = Xml.Element("testsuites", {"name": suite.command, **counts})
    named = {"name": shown(suite.name), **counts, "skipped": skipped, "time": time_s}
    element = Xml.SubElement(root, "testsuite", named)
    for case in suite.cases:
        element.append(_case(case, time_s))
    if suite.output:
        Xml.SubElement(element, "system-out").text = shown(suite.output, lines=True)
    Xml.indent(root)
    text = Xml.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _case(case: Case, time_s: str) -> Xml.Element:
    named = {"classname": shown(case.where), "name": shown(case.name), "time": time_s}
    element = Xml.Element("testcase", named)
    if case.status in ("failure", "error"):
        attributes = {"message": shown(case.message), "type": case.kind or case.status}
        Xml.SubElement(element, case.status, attributes).text = shown(case.detail, lines=True)
    elif case.status == "skipped":
        Xml.SubElement(element, "skipped", {"message": shown(case.message)})
    return element


def _seconds(time_s: float) -> str:
    return f"{max(time_s, 0.0):.3f}"
