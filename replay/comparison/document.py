"""A comparison as JSON, version 1, for scripts.

Within a version, names are added, but never changed or removed.
"""

from __future__ import annotations

import math

import msgspec

from replay._version import __version__
from replay.differences.document import DifferencesDocument
from replay.differences.document import document_of as differences_document
from replay.shown import json_shown

from .decision import Finding
from .verdict import Comparison
from .watched import WatchedSides, watched_sides

FORMAT_VERSION = 1


class SideDocument(msgspec.Struct, frozen=True):
    """A side: its label, and the paths of its runs."""

    label: str
    runs: list[str]


class MetricDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one metric.

    `change`, `interval` and `would_catch` are relative (0.1: 10% slower) if `unit` is `ns`, and differences of shares
    if it is `share`. A bound that excludes nothing is null, as is `would_catch` if no slowdown can be detected.
    `p_adjusted` is null with one run per side. `runs_needed` is null if 999 runs per side are too few. `route` is
    `all` for a metric over all routes.
    """

    route: str
    metric: str
    verdict: str
    unit: str
    base: float
    new: float
    change: float
    interval: list[float | None]
    interval_kind: str
    p_adjusted: float | None
    runs_needed: int | None
    would_catch: float | None
    at_least: bool = False


class ComparisonDocument(msgspec.Struct, frozen=True, kw_only=True):
    """The complete result of a comparison.

    `reasons` explain why nothing could be concluded. `left_out` lists what was not tested. `responses` is the
    comparison of responses, if all runs kept them and they can be compared. `watched` contains the watched figures of
    both sides; the verdict does not depend on them.
    """

    format_version: int = FORMAT_VERSION
    replay_version: str = __version__
    verdict: str
    sentence: str
    exit_code: int
    reasons: list[str]
    notes: list[str]
    left_out: list[str]
    base: SideDocument
    new: SideDocument
    tolerance: float
    error_tolerance: float
    alpha: float
    design: str
    labellings: int
    exact: bool
    would_catch: float | None
    runs_needed: int | None
    metrics: list[MetricDocument]
    responses: DifferencesDocument | None = None
    watched: list[WatchedSides] = []


def document_of(found: Comparison) -> ComparisonDocument:
    """Return the document of a comparison."""
    return ComparisonDocument(
        verdict=found.verdict,
        sentence=found.sentence,
        exit_code=int(found.exit_code),
        reasons=list(found.reasons),
        notes=list(found.notes),
        left_out=list(found.left_out),
        base=SideDocument(found.base.label, [run.name for run in found.base.runs]),
        new=SideDocument(found.new.label, [run.name for run in found.new.runs]),
        tolerance=found.options.tolerance,
        error_tolerance=found.options.error_tolerance,
        alpha=found.options.alpha,
        design=found.design,
        labellings=found.labellings,
        exact=found.exact,
        would_catch=_finite(found.caught),
        runs_needed=found.runs_needed,
        metrics=[_metric(finding) for finding in found.findings],
        responses=None if found.responses is None else differences_document(found.responses),
        watched=watched_sides(found.base, found.new),
    )


def to_json(found: Comparison) -> bytes:
    """Return the document of a comparison as JSON text."""
    return json_shown(msgspec.json.format(msgspec.json.encode(document_of(found)), indent=2)) + b"\n"


def _metric(finding: Finding) -> MetricDocument:
    return MetricDocument(
        route=finding.metric.where,
        metric=finding.metric.name,
        verdict=finding.verdict,
        unit="ns" if finding.metric.is_latency else "share",
        base=finding.base,
        new=finding.new,
        change=finding.change,
        interval=[_finite(finding.low), _finite(finding.high)],
        interval_kind="within run" if finding.within_run else "simultaneous",
        p_adjusted=finding.p_adjusted,
        runs_needed=finding.runs_needed,
        would_catch=_finite(finding.caught),
        at_least=finding.at_least,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
