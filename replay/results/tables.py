"""The timeline of a run as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa

from replay.ledger.catalog import FIGURES

from .timeline import Second

_NESTED = ("outcomes", "outcomes_measured", "lag")
"""Fields that are counts by name: each name is a column."""

_KINDS = {int: pa.int64(), float: pa.float64()}


def timeline_table(rows: Sequence[Second]) -> pa.Table:
    """One row per second. `at` is when it began; counts by name have a column for each name that the run has."""
    fields = [field for field in msgspec.structs.fields(Second) if field.name not in (*_NESTED, "wall_ns")]
    columns: dict[str, Any] = {
        "at": pa.array([row.wall_ns for row in rows], pa.timestamp("ns", tz="UTC")),
    }
    for field in fields:
        kind = _KINDS.get(field.type, pa.int64())
        columns[field.name] = pa.array([_value(row, field.name) for row in rows], kind)
    for prefix, by_name in (
        ("outcomes", [row.outcomes for row in rows]),
        ("outcomes_measured", [row.measured for row in rows]),
        ("lag", [row.lag for row in rows]),
    ):
        for name in sorted({name for counts in by_name for name in counts}):
            columns[f"{prefix}.{name}"] = pa.array([counts.get(name, 0) for counts in by_name], pa.int64())
    return pa.table(columns)


def _value(row: Second, name: str) -> Any:
    """A percentile ends where histograms do, as in reports."""
    if name not in FIGURES:
        return getattr(row, name)
    figure = row.figure_ns(name)
    return None if figure is None else figure[0]
