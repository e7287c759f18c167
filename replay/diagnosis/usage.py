"""Watched figures beside their limits.

A figure `NAME` may have others beside it, by name:
- `NAME.limit`: the most that it can be (or `limit` in its `[[watch]]`);
- `NAME.refused`: how much was turned away at that limit; it only grows, or is a rate. Beside a `PART.queue` it may be named
  `PART.rejected`, `PART.refused` or `PART.pool_failures`, beside a `PART.queries_per_s` `PART.refused`.

A limit that is 0 or less, or not known, is no limit.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Samples = Sequence[float | None]

LIMIT, REFUSED = ".limit", ".refused"

REFUSALS = {"queue": ("rejected", "refused", "pool_failures"), "queries_per_s": ("refused",)}
"""Names of what a part turns away, by the last word of the figure whose limit that is."""

FULL = 0.95
"""From this share of its limit on, a figure counts as at its limit."""

LASTING = 3
"""Samples in a row that a figure must be at its limit: one alone may be chance."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A watched figure, sample by sample: its values, its limits, its share of them, and what it turned away."""

    name: str
    values: Samples
    limits: Samples
    used: Samples
    refused: Samples

    @property
    def has_limit(self) -> bool:
        """Whether any sample has a limit beside it."""
        return any(share is not None for share in self.used)

    @property
    def highest(self) -> float | None:
        """Its largest share of its limit."""
        return max((share for share in self.used if share is not None), default=None)

    def full_at(self) -> int | None:
        """The first row of LASTING samples in a row at the limit."""
        known = [(at, share) for at, share in enumerate(self.used) if share is not None]
        for start in range(len(known) - LASTING + 1):
            if all(share >= FULL for _, share in known[start : start + LASTING]):
                return known[start][0]
        return None

    def refused_at(self) -> int | None:
        """The first row in which something was turned away: where the count grew, or was not 0 from the beginning."""
        known = [(at, count) for at, count in enumerate(self.refused) if count is not None]
        if known and known[0][1] > 0 and not all(count == known[0][1] for _, count in known):
            return known[0][0]
        return next((at for (_, before), (at, now) in pairwise(known) if now > before), None)

    def mean_used(self, begin: int, end: int) -> float | None:
        """The mean share of the limit in rows from `begin` to before `end`."""
        known = [share for share in self.used[max(begin, 0) : end] if share is not None]
        return statistics.fmean(known) if known else None


def usages_of(values: Mapping[str, Samples], fixed_limits: Mapping[str, float] | None = None) -> list[Usage]:
    """Every watched figure but those that stand beside another."""
    fixed = fixed_limits or {}
    found = []
    for name, samples in values.items():
        if is_beside_another(name, values):
            continue
        limits: Samples = values.get(name + LIMIT) or [fixed.get(name)] * len(samples)
        limits = _carried(limits)
        used = [
            value / limit if value is not None and limit is not None and limit > 0 else None
            for value, limit in zip(samples, limits, strict=True)
        ]
        beside = refusals_of(name, values)
        refused = values[beside] if beside else [None] * len(samples)
        found.append(Usage(name, samples, limits, used, refused))
    return found


def refusals_of(name: str, names: Mapping[str, Samples]) -> str:
    """The figure that counts what was turned away at the limit of another one; empty if none is watched."""
    part, dot, last = name.rpartition(".")
    known = [name + REFUSED, *(part + dot + word for word in REFUSALS.get(last, ()))]
    return next((each for each in known if each in names), "")


def is_beside_another(name: str, names: Mapping[str, Samples]) -> bool:
    """Whether a figure is the limit or the refusals of another one that is watched."""
    if any(name.endswith(end) and name.removesuffix(end) in names for end in (LIMIT, REFUSED)):
        return True
    part, dot, last = name.rpartition(".")
    return any(last in words and part + dot + of in names for of, words in REFUSALS.items())


def _carried(limits: Samples) -> Samples:
    """A limit holds until another one is sampled: a missing sample does not lift it."""
    last: float | None = None
    found = []
    for limit in limits:
        last = limit if limit is not None else last
        found.append(last)
    return found
