"""A comparison for CI systems: a test case for each metric, a summary, annotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from replay.comparison.decision import Finding
from replay.comparison.document import to_json
from replay.comparison.outputs import caught_text, figure_text, interval_text, runs_text
from replay.comparison.sides import SideRun
from replay.comparison.verdict import Comparison
from replay.comparison.words import change_text
from replay.units import SECOND_NS

from .markdown import bullets, code, escaped, table
from .of_differences import DifferencesResult
from .result import Annotation, Case, Level, Status, Suite

_MARK = {
    "REGRESSION": "❌",
    "INVALID": "❌",
    "IMPROVEMENT": "✅",
    "NO_REGRESSION": "✅",
    "INCONCLUSIVE": "❔",
}
_LEVEL: dict[str, Level] = {"REGRESSION": "error", "INVALID": "error", "INCONCLUSIVE": "warning"}


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """The outputs of `replay compare` and `replay ab`."""

    found: Comparison

    def json(self) -> bytes:
        """Return the text of compare.json."""
        return to_json(self.found)

    def page(self, path: Path) -> None:
        """Write the page of the comparison."""
        from replay.report.comparison_page import write_comparison_page

        write_comparison_page(self.found, path)

    def suite(self) -> Suite:
        """Return a case for each metric, including those that only one side measured, and the cases of the responses.

        A regression is a failure. An inconclusive metric is skipped with its reason, or is a failure with
        `--fail-on inconclusive`. If no case reflects the verdict, the verdict itself becomes a case. The suite is
        therefore green only if the exit code and the verdict are.
        """
        found = self.found
        cases = [self._case(finding) for finding in found.findings]
        cases += [self._lacking_case(text) for text in found.left_out if text in found.reasons]
        if not cases or not self._says_the_verdict(cases):
            cases.append(self._whole_case())
        runs = (*found.base.runs, *found.new.runs)
        name = f"{found.new.label} against {found.base.label}"
        summary = f"{found.verdict}: {found.sentence}"
        if found.responses is not None:
            cases += DifferencesResult(found.responses).suite().cases
        return Suite("replay compare", name, cases, sum(map(_length_s, runs)), summary)

    def _case(self, finding: Finding) -> Case:
        found, where, name = self.found, finding.metric.where, finding.metric.name
        summary = _summary(finding)
        if finding.verdict == "REGRESSION":
            return Case(where, name, "failure", summary, finding.verdict, found.sentence)
        if finding.verdict != "INCONCLUSIVE":
            return Case(where, name)
        runs = runs_text(finding)
        summary += f"; {runs} runs per side would decide it" if runs else ""
        return self._undecided(where, name, f"{found.reasons[0]}; {summary}" if found.reasons else summary)

    def _lacking_case(self, text: str) -> Case:
        """Return the case of a metric that could not be tested.

        It is made from a text such as `GET /a p99: base measured nothing (only in new)`.
        """
        what, _, why = text.rpartition(": ")
        where, _, metric = what.rpartition(" ")
        return self._undecided(where or "all", metric, why)

    def _undecided(self, where: str, name: str, why: str) -> Case:
        """Return the case of a metric without a conclusion."""
        if "inconclusive" in self.found.options.fail_on:
            return Case(where, name, "failure", why, "INCONCLUSIVE")
        return Case(where, name, "skipped", f"inconclusive: {why}")

    def _says_the_verdict(self, cases: list[Case]) -> bool:
        """Return whether the cases already reflect a verdict that is not green; True for a green one."""
        if self.found.exit_code:
            return any(case.status in ("failure", "error") for case in cases)
        return self.found.verdict != "INCONCLUSIVE" or any(case.status == "skipped" for case in cases)

    def _whole_case(self) -> Case:
        found = self.found
        if found.verdict == "INCONCLUSIVE":
            return self._undecided("all", "verdict", found.sentence)
        status: Status = "passed"
        if found.exit_code:
            status = "failure" if found.verdict == "REGRESSION" else "error"
        return Case("all", "verdict", status, found.sentence, found.verdict)

    def markdown(self) -> str:
        """Return the verdict, a table of the metrics, and notes."""
        found = self.found
        lines = [f"### {_MARK[found.verdict]} {found.verdict}: {escaped(found.sentence)}", ""]
        if found.findings:
            simultaneous = f"{100 * (1 - found.options.alpha):g}% interval"
            interval = "within-run interval" if found.findings[0].within_run else simultaneous
            labels = [f"{escaped(side.label)}>" for side in (found.base, found.new)]
            heads = ["route", "metric", *labels, "change>", interval, "p>", "verdict"]
            lines += table(heads, map(_row, found.findings))
        lines += bullets([*found.reasons, *found.notes, *(f"left out: {text}" for text in found.left_out)])
        if caught := caught_text(found):
            lines.append(f"- {caught}")
        runs = f"{len(found.base.runs)} and {len(found.new.runs)} runs"
        tolerance = f"tolerance {100 * found.options.tolerance:g}%"
        lines.append(f"- {runs}; {tolerance}; {found.design or 'no permutation test was made'}")
        text = "\n".join(lines) + "\n\n"
        return text + (DifferencesResult(found.responses).markdown() if found.responses is not None else "")

    def annotations(self) -> list[Annotation]:
        """Return an annotation for the verdict, one for each metric that changed, and those of the responses."""
        found = self.found
        changed = [finding for finding in found.findings if finding.verdict in ("REGRESSION", "IMPROVEMENT")]
        return [
            Annotation(_LEVEL.get(found.verdict, "notice"), found.verdict, found.sentence),
            *(
                Annotation(
                    _LEVEL.get(finding.verdict, "notice"),
                    f"{finding.metric.name} of {finding.metric.where}",
                    _summary(finding),
                )
                for finding in changed
            ),
            *(DifferencesResult(found.responses).annotations() if found.responses is not None else ()),
        ]


def _summary(finding: Finding) -> str:
    return f"{change_text(finding.change, finding.metric)} ({interval_text(finding)})"


def _row(finding: Finding) -> list[str]:
    metric = finding.metric
    texts = [
        figure_text(finding.base, metric),
        figure_text(finding.new, metric),
        change_text(finding.change, metric),
        interval_text(finding),
        "" if finding.p_adjusted is None else f"{finding.p_adjusted:.3g}",
        f"{_MARK[finding.verdict]} {finding.verdict}",
    ]
    return [code(metric.where), escaped(metric.name), *map(escaped, texts)]


def _length_s(run: SideRun) -> float:
    """Return the length of a run in seconds; 0 if unknown."""
    if run.document is not None:
        return run.document.duration_s
    begin, end = run.logged_ns or (0, 0)
    return (end - begin) / SECOND_NS
