"""What CI systems show of a comparison is never greener than its verdict."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.comparison.decision import Finding, Options
from replay.comparison.metrics import Metric
from replay.comparison.sides import Side, SideRun
from replay.comparison.verdict import Comparison
from replay.comparison.words import overall
from replay.results.measured import Measured
from tests.support.compare_data import junit_of

GAP = "GET /a: b p99: base measured nothing (only in new)"
MEASURED = Measured(lambda _: None, {}, 1)


def finding(verdict: Any, runs_needed: int | None = 12, high: float = 0.3) -> Finding:
    return Finding(
        metric=Metric("response", 99.0), verdict=verdict, base=1e6, new=1.1e6, change=0.1, low=-0.1, high=high,
        within_run=False, p_adjusted=0.5, runs_needed=runs_needed, caught=0.4,
    )  # fmt: skip


def side(label: str, runs: int = 5) -> Side:
    return Side(label, tuple(SideRun(f"{label}-{number}", MEASURED) for number in range(runs)))


def comparison(verdict: str, **more: Any) -> Comparison:
    given: dict[str, Any] = {
        "sentence": "words", "reasons": (), "notes": (), "left_out": (), "findings": (), "base": side("base"),
        "new": side("new"), "options": Options(),
    }  # fmt: skip
    return Comparison(verdict=verdict, **(given | more))  # type: ignore[arg-type]


def cases(found: Comparison) -> list[tuple[str, str, str]]:
    """(class, name, failure, error or skipped) of each case."""
    suite = Xml.fromstring(junit_of(found))
    return [
        (case.get("classname", ""), case.get("name", ""), next((child.tag for child in case), ""))
        for case in suite.iter("testcase")
    ]


@given(
    verdict=st.sampled_from(["REGRESSION", "IMPROVEMENT", "NO_REGRESSION", "INCONCLUSIVE", "INVALID"]),
    findings=st.lists(
        st.sampled_from(["REGRESSION", "IMPROVEMENT", "NO_REGRESSION", "INCONCLUSIVE"]), max_size=4
    ),
    gap=st.booleans(),
    fail_on=st.sampled_from(["regression", "inconclusive"]),
)
def test_no_suite_is_green_where_the_verdict_is_not(
    verdict: str, findings: list[str], gap: bool, fail_on: Any
) -> None:
    found = comparison(
        verdict,
        findings=tuple(map(finding, findings)),
        options=Options(fail_on=fail_on),
        reasons=(GAP,) if gap else (),
        left_out=(GAP, "errors: a log does not record how requests ended"),
    )
    kinds = [kind for *_, kind in cases(found)]
    assert kinds
    if found.exit_code:
        assert "failure" in kinds or "error" in kinds
    if verdict == "INCONCLUSIVE":
        assert ("failure" if fail_on == "inconclusive" else "skipped") in kinds


@pytest.mark.parametrize(("fail_on", "kind"), [("regression", "skipped"), ("inconclusive", "failure")])
def test_a_metric_that_one_side_lacks_is_a_case(fail_on: Any, kind: str) -> None:
    found = comparison(
        "INCONCLUSIVE", findings=(finding("NO_REGRESSION"),), options=Options(fail_on=fail_on), reasons=(GAP,),
        left_out=(GAP, "errors: a log does not record how requests ended"),
    )  # fmt: skip
    assert cases(found) == [("all", "p99", ""), ("GET /a: b", "p99", kind)]
    assert "measured nothing" in junit_of(found).decode()


def test_a_doubt_about_a_whole_run_is_a_case_of_its_own() -> None:
    found = comparison("INCONCLUSIVE", findings=(finding("NO_REGRESSION"),), reasons=("a run was cut off",))
    assert cases(found) == [("all", "p99", ""), ("all", "verdict", "skipped")]


@pytest.mark.parametrize(
    ("findings", "reasons", "doubts", "says"),
    [
        ([finding("INCONCLUSIVE", 745)], [], [], "about 745 runs per side would decide it"),
        ([finding("INCONCLUSIVE", None)], [], [], "even 999 runs per side would not decide it"),
        ([finding("INCONCLUSIVE", 4, math.inf)], [], [], "about 4 runs per side would decide it"),
        (
            [finding("INCONCLUSIVE", 9)],
            ["one run of base"],
            [],
            "about 9 comparable runs per side would decide it",
        ),
        (
            [finding("NO_REGRESSION", 2)],
            [],
            ["a run was cut off"],
            "about 4 whole runs per side would decide it",
        ),
    ],
)
def test_an_open_question_says_first_that_nothing_was_shown_and_how_many_runs_would(
    findings: list[Finding], reasons: list[str], doubts: list[str], says: str
) -> None:
    verdict, sentence = overall(findings, reasons, doubts, side("base"), side("new"), Options())
    assert verdict == "INCONCLUSIVE"
    assert sentence.startswith("no difference was shown in either direction: ") and says in sentence
