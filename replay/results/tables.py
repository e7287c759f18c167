"""Figures of a run as Arrow tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from replay.ledger.catalog import FIGURES

from .measured import Measured
from .timeline import Second

_NESTED = ("outcomes", "outcomes_measured", "lag", "watched", "actions")
"""Fields of a second that map names to figures; the table has columns for each name."""

_KINDS = {int: pa.int64(), float: pa.float64()}

PERCENTILES = (0.0, *range(5, 100, 5), 97.5, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)
"""The percentiles of a table, one per row."""


def percentiles_table(measured: Measured, kinds: Mapping[str, str], route: str) -> pa.Table:
    """Return a table with a row per percentile, and a column for each latency under the name in `kinds`."""
    columns = {"percentile": pa.array([float(percentile) for percentile in PERCENTILES])}
    for name, kind in kinds.items():
        values = measured.percentiles(kind, PERCENTILES, route) or []
        columns[f"{name}_ns"] = pa.array([value.ns for value in values], pa.int64())
    return pa.table(columns)


def timeline_table(rows: Sequence[Second]) -> pa.Table:
    """Return a table with one row per second; `at` is the start of the second.

    Fields that map names to figures have columns for each name that occurs in the run.
    """
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
    for name in dict.fromkeys(name for row in rows for name in row.watched):
        columns[f"watched.{name}"] = pa.array([row.watched.get(name) for row in rows], pa.float64())
    for name in sorted({name for row in rows for name in row.actions}):
        counts = [row.actions.get(name, (0, 0)) for row in rows]
        columns[f"actions.{name}"] = pa.array([ended for ended, _ in counts], pa.int64())
        columns[f"actions_failed.{name}"] = pa.array([failed for _, failed in counts], pa.int64())
    return pa.table(columns)


def _value(row: Second, name: str) -> Any:
    """Return the value of a field. Percentiles are capped at the highest value of histograms, as in reports."""
    if name not in FIGURES:
        return getattr(row, name)
    figure = row.figure_ns(name)
    return None if figure is None else figure[0]
