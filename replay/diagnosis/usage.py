"""Watched figures beside their limits.

A figure `NAME` may have others beside it, by name:
- `NAME.limit`: its maximum (or `limit` in its `[[watch]]`);
- `NAME.refused`: the work that was refused at that limit, as a counter that only grows, or as a rate. Beside a
  `PART.queue` its name may be `PART.rejected`, `PART.refused` or `PART.pool_failures`, beside a `PART.queries_per_s`
  `PART.refused`.

A limit that is 0 or less, or not known, is no limit. `PART.queue` beside `PART.busy` is the work that waits for the
workers of PART. If all of them are busy while no work waits, there are just enough, and PART is not at its limit.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from replay.results.document import RunDocument

Samples = Sequence[float | None]

LIMIT, REFUSED = ".limit", ".refused"

BUSY, QUEUE = "busy", "queue"
"""Last parts of the names of two figures: the busy workers of a part, and the work that waits for them."""

REFUSALS = {"queue": ("rejected", "refused", "pool_failures"), "queries_per_s": ("refused",)}
"""Names of the counters of refused work, by the last part of the name of the figure at whose limit it is refused."""

FULL = 0.95
"""From this share of its limit on, a figure counts as at its limit."""

LASTING = 3
"""Minimum number of consecutive samples at the limit for a figure to give way, because a single one may be chance."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A watched figure, sample by sample: its values, its limits, its shares of the limits, and the refused work."""

    name: str
    values: Samples
    limits: Samples
    used: Samples
    refused: Samples
    waiting: Samples = ()
    """The samples of `PART.queue`, if this figure is `PART.busy` and its queue is watched; otherwise empty."""

    @property
    def has_limit(self) -> bool:
        """Whether the share of the limit is known for any sample."""
        return any(share is not None for share in self.used)

    @property
    def highest(self) -> float | None:
        """The largest share of the limit in any sample; None without a limit."""
        return max((share for share in self.used if share is not None), default=None)

    def full_at(self, since: int = 0) -> int | None:
        """Return the first row, from `since` on, of LASTING consecutive samples at the limit; None if there is none."""
        known = [at for at in range(since, len(self.used)) if self.used[at] is not None]
        for start in range(len(known) - LASTING + 1):
            if all(self._is_full(at) for at in known[start : start + LASTING]):
                return known[start]
        return None

    def free_at(self, since: int) -> int | None:
        """Return the first row, from `since` on, of LASTING consecutive samples below the limit.

        No work may have been refused in these samples. Return None if there is no such row.
        """
        known = [at for at in range(since, len(self.values)) if self.values[at] is not None]
        for start in range(len(known) - LASTING + 1):
            rows = known[start : start + LASTING]
            if not any(self._is_full(at) for at in rows) and not self._grew(rows):
                return known[start]
        return None

    def _grew(self, rows: Sequence[int]) -> bool:
        counts = [count for at in rows if (count := self.refused[at]) is not None]
        return bool(counts) and counts[-1] > counts[0]

    def _is_full(self, at: int) -> bool:
        return (self.used[at] or 0.0) >= FULL and self._is_waited_for(at)

    def _is_waited_for(self, at: int) -> bool:
        """Return whether work waited for these workers at row `at`.

        It is also True if the queue was always empty or has no sample there, because it shows nothing then.
        """
        return not any(self.waiting) or self.waiting[at] is None or (self.waiting[at] or 0) > 0

    def refused_at(self, since: int = 0) -> int | None:
        """Return the first row, from `since` on, in which work was refused; None if there is none.

        Work was refused where the count grew. If `since` is 0, work was also refused at the first sample if its count
        is above 0, unless the count is constant.
        """
        known = [(at, count) for at, count in enumerate(self.refused) if count is not None and at >= since]
        if not since and known and known[0][1] > 0 and not all(count == known[0][1] for _, count in known):
            return known[0][0]
        return next((at for (_, before), (at, now) in pairwise(known) if now > before), None)

    def share_due(self, load: Sequence[float], before: int, later: float) -> float | None:
        """Return the share of its limit that a load of `later` would need; None if too little is known.

        It is extrapolated from the use per load in the rows before `before`.
        """
        rows = [at for at in range(before) if self.used[at] is not None and load[at] > 0]
        if len(rows) < LASTING:
            return None
        used = sum(self.used[at] or 0.0 for at in rows)
        return used / sum(load[at] for at in rows) * later

    def mean_used(self, begin: int, end: int) -> float | None:
        """Return the mean share of the limit in the rows from `begin` up to, but not including, `end`; None if unknown."""
        known = [share for share in self.used[max(begin, 0) : end] if share is not None]
        return statistics.fmean(known) if known else None


def usages_of(values: Mapping[str, Samples], fixed_limits: Mapping[str, float] | None = None) -> list[Usage]:
    """Return every watched figure, except the limits and refusals that belong to another one."""
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
        part, dot, last = name.rpartition(".")
        waiting = values.get(part + dot + QUEUE, ()) if last == BUSY else ()
        found.append(Usage(name, samples, limits, used, refused, waiting))
    return found


def usages_in(document: RunDocument) -> list[Usage]:
    """Return every watched figure of a run, including those without a sample."""
    values: dict[str, Samples] = dict(document.watched)
    for figure in document.watches:
        values.setdefault(figure.name, [])
    return usages_of(values, fixed_limits(document))


def fixed_limits(document: RunDocument) -> dict[str, float]:
    """Return the limits that the scenario states."""
    return {figure.name: figure.limit for figure in document.watches if figure.limit is not None}


def refusals_of(name: str, names: Mapping[str, Samples]) -> str:
    """Return the figure that counts the work refused at the limit of another one; empty if none is watched."""
    part, dot, last = name.rpartition(".")
    known = [name + REFUSED, *(part + dot + word for word in REFUSALS.get(last, ()))]
    return next((each for each in known if each in names), "")


def is_beside_another(name: str, names: Mapping[str, Samples]) -> bool:
    """Return whether a figure is the limit or the refusals of another figure in `names`."""
    if any(name.endswith(end) and name.removesuffix(end) in names for end in (LIMIT, REFUSED)):
        return True
    part, dot, last = name.rpartition(".")
    return any(last in words and part + dot + of in names for of, words in REFUSALS.items())


def _carried(limits: Samples) -> Samples:
    """Return the limits with missing samples filled in: a limit holds until another one is sampled."""
    last: float | None = None
    found = []
    for limit in limits:
        last = limit if limit is not None else last
        found.append(last)
    return found
