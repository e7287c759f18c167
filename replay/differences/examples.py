"""Chooses example requests for each differing field, with their responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .counting import RouteCounter
from .fields import BODY, ROOT
from .findings import Example, FieldFinding
from .reading import UNKNOWN, KeptRun, key_parts
from .values import MISSING, Element, Kind, Pair, elements_of, first_difference, kind_of, shown_pair

FIELDS_MAX = 300
"""Maximum number of fields that get examples. Fields in the verdict come first."""

_VOTES = 12
"""How many requests, besides a typical one, are examined at most to determine the kind of a field's differences."""


class Where(NamedTuple):
    """The requests in which a field differs.

    `rows` are rows of its route. `one` and `two` are, by row, the two runs that differ, and `first_values` and
    `second_values` are the hashes of their values (0: not known).
    """

    rows: np.ndarray
    one: np.ndarray
    two: np.ndarray
    first_values: np.ndarray
    second_values: np.ndarray


class _Case(NamedTuple):
    """One request that is examined: its key, its client, and the two runs."""

    key: tuple[int, int]
    client: int
    one: int
    two: int


def where_different(counter: RouteCounter, finding: FieldFinding, bases: int) -> Where:
    """Return the requests in which a field differs, and for each of them two runs that differ.

    For a field that differs between the builds, these are the requests in which new differs although all runs of base
    agree, or, if there are none, all requests in which new differs. For another field, they are the requests in which
    runs of base differ, or, if there are none, those in which new differs.
    """
    values = counter.dense(finding.field, finding.aspect)
    usable = counter.compared(finding.field)
    if finding.field != "status":
        statuses = counter.route.heads["status"]
        usable = usable & (statuses == statuses[0])
        if finding.field == BODY:
            usable = usable & (values != UNKNOWN)
    first = values[0]
    differs = (values != first) & usable & usable[0]
    agrees = ~differs[:bases].any(axis=0)
    new = differs[bases:]
    chosen = new.any(axis=0) & agrees
    if not chosen.any():
        chosen = new.any(axis=0)
    offset = bases
    if not finding.different and differs[1:bases].any():
        new, offset = differs[1:bases], 1
        chosen = new.any(axis=0)
    rows = np.flatnonzero(chosen)
    two = new[:, rows].argmax(axis=0) + offset if rows.size else np.zeros(0, np.int64)
    return Where(rows, np.zeros(len(rows), np.int64), two, first[rows], values[two, rows])


def add_examples(
    findings: Sequence[FieldFinding],
    places: Sequence[Where],
    counters: dict[str, RouteCounter],
    runs: Sequence[KeptRun],
) -> None:
    """Add kinds and examples to the findings whose values were kept. The data of each run is read once."""
    cases: list[list[_Case]] = []
    for finding, where in zip(findings, places, strict=True):
        cases.append(_cases(counters[finding.route], where))
    bodies = _fetch(cases, runs)
    for finding, own in zip(findings, cases, strict=True):
        pairs = [(case, _pair(finding, case, bodies)) for case in own]
        seen = [(case, pair) for case, pair in pairs if pair is not None]
        if seen:
            finding.kind = _voted(finding, [pair for _, pair in seen])
            finding.examples = _examples(finding, seen, runs)


def _cases(counter: RouteCounter, where: Where) -> list[_Case]:
    """Choose the requests to examine: the first, one with the most frequent pair of values, and some others.

    The others are spread over the whole run.
    """
    if not where.rows.size:
        return []
    pairs = where.first_values.astype(np.uint64) << np.uint64(32) | where.second_values
    _, first, counts = np.unique(pairs, return_index=True, return_counts=True)
    typical = int(first[counts.argmax()]) if counts.max() > 1 else len(pairs) // 2
    spread = np.linspace(0, len(where.rows) - 1, min(_VOTES, len(where.rows))).astype(int).tolist()
    chosen = list(dict.fromkeys([0, typical, *spread]))
    route = counter.route
    return [
        _Case(
            key_parts(int(route.keys[where.rows[at]])), int(route.clients[where.rows[at]]),
            int(where.one[at]), int(where.two[at]),
        )
        for at in chosen
    ]  # fmt: skip


_Bodies = dict[int, dict[tuple[int, int], dict[str, Any]]]


def _fetch(cases: Sequence[Sequence[_Case]], runs: Sequence[KeptRun]) -> _Bodies:
    wanted: dict[int, set[tuple[int, int]]] = {}
    for own in cases:
        for case in own:
            for run in (case.one, case.two):
                wanted.setdefault(run, set()).add(case.key)
    names = ("status", "type", "headers", "form", "digest", "length", "body", "cut")
    return {run: runs[run].answers.rows(keys, *names) for run, keys in wanted.items()}


def _pair(finding: FieldFinding, case: _Case, bodies: _Bodies) -> Pair | None:
    rows = [bodies[run].get(case.key) for run in (case.one, case.two)]
    try:
        if finding.field == ROOT or finding.field.startswith(("/", "line")):
            sides = [_elements(row, finding.field) for row in rows]
            return first_difference(sides[0], sides[1], finding.field)
        one, two = (_head(row, finding.field) for row in rows)
    except RecursionError:
        return None
    return None if one == two else Pair(finding.field, one, two, kind_of(one, two, finding.field))


def _elements(row: dict[str, Any] | None, field: str) -> list[Element]:
    if row is None or row["body"] is None:
        return []
    return elements_of(row["body"], row["form"], field)


def _head(row: dict[str, Any] | None, field: str) -> Any:
    """Return a value outside the body: a status, a media type, a header, a digest."""
    if row is None:
        return MISSING
    if field.startswith("header "):
        name = field.removeprefix("header ")
        values = [pair["value"] for pair in row["headers"] if pair["name"].lower() == name]
        return ", ".join(value.decode("utf-8", "replace") for value in values) if values else MISSING
    if field == BODY:
        if row["form"] == 0:
            return MISSING
        return f"{row['length']:,} bytes, digest {row['digest']:016x}"
    return row.get(field, MISSING)


def _voted(finding: FieldFinding, pairs: Sequence[Pair]) -> Kind:
    """Return the kind of a field's differences: the most frequent one among the examined requests.

    For the aspect `order` it is always `order`.
    """
    if finding.aspect == "order":
        return "order"
    return Counter(pair.kind for pair in pairs).most_common(1)[0][0]


def _examples(
    finding: FieldFinding, seen: Sequence[tuple[_Case, Pair]], runs: Sequence[KeptRun]
) -> list[Example]:
    """Return the first example, and another one of the finding's kind if there is one."""
    usual = [(case, pair) for case, pair in seen[1:] if pair.kind == finding.kind]
    chosen = [("first", *seen[0]), *[("typical", *one) for one in usual[:1]]]
    made = []
    for which, case, pair in chosen:
        base, new = shown_pair(pair.base, pair.new, finding.field)
        made.append(
            Example(
                which, *case.key, case.client, str(runs[case.one].path), str(runs[case.two].path), pair.pointer,
                base, new,
            )
        )  # fmt: skip
    return made
