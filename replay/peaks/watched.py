"""Watched figures of a trial: their values at its load."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from replay.diagnosis.usage import Usage, usages_in
from replay.results.document import RunDocument
from replay.results.figures import WatchFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A watched figure in one trial: the mean and the highest of its samples, None without any.

    `limit` is the last known limit, and `used` is the highest share of it that was used. `failed`
    counts samples without a value; `reason` says why the first of them has none.
    """

    mean: float | None
    highest: float | None
    limit: float | None = None
    used: float | None = None
    samples: int = 0
    failed: int = 0
    reason: str = ""


def sampled_in(document: RunDocument) -> dict[str, Sampled]:
    """Return the watched figures of a run by name, without those that belong to another figure, such as limits."""
    by_name = {figure.name: figure for figure in document.watches}
    return {usage.name: _sampled(usage, by_name.get(usage.name)) for usage in usages_in(document)}


def _sampled(usage: Usage, figure: WatchFigures | None) -> Sampled:
    known = [value for value in usage.values if value is not None]
    limits = [limit for limit in usage.limits if limit is not None]
    return Sampled(
        mean=statistics.fmean(known) if known else None,
        highest=max(known, default=None),
        limit=limits[-1] if limits else None,
        used=usage.highest,
        samples=len(known),
        failed=0 if figure is None else figure.failed,
        reason="" if figure is None else figure.reason,
    )
