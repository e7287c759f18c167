"""The interface of all results for other tools: cases, annotations, and whole documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Status = Literal["passed", "failure", "error", "skipped"]
Level = Literal["error", "warning", "notice"]

MARK: dict[Status, str] = {"passed": "✅", "failure": "❌", "error": "❌", "skipped": "❔"}


@dataclass(frozen=True, slots=True)
class Case:
    """One check of a result.

    `failure` means that the target failed, `error` that the check is not valid, and `skipped` that it was not
    decided. `where` is a route or `all`. `kind` is the verdict that caused a failure or an error.
    """

    where: str
    name: str
    status: Status = "passed"
    message: str = ""
    kind: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """The cases of one result. `time_s` is the measured time, which is the same for each case."""

    command: str
    name: str
    cases: Sequence[Case]
    time_s: float
    output: str = ""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One line that a CI system shows beside a build."""

    level: Level
    title: str
    message: str


class Result(Protocol):
    """The methods that the output formats need of a result."""

    def json(self) -> bytes:
        """Return the figures for scripts."""

    def suite(self) -> Suite:
        """Return the cases of JUnit XML."""

    def markdown(self) -> str:
        """Return a section for a job summary."""

    def annotations(self) -> Sequence[Annotation]:
        """Return an annotation for the verdict, then those of the problems."""

    def page(self, path: Path) -> None:
        """Write an HTML page. Raise OutputError if it cannot be written."""


def no_greener(cases: Sequence[Case], *, failed: bool, whole: Case) -> list[Case]:
    """Return the cases, plus `whole` if the result failed but none of its cases did."""
    if failed and not any(case.status in ("failure", "error") for case in cases):
        return [*cases, whole]
    return list(cases)
