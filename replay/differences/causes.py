"""Finds differences that follow from others: later ones of the same client, and parts of a whole that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .counting import RouteCounter
from .examples import Where
from .fields import BODY, LINES, ROOT
from .findings import FieldFinding

_CLIENTS_MIN = 2
"""Minimum number of clients for which an order counts. With fewer, a difference may follow another one by chance."""

_MOSTLY = 0.95


def add_causes(
    findings: Sequence[FieldFinding], places: Sequence[Where], counters: Mapping[str, RouteCounter]
) -> None:
    """Fill in `requests`, `clients`, `inside` and `after` of the fields in the verdict."""
    firsts = []
    for finding, where in zip(findings, places, strict=True):
        first = _first_by_client(counters[finding.route], where)
        finding.requests, finding.clients = len(where.rows), len(first)
        firsts.append(first)
    rows = [set(where.rows.tolist()) for where in places]
    for at, finding in enumerate(findings):
        finding.inside = _whole_of(at, findings, rows)
    for at, finding in enumerate(findings):
        causes = [
            other
            for other in range(len(findings))
            if other != at and not findings[other].inside and _is_after(firsts[at], firsts[other])
        ]
        if causes:
            earliest = min(causes, key=lambda other: (-_lead(firsts[at], firsts[other]), other))
            finding.after = findings[earliest].name


_First = Mapping[int, tuple[int, int]]
"""When a field first differs, by client: the due time and the key of the request."""


def _first_by_client(counter: RouteCounter, where: Where) -> dict[int, tuple[int, int]]:
    route = counter.route
    found: dict[int, tuple[int, int]] = {}
    clients, due_ns, keys = (
        column[where.rows].tolist() for column in (route.clients, route.due_ns, route.keys)
    )
    for client, due, key in zip(clients, due_ns, keys, strict=True):
        if client not in found or (due, key) < found[client]:
            found[client] = (due, key)
    return found


def _is_after(later: _First, earlier: _First) -> bool:
    """Return whether the earlier difference came first for every client that has the later one.

    Returns False if fewer than _CLIENTS_MIN clients have the later one.
    """
    return len(later) >= _CLIENTS_MIN and all(
        client in earlier and earlier[client] < first for client, first in later.items()
    )


def _lead(later: _First, earlier: _First) -> int:
    """Return how long the earlier difference preceded the later one, summed over all clients, in ns."""
    return sum(first[0] - earlier[client][0] for client, first in later.items())


def _whole_of(at: int, findings: Sequence[FieldFinding], rows: Sequence[set[int]]) -> str:
    """Return the innermost field that contains this one and nearly always differs with it; empty if there is none.

    For a line, return the first line that differs (`_first_line`).
    """
    finding = findings[at]
    own = [
        other
        for other, whole in enumerate(findings)
        if whole.route == finding.route and len(rows[at] & rows[other]) >= _MOSTLY * len(rows[at])
    ]
    if finding.field.startswith("line"):
        return _first_line(finding, [findings[other] for other in own])
    wholes = [findings[other].field for other in own if _is_part(finding, findings[other])]
    return max(wholes, key=len, default="")


def _is_part(part: FieldFinding, whole: FieldFinding) -> bool:
    if whole.field == ROOT:
        return whole.aspect == "shape" and part.field != BODY
    return whole.kind in ("absent", "added", "type") and part.field.startswith(f"{whole.field}/")


def _first_line(finding: FieldFinding, others: Sequence[FieldFinding]) -> str:
    """Return the first line that differs, or "" if the number of lines does not differ or `finding` is that line.

    An inserted line moves all lines after it, so that they differ, too.
    """
    if not any(other.field == LINES for other in others):
        return ""
    first = min((_line_of(other.field) for other in others), default=_MANY)
    return f"line {first}" if first < _line_of(finding.field) else ""


_MANY = 1 << 30


def _line_of(field: str) -> int:
    """Return the number of a line. Any other field counts as a line after all others."""
    return int(field.removeprefix("line ")) if field.startswith("line ") else _MANY
