"""A comparison of responses as JSON, version 1, for scripts.

Within a version, names are added, but never changed or removed.
"""

from __future__ import annotations

import msgspec

from replay._version import __version__
from replay.shown import json_shown

from .findings import ComparedSide, Differences, Example, FieldFinding

FORMAT_VERSION = 1


class SideDocument(msgspec.Struct, frozen=True):
    """A side: its label, and the paths of its runs."""

    label: str
    runs: list[str]


class ExampleDocument(msgspec.Struct, frozen=True, kw_only=True):
    """One request with both responses.

    `which` is `first` or `typical`; `number` is the row of the event in the trace. `pointer` is the place in the
    responses. `base` and `new` are shortened, without secrets.
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


class NameDocument(msgspec.Struct, frozen=True):
    """A field of a route."""

    route: str
    field: str


class FieldDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A field that differs between any two runs.

    `within` and `across` are shares of the compared responses that differ between two runs of base (null if base is
    one run), and between base and new. `smallest` is the smallest share at which a new difference would have been
    detected (null: none). `compared` is the number of pairs of responses of two runs. `requests` and `clients` are
    the numbers with a difference (0: not counted). `after` is the field whose difference always came first for the
    same client. `inside` is the field that contains this one and differs together with it; for a line of a text, it is
    the first line that differs.
    """

    route: str
    field: str
    kind: str
    aspect: str
    within: float | None
    across: float
    different: bool
    p: float | None
    smallest: float | None
    compared: float
    requests: int
    clients: int
    after: NameDocument | None
    inside: str | None
    examples: list[ExampleDocument]


class IgnoredDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A field that differs but is ignored by a rule."""

    route: str
    field: str
    rule_route: str
    rule_field: str


class DifferencesDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The complete result of a comparison of responses.

    `reasons` explain why nothing could be concluded. `fields` lists the fields that differ anywhere; those in the
    verdict come first. `fields_equal` counts the other fields, including ignored ones.
    """

    format_version: int = FORMAT_VERSION
    replay_version: str = __version__
    verdict: str
    sentence: str
    exit_code: int
    reasons: list[str]
    notes: list[str]
    base: SideDocument
    new: SideDocument
    requests: int
    routes: int
    fields: list[FieldDocument]
    fields_equal: int
    ignored: list[IgnoredDocument]
    smallest: float | None
    alpha: float
    labellings: int
    exact: bool


def document_of(found: Differences) -> DifferencesDocument:
    """Return the document of a comparison of responses."""
    return DifferencesDocument(
        verdict=found.verdict,
        sentence=found.sentence,
        exit_code=int(found.exit_code),
        reasons=list(found.reasons),
        notes=list(found.notes),
        base=_side(found.base),
        new=_side(found.new),
        requests=found.requests,
        routes=found.routes,
        fields=[_field(one) for one in found.fields],
        fields_equal=found.equal,
        ignored=[
            IgnoredDocument(
                route=one.route, field=one.field, rule_route=one.rule.route, rule_field=one.rule.field
            )
            for one in found.ignored
        ],
        smallest=found.smallest,
        alpha=found.alpha,
        labellings=found.labellings,
        exact=found.exact,
    )


def to_json(found: Differences) -> bytes:
    """Return the document of a comparison of responses as JSON text."""
    return json_shown(msgspec.json.format(msgspec.json.encode(document_of(found)), indent=2)) + b"\n"


def _side(side: ComparedSide) -> SideDocument:
    return SideDocument(side.label, list(side.runs))


def _field(found: FieldFinding) -> FieldDocument:
    return FieldDocument(
        route=found.route,
        field=found.field,
        kind=found.kind,
        aspect=found.aspect,
        within=found.within,
        across=found.across,
        different=found.different,
        p=found.p,
        smallest=found.smallest,
        compared=found.compared,
        requests=found.requests,
        clients=found.clients,
        after=NameDocument(*found.after) if found.after is not None else None,
        inside=found.inside or None,
        examples=[_example(one) for one in found.examples],
    )


def _example(one: Example) -> ExampleDocument:
    return ExampleDocument(**one._asdict())
