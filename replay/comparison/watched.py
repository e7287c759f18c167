"""Watched figures of both sides: the mean and the highest value of each."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import msgspec

from replay.diagnosis.usage import Samples, is_beside_another

from .sides import Side


class WatchedSides(msgspec.Struct, frozen=True, kw_only=True):
    """One watched figure of both sides: the mean over a run's samples, and the highest of them.

    Each value is the median over the runs of a side; null if no run of the side has a sample.
    """

    name: str
    base_mean: float | None
    new_mean: float | None
    base_highest: float | None
    new_highest: float | None

    @property
    def movement(self) -> float:
        """The difference of the means as a share of the larger one; 1 if a side has no sample."""
        if self.base_mean is None or self.new_mean is None:
            return 1.0
        larger = max(abs(self.base_mean), abs(self.new_mean))
        return abs(self.new_mean - self.base_mean) / larger if larger else 0.0


def watched_sides(base: Side, new: Side) -> list[WatchedSides]:
    """Return the watched figures of two sides; the figure with the largest relative difference comes first.

    Limits and refusals of other figures are left out.
    """
    known: dict[str, Samples] = {name: () for side in (base, new) for name in _names(side)}
    found = []
    for name in (name for name in known if not is_beside_another(name, known)):
        (base_mean, base_highest), (new_mean, new_highest) = _of(base, name), _of(new, name)
        found.append(
            WatchedSides(
                name=name, base_mean=base_mean, new_mean=new_mean, base_highest=base_highest, new_highest=new_highest
            )
        )  # fmt: skip
    return sorted(found, key=lambda each: -each.movement)


def _names(side: Side) -> Iterator[str]:
    for run in side.runs:
        if run.document is not None:
            yield from run.document.watched


def _of(side: Side, name: str) -> tuple[float | None, float | None]:
    """Return the medians, over the runs of a side, of a figure's mean and of its highest sample."""
    means, highest = [], []
    for run in side.runs:
        samples = () if run.document is None else run.document.watched.get(name, ())
        known = [value for value in samples if value is not None]
        if known:
            means.append(statistics.fmean(known))
            highest.append(max(known))
    return (statistics.median(means), statistics.median(highest)) if means else (None, None)
