"""The history of a run in bounded memory: if it becomes too long, neighbouring entries are merged."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from replay.ledger.histogram import Histogram
from replay.report.figures import HeatColumn, binned, merged
from replay.results.timeline import Second

ROWS_MAX, COLUMNS_MAX = 400, 180
HEAT_KINDS = ("response", "service", "lateness")


@dataclass(frozen=True, slots=True)
class Column:
    """The values of a latency in a part of a run, counted by bins of a logarithmic scale."""

    start_s: float
    bins: np.ndarray
    counts: np.ndarray

    def joined(self, other: Column) -> Column:
        """Return this column merged with the next one."""
        bins, place = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        return Column(self.start_s, bins, np.bincount(place, np.concatenate([self.counts, other.counts])))


@dataclass
class History:
    """The rows of a run (seconds, or longer if they were merged), and the columns of its heat maps."""

    rows: list[Second] = field(default_factory=list)
    retries: list[int] = field(default_factory=list)
    lag: list[int] = field(default_factory=list)
    columns: dict[str, list[Column]] = field(default_factory=dict)
    end_s: float = 0.0

    def add(self, row: Second, retries: int) -> None:
        """Add a row. If there are more than ROWS_MAX, merge pairs of neighbouring rows."""
        self.rows.append(row)
        self.retries.append(retries)
        self.lag.append(sum(row.lag.values()))
        self.end_s = row.t_s + row.length_s
        if len(self.rows) > ROWS_MAX:
            pairs = range(0, len(self.rows), 2)
            self.rows = [merged(self.rows[at : at + 2]) for at in pairs]
            self.retries = [sum(self.retries[at : at + 2]) for at in pairs]
            self.lag = [max(self.lag[at : at + 2]) for at in pairs]

    def add_column(self, kind: str, start_s: float, histogram: Histogram) -> None:
        """Add the values that a histogram counted in a second. Above COLUMNS_MAX, merge pairs of columns."""
        bins, counts = binned(histogram)
        if not bins.size:
            return
        columns = self.columns.setdefault(kind, [])
        columns.append(Column(start_s, bins, counts))
        if len(columns) > COLUMNS_MAX:
            pairs = [columns[at : at + 2] for at in range(0, len(columns), 2)]
            self.columns[kind] = [pair[0].joined(pair[1]) if len(pair) > 1 else pair[0] for pair in pairs]

    def heat(self, kind: str) -> list[HeatColumn]:
        """Return the columns of a heat map."""
        return [(column.start_s, column.bins, column.counts) for column in self.columns.get(kind, [])]
