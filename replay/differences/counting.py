"""Counts how often each field differs, for each pair of runs. A verdict on two builds is derived from these counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .fields import ABSENT
from .reading import UNKNOWN, RouteResponses

Aspect = Literal["shape", "value", "order"]

ASPECTS: tuple[Aspect, ...] = ("shape", "value", "order")

HEADS_FIRST = ("status", "type")


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One aspect of one field in every run.

    `values` is uint32[runs, rows], for the `rows` of the route that have the field in any run. All other rows lack it
    in every run.
    """

    aspect: Aspect
    rows: np.ndarray
    values: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Rates:
    """How often one aspect of one field differs.

    `rates` is the share of pairs of responses that differ, float64[pairs of runs]. `compared` is the number of pairs
    of responses that could be compared, on average over the pairs of runs.
    """

    route: RouteResponses
    field: str
    aspect: Aspect
    rates: np.ndarray
    compared: float


def run_pairs(runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of every two runs, int64[pairs] each; the first index is smaller than the second."""
    return np.triu_indices(runs, 1)


class RouteCounter:
    """Counts differences in one route."""

    def __init__(self, route: RouteResponses) -> None:
        self.route = route
        self._pairs = list(zip(*(side.tolist() for side in run_pairs(len(route.parsed))), strict=True))
        statuses = route.heads["status"]
        self._same_status = [(statuses[a] != ABSENT) & (statuses[a] == statuses[b]) for a, b in self._pairs]
        self._parsed = [
            same & route.parsed[a] & route.parsed[b]
            for same, (a, b) in zip(self._same_status, self._pairs, strict=True)
        ]

    def all_rates(self) -> Iterator[Rates]:
        """Yield the rates of every aspect that differs between any two runs.

        A field is left out if two of the runs have no responses in which it can be compared.
        """
        names = [*HEADS_FIRST, *sorted(self.route.heads.keys() - set(HEADS_FIRST))]
        for name in names:
            if name in self.route.heads:
                yield from self._kept(name, *self._head(name))
        compared = [int(mask.sum()) for mask in self._parsed]
        if min(compared, default=0) == 0:
            return
        for index, name in enumerate(self.route.names.names):
            for column in self.columns_of(index):
                counts = [
                    int(np.count_nonzero((column.values[a] != column.values[b]) & mask[column.rows]))
                    for mask, (a, b) in zip(self._parsed, self._pairs, strict=True)
                ]
                yield from self._kept(name, column.aspect, counts, compared)

    def _kept(self, name: str, aspect: Aspect, counts: list[int], compared: list[int]) -> Iterator[Rates]:
        if any(counts) and min(compared) > 0:
            rates = np.array(counts, np.float64) / np.array(compared, np.float64)
            yield Rates(self.route, name, aspect, rates, float(np.mean(compared)))

    def _head(self, name: str) -> tuple[Aspect, list[int], list[int]]:
        """Count, by pair of runs, the differing and the compared values of a column beside the body.

        All columns but the status are compared between responses of the same status. Bodies that are compared by
        field count as equal here. The aspect is always `value`.
        """
        values = self.route.heads[name]
        counts, compared = [], []
        for same, parsed, (a, b) in zip(self._same_status, self._parsed, self._pairs, strict=True):
            differs = values[a] != values[b]
            if name == "status":
                usable = (
                    (values[a] != ABSENT) & (values[b] != ABSENT)
                    if self.route.is_lossy
                    else np.ones_like(same)
                )
                counts.append(int((differs & usable).sum()))
                compared.append(int(usable.sum()))
                continue
            usable = same
            if name == "body":
                differs = differs & ~parsed
                usable = same & (parsed | ((values[a] != UNKNOWN) & (values[b] != UNKNOWN)))
            counts.append(int((differs & usable).sum()))
            compared.append(int(usable.sum()))
        return "value", counts, compared

    def columns_of(self, index: int) -> list[Column]:
        """Return the aspects of a field of the body that occur in any run."""
        seen = [sightings.get(index) for sightings in self.route.sightings]
        there = [np.frombuffer(one.rows, np.uint32) for one in seen if one is not None]
        if not there:
            return []
        rows = np.unique(np.concatenate(there)).astype(np.int64)
        made: list[Column] = []
        for aspect in ASPECTS:
            values = np.zeros((len(seen), len(rows)), np.uint32)
            for at, one in enumerate(seen):
                if one is not None and len(one.rows):
                    place = np.searchsorted(rows, np.frombuffer(one.rows, np.uint32))
                    values[at, place] = np.frombuffer(getattr(one, f"{aspect}s"), np.uint32)
            if values.any():
                made.append(Column(aspect, rows, values))
        return made

    def dense(self, name: str, aspect: Aspect) -> np.ndarray:
        """Return one aspect of a field, by its name, for all requests: uint32[runs, requests]."""
        if name in self.route.heads:
            return self.route.heads[name]
        found = np.zeros(self.route.parsed.shape, np.uint32)
        for column in self.columns_of(self.route.names.names.index(name)):
            if column.aspect == aspect:
                found[:, column.rows] = column.values
        return found

    def compared(self, name: str) -> np.ndarray:
        """Return whether a run's value of this field can be compared, for all requests: bool[runs, requests]."""
        if name == "status" and not self.route.is_lossy:
            return np.ones(self.route.parsed.shape, bool)
        if name not in self.route.heads:
            return self.route.parsed
        responded: np.ndarray = self.route.heads["status"] != ABSENT
        return responded
