"""A search for the peak, or a surge, for CI systems: a test case for each question that it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from replay.peaks.climb import Climb
from replay.peaks.recovery import Recovery
from replay.peaks.search import Trial
from replay.report.peak_trials import in_order, trial_cells
from replay.results import slo

from .markdown import code, escaped, table
from .result import MARK, Annotation, Case, Level, Status, Suite, no_greener

_CLIMBS: dict[str, Status] = {
    "FOUND": "passed", "NO_LIMIT": "passed", "GENERATOR_LIMITED": "error", "OUT_OF_TRIALS": "skipped",
    "FAILS_AT_LOWEST": "failure", "DID_NOT_RECOVER": "failure",
}  # fmt: skip
_SURGES: dict[str, Status] = {
    "RECOVERED": "passed", "NOT_HARMED": "passed", "DID_NOT_RECOVER": "failure", "UNKNOWN": "error", "UNSTEADY": "skipped",
}  # fmt: skip
_LEVELS: dict[Status, Level] = {
    "passed": "notice",
    "skipped": "warning",
    "failure": "error",
    "error": "error",
}


@dataclass(frozen=True, slots=True)
class PeakResult:
    """The outputs of `replay peak`. `document` is the text of peak.json, and `write_page` writes the page."""

    name: str
    verdict: str
    sentence: str
    cases: Sequence[Case]
    time_s: float
    facts: Sequence[tuple[str, str]]
    document: bytes
    write_page: Callable[[Path], None]
    trials: Sequence[Trial] = field(default_factory=tuple)

    def json(self) -> bytes:
        """Return the text of peak.json."""
        return self.document

    def page(self, path: Path) -> None:
        """Write the page with its charts."""
        self.write_page(path)

    def suite(self) -> Suite:
        """Return a case for each question that the search or surge answers."""
        return Suite("replay peak", self.name, self.cases, self.time_s, f"{self.verdict}: {self.sentence}")

    def markdown(self) -> str:
        """Return the verdict, the trials, the objectives, and other findings."""
        lines = [f"### {MARK[self._worst()]} {self.verdict}: {escaped(self.sentence)}", ""]
        if self.trials:
            heads = ["stage", "times>", "rate>", "p50>", "p99>", "failed>", "objectives"]
            lines += table(heads, [list(map(escaped, trial_cells(trial))) for trial in in_order(self.trials)])
        objectives = [case for case in self.cases if case.where != "all" or case.name not in _QUESTIONS]
        if objectives:
            rows = [[code(case.name), f"{MARK[case.status]} {escaped(case.message)}"] for case in objectives]
            lines += table(["objective", "result"], rows)
        return "\n".join([*lines, *map(_line, self.facts)]) + "\n\n"

    def annotations(self) -> list[Annotation]:
        """Return an annotation for the verdict, then one for each case that failed."""
        found = [Annotation(_LEVELS[self._worst()], self.verdict, self.sentence)]
        for case in self.cases:
            if case.status in ("failure", "error") and case.message != self.sentence:
                found.append(Annotation("error", _title(case), case.message))
        return found

    def _worst(self) -> Status:
        order: tuple[Status, ...] = ("error", "failure", "skipped", "passed")
        return min((case.status for case in self.cases), key=order.index)


def _line(fact: tuple[str, str]) -> str:
    """Return a fact as an item of a list. A fact without a name continues the previous one."""
    name, words = map(escaped, fact)
    return f"- {name}: {words}" if name else f"  - {words}"


_QUESTIONS = ("peak", "hold", "recovery", "verdict")


def _title(case: Case) -> str:
    if case.name in _QUESTIONS:
        return f"{case.name} of {case.where}"
    return f"{slo.figure_name(slo.parse(case.name))} of {case.where}"


def climb_cases(found: Climb, sentence: str, *, failed: bool) -> list[Case]:
    """Return cases for the peak, whether it was held, whether the target recovered, and each objective."""
    cases = [Case("all", "peak", _CLIMBS[found.verdict], sentence, found.verdict)]
    if found.held is not None:
        bore_none = found.held is False and found.held_load is None
        holds = [each.load for each in found.trials if each.stage == "hold" and not each.generator_limited]
        words = "the target could not sustain its peak for the length of a hold"
        words += f", nor {holds[-1]:.3g} times the recording" if len(holds) > 1 else ""
        cases.append(Case("all", "hold", "failure", words, "NOT_HELD") if bore_none else Case("all", "hold"))
    if found.recovery != "UNKNOWN":
        words = f"after the overload: {found.recovery}"
        cases.append(Case("all", "recovery", _SURGES[found.recovery], words, found.recovery))
    cases += _objectives(found)
    return no_greener(cases, failed=failed, whole=Case("all", "verdict", "failure", sentence, found.verdict))


def _objectives(found: Climb) -> list[Case]:
    if not found.trials:
        return []
    last = [trial for trial in found.trials if trial.stage == "up"][-1]
    return [_objective(found, goal, met) for goal, met in last.passed.items()]


def _objective(found: Climb, goal: str, met: bool) -> Case:
    """Return the case of an objective: passed if it was met up to the peak.

    If the search failed at the lowest load, the objective passes or fails by that load. It is skipped if the search
    ended because of the generator or after too many trials, or if no load is known that meets every objective.
    """
    where = slo.parse(goal).route or "all"
    if found.verdict == "FAILS_AT_LOWEST" and not met:
        return Case(where, goal, "failure", "missed even at the lowest load", found.verdict)
    words = f"met up to {found.peak:.3g} times the recording"
    if not found.peak:
        words = "no load is known that meets every objective"
    if found.verdict == "FAILS_AT_LOWEST":
        words = "met at the lowest load"
    elif found.verdict in ("GENERATOR_LIMITED", "OUT_OF_TRIALS") or not found.peak:
        return Case(where, goal, "skipped", words)
    return Case(where, goal, message=words)


def surge_cases(recovery: Recovery, sentence: str) -> list[Case]:
    """Return the case for whether the target recovered."""
    return [Case("all", "recovery", _SURGES[recovery.verdict], sentence, recovery.verdict)]
