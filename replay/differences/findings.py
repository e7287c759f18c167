"""The findings on one field, and on a whole comparison of responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from replay.errors import Exit

from .counting import Aspect
from .ignoring import IgnoredField
from .statistics import ALPHA
from .values import Kind

Verdict = Literal["SAME", "DIFFERENT", "INCONCLUSIVE", "INVALID"]
FAIL_ON = ("different", "inconclusive")

RECORDED = "recorded"
"""The label of the side that is the recording."""


class Example(NamedTuple):
    """One request whose responses differ.

    `base` and `new` are texts that are safe to show. `which` is `first` or `typical`.
    """

    which: str
    number: int
    copy: int
    client: int
    base_run: str
    new_run: str
    pointer: str
    base: str
    new: str


class FieldName(NamedTuple):
    """A field of a route."""

    route: str
    field: str


@dataclass(slots=True)
class FieldFinding:
    """The finding on one field.

    `within` and `across` are shares of compared responses that differ between two runs of base (None if base is a
    single run), and between base and new. `smallest` is the smallest share at which a new difference would have been
    detected (None: none). `requests` and `clients` are the numbers with a difference (0: not counted). `after` is the
    field whose difference always came first for the same client. `inside` is the field that contains this one and
    differs together with it; for a line of a text, it is the first line that differs.
    """

    route: str
    field: str
    kind: Kind
    aspect: Aspect
    within: float | None
    across: float
    different: bool
    p: float | None
    smallest: float | None
    compared: float
    requests: int = 0
    clients: int = 0
    after: FieldName | None = None
    inside: str = ""
    examples: list[Example] = dataclasses.field(default_factory=list)

    @property
    def name(self) -> FieldName:
        """The route and the field, which identify the finding."""
        return FieldName(self.route, self.field)

    @property
    def is_first(self) -> bool:
        """Whether no known difference explains this one."""
        return self.after is None and not self.inside


@dataclass(frozen=True, slots=True)
class ComparedSide:
    """A side: its label, and the paths of its runs, which are empty for the recording."""

    label: str
    runs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Differences:
    """The complete result of a comparison of responses.

    `reasons` explain why nothing can be concluded; `notes` are remarks. `smallest` is the smallest rate at which a
    difference would have been detected in a field that never differs, on the routes with most of the requests.
    `routes` is the number of routes, and `equal` the number of their fields that never differ or are ignored.
    """

    verdict: Verdict
    sentence: str
    base: ComparedSide
    new: ComparedSide
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fields: tuple[FieldFinding, ...] = ()
    ignored: tuple[IgnoredField, ...] = ()
    requests: int = 0
    routes: int = 0
    equal: int = 0
    smallest: float | None = None
    labellings: int = 0
    exact: bool = True
    alpha: float = ALPHA
    fail_on: Sequence[str] = ("different",)

    @property
    def different(self) -> list[FieldFinding]:
        """The fields in the verdict."""
        return [found for found in self.fields if found.different]

    @property
    def exit_code(self) -> Exit:
        """The exit code: INVALID for unusable runs, otherwise a failure only for verdicts that `fail_on` contains."""
        if self.verdict == "INVALID":
            return Exit.INVALID
        if self.verdict == "DIFFERENT" and "different" in self.fail_on:
            return Exit.FAILED
        wants = self.verdict == "INCONCLUSIVE" and "inconclusive" in self.fail_on
        return Exit.INCONCLUSIVE if wants else Exit.PASSED
