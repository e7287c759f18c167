"""The metrics of a comparison as an Arrow table."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyarrow as pa

from .decision import Finding

SCHEMA = pa.schema(
    [
        ("route", pa.string()), ("metric", pa.string()), ("unit", pa.string()), ("base", pa.float64()),
        ("new", pa.float64()), ("change", pa.float64()), ("low", pa.float64()), ("high", pa.float64()),
        ("p_adjusted", pa.float64()), ("verdict", pa.string()),
    ]
)  # fmt: skip


def findings_table(findings: Sequence[Finding]) -> pa.Table:
    """Return a table with one row per metric. A bound that excludes nothing is null."""
    rows = [
        {
            "route": finding.metric.where,
            "metric": finding.metric.name,
            "unit": "ns" if finding.metric.is_latency else "share",
            "base": finding.base,
            "new": finding.new,
            "change": finding.change,
            "low": _finite(finding.low),
            "high": _finite(finding.high),
            "p_adjusted": finding.p_adjusted,
            "verdict": finding.verdict,
        }
        for finding in findings
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
