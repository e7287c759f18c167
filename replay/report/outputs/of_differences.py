"""A comparison of responses for CI systems: a test case for each differing field, a summary, annotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from replay.differences.document import to_json
from replay.differences.findings import Differences, FieldFinding
from replay.report.differences import following_text, noisy_words, share_text, smallest_text, within_text
from replay.units import counted, format_share

from .markdown import bullets, code, escaped, table
from .result import Annotation, Case, Level, Status, Suite, no_greener

_MARK = {"DIFFERENT": "❌", "INVALID": "❌", "SAME": "✅", "INCONCLUSIVE": "❔"}
_LEVEL: dict[str, Level] = {"DIFFERENT": "error", "INVALID": "error", "INCONCLUSIVE": "warning"}

NOISY_MAX = 20
"""How many fields the summary lists that the verdict does not count as different."""


@dataclass(frozen=True, slots=True)
class DifferencesResult:
    """The outputs of `replay diff`."""

    found: Differences

    def json(self) -> bytes:
        """Return the figures as JSON."""
        return to_json(self.found)

    def page(self, path: Path) -> None:
        """Write the page of the comparison."""
        from replay.report.differences_page import write_differences_page

        write_differences_page(self.found, path)

    def suite(self) -> Suite:
        """Return a case for each differing field, and one for the verdict unless the fields show it.

        The verdict has a case if no field differs, if it is INVALID or INCONCLUSIVE, or if the command fails although
        no field's case does.
        """
        found = self.found
        cases = [self._case(one) for one in found.fields]
        whole = self._whole_case()
        if not cases or found.verdict in ("INVALID", "INCONCLUSIVE"):
            cases.append(whole)
        cases = no_greener(cases, failed=bool(found.exit_code), whole=whole)
        name = f"{found.new.label} against {found.base.label}"
        return Suite("replay diff", name, cases, 0.0, f"{found.verdict}: {found.sentence}")

    def _case(self, one: FieldFinding) -> Case:
        if not one.different:
            status: Status = "skipped" if self.found.reasons else "passed"
            return Case(one.route, one.field, status, self.found.reasons[0] if self.found.reasons else "")
        detail = "\n".join(
            f"request {example.number} {example.pointer}: {example.base} -> {example.new}" for example in one.examples
        )  # fmt: skip
        summary = share_text(one) + following_text(one)
        if "different" not in self.found.fail_on:
            return Case(one.route, one.field, "skipped", f"different: {summary}")
        return Case(one.route, one.field, "failure", summary, one.kind, detail)

    def _whole_case(self) -> Case:
        found = self.found
        if found.verdict == "INCONCLUSIVE" and not found.exit_code:
            return Case("all", "verdict", "skipped", found.sentence)
        status: Status = "passed"
        if found.exit_code:
            status = "error" if found.verdict == "INVALID" else "failure"
        return Case("all", "verdict", status, found.sentence, found.verdict)

    def markdown(self) -> str:
        """Return the verdict, a table of the different fields, and one of at most NOISY_MAX others."""
        found = self.found
        lines = [f"### {_MARK[found.verdict]} {found.verdict}: {escaped(found.sentence)}", ""]
        if named := found.different:
            heads = ["route", "field", "kind", "within base>", "across>", "first example"]
            lines += table(heads, [_row(one) for one in named])
        noisy = [one for one in found.fields if not one.different][:NOISY_MAX]
        if noisy:
            heads = ["route", "field", "kind", "within base>", "across>", "would have found>"]
            lines += [
                f"Fields that differ {noisy_words(found, noisy)}:",
                "",
                *table(heads, map(_noisy_row, noisy)),
            ]
        lines += bullets([*found.reasons, *found.notes])
        runs = f"{len(found.base.runs)} and {len(found.new.runs)} runs"
        lines.append(
            f"- {runs}; {counted(found.requests, 'request')}; {counted(found.equal, 'field')} always equal"
        )
        return "\n".join(lines) + "\n\n"

    def annotations(self) -> list[Annotation]:
        """Return an annotation for the verdict, then one for each field that differs between the builds.

        Fields whose difference follows from another one have none.
        """
        found = self.found
        level = _LEVEL.get(found.verdict, "notice")
        if found.verdict == "DIFFERENT" and not found.exit_code:
            level = "warning"
        return [
            Annotation(level, found.verdict, found.sentence),
            *(
                Annotation(level, f"{one.field} of {one.route}", share_text(one) + following_text(one))
                for one in found.different
                if one.is_first
            ),
        ]


def _row(one: FieldFinding) -> list[str]:
    example = ""
    if one.examples:
        first = one.examples[0]
        example = f"{code(first.base)} → {code(first.new)}"
    shares = [within_text(one), format_share(one.across)]
    return [code(one.route), code(one.field), escaped(one.kind), *map(escaped, shares), example]


def _noisy_row(one: FieldFinding) -> list[str]:
    shares = [within_text(one), format_share(one.across), smallest_text(one)]
    return [code(one.route), code(one.field), escaped(one.kind), *map(escaped, shares)]
